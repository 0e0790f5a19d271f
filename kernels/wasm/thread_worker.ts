/**
 * One compute thread: an instance of the kernel module over the shared memory that serves the team's jobs until the team
 * is stopped.
 *
 * @module
 */
import { setAllowedCpus } from "../../ffi/affinity.ts";
import { instantiate } from "./instantiate.ts";

const STACK_BYTES = 1 << 18;

/** What a compute thread is started with. */
export interface ThreadStart {
  /** The kernel module. */
  readonly module: WebAssembly.Module;
  /** The shared memory. */
  readonly memory: WebAssembly.Memory;
  /** Address of the team. */
  readonly team: number;
  /** Index in the team, from 1. */
  readonly thread: number;
  /** CPU to run on, if the threads are pinned. */
  readonly cpu?: number;
}

/** What a Worker's global scope has beyond the main thread's. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<ThreadStart>) => void) | null;
  postMessage(value: unknown): void;
}

const scope = globalThis as typeof globalThis & WorkerScope;

scope.onmessage = ({ data }) => {
  const { module, memory, team, thread, cpu } = data;
  if (cpu !== undefined) setAllowedCpus([cpu]);
  const exports = instantiate(module, { memory, stackBytes: STACK_BYTES });
  scope.postMessage("ready");
  // Jobs start only after every thread reported ready, so none has been missed.
  exports.team_worker(team, thread, 0);
  scope.close();
};
