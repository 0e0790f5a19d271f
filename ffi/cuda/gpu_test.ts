import { assert, assertEquals, assertThrows } from "@std/assert";
import { fileURLToPath } from "node:url";
import { gpuTest, TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { CudaContext, CudaError, type CudaFunction, CudaLibraries, type DevicePtr, type KernelArg } from "./cuda.ts";

/** Kernels that show what a launch brought along. */
const SOURCE = `
typedef unsigned short u16; typedef unsigned int u32; typedef unsigned long long u64;
struct __align__(16) Small { u32 a; u16 b, c; u64 d; float e; };
struct __align__(64) Large { u64 words[16]; };
extern "C" __global__ void arguments(u32 a, int b, float c, u64 d, const float* p, const __grid_constant__ Small s,
                                     u32 z, const __grid_constant__ Large t, float* out) {
  out[0] = a; out[1] = b; out[2] = c; out[3] = (float)d; out[4] = p[1];
  out[5] = s.a; out[6] = s.b; out[7] = s.c; out[8] = (float)s.d; out[9] = s.e;
  out[10] = z; out[11] = (float)t.words[15];
}
extern "C" __global__ void increment(float* x, int n) {
  asm volatile("griddepcontrol.wait;" ::: "memory");
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] += 1.f;
}
extern "C" __global__ void rank(u32* out) {
  u32 r, n;
  asm("mov.u32 %0, %cluster_ctarank;" : "=r"(r));
  asm("mov.u32 %0, %cluster_nctarank;" : "=r"(n));
  out[blockIdx.x] = r + 100 * n;
}
extern "C" __global__ void meet(u32* count) {
  atomicAdd(count, 1);
  while (*(volatile u32*)count < gridDim.x) {}
}
extern "C" __global__ void say(u32* word, u32 value) { *(volatile u32*)word = value; __threadfence_system(); }
extern "C" __global__ void wait(u64 ns) {
  u64 from, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(from));
  do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)); while (now - from < ns);
}
`;

function kernel(gpu: TestGpu, name: string): CudaFunction {
  return gpu.kernels.module({ name: "gpu_test", source: SOURCE }).function(name);
}

gpuTest("CudaStream.launch() brings every kind of argument to the kernel", (gpu) => {
  const small = new DataView(new ArrayBuffer(32));
  small.setUint32(0, 5, true);
  small.setUint16(4, 6, true);
  small.setUint16(6, 7, true);
  small.setBigUint64(8, 8n, true);
  small.setFloat32(16, 9.5, true);
  const large = new BigUint64Array(16);
  large[15] = 77n;
  const out = gpu.poisoned(48);
  const launched = kernel(gpu, "arguments");
  assertEquals(launched.parameterBytes, [4, 4, 4, 8, 8, 32, 4, 128, 8]);
  gpu.stream.launch(launched, {
    grid: [1],
    block: [1],
    args: [
      { u32: 3 },
      { i32: -4 },
      { f32: 1.25 },
      { u64: 1n << 40n },
      { ptr: gpu.upload(new Float32Array([1, 42])) },
      { bytes: new Uint8Array(small.buffer) },
      { u32: 11 },
      { bytes: new Uint8Array(large.buffer) },
      { ptr: out },
    ],
  });
  assertEquals([...gpu.f32(out, 12)], [3, -4, 1.25, 2 ** 40, 42, 5, 6, 7, 8, 9.5, 11, 77]);
});

gpuTest("CudaStream.launch() forms clusters, also large ones", (gpu) => {
  const rank = kernel(gpu, "rank");
  const out = gpu.poisoned(64);
  const launch = (blocks: number, cluster: number) =>
    gpu.stream.launch(rank, { grid: [blocks], block: [1], cluster: [cluster], args: [{ ptr: out }] });
  launch(8, 4);
  assertEquals([...gpu.i32(out, 8)], [400, 401, 402, 403, 400, 401, 402, 403]);
  rank.allowLargeClusters();
  launch(16, 16);
  assertEquals([...gpu.i32(out, 16)], Array.from({ length: 16 }, (_, index) => 1600 + index));
});

gpuTest("CudaStream.launch() has the blocks of a cooperative kernel meet, and refuses more than fit", (gpu) => {
  const meet = kernel(gpu, "meet");
  const blocks = gpu.context.properties.multiprocessors * meet.blocksPerMultiprocessor(64);
  const count = gpu.word(0);
  const launch = (grid: number) =>
    gpu.stream.launch(meet, { grid: [grid], block: [64], cooperative: true, args: [{ ptr: count }] });
  launch(Math.floor(blocks / 64));
  assertEquals(gpu.i32(count, 1)[0] >= Math.floor(blocks / 64), true);
  assertThrows(() => launch(blocks + 1), CudaError, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE");
});

gpuTest("CudaGraph.launch() repeats what was captured, with and without programmatic edges", (gpu) => {
  const increment = kernel(gpu, "increment");
  for (const programmatic of [false, true]) {
    const x = gpu.zeroed(4096);
    const args: readonly KernelArg[] = [{ ptr: x }, { i32: 1024 }];
    using graph = gpu.stream.capture(() => {
      for (let i = 0; i < 100; i++) gpu.stream.launch(increment, { grid: [4], block: [256], args, programmatic });
    });
    assertEquals(graph.nodes, 100);
    graph.upload(gpu.stream);
    for (let i = 0; i < 10; i++) graph.launch(gpu.stream);
    assert(gpu.f32(x, 1024).every((value) => value === 1000), `programmatic ${programmatic}`);
  }
});

gpuTest("CudaStream.capture() follows streams that join, and leaves the stream usable when it fails", (gpu) => {
  const { context, stream } = gpu;
  const increment = kernel(gpu, "increment");
  const [x, y] = [gpu.poisoned(4096), gpu.poisoned(4096)];
  using other = context.stream();
  using fork = context.event();
  using join = context.event();
  const plus = (to: DevicePtr) => ({ grid: [4], block: [256], args: [{ ptr: to }, { i32: 1024 }] } as const);
  using graph = stream.capture(() => {
    stream.fill(x, 0, 4096);
    stream.record(fork);
    other.wait(fork);
    other.fill(y, 0, 4096);
    stream.launch(increment, plus(x));
    other.launch(increment, plus(y));
    other.record(join);
    stream.wait(join);
    stream.copy(x, y, 4);
  });
  assertEquals(graph.nodes, 5);
  graph.launch(stream);
  assertEquals([...gpu.f32(x, 2), ...gpu.f32(y, 2)], [1, 1, 1, 1]);
  assertThrows(() => stream.capture(() => void context.alloc(1000)), CudaError);
  stream.launch(increment, plus(x));
  assertEquals([...gpu.f32(x, 2)], [2, 2]);
});

gpuTest("PinnedBuffer shows the host what the device writes, and the device what the host writes", (gpu) => {
  const { context, stream } = gpu;
  for (const bytes of [4, 65536, 100_000_000]) {
    using pinned = context.pinned(bytes);
    const words = new Uint32Array(pinned.buffer);
    words[0] = 7;
    const copy = gpu.poisoned(4);
    stream.copy(copy, pinned.address, 4);
    assertEquals(gpu.i32(copy, 1)[0], 7);
    stream.launch(kernel(gpu, "say"), { grid: [1], block: [1], args: [{ ptr: pinned.address }, { u32: 99 }] });
    stream.synchronize();
    assertEquals(Atomics.load(words, 0), 99);
  }
});

gpuTest("CudaEvent.reached turns true when the work before it is done", (gpu) => {
  const { context, stream } = gpu;
  using before = context.event({ timing: true });
  using after = context.event({ timing: true });
  stream.record(before);
  stream.launch(kernel(gpu, "wait"), { grid: [1], block: [1], args: [{ u64: 20_000_000n }] });
  stream.record(after);
  assertEquals([after.reached, stream.idle], [false, false]);
  after.synchronize();
  assertEquals([after.reached, stream.idle], [true, true]);
  assert(after.msSince(before) >= 20);
});

gpuTest("CudaContext opens a GPU twice, and each lives on without the other", (gpu) => {
  const second = CudaContext.open({ libraries: gpu.context.libraries });
  const buffer = second.alloc(16);
  const stream = second.stream();
  stream.fill(buffer.address, 5, 16);
  stream.synchronize();
  assertEquals([...gpu.bytes(buffer.address, 16)], Array.from({ length: 16 }, () => 5));
  second[Symbol.dispose]();
  assertEquals(gpu.i32(gpu.word(3), 1)[0], 3);
});

Deno.test({
  name: "CudaContext of another thread sees the same memory, and leaves it in place when it is disposed",
  ignore: TestGpu.missing() !== undefined,
  async fn() {
    using gpu = new TestGpu();
    const address = gpu.word(4711);
    gpu.stream.synchronize();
    const worker = new Worker(new URL("./testdata/read_memory_worker.ts", import.meta.url), { type: "module" });
    try {
      const answer = new Promise<number>((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = (event) => {
          event.preventDefault();
          reject(new Error(event.message));
        };
      });
      worker.postMessage(address);
      assertEquals(await answer, 4711);
      assertEquals(gpu.i32(address, 1)[0], 4711);
    } finally {
      worker.terminate();
    }
  },
});

gpuTest("CudaError.lost tells that a kernel killed the context; dispose then is silent", () => {
  const { paths } = CudaLibraries.find();
  const { stdout, stderr, success } = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "--no-check",
      "--no-config",
      "--allow-read",
      "--allow-env",
      // Nothing but the libraries may be loaded, so pointers are forbidden.
      `--allow-ffi=${paths.join(",")}`,
      fileURLToPath(new URL("./testdata/lost_context.ts", import.meta.url)),
    ],
    stdin: "null",
  }).outputSync();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  assertEquals(
    text(stdout),
    "cuStreamSynchronize CUDA_ERROR_ILLEGAL_ADDRESS true\ncuMemAlloc_v2 CUDA_ERROR_ILLEGAL_ADDRESS true\n",
    text(stderr),
  );
  assert(success, text(stderr));
});
