import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { CUDA_PATH_VARIABLE, CudaError, CudaLibraries } from "../../ffi/cuda/cuda.ts";
import { FakeDriver } from "../../ffi/cuda/fake_driver.ts";
import { openSynthetic } from "../../tests/conformance/open_synthetic.ts";
import { openDevice, type OpenDeviceOptions } from "./open_device.ts";

const ignore = !FakeDriver.available;
const SMALL = { kvTokens: 64, threads: 1, maxStepTokens: 16, maxLogitRows: 4 } as const;

/** What `auto` takes, and what it says of what it does not take. */
async function opened(options: OpenDeviceOptions): Promise<{ kind: string; kvType: string; said: string[] }> {
  const said: string[] = [];
  using model = openSynthetic();
  using device = await openDevice(model, { ...SMALL, ...options, onPassedOver: (reason) => said.push(reason) });
  const { kind, kvType } = device.info;
  return { kind, kvType, said };
}

/** Libraries of a machine that has nothing but what lies in a folder. */
function librariesIn(folder: string): CudaLibraries {
  return CudaLibraries.find({ root: folder, env: (name) => name === CUDA_PATH_VARIABLE ? folder : undefined });
}

Deno.test("openDevice() takes WASM by itself where there is no driver, and says so in one short sentence", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    const { kind, kvType, said } = await opened({ libraries: librariesIn(folder) });
    assertEquals([kind, kvType], ["wasm", "f16"]);
    assertEquals(said, ["Computing with WASM, not on a GPU: there is no NVIDIA driver (libcuda.so.1)"]);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("openDevice() keeps f32 keys and values of exact products where nothing else is asked for", async () => {
  assertEquals((await opened({ kind: "wasm", activations: "f32" })).kvType, "f32");
  assertEquals((await opened({ kind: "wasm", activations: "f32", kvType: "f16" })).kvType, "f16");
  assertEquals((await opened({ kind: "reference", activations: "f32" })).kvType, "f32");
});

Deno.test({
  name: "openDevice() takes WASM by itself where the compiler of kernels is missing, and says what to install",
  ignore,
  async fn() {
    using fake = FakeDriver.open();
    const folder = Deno.makeTempDirSync();
    try {
      Deno.symlinkSync(fake.libraries.get("driver").path, join(folder, "libcuda.so.1"));
      const { kind, said } = await opened({ libraries: librariesIn(folder) });
      assertEquals([kind, said.length], ["wasm", 1]);
      assertStringIncludes(said[0], "Cannot find the CUDA runtime compiler: wanted libnvrtc.so.13, found none in");
      assertEquals(fake.takeNotes(), []);
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  },
});

/** How the driver fails, and what is said of it. */
const FAILURES: readonly [what: string, set: (fake: FakeDriver) => void, said: string][] = [
  ["a driver without a GPU", (fake) => fake.setDevices(0), "wanted a visible GPU, got 0 GPUs"],
  ["a driver that finds no GPU to start with", (fake) => fake.fail("cuInit", 100), "CUDA_ERROR_NO_DEVICE"],
  ["a driver that is too old", (fake) => fake.setVersion(11080), "wanted CUDA 12.4 or newer, got 11.8"],
  ["a GPU that is too old", (fake) => fake.setCapability(7), "wanted compute capability 8.0 or newer, got 7.0"],
  ["libraries newer than the driver", (fake) => fake.setVersion(12080), "which the driver (CUDA 12) is too old for"],
  ["a GPU that others use alone", (fake) => fake.fail("cuDevicePrimaryCtxRetain", 46), "Cannot open GPU 0 (Fake 40)"],
  ["a GPU without memory", (fake) => fake.fail("cuMemAlloc_v2", 2), "CUDA_ERROR_OUT_OF_MEMORY"],
  ["a GPU that was lost", (fake) => fake.fail("cuMemAlloc_v2", 700), "CUDA_ERROR_ILLEGAL_ADDRESS"],
];

for (const [what, set, wanted] of FAILURES) {
  Deno.test({
    name: `openDevice() meets ${what}: auto takes WASM, says why and keeps nothing of the GPU; cuda throws`,
    ignore,
    async fn() {
      const kernelDirectory = Deno.makeTempDirSync();
      try {
        using fake = FakeDriver.open();
        const { libraries } = fake;
        set(fake);
        const { kind, said } = await opened({ libraries, kernelDirectory });
        assertEquals([kind, said.length], ["wasm", 1]);
        assertStringIncludes(said[0], "Computing with WASM, not on a GPU: Cannot ");
        assertStringIncludes(said[0], wanted);
        assert(!said[0].includes("\n"), said[0]);
        assertEquals(fake.live, 0);
        await assertRejects(() => opened({ kind: "cuda", libraries, kernelDirectory }), Error, wanted);
        assertEquals(fake.live, 0);
      } finally {
        Deno.removeSync(kernelDirectory, { recursive: true });
      }
    },
  });
}

Deno.test({
  name: "openDevice() takes WASM by itself for keys and values of a type that a GPU does not store",
  ignore,
  async fn() {
    using fake = FakeDriver.open();
    const { kind, kvType, said } = await opened({ libraries: fake.libraries, kvType: "f16" });
    assertEquals([kind, kvType], ["wasm", "f16"]);
    assertStringIncludes(said[0], "got f16");
    assertEquals(fake.takeNotes(), []);
  },
});

Deno.test({
  name: "openDevice() opens the GPU by itself as it does when it is asked to: the driver's error is the same",
  ignore,
  async fn() {
    using fake = FakeDriver.open();
    const { libraries } = fake;
    fake.fail("cuStreamCreateWithPriority", 2);
    const { said } = await opened({ libraries });
    const error = await assertRejects(() => opened({ kind: "cuda", libraries }), CudaError);
    assertEquals(said, [`Computing with WASM, not on a GPU: ${error.message}`]);
  },
});
