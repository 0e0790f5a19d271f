/**
 * Work list of one launch of attend_prefill: which rows of which chunk make a tile, and in which order tiles are taken.
 * The kernels' heads describe the layout.
 *
 * @module
 */
import { POOL_BLOCK_TOKENS, type PoolKvType, PoolLayout } from "../kv_copy/pool_layout.ts";
import { SEGMENT_TOKENS } from "../merge_partials/spec.ts";

/** Consecutive query tokens of one sequence and the KV tokens they may see. */
export interface PrefillChunk {
  /** Row of the first query token in q. */
  readonly queryRow: number;
  /** Query tokens, at least one. */
  readonly tokens: number;
  /** Absolute position of the first query token. */
  readonly position: number;
  /** First KV token, a multiple of {@linkcode SEGMENT_TOKENS}. @default {0} */
  readonly kvBegin?: number;
  /** One past the last KV token. @default {position + tokens} */
  readonly kvEnd?: number;
  /** Index in the block table, in entries, of the sequence's first block. */
  readonly table: number;
  /** Where the result goes: finished rows to the bf16 output, partials (o, lse) to the f32 outputs; the row of the first token there. */
  readonly output: { readonly kind: "final" | "partial"; readonly row: number };
}

/** Sizes of attention that do not change between launches. */
export interface PrefillShape {
  /** Query heads, a multiple of `kvHeads`. */
  readonly heads: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Width of a head, a multiple of 8, at most 256. */
  readonly headDim: number;
  /** Elements of the pool. @default {"bf16"} */
  readonly kvType?: PoolKvType;
}

/** What a plan is made for. */
export interface PlanOptions {
  /** Sizes. */
  readonly shape: PrefillShape;
  /** Rows of a tile: 64 times the consumer warpgroups of the kernel. */
  readonly tileRows: number;
  /** Size of the second-level cache; keys and values that are used together had better fill at most half of it. */
  readonly l2Bytes: number;
  /** Tiles that run at a time. */
  readonly workers: number;
  /** Parts of tiles there is room for, each of all KV heads; with none, tiles stay whole. @default {0} */
  readonly slots?: number;
  /** KV tokens of a block, of which parts are made. @default {128} */
  readonly blockTokens?: number;
}

const HEADER_INTS = 4;
const TILE_INTS = 16;
/**
 * Blocks that make a part worth its cost, and what a whole tile and a part cost beside their blocks, in blocks of 128 tokens and
 * 128 dimensions.
 */
const LEAST_PART_BLOCKS = 6;
const TILE_COST = 3;
const PART_COST = 5;
/** Most parts of a tile that are tried. */
const MOST_PARTS = 32;
/** Time, as a share, that cutting must save. */
const LEAST_GAIN = 0.1;

/** Bytes of a head's keys and values of one page in the pool. */
export function pageHeadBytes({ headDim, kvType = "bf16" }: PrefillShape): number {
  return new PoolLayout({ layers: 1, kvHeads: 1, headDim, kvType }).blockBytes;
}

/**
 * Tolerances against the f64 reference on the same bf16 inputs. Weights are rounded to bf16 before they meet the values (half
 * an ulp, 2^-9, relatively, of every term of a weighted mean) and so is a finished output; scores are summed in f32 by the
 * tensor cores, which align the products of a step before they add and cut what falls off.
 */
export const PREFILL_TOLERANCE = {
  /** Absolute, per unit of max |v|: finished rows and partials. */
  final: 2 ** -8,
  partial: 2 ** -9 * 1.1,
  /** Absolute, per unit of 4 + max |s|. */
  lse: 4e-6,
} as const;

/** About how long it takes, in blocks: costs of items, longest first, each of them for all KV heads, on so many workers. */
function makespan(costs: readonly number[], { kvHeads, workers }: { kvHeads: number; workers: number }): number {
  const total = costs.reduce((sum, cost) => sum + cost, 0) * kvHeads;
  let longest = total / workers;
  // The worker with the longest of a turn had as long ones before.
  for (let turn = 0; turn * workers < costs.length * kvHeads; turn++) {
    longest = Math.max(longest, (turn + 1) * costs[Math.floor(turn * workers / kvHeads)]);
  }
  return longest;
}

/** In how many parts each tile is best cut; `blocks` are the tiles' KV blocks, most first. */
function partsOf(blocks: readonly number[], { shape, workers, slots = 0, blockTokens = 128 }: PlanOptions): number[] {
  const { kvHeads, headDim } = shape;
  // Smaller blocks take less time, and the rest as much as before.
  const scale = 128 / blockTokens * 128 / (64 * Math.ceil(headDim / 64));
  const [tileCost, partCost, leastBlocks] = [TILE_COST, PART_COST, LEAST_PART_BLOCKS].map((cost) => cost * scale);
  const whole = blocks.map(() => 1);
  if (blocks.length === 0 || blocks.length * kvHeads > 4 * workers) return whole;
  let best = {
    parts: whole,
    span: (1 - LEAST_GAIN) * makespan(blocks.map((n) => n + tileCost), { kvHeads, workers }),
  };
  for (let cuts = 2; cuts <= MOST_PARTS; cuts++) {
    const length = Math.ceil(blocks[0] / cuts);
    if (length < leastBlocks) break;
    const parts = blocks.map((n) => Math.ceil(n / length));
    if (parts.reduce((sum, n) => n === 1 ? sum : sum + n, 0) > slots) break;
    const costs = blocks.flatMap((n, i) =>
      Array<number>(parts[i]).fill(Math.ceil(n / parts[i]) + (parts[i] === 1 ? tileCost : partCost))
    );
    const span = makespan(costs.sort((a, b) => b - a), { kvHeads, workers });
    if (span < best.span) best = { parts, span };
  }
  return best.parts;
}

