/**
 * The part of a plan that a step with absent segments needs: which tokens attend to which of their sequence's nodes here, by
 * which kernel, where partials from elsewhere go, and how a token's nodes are joined.
 *
 * @module
 */
import { NODE_LIST_WORDS, NODE_WORDS, TASK_WORDS } from "../../kernels/attend_partial/attend_plain_cuda.ts";
import type { PrefillChunk } from "../../kernels/attend_partial/prefill_plan.ts";
import type { AttentionKernels } from "./cuda_attention.ts";
import { CUDA_BLOCK_TOKENS } from "./cuda_tables.ts";
import { SEGMENT_TOKENS, type StepSequence } from "./device.ts";
import type { SequenceNode } from "./step_nodes.ts";

/** Parts begin at multiples of this many words. */
const PART_WORDS = 4;

/** Where the parts lie, in words from the first. */
export interface SpreadPlaces {
  /** Table of each token of a sequence that the plain kernel attends for as a whole; -1 for others. */
  readonly wholeTables: number;
  /** Tokens of spread sequences, in order: those whose queries leave. */
  readonly tokens: number;
  /** Attention to nodes in the pool by the plain kernel. */
  readonly tasks: number;
  /** Token, tokens attended to, and word of the table of each job of the decode kernel. */
  readonly jobTokens: number;
  /** See {@linkcode jobTokens}. */
  readonly jobLengths: number;
  /** See {@linkcode jobTokens}. */
  readonly jobTables: number;
  /** Node list of each token whose nodes are joined. */
  readonly lists: number;
  /** Nodes. */
  readonly nodes: number;
}

/** A spread step. Slots hold partials: those from elsewhere first, then those of jobs, each in one piece. */
export interface SpreadPlan {
  /** Words for the device. */
  readonly words: Int32Array<ArrayBuffer>;
  /** Where its parts lie. */
  readonly places: SpreadPlaces;
  /** Tokens of spread sequences. */
  readonly tokens: number;
  /** Tasks of the plain kernel. */
  readonly tasks: number;
  /** Whether the plain kernel attends for sequences as a whole. */
  readonly whole: boolean;
  /** Jobs of the decode kernel; job i leaves its partial in slot `remoteSlots + i`. */
  readonly jobs: number;
  /** What the prefill kernel attends to. */
  readonly chunks: readonly PrefillChunk[];
  /** Tokens whose nodes are joined. */
  readonly lists: number;
  /** Slots of partials from elsewhere. */
  readonly remoteSlots: number;
  /** All slots. */
  readonly slots: number;
  /** For each sequence, the row of its first token among the spread ones; undefined for one that is all in the pool. */
  readonly firstRow: readonly (number | undefined)[];
  /** For each sequence and node, the slot of its first token. */
  readonly slotOf: readonly (readonly number[])[];
}

/** Sequence i uses table i of `tableWidth` entries. */
export interface SpreadWork {
  /** The batch. */
  readonly batch: readonly StepSequence[];
  /** For each sequence, its nodes when segments are absent. */
  readonly nodes: readonly (readonly SequenceNode[])[];
  /** Entries of a table. */
  readonly tableWidth: number;
  /** Kernels there are besides the plain one. */
  readonly kernels: AttentionKernels;
}

/** Which kernel attends for a sequence. */
type Way = "plain" | "decode" | "prefill";

interface Slots {
  readonly slotOf: number[][];
  readonly remoteSlots: number;
  readonly jobs: number;
  readonly slots: number;
}

function assignSlots({ batch, nodes }: SpreadWork, ways: readonly Way[]): Slots {
  // A sequence that is all here has one node for the decode kernel, and none for others.
  const slotOf = nodes.map((list, index) => (list.length === 0 && ways[index] === "decode" ? [0] : list.map(() => 0)));
  let slots = 0;
  const assign = (takes: (node: SequenceNode | undefined, way: Way) => boolean): void => {
    for (const [index, list] of slotOf.entries()) {
      for (const number of list.keys()) {
        if (!takes(nodes[index].at(number), ways[index])) continue;
        slotOf[index][number] = slots;
        slots += batch[index].tokens.length;
      }
    }
  };
  assign((node) => node?.local === false);
  const remoteSlots = slots;
  assign((node, way) => node?.local !== false && way === "decode");
  const jobs = slots - remoteSlots;
  assign((node, way) => node?.local === true && way !== "decode");
  return { slotOf, remoteSlots, jobs, slots };
}

