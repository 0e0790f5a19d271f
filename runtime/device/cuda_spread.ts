/**
 * The part of a plan that a step with absent segments needs: which tokens attend to which of their sequence's nodes here,
 * where partials from elsewhere go, and how a token's nodes are joined.
 *
 * @module
 */
import { NODE_LIST_WORDS, NODE_WORDS, TASK_WORDS } from "../../kernels/attend_partial/attend_plain_cuda.ts";
import { SEGMENT_TOKENS, type StepSequence } from "./device.ts";
import type { SequenceNode } from "./step_nodes.ts";

/** Where the parts lie, in words from the first. */
export interface SpreadPlaces {
  /** Table of each token of a sequence that is all in the pool; -1 for others, which kernels for whole sequences skip. */
  readonly wholeTables: number;
  /** Tokens of spread sequences, in order. */
  readonly tokens: number;
  /** Attention to nodes in the pool. */
  readonly tasks: number;
  /** Node list of each of `tokens`. */
  readonly lists: number;
  /** Nodes. */
  readonly nodes: number;
}

/** A spread step. Slots hold partials: those from elsewhere first, so that they come in one copy. */
export interface SpreadPlan {
  /** Words for the device. */
  readonly words: Int32Array<ArrayBuffer>;
  /** Where its parts lie. */
  readonly places: SpreadPlaces;
  /** Tokens of spread sequences. */
  readonly tokens: number;
  /** Tasks. */
  readonly tasks: number;
  /** Slots of partials from elsewhere. */
  readonly remoteSlots: number;
  /** All slots. */
  readonly slots: number;
  /** For each sequence, the row of its first token among the spread ones; undefined for one that is all in the pool. */
  readonly firstRow: readonly (number | undefined)[];
  /** For each sequence and node, the slot of its first token. */
  readonly slotOf: readonly (readonly number[])[];
}

/** Plans a batch of which some sequences have nodes; sequence i uses table i of `tableWidth` entries. */
export function planSpread(
  { batch, nodes, tableWidth }: {
    readonly batch: readonly StepSequence[];
    readonly nodes: readonly (readonly SequenceNode[])[];
    readonly tableWidth: number;
  },
): SpreadPlan {
  const all = batch.reduce((sum, { tokens }) => sum + tokens.length, 0);
  let slots = 0;
  const slotOf = nodes.map((list) => list.map(() => 0));
  let remoteSlots = 0;
  for (const local of [false, true]) {
    for (const [index, list] of nodes.entries()) {
      for (const [number, node] of list.entries()) {
        if (node.local !== local) continue;
        slotOf[index][number] = slots;
        slots += batch[index].tokens.length;
      }
    }
    if (!local) remoteSlots = slots;
  }
  const firstRow: (number | undefined)[] = [];
  const wholeTables: number[] = [];
  const [tokens, tasks, lists, entries]: number[][] = [[], [], [], []];
  for (const [index, { tokens: { length: count }, position }] of batch.entries()) {
    const spread = nodes[index].length > 0;
    firstRow.push(spread ? tokens.length : undefined);
    for (let i = 0; i < count; i++) {
      const token = wholeTables.length;
      wholeTables.push(spread ? -1 : index);
      if (!spread) continue;
      tokens.push(token);
      lists.push(token, entries.length / NODE_WORDS, nodes[index].length);
      for (const [number, { first, segments, local }] of nodes[index].entries()) {
        const slot = slotOf[index][number] + i;
        const level = Math.log2(segments);
        entries.push(level, first / segments, slot);
        if (!local) continue;
        const from = first * SEGMENT_TOKENS;
        const to = Math.max(from, Math.min(from + segments * SEGMENT_TOKENS, position + i + 1));
        tasks.push(token, index * tableWidth, from, to, slot);
      }
    }
  }
  const parts = [wholeTables, tokens, tasks, lists, entries];
  const words = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let next = 0;
  const [wholeAt, tokensAt, tasksAt, listsAt, nodesAt] = parts.map((part) => {
    words.set(part, next);
    next += part.length;
    return next - part.length;
  });
  if (wholeTables.length !== all || lists.length !== NODE_LIST_WORDS * tokens.length) {
    throw new Error(`Plan is broken: ${all} tokens, ${wholeTables.length} tables, ${lists.length} words of lists`);
  }
  return {
    words,
    places: { wholeTables: wholeAt, tokens: tokensAt, tasks: tasksAt, lists: listsAt, nodes: nodesAt },
    tokens: tokens.length,
    tasks: tasks.length / TASK_WORDS,
    remoteSlots,
    slots,
    firstRow,
    slotOf,
  };
}
