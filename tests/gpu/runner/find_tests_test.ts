import { assert, assertEquals } from "@std/assert";
import { findGpuTests, findKernelTests, needsGpu, runsAlone } from "./find_tests.ts";

Deno.test("needsGpu() goes by the end of a file's name", () => {
  const names = [
    "rope_cuda_test.ts",
    "rope_cuda_long_test.ts",
    "gpu_test.ts",
    "links_gpu_test.ts",
    "rope_test.ts",
    "rope_cuda.ts",
    "cuda_guess_test.ts",
    "test_gpu.ts",
  ];
  assertEquals(names.filter(needsGpu), names.slice(0, 4));
});

Deno.test("findGpuTests() finds the tests of kernels and those of the device, and not its own", () => {
  const found = findGpuTests();
  assert(found.includes("kernels/rope/rope_cuda_test.ts"));
  assert(found.includes("tests/gpu/cuda_device_test.ts"));
  assert(!found.some((path) => path.startsWith("tests/gpu/runner/")));
  assertEquals(found.filter(runsAlone), ["tests/gpu/full_memory_alone_test.ts"]);
  const kernels = findKernelTests();
  assertEquals(kernels, found.filter((path) => path.startsWith("kernels/") && !path.endsWith("_long_test.ts")));
});