/** Plans a batch of which some sequences have nodes. */
export function planSpread(work: SpreadWork): SpreadPlan {
  const { batch, nodes, tableWidth, kernels } = work;
  const ways = batch.map(({ tokens }): Way =>
    tokens.length === 1 && kernels.decode ? "decode" : kernels.prefill ? "prefill" : "plain"
  );
  const slots = assignSlots(work, ways);
  const { slotOf } = slots;
  const firstRow: (number | undefined)[] = [];
  const [wholeTables, tokens, tasks, jobTokens, jobLengths, jobTables, lists, entries]: number[][] = [
    [],
    [],
    [],
    [],
    [],
    [],
    [],
    [],
  ];
  const chunks: PrefillChunk[] = [];
  for (const [index, { tokens: { length: count }, position }] of batch.entries()) {
    const way = ways[index];
    const list = nodes[index];
    const first = wholeTables.length;
    const table = index * tableWidth;
    firstRow.push(list.length > 0 ? tokens.length : undefined);
    for (let i = 0; i < count; i++) {
      wholeTables.push(list.length === 0 && way === "plain" ? index : -1);
      if (list.length > 0) tokens.push(first + i);
      if (slotOf[index].length === 0) continue;
      lists.push(first + i, entries.length / NODE_WORDS, slotOf[index].length);
      for (const [number, slot] of slotOf[index].entries()) {
        const node = list.at(number) ?? { first: 0, segments: 1 };
        entries.push(Math.log2(node.segments), node.first / node.segments, slot + i);
      }
    }
    if (way === "prefill" && list.length === 0) {
      chunks.push({ queryRow: first, tokens: count, position, table, output: { kind: "final", row: first } });
    }
    for (const [number, firstSlot] of slotOf[index].entries()) {
      const node = list.at(number);
      if (node?.local === false) continue;
      const from = (node?.first ?? 0) * SEGMENT_TOKENS;
      const end = node === undefined ? Infinity : from + node.segments * SEGMENT_TOKENS;
      if (way === "prefill") {
        chunks.push({
          queryRow: first,
          tokens: count,
          position,
          kvBegin: from,
          kvEnd: Math.min(end, position + count),
          table,
          output: { kind: "partial", row: firstSlot },
        });
        continue;
      }
      for (let i = 0; i < count; i++) {
        const to = Math.max(from, Math.min(end, position + i + 1));
        if (way === "plain") {
          tasks.push(first + i, table, from, to, firstSlot + i);
        } else {
          jobTokens.push(first + i);
          jobLengths.push(to - from);
          jobTables.push(table + from / CUDA_BLOCK_TOKENS);
        }
      }
    }
  }
  const parts = [wholeTables, tokens, tasks, jobTokens, jobLengths, jobTables, lists, entries];
  let next = 0;
  const places = parts.map((part) => {
    const at = next;
    next = Math.ceil((next + part.length) / PART_WORDS) * PART_WORDS;
    return at;
  });
  const words = new Int32Array(next);
  parts.forEach((part, index) => words.set(part, places[index]));
  const [wholeAt, tokensAt, tasksAt, jobTokensAt, jobLengthsAt, jobTablesAt, listsAt, nodesAt] = places;
  return {
    words,
    places: {
      wholeTables: wholeAt,
      tokens: tokensAt,
      tasks: tasksAt,
      jobTokens: jobTokensAt,
      jobLengths: jobLengthsAt,
      jobTables: jobTablesAt,
      lists: listsAt,
      nodes: nodesAt,
    },
    tokens: tokens.length,
    tasks: tasks.length / TASK_WORDS,
    whole: wholeTables.some((table) => table >= 0),
    chunks,
    lists: lists.length / NODE_LIST_WORDS,
    firstRow,
    ...slots,
  };
}
