import { assert, assertEquals, assertThrows } from "@std/assert";
import { CudaContext } from "./context.ts";
import { CudaError } from "./error.ts";
import { fakeTest } from "./test_fake.ts";

fakeTest("CudaContext.open() reads what the GPU is", (fake) => {
  using context = CudaContext.open({ ordinal: 1, libraries: fake.libraries });
  assertEquals(context.properties, {
    name: "Fake 41",
    ordinal: 1,
    major: 9,
    minor: 0,
    multiprocessors: 132,
    totalBytes: 5 * 2 ** 32,
    l2Bytes: 62914560,
    sharedBytesPerBlock: 232448,
    driverVersion: "13.0",
    uuid: "GPU-01020304-0506-0708-090a-0b0c0d0e0f10",
  });
  assertEquals(context.memory(), { freeBytes: 3 * 2 ** 32, totalBytes: 5 * 2 ** 32 });
});

fakeTest("CudaContext.open() refuses a GPU that is not there, and names those that are", (fake) => {
  const { libraries } = fake;
  assertThrows(() => CudaContext.open({ ordinal: 2, libraries }), RangeError, "wanted a number from 0 to 1");
  fake.setDevices(0);
  assertThrows(() => CudaContext.open({ libraries }), RangeError, "wanted a visible GPU, got 0 GPUs");
  assertEquals(CudaContext.list(libraries), []);
  assertEquals(fake.live, 0);
});

fakeTest("CudaContext.open() refuses a driver that is too old, with both versions", (fake) => {
  fake.setVersion(11080);
  assertThrows(
    () => CudaContext.open({ libraries: fake.libraries }),
    Error,
    "wanted CUDA 12.4 or newer, got 11.8",
  );
});

fakeTest("CudaContext.open() passes on what the driver says, and gives back what it took", (fake) => {
  const { libraries } = fake;
  fake.fail("cuInit", 100);
  const error = assertThrows(() => CudaContext.open({ libraries }), CudaError);
  assertEquals(error.message, "Cannot start the NVIDIA driver: cuInit returned CUDA_ERROR_NO_DEVICE (100)");
  assertEquals([error.call, error.code, error.codeName, error.lost], ["cuInit", 100, "CUDA_ERROR_NO_DEVICE", false]);
  fake.fail("cuDevicePrimaryCtxRetain", 12345);
  assertThrows(() => CudaContext.open({ libraries }), CudaError, "unknown error (12345)");
  assertEquals(fake.live, 0);
});

fakeTest("CudaContext dispose gives everything back once, newest first, and ends every object", (fake) => {
  const context = CudaContext.open({ libraries: fake.libraries });
  const buffer = context.alloc(100);
  const pinned = context.pinned(100);
  const stream = context.stream();
  const event = context.event();
  const module = context.load(new Uint8Array(8));
  const graph = stream.capture(() => {});
  assert(fake.live > 0);
  fake.takeNotes();
  context[Symbol.dispose]();
  const order = fake.takeNotes().filter((call) => !["cuCtxSetCurrent", "cuStreamSynchronize"].includes(call));
  assertEquals(order, [
    "cuGraphExecDestroy",
    "cuModuleUnload",
    "cuEventDestroy_v2",
    "cuStreamDestroy_v2",
    "cuMemHostUnregister",
    "cuMemFree_v2",
    "cuDevicePrimaryCtxRelease_v2",
  ]);
  assertEquals(fake.live, 0);
  for (const each of [graph, module, event, stream, pinned, buffer, context]) each[Symbol.dispose]();
  assertEquals(fake.takeNotes(), []);
  assertThrows(() => buffer.address, ReferenceError, "Cannot use a device buffer: it is disposed");
  assertThrows(() => pinned.buffer, ReferenceError);
  assertThrows(() => pinned.address, ReferenceError);
  assertThrows(() => event.reached, ReferenceError);
  assertThrows(() => stream.synchronize(), ReferenceError);
  assertThrows(() => module.function("f"), ReferenceError);
  assertThrows(() => graph.launch(stream), ReferenceError);
  assertThrows(() => context.alloc(1), ReferenceError, "Cannot use a CUDA context: it is disposed");
});

fakeTest("CudaContext dispose is silent about a context that is dead, and reports other refusals", (fake) => {
  const context = CudaContext.open({ libraries: fake.libraries });
  context.alloc(100);
  fake.fail("cuMemFree_v2", 700);
  context[Symbol.dispose]();
  const other = CudaContext.open({ libraries: fake.libraries });
  const buffer = other.alloc(100);
  fake.fail("cuMemFree_v2", 1);
  assertThrows(() => buffer[Symbol.dispose](), CudaError, "Cannot free 100 bytes of device memory");
  fake.fail("");
  other[Symbol.dispose]();
});

fakeTest("CudaContext keeps two GPUs apart and switches to its own before it makes something", (fake) => {
  using first = CudaContext.open({ libraries: fake.libraries });
  using second = CudaContext.open({ ordinal: 1, libraries: fake.libraries });
  assert(first.scope.context !== second.scope.context);
  fake.takeNotes();
  using _buffer = first.alloc(1);
  assertEquals(fake.takeNotes(), ["cuCtxSetCurrent", "cuMemAlloc_v2"]);
  second.makeCurrent();
  assertEquals(fake.takeNotes(), ["cuCtxSetCurrent"]);
});

fakeTest("CudaContext.open() says which flag is missing", async (fake) => {
  const path = fake.libraries.get("driver").path;
  const code = `
      import { CudaContext } from ${JSON.stringify(new URL("./context.ts", import.meta.url).href)};
      import { CudaLibraries } from ${JSON.stringify(new URL("./libraries.ts", import.meta.url).href)};
      try { CudaContext.open({ libraries: CudaLibraries.find() }); } catch (error) { console.log(error.message); }`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-check", "--allow-read", "--allow-env", "--allow-ffi=/nowhere", "-"],
    env: { INFINITE_LLM_CUDA_PATH: path.slice(0, path.lastIndexOf("/")) },
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(code));
  await writer.close();
  const { stdout } = await child.output();
  assertEquals(
    new TextDecoder().decode(stdout),
    `Cannot open ${path}: wanted the permission --allow-ffi=${path}\n`,
  );
});
