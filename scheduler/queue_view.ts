/**
 * Sequences as policies see them.
 *
 * @module
 */
import type { QueueView } from "../plugins/types.ts";
import type { Sequence } from "./sequence.ts";

/** Lays `sequences` out as struct of arrays, in their order. The arrays are fresh: a policy may keep or spoil them. */
export function queueView(sequences: readonly Sequence[]): QueueView {
  const length = sequences.length;
  const view = {
    length,
    id: new Int32Array(length),
    promptTokens: new Int32Array(length),
    pendingTokens: new Int32Array(length),
    generatedTokens: new Int32Array(length),
    maxTokens: new Int32Array(length),
    priority: new Float64Array(length),
    arrivedMs: new Float64Array(length),
    blocks: new Int32Array(length),
    preemptions: new Int32Array(length),
    running: new Uint8Array(length),
  };
  for (let i = 0; i < length; i++) {
    const sequence = sequences[i];
    view.id[i] = sequence.id;
    view.promptTokens[i] = sequence.prompt.length;
    view.pendingTokens[i] = sequence.decoding ? 0 : sequence.pending;
    view.generatedTokens[i] = sequence.generated;
    view.maxTokens[i] = sequence.maxTokens;
    view.priority[i] = sequence.priority;
    view.arrivedMs[i] = sequence.arrivedMs;
    view.blocks[i] = sequence.localCount;
    view.preemptions[i] = sequence.preemptions;
    view.running[i] = sequence.status === "running" ? 1 : 0;
  }
  return view;
}
