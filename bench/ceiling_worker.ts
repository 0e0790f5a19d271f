/**
 * Measures what the machine gives to code that only reads or only multiplies, from inside WebAssembly and with the
 * threads of the kernels. A Worker of its own, because the thread that owns a pinned team is pinned too.
 *
 * @module
 */
import { openWasm, type WasmRuntime } from "../kernels/wasm/instance.ts";
import type { CeilingId } from "./rows.ts";

/** First message to the Worker. */
export interface CeilingStart {
  /** Threads of `read`, `dot` and `f32`. */
  readonly threads: number;
  /** Takes a {@linkcode CeilingId}, gives {@linkcode CeilingReply}. */
  readonly port: MessagePort;
}

/** What the Worker answers: once when it is ready, then once a request, bytes or MACs a second. */
export type CeilingReply =
  | { readonly kind: "ready" }
  | { readonly kind: "value"; readonly perSecond: number }
  | { readonly kind: "failed"; readonly message: string };

/** More than the caches of common machines hold, and more than the default model's weights. */
const READ_BYTES = 128 * 2 ** 20;
/** Products of one call on one thread, by the kind that `peak_run` takes. */
const PEAKS = {
  dot32: { kind: 0, macs: 786_432 },
  dot16: { kind: 1, macs: 786_432 },
  f32: { kind: 2, macs: 196_608 },
} as const;
const CALLS = 1000;
const WARM_MS = 1500;
const MEASURE_MS = 150;

/** The best of the passes that fit into `ms`, work a second. */
function best(pass: () => number, ms: number): number {
  const end = performance.now() + ms;
  let rate = 0;
  do {
    const start = performance.now();
    const work = pass();
    rate = Math.max(rate, work / (performance.now() - start) * 1e3);
  } while (performance.now() < end);
  return rate;
}

function readPass(runtime: WasmRuntime): () => number {
  const address = runtime.alloc(READ_BYTES);
  // Untouched pages are all the same page of zeros, which a cache holds.
  runtime.u8(address, READ_BYTES).fill(1);
  return () => {
    runtime.exports.stream_read(runtime.team, address, READ_BYTES);
    return READ_BYTES;
  };
}

function peakPass(runtime: WasmRuntime, peak: keyof typeof PEAKS): () => number {
  const { kind, macs } = PEAKS[peak];
  return () => {
    runtime.exports.peak_run(runtime.team, kind, CALLS);
    return macs * CALLS * runtime.threads;
  };
}

async function serve({ threads, port }: CeilingStart): Promise<void> {
  const reply = (message: CeilingReply) => port.postMessage(message);
  try {
    const all = await openWasm({ threads, pin: true });
    const one = await openWasm({ threads: 1 });
    // The dot with sums of 16 bits is the faster one where the host has no instruction for the other.
    const passes: Record<CeilingId, (() => number)[]> = {
      "read-1": [readPass(one)],
      "read": [readPass(all)],
      "dot": [peakPass(all, "dot32"), peakPass(all, "dot16")],
      "f32": [peakPass(all, "f32")],
    };
    for (const pass of Object.values(passes).flat()) best(pass, WARM_MS);
    port.onmessage = ({ data }: MessageEvent<CeilingId>) => {
      reply({ kind: "value", perSecond: Math.max(...passes[data].map((pass) => best(pass, MEASURE_MS))) });
    };
    reply({ kind: "ready" });
  } catch (error) {
    reply({ kind: "failed", message: error instanceof Error ? error.message : String(error) });
  }
}

if (import.meta.main) {
  addEventListener("message", (event) => {
    if (event instanceof MessageEvent) void serve(event.data);
  }, { once: true });
}
