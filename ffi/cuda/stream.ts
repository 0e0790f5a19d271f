/**
 * Queues of work for the device.
 *
 * @module
 */
import type { DevicePtr } from "./buffer.ts";
import { DRIVER } from "./driver_constants.ts";
import type { CudaEvent } from "./event.ts";
import { CudaGraph } from "./graph.ts";
import { LaunchBlock, type LaunchOptions } from "./launch_block.ts";
import type { CudaFunction } from "./module.ts";
import { type ContextScope, OwnedHandle } from "./owned_handle.ts";

/** The driver's handle of a stream. */
export type StreamHandle = bigint & { readonly brand: "CUstream" };

/** A queue whose work is done in order; destroyed on dispose, after its work. */
export class CudaStream extends OwnedHandle<StreamHandle> {
  readonly #launch: LaunchBlock;
  #capturing = false;

  /** Takes a stream of the driver; {@linkcode create} makes these. */
  constructor(scope: ContextScope, handle: StreamHandle) {
    super(scope, "CUDA stream", handle);
    this.#launch = new LaunchBlock(scope.driver.host, handle);
  }

  /** Makes one that waits for no other. @throws {CudaError} */
  static create(
    scope: ContextScope,
    { priority = "normal" }: { readonly priority?: "high" | "normal" } = {},
  ): CudaStream {
    const { driver } = scope;
    scope.enter();
    const least = new Int32Array(1);
    const greatest = new Int32Array(1);
    const asked = driver.symbols.cuCtxGetStreamPriorityRange(least, greatest);
    driver.check(asked, { call: "cuCtxGetStreamPriorityRange", context: "make a stream" });
    const handle = new BigUint64Array(1);
    const level = priority === "high" ? greatest[0] : 0;
    const code = driver.symbols.cuStreamCreateWithPriority(handle, DRIVER.CU_STREAM_NON_BLOCKING, level);
    driver.check(code, { call: "cuStreamCreateWithPriority", context: "make a stream" });
    return new CudaStream(scope, handle[0] as StreamHandle);
  }

  /**
   * Enqueues a kernel.
   *
   * @throws {TypeError} when the arguments do not have the number and sizes of the kernel's parameters.
   * @throws {RangeError} when a number does not fit its type.
   * @throws {CudaError} when the driver refuses the launch, or an earlier one failed.
   */
  launch(kernel: CudaFunction, options: LaunchOptions): void {
    const { driver } = this.scope;
    this.requireOpen();
    this.#launch.encode(kernel, options);
    const { config, parameters } = this.#launch;
    const code = driver.symbols.cuLaunchKernelEx(config, kernel.handle, parameters, 0n);
    if (code !== 0) {
      throw driver.error(code, { call: "cuLaunchKernelEx", context: `launch ${describe(kernel, options)}` });
    }
  }

  /**
   * Copies host memory to the device. `from` may be reused at return, unless it is pinned memory: then when the stream
   * has got there. May block.
   *
   * @throws {CudaError} @throws {Error} while capturing, because a graph would keep the address of `from`.
   */
  copyToDevice(to: DevicePtr, from: Uint8Array): void {
    const { driver } = this.scope;
    const handle = this.#immediate("copy host memory");
    if (from.length === 0) return;
    const code = driver.symbols.cuMemcpyHtoDAsync_v2(to, from as BufferSource, BigInt(from.length), handle);
    if (code !== 0) {
      throw driver.error(code, { call: "cuMemcpyHtoDAsync_v2", context: `copy ${from.length} bytes to the device` });
    }
  }

  /** Copies device memory to the host; done at return. @throws {CudaError} @throws {Error} while capturing. */
  copyFromDevice(to: Uint8Array, from: DevicePtr): void {
    const { driver } = this.scope;
    const handle = this.#immediate("copy to host memory");
    if (to.length > 0) {
      const code = driver.symbols.cuMemcpyDtoHAsync_v2(to as BufferSource, from, BigInt(to.length), handle);
      if (code !== 0) {
        throw driver.error(code, { call: "cuMemcpyDtoHAsync_v2", context: `copy ${to.length} bytes from the device` });
      }
    }
    this.synchronize();
  }

