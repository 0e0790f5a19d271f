/**
 * Sizes of `resident_step.cu`: how a model's layers are spread over the multiprocessors of a GPU.
 *
 * @module
 */

/** What the kernel has to know of a model, and how many tokens it takes. */
export interface ResidentShape {
  /** Width of the residual stream. */
  readonly hidden: number;
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads. */
  readonly kvHeads: number;
  /** Values of a head. */
  readonly headDim: number;
  /** Width between gate and down. */
  readonly intermediate: number;
  /** Transformer blocks. */
  readonly layers: number;
  /** Rows of the embedding. */
  readonly vocab: number;
  /** Values of a head that are rotated, in pairs. */
  readonly pairs: number;
  /** Which values form a pair: (2i, 2i + 1) or (i, i + pairs). */
  readonly pairing: "adjacent" | "halves";
  /** Tokens of a step, one a sequence. */
  readonly tokens: number;
}

/** What the kernel has to know of a GPU. */
export interface ResidentGpu {
  /** Multiprocessors; each has one block of threads. */
  readonly multiprocessors: number;
  /** Most bytes of shared memory of a block. */
  readonly sharedBytesPerBlock: number;
}

/** Most tokens of a step. */
export const MAX_RESIDENT_TOKENS = 8;

/** Columns that a warp takes at a time. */
const COLUMNS = 32;
/** Most query heads that share a KV head. */
const MAX_GROUP = 8;
/** Widest head: one tile of the pool. */
const MAX_HEAD_DIM = 64;
/** Most warps that compute, with one round of columns and with several: what registers allow. */
const MOST_WARPS = { one: 19, more: 15 } as const;
const LEAST_WARPS = 4;
/** Most parts that the pages of a sequence are split into. */
const MOST_SPLITS = 8;
/** Layers in shared memory beyond which nothing is gained. */
const MOST_SLOTS = 4;
/** Parts of a layer that are waited for. */
const PARTS = 4;
/** Rows of weights in a tile. */
const TILE = 8;
/** Words of a head's output of a warp. */
const HEAD_WORDS = 80;
/** Bytes of a row in a tile of the pool. */
const ROW_BYTES = 128;

/** Bytes of cosines and sines of a token. */
const TURNS_BYTES = 256;

/** The sizes of one kernel. */
export interface ResidentLayout {
  /** What it is for. */
  readonly shape: ResidentShape;
  /** Blocks of threads. */
  readonly ctas: number;
  /** Warps of a block that compute. */
  readonly warps: number;
  /** Parts that the pages of a sequence may be split into. */
  readonly splits: number;
  /** Layers whose weights are in shared memory at a time. */
  readonly slots: number;
  /** Bytes of shared memory of a block. */
  readonly sharedBytes: number;
  /** Bytes of the memory that blocks exchange values through. */
  readonly exchangeBytes: number;
}

/** The sizes of the kernel for a model on a GPU; undefined when it does not take the model. */
export function tryResidentLayout(shape: ResidentShape, gpu: ResidentGpu): ResidentLayout | undefined {
  const { hidden, heads, kvHeads, headDim, intermediate, layers, pairs, tokens } = shape;
  const width = heads * headDim;
  if ([hidden, width, intermediate].some((columns) => columns % COLUMNS !== 0)) return undefined;
  if (headDim > MAX_HEAD_DIM || headDim % TILE !== 0 || 2 * pairs > headDim) return undefined;
  if (heads % kvHeads !== 0 || heads / kvHeads > MAX_GROUP) return undefined;
  if (tokens < 1 || tokens > MAX_RESIDENT_TOKENS) return undefined;
  const ctas = gpu.multiprocessors;
  const splits = Math.min(MOST_SPLITS, Math.floor(ctas / (tokens * kvHeads)));
  if (splits < 1) return undefined;
  const warps = warpsOf(hidden / COLUMNS);
  const qkvRows = (heads + 2 * kvHeads) * headDim;
  const share = (rows: number) => Math.ceil(rows / ctas);
  const [qkvShare, outShare] = [share(qkvRows), share(hidden)];
  const gateShare = 2 * (2 * Math.ceil(share(intermediate) / 2));
  const slotBytes = 2 * 4 * hidden + (qkvShare + gateShare) * rowStride(hidden) + outShare * rowStride(width) +
    outShare * rowStride(intermediate);
  const tiles = Math.max(...[qkvShare, outShare, gateShare].map((rows) => Math.ceil(rows / TILE)));
  const sums = 8 * tokens * tiles + (tokens * tiles % 2 === 0 ? 8 : 0);
  const words = 2 * warps * sums + 2 * warps * 8 + warps * (heads / kvHeads) * HEAD_WORDS + 2 * warps * 8;
  const fixed = 4 * words + 10 * ROW_BYTES + TURNS_BYTES;
  const barriers = 16 * PARTS;
  const slots = Math.min(
    MOST_SLOTS,
    layers,
    Math.floor((gpu.sharedBytesPerBlock - fixed) / (slotBytes + barriers)),
  );
  if (slots < 1) return undefined;
  const lse = Math.ceil(splits * tokens * heads / 32) * 32;
  const layerWords = tokens * (qkvRows + splits * width + 2 * hidden + intermediate / 2) + lse;
  return {
    shape,
    ctas,
    warps,
    splits,
    slots,
    sharedBytes: slots * (slotBytes + barriers) + fixed,
    exchangeBytes: 2 * 4 * layers * layerWords,
  };
}

/** Warps that share so many times 32 columns most evenly. */
function warpsOf(blocks: number): number {
  if (blocks <= MOST_WARPS.one) return Math.max(blocks, LEAST_WARPS);
  return Math.ceil(blocks / Math.ceil(blocks / MOST_WARPS.more));
}

/** Bytes from a row of weights to the next in shared memory: neighbours lie in different halves of the banks. */
function rowStride(columns: number): number {
  return 2 * columns % 128 === 64 ? 2 * columns : 2 * columns + 64;
}
