/**
 * A thread that reads a word of device memory of another thread and answers with it.
 *
 * @module
 */
import { CudaContext, type DevicePtr } from "../cuda.ts";

/** What a Worker's global scope has beyond the main thread's. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<DevicePtr>) => void) | null;
  postMessage(value: number): void;
}

const scope = globalThis as typeof globalThis & WorkerScope;

scope.onmessage = ({ data }) => {
  using context = CudaContext.open();
  const word = new Uint32Array(1);
  context.stream().copyFromDevice(new Uint8Array(word.buffer), data);
  scope.postMessage(word[0]);
};