  /** Enqueues a copy between any of device and pinned memory; the ranges do not overlap. @throws {CudaError} */
  copy(to: DevicePtr, from: DevicePtr, bytes: number): void {
    const { driver } = this.scope;
    const code = driver.symbols.cuMemcpyAsync(to, from, BigInt(bytes), this.handle);
    if (code !== 0) throw driver.error(code, { call: "cuMemcpyAsync", context: `copy ${bytes} bytes` });
  }

  /** Enqueues setting `bytes` bytes to `byte`. @throws {CudaError} */
  fill(to: DevicePtr, byte: number, bytes: number): void {
    const { driver } = this.scope;
    const code = driver.symbols.cuMemsetD8Async(to, byte, BigInt(bytes), this.handle);
    if (code !== 0) throw driver.error(code, { call: "cuMemsetD8Async", context: `fill ${bytes} bytes` });
  }

  /** Enqueues the mark `event`. @throws {CudaError} */
  record(event: CudaEvent): void {
    const { driver } = this.scope;
    driver.check(driver.symbols.cuEventRecord(event.handle, this.handle), {
      call: "cuEventRecord",
      context: "record an event",
    });
  }

  /** Has later work of this stream wait for the last record of `event`. @throws {CudaError} */
  wait(event: CudaEvent): void {
    const { driver } = this.scope;
    const code = driver.symbols.cuStreamWaitEvent(this.handle, event.handle, 0);
    driver.check(code, { call: "cuStreamWaitEvent", context: "have a stream wait for an event" });
  }

  /** Blocks this thread until everything enqueued is done. @throws {CudaError} @throws {Error} while capturing. */
  synchronize(): void {
    const { driver } = this.scope;
    const code = driver.symbols.cuStreamSynchronize(this.#immediate("wait for a stream"));
    driver.check(code, { call: "cuStreamSynchronize", context: "wait for a stream" });
  }

  /** Whether everything enqueued is done. @throws {CudaError} @throws {Error} while capturing. */
  get idle(): boolean {
    const { driver } = this.scope;
    const code = driver.symbols.cuStreamQuery(this.#immediate("ask a stream"));
    if (code === DRIVER.CUDA_SUCCESS) return true;
    if (code === DRIVER.CUDA_ERROR_NOT_READY) return false;
    throw driver.error(code, { call: "cuStreamQuery", context: "ask a stream" });
  }

  /**
   * Records everything that `body` enqueues on this stream, and on streams that wait for it and that it waits for, instead
   * of doing it. Buffers and modules it uses must outlive the graph.
   *
   * @throws {CudaError} when something in it cannot be recorded. @throws what `body` throws; then nothing is recorded.
   */
  capture(body: () => void): CudaGraph {
    const { driver } = this.scope;
    const handle = this.#immediate("record a stream");
    // Other threads go on meanwhile; on this one, calls that would synchronise the device fail.
    const begun = driver.symbols.cuStreamBeginCapture_v2(handle, DRIVER.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    driver.check(begun, { call: "cuStreamBeginCapture_v2", context: "record a stream" });
    this.#capturing = true;
    const graph = new BigUint64Array(1);
    let complete = false;
    let ended: number;
    try {
      body();
      complete = true;
    } finally {
      this.#capturing = false;
      ended = driver.symbols.cuStreamEndCapture(handle, graph);
      if (!complete && graph[0] !== 0n) driver.symbols.cuGraphDestroy(graph[0]);
    }
    driver.check(ended, { call: "cuStreamEndCapture", context: "record a stream" });
    return CudaGraph.instantiate(this.scope, graph[0]);
  }

  protected override free(handle: StreamHandle): void {
    const { driver } = this.scope;
    driver.check(driver.symbols.cuStreamSynchronize(handle), {
      call: "cuStreamSynchronize",
      context: "wait for a stream",
    });
    driver.check(driver.symbols.cuStreamDestroy_v2(handle), {
      call: "cuStreamDestroy_v2",
      context: "destroy a stream",
    });
  }

  /** The handle, for what cannot be part of a graph. */
  #immediate(action: string): StreamHandle {
    if (this.#capturing) throw new Error(`Cannot ${action}: the stream is being captured`);
    return this.handle;
  }
}

function describe(kernel: CudaFunction, { grid, block, sharedBytes = 0, cluster }: LaunchOptions): string {
  const clusters = cluster === undefined ? "" : `, clusters of ${cluster.join("x")}`;
  return `${kernel.name} (${grid.join("x")} blocks of ${
    block.join("x")
  } threads, ${sharedBytes} bytes shared${clusters})`;
}