/**
 * The plan of a launch, to be copied to the device: header, then tiles. Tiles with the most KV tokens come first, so that
 * what is left for the end is short; few tiles with many are cut into parts.
 *
 * @throws {RangeError} when a chunk's numbers are no natural numbers, or `kvBegin` is not at a segment.
 */
export function planPrefill(chunks: readonly PrefillChunk[], options: PlanOptions): Int32Array<ArrayBuffer> {
  const { shape, tileRows, l2Bytes, workers, blockTokens = 128 } = options;
  const { heads, kvHeads } = shape;
  const group = heads / kvHeads;
  const tiles: { readonly chunk: number; readonly row: number; readonly cost: number }[] = [];
  const chunkFields: number[][] = [];
  let kvTokens = 0;
  for (const [index, chunk] of chunks.entries()) {
    const { queryRow, tokens, position, kvBegin = 0, kvEnd = position + tokens, table, output } = chunk;
    const fields = [queryRow, tokens, position, kvBegin, kvEnd, table, output.row, output.kind === "partial" ? 1 : 0];
    if (
      fields.some((value) => !Number.isInteger(value) || value < 0 || value >= 2 ** 31) || tokens === 0 ||
      kvEnd < kvBegin || kvBegin % SEGMENT_TOKENS !== 0 || tokens * group >= 2 ** 31
    ) {
      throw new RangeError(
        `Cannot plan prefill: wanted natural numbers, tokens >= 1 and kvBegin a multiple of ${SEGMENT_TOKENS} ` +
          `up to kvEnd, got chunk ${index} ${JSON.stringify(chunk)}`,
      );
    }
    chunkFields.push(fields);
    kvTokens += kvEnd - kvBegin;
    for (let row = 0; row < tokens * group; row += tileRows) {
      const last = Math.min(row + tileRows, tokens * group) - 1;
      const end = Math.min(kvEnd, position + Math.floor(last / group) + 1);
      tiles.push({ chunk: index, row, cost: Math.max(0, end - kvBegin) });
    }
  }
  tiles.sort((a, b) => b.cost - a.cost);
  const work = tiles.reduce((total, { cost }) => total + cost, 0);
  const headBytes = kvTokens / POOL_BLOCK_TOKENS * pageHeadBytes(shape);
  const sections = Array.from({ length: kvHeads }, (_, i) => i + 1).filter((heads) => kvHeads % heads === 0);
  // The last section begins with a longest tile, which must not outlast the others: that weighs more than the cache.
  const balanced = sections.findIndex((heads) => heads * work >= 2 * workers * (tiles[0]?.cost ?? 0));
  const cached = sections.findLastIndex((heads) => heads * headBytes <= l2Bytes / 2);
  const section = sections[balanced < 0 ? sections.length - 1 : Math.max(balanced, cached)];
  const blocks = tiles.map(({ cost }) => Math.max(1, Math.ceil(cost / blockTokens)));
  const parts = partsOf(blocks, options);
  let slot = 0;
  const items = tiles.flatMap(({ chunk, row }, tile) => {
    const first = slot;
    if (parts[tile] > 1) slot += parts[tile];
    return Array.from({ length: parts[tile] }, (_, part) => {
      const [begin, end] = [part, part + 1].map((cut) => Math.floor(cut * blocks[tile] / parts[tile]));
      return { chunk, begin, end, numbers: [row, begin, end, parts[tile], first + part, first] };
    });
  });
  // Longest first, parts too.
  items.sort((a, b) => (b.end - b.begin) - (a.end - a.begin));
  const plan = new Int32Array(HEADER_INTS + TILE_INTS * items.length);
  plan.set([items.length, section]);
  for (const [index, { chunk, numbers }] of items.entries()) {
    plan.set(chunkFields[chunk], HEADER_INTS + TILE_INTS * index);
    plan.set(numbers, HEADER_INTS + TILE_INTS * index + chunkFields[chunk].length);
  }
  return plan;
}

/** Items of a plan: its tiles times the KV heads. */
export function planItems(plan: Int32Array, shape: PrefillShape): number {
  return plan[0] * shape.kvHeads;
}

/**
 * Checks that the KV tokens of each chunk lie in one node of the merge tree that begins at `kvBegin`.
 *
 * @throws {RangeError} when they do not.
 */
export function checkNodes(chunks: readonly PrefillChunk[]): void {
  for (const { position, tokens, kvBegin = 0, kvEnd = position + tokens } of chunks) {
    const pages = Math.max(1, Math.ceil((kvEnd - kvBegin) / POOL_BLOCK_TOKENS));
    if (kvBegin / POOL_BLOCK_TOKENS % 2 ** Math.ceil(Math.log2(pages)) !== 0) {
      throw new RangeError(
        `Cannot plan prefill: wanted a part of a node of the merge tree that begins there, got [${kvBegin}, ${kvEnd})`,
      );
    }
  }
}
