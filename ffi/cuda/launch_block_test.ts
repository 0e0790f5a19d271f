import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import type { DevicePtr } from "./buffer.ts";
import { CudaContext } from "./context.ts";
import { CudaError } from "./error.ts";
import { FakeDriver } from "./fake_driver.ts";
import type { KernelArg, LaunchOptions } from "./launch_block.ts";
import { contextTest } from "./test_fake.ts";

const ignore = !FakeDriver.available;

/** What the fake driver sees of launches of a kernel with the given parameters. */
function launch(parameters: readonly number[], ...launches: readonly LaunchOptions[]): string[] {
  using fake = FakeDriver.open();
  using context = CudaContext.open({ libraries: fake.libraries });
  using stream = context.stream();
  using module = context.load(new Uint8Array(8));
  fake.setParameters(...parameters);
  const kernel = module.function("scale");
  fake.takeNotes();
  for (const options of launches) stream.launch(kernel, options);
  return fake.takeNotes().map((line) => line.replace(/stream [0-9a-f]+/, "stream"));
}

/** Little-endian bytes of an argument. */
function hex(arg: KernelArg): string {
  const view = new DataView(new ArrayBuffer(8));
  if ("bytes" in arg) return arg.bytes.toHex();
  if ("ptr" in arg) view.setBigUint64(0, arg.ptr, true);
  else if ("u64" in arg) view.setBigUint64(0, arg.u64, true);
  else if ("f32" in arg) view.setFloat32(0, arg.f32, true);
  else if ("u32" in arg) view.setUint32(0, arg.u32, true);
  else view.setInt32(0, arg.i32, true);
  return new Uint8Array(view.buffer).subarray(0, "ptr" in arg || "u64" in arg ? 8 : 4).toHex();
}

function bytesOf(arg: KernelArg): number {
  return hex(arg).length / 2;
}

Deno.test({
  name: "CudaStream.launch() hands the driver sizes, stream and arguments",
  ignore,
  fn() {
    const seen = launch([8, 4, 4, 4], {
      grid: [7],
      block: [32, 4],
      sharedBytes: 1024,
      args: [{ ptr: 0x7f0011223344n as DevicePtr }, { f32: 1.5 }, { i32: -2 }, { u32: 0xfffffffe }],
    });
    assertEquals(seen, [
      "launch f00d grid 7,1,1 block 32,4,1 shared 1024 stream extra 0",
      "arg 44332211007f0000",
      "arg 0000c03f",
      "arg feffffff",
      "arg feffffff",
      "cuLaunchKernelEx",
    ]);
  },
});

Deno.test({
  name: "CudaStream.launch() hands over clusters, programmatic and cooperative launches, and forgets them afterwards",
  ignore,
  fn() {
    const plain: LaunchOptions = { grid: [4, 2, 3], block: [64], args: [] };
    const seen = launch([], { ...plain, cluster: [2, 1], programmatic: true, cooperative: true }, plain, {
      ...plain,
      programmatic: true,
    });
    const head = "launch f00d grid 4,2,3 block 64,1,1 shared 0 stream extra 0";
    assertEquals(seen, [
      head,
      "cluster 2,1,1",
      "attribute 6 = 1",
      "attribute 2 = 1",
      "cuLaunchKernelEx",
      head,
      "cuLaunchKernelEx",
      head,
      "attribute 6 = 1",
      "cuLaunchKernelEx",
    ]);
  },
});

Deno.test({
  name: "CudaStream.launch() passes any mix of arguments by value, launch after launch",
  ignore,
  fn() {
    const arg: fc.Arbitrary<KernelArg> = fc.oneof(
      fc.record({ u32: fc.integer({ min: 0, max: 2 ** 32 - 1 }) }),
      fc.record({ i32: fc.integer() }),
      fc.record({ f32: fc.float({ noNaN: true }) }),
      fc.record({ u64: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) }),
      fc.record({ bytes: fc.uint8Array({ minLength: 1, maxLength: 200 }) }),
    );
    const list = fc.array(arg, { maxLength: 30 });
    fc.assert(
      fc.property(list, (args) => {
        const sizes = args.map(bytesOf);
        // The same kernel twice with other values in front: nothing of the first launch may show in the second.
        const other = args.map((value): KernelArg =>
          "bytes" in value ? { bytes: value.bytes.map((b) => b ^ 255) } : value
        );
        const seen = launch(sizes, { grid: [1], block: [1], args: other }, { grid: [1], block: [1], args });
        const half = seen.slice(seen.length / 2);
        assertEquals(half.filter((line) => line.startsWith("arg")), args.map((value) => `arg ${hex(value)}`));
      }),
      { numRuns: 25 },
    );
  },
});

Deno.test({
  name: "CudaStream.launch() refuses arguments that are not the kernel's",
  ignore,
  fn() {
    const call = (parameters: readonly number[], ...args: readonly KernelArg[]) => () =>
      launch(parameters, { grid: [1], block: [1], args });
    assertThrows(call([4], { u32: 1 }, { u32: 2 }), TypeError, "Cannot launch scale: wanted 1 arguments, got 2");
    assertThrows(call([4, 8], { u32: 1 }, { u32: 2 }), TypeError, "argument 1 has 8 bytes, got u32 with 4");
    assertThrows(call([4], { u32: -1 }), RangeError, "argument 0 is no u32, got -1");
    assertThrows(call([4], { u32: 2 ** 32 }), RangeError, "argument 0 is no u32");
    assertThrows(call([4], { i32: 2 ** 31 }), RangeError, "argument 0 is no i32");
    assertThrows(call([4], { i32: 0.5 }), RangeError, "argument 0 is no i32, got 0.5");
  },
});

contextTest("CudaStream.launch() names the kernel and its sizes when the driver refuses", ({ fake, context }) => {
  using stream = context.stream();
  using module = context.load(new Uint8Array(8));
  const kernel = module.function("scale");
  fake.fail("cuLaunchKernelEx", 700);
  const options: LaunchOptions = { grid: [2, 3], block: [128], args: [], cluster: [2] };
  const error = assertThrows(() => stream.launch(kernel, options), CudaError);
  assertEquals(
    error.message,
    "Cannot launch scale (2x3 blocks of 128 threads, 0 bytes shared, clusters of 2): cuLaunchKernelEx returned " +
      "CUDA_ERROR_ILLEGAL_ADDRESS (700)",
  );
  assertEquals(error.lost, true);
});
