import { assertEquals, assertStringIncludes } from "@std/assert";
import { CudaLibraries } from "../../ffi/cuda/cuda.ts";
import { fakeTest } from "../../ffi/cuda/test_fake.ts";
import { gpuObstacle } from "./gpu_obstacle.ts";

Deno.test("gpuObstacle() names the driver where there is none", () => {
  assertEquals(gpuObstacle(new CudaLibraries([], [])), "there is no NVIDIA driver (libcuda.so.1)");
});

fakeTest(
  "gpuObstacle() finds none where every library is there and may be loaded, and asks the driver nothing",
  (fake) => {
    assertEquals(gpuObstacle(fake.libraries), undefined);
    assertEquals(fake.takeNotes(), []);
  },
);

fakeTest(
  "gpuObstacle() says what is missing besides the driver, where it was looked for and what to install",
  (fake) => {
    const { all, searched } = fake.libraries;
    const without = (name: string) =>
      gpuObstacle(new CudaLibraries(searched, all.filter((library) => library.name !== name))) ?? "";
    assertStringIncludes(without("nvrtc"), "Cannot find the CUDA runtime compiler: wanted libnvrtc.so.13, found none");
    assertStringIncludes(without("blasLt"), "the Python package nvidia-cublas");
  },
);

fakeTest("gpuObstacle() names the flag that is missing, one version of a library being enough", (fake) => {
  const { all, searched } = fake.libraries;
  const elsewhere = all.map((library) => ({ ...library, path: `/nowhere/${library.name}` }));
  const granted = (path: string) => !path.startsWith("/nowhere/");
  const denied = gpuObstacle(new CudaLibraries(searched, elsewhere), granted);
  assertEquals(
    denied,
    "the permission to load it is missing: --allow-ffi=/nowhere/blasLt,/nowhere/nvrtc,/nowhere/driver",
  );
  assertEquals(gpuObstacle(new CudaLibraries(searched, [...elsewhere, ...all]), granted), undefined);
});
