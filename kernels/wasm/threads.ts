/**
 * Starts compute threads, here or through the thread that owns this one.
 *
 * A Worker that a Worker of Deno 2.9 starts takes a second to answer: its event loop is looked after every half second
 * only. A Worker of the main thread takes milliseconds. So an engine Worker asks its owner to start its threads.
 *
 * @module
 */
import type { ThreadStart } from "./thread_worker.ts";

/** A running compute thread. */
export interface ComputeThread {
  /** Ends it. */
  terminate(): void;
}

/** Starts a compute thread; resolves when it waits for jobs. */
export type ThreadStarter = (start: ThreadStart) => Promise<ComputeThread>;

/** What {@linkcode serveThreads} answers. */
interface ThreadReply {
  readonly thread: number;
  readonly problem?: string;
}

/** Starts a compute thread as a Worker of the calling thread. */
export function startThread(start: ThreadStart): Promise<ComputeThread> {
  const worker = new Worker(new URL("./thread_worker.ts", import.meta.url), {
    type: "module",
    name: `compute ${start.thread}`,
  });
  return new Promise((resolve, reject) => {
    worker.onmessage = () => resolve(worker);
    worker.onerror = (event) => {
      event.preventDefault();
      worker.terminate();
      reject(new Error(`Cannot start compute thread ${start.thread}: ${event.message}`));
    };
    worker.postMessage(start);
  });
}

/** Starts the threads that {@linkcode remoteThreads} asks for at the other end of `port`; ends them on dispose. */
export function serveThreads(port: MessagePort): Disposable {
  const threads: ComputeThread[] = [];
  let disposed = false;
  port.onmessage = async ({ data: start }: MessageEvent<ThreadStart>) => {
    const { thread } = start;
    try {
      const started = await startThread(start);
      if (disposed) return started.terminate();
      threads.push(started);
      port.postMessage({ thread } satisfies ThreadReply);
    } catch (error) {
      if (disposed) return;
      port.postMessage(
        { thread, problem: error instanceof Error ? error.message : String(error) } satisfies ThreadReply,
      );
    }
  };
  return {
    [Symbol.dispose]() {
      disposed = true;
      port.close();
      for (const thread of threads) thread.terminate();
    },
  };
}

/** A starter that asks whoever serves the other end of `port`, which also ends the threads. */
export function remoteThreads(port: MessagePort): ThreadStarter {
  const waiting = new Map<number, PromiseWithResolvers<ComputeThread>>();
  port.onmessage = ({ data: { thread, problem } }: MessageEvent<ThreadReply>) => {
    if (problem === undefined) waiting.get(thread)?.resolve({ terminate: () => {} });
    else waiting.get(thread)?.reject(new Error(problem));
    waiting.delete(thread);
  };
  return (start) => {
    const answer = Promise.withResolvers<ComputeThread>();
    waiting.set(start.thread, answer);
    port.postMessage(start);
    return answer.promise;
  };
}
