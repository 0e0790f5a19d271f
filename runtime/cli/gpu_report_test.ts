import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { CudaLibraries } from "../../ffi/cuda/cuda.ts";
import { FakeDriver } from "../../ffi/cuda/fake_driver.ts";
import { fakeTest } from "../../ffi/cuda/test_fake.ts";
import { gpuReport } from "./gpu_report.ts";

const ignore = !FakeDriver.available;

Deno.test("gpuReport() says what to install where there is no driver", () => {
  const root = Deno.makeTempDirSync();
  try {
    const { state, rows } = gpuReport({ libraries: CudaLibraries.find({ root, env: () => undefined }), kernels: root });
    assertEquals([state, rows.length, rows[0][0]], ["none", 1, "driver"]);
    assert(rows[0][1].includes("install the NVIDIA driver"), rows[0][1]);
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
});

Deno.test({
  name: "gpuReport() lists GPUs, libraries, kernels and the permission they need",
  ignore,
  fn() {
    const folder = Deno.makeTempDirSync();
    try {
      using fake = FakeDriver.open();
      const { libraries } = fake;
      Deno.writeTextFileSync(join(folder, "a.cubin"), "1234");
      const { state, rows } = gpuReport({ libraries, kernels: folder });
      assertEquals(state, "usable");
      const gpu = "sm_90a, 132 multiprocessors, 12.0 GiB of 20.0 GiB free";
      assertEquals(rows, [
        ["driver", `CUDA 13.0, release 580.1.2, ${libraries.get("driver").path}`],
        ["GPU 0", `Fake 40, ${gpu}, GPU-00010203-0405-0607-0809-0a0b0c0d0e0f`],
        ["GPU 1", `Fake 41, ${gpu}, GPU-01020304-0506-0708-090a-0b0c0d0e0f10`],
        ["NVRTC", `13.0, ${libraries.get("nvrtc").path}`],
        ["cuBLASLt", libraries.get("blasLt").path],
        ["kernels", `1 compiled, 4 B, ${folder}`],
        ["permission", `--allow-ffi=${libraries.paths.join(",")}`],
      ]);
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  },
});

fakeTest("gpuReport() goes on where something fails, and says that the GPU cannot be used", (fake) => {
  const { libraries } = fake;
  const report = () => gpuReport({ libraries, kernels: "/nowhere/at/all" });
  fake.fail("cuDevicePrimaryCtxRetain", 2);
  assertEquals(report().state, "broken");
  assert(report().rows[1][1].startsWith("Cannot open GPU 0 (Fake 40)"), report().rows[1][1]);
  assertEquals(report().rows[5], ["kernels", "0 compiled, 0 B, /nowhere/at/all"]);
  fake.fail("");
  fake.setCapability(7);
  assertEquals(report().rows[2][1], "Cannot use GPU 1 (Fake 41): wanted compute capability 8.0 or newer, got 7.0");
  assertEquals(report().state, "broken");
  fake.setCapability(9);
  fake.setVersion(12080);
  assert(report().rows[3][1].includes("which the driver (CUDA 12) is too old for"));
  assertEquals(report().state, "broken");
  fake.setDevices(0);
  assertEquals(report().rows[1], ["GPU", "none is visible"]);
  assertEquals(report().state, "broken");
  fake.setVersion(11000);
  assertEquals(report().rows.length, 1);
  assert(report().rows[0][1].includes("wanted CUDA 12.4 or newer, got 11.0"));
});
