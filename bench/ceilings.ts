/**
 * The machine's ceilings, measured on request between the samples of a row.
 *
 * @module
 */
import type { CeilingReply, CeilingStart } from "./ceiling_worker.ts";
import type { CeilingId } from "./rows.ts";

/** Measures ceilings in a Worker. */
export interface Ceilings extends Disposable {
  /** The best of about 150 ms of passes: bytes a second for `read`, MACs a second for the others. */
  measure(ceiling: CeilingId): Promise<number>;
}

/** Starts the Worker and lets its loops reach the optimising tier. */
export async function openCeilings(threads: number): Promise<Ceilings> {
  const worker = new Worker(new URL("./ceiling_worker.ts", import.meta.url), { type: "module", name: "ceilings" });
  const { port1: port, port2 } = new MessageChannel();
  const close = () => {
    port.close();
    worker.terminate();
  };
  const nextReply = () =>
    new Promise<CeilingReply>((resolve, reject) => {
      port.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(`Cannot measure ceilings: the worker failed: ${event.message}`));
      };
    });
  const started = nextReply();
  worker.postMessage({ threads, port: port2 } satisfies CeilingStart, [port2]);
  const reply = await started;
  if (reply.kind !== "ready") {
    close();
    throw new Error(`Cannot measure ceilings: ${reply.kind === "failed" ? reply.message : "the worker is not ready"}`);
  }
  return {
    async measure(ceiling) {
      const answer = nextReply();
      port.postMessage(ceiling);
      const reply = await answer;
      if (reply.kind === "value") return reply.perSecond;
      throw new Error(`Cannot measure ceiling ${ceiling}: the worker answered ${reply.kind}`);
    },
    [Symbol.dispose]: close,
  };
}
