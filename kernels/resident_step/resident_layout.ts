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

/** Numbers of tokens that there are kernels for. */
export const RESIDENT_TOKENS = [1, 2, 4, 8] as const;

/** Blocks of a cluster. */
const CLUSTER = 8;
/** Multiprocessors that clusters of eight may find no place on. */
const UNPLACED = 16;
/** Columns that a warp takes at a time. */
const COLUMNS = 32;
/** Most query heads that share a KV head. */
const MAX_GROUP = 8;
/** Widest head: one tile of the pool. */
const MAX_HEAD_DIM = 64;
/** Most clusters for gate, up and down. */
const MOST_PARTS = 8;
/** Warps that compute. */
const WARPS = 12;
/** Layers in shared memory beyond which nothing is gained. */
const MOST_SLOTS = 3;
/** Rows of weights in a tile. */
const TILE = 16;
/** Widths of heads are multiples of this. */
const HEAD_UNIT = 8;
/** Words of a head's output of a warp. */
const HEAD_WORDS = 80;
/** Bytes of queries, of the new key and value, and of cosines and sines. */
const QUERY_BYTES = 8 * 128 + 2 * 128 + 32 * 8;

/** The sizes of one kernel. */
export interface ResidentLayout {
  /** What it is for. */
  readonly shape: ResidentShape;
  /** Clusters that share gate, up and down. */
  readonly parts: number;
  /** Blocks of threads. */
  readonly ctas: number;
  /** Warps of a block that compute. */
  readonly warps: number;
  /** Layers whose weights are in shared memory at a time. */
  readonly slots: number;
  /** Bytes of shared memory of a block. */
  readonly sharedBytes: number;
  /** Bytes of the memory that clusters exchange values through. */
  readonly exchangeBytes: number;
}

/** The sizes of the kernel for a model on a GPU; undefined when it does not take the model. */
export function tryResidentLayout(shape: ResidentShape, gpu: ResidentGpu): ResidentLayout | undefined {
  const { hidden, heads, kvHeads, headDim, intermediate, pairs, tokens } = shape;
  const group = heads / kvHeads;
  if (!Number.isInteger(group) || group > MAX_GROUP) return undefined;
  if ([hidden, group * headDim, intermediate].some((columns) => columns % COLUMNS !== 0)) return undefined;
  if (headDim > MAX_HEAD_DIM || headDim % HEAD_UNIT !== 0 || 2 * pairs > headDim) return undefined;
  if (!RESIDENT_TOKENS.some((count) => count === tokens)) return undefined;
  const places = Math.floor((gpu.multiprocessors - UNPLACED) / CLUSTER) - kvHeads;
  for (let parts = Math.min(MOST_PARTS, places); parts >= 1; parts--) {
    if (intermediate / COLUMNS % parts === 0) return withParts(shape, { gpu, parts });
  }
  return undefined;
}

function withParts(
  shape: ResidentShape,
  { gpu, parts }: { readonly gpu: ResidentGpu; readonly parts: number },
): ResidentLayout | undefined {
  const { hidden, heads, kvHeads, headDim, intermediate, layers, tokens } = shape;
  const group = heads / kvHeads;
  const [groupWidth, partWidth] = [group * headDim, intermediate / parts];
  const qkvRows = (group + 2) * headDim;
  const [qkvShare, gateShare, rowShare] = [qkvRows / CLUSTER, partWidth / CLUSTER, hidden / CLUSTER];
  const slotBytes = 4 * hidden + Math.max(
    qkvShare * rowStride(hidden) + rowShare * rowStride(groupWidth),
    2 * gateShare * rowStride(hidden) + rowShare * rowStride(partWidth),
  );
  const sharers = (columns: number) => Math.min(columns / COLUMNS, WARPS);
  const sums = (rows: number) => TILE * tokens * Math.ceil(rows / TILE) + 8;
  const words = tokens * hidden + qkvRows + 8 * 4 * Math.ceil(group * 66 / 4) +
    sharers(hidden) * Math.max(sums(qkvShare), sums(2 * gateShare)) +
    Math.max(sharers(groupWidth), sharers(partWidth)) * sums(rowShare) + WARPS * (8 + group * HEAD_WORDS + 8 + 8);
  const fixed = 4 * words + 2 * tokens * (groupWidth + partWidth) + QUERY_BYTES + 8 * 4;
  const slots = Math.min(MOST_SLOTS, layers, Math.floor((gpu.sharedBytesPerBlock - fixed) / (slotBytes + 8 * 4)));
  if (slots < 1) return undefined;
  return {
    shape,
    parts,
    ctas: CLUSTER * (kvHeads + parts),
    warps: WARPS,
    slots,
    sharedBytes: slots * (slotBytes + 8 * 4) + fixed,
    exchangeBytes: 2 * 4 * layers * (kvHeads + parts) * tokens * hidden,
  };
}

/** Bytes from a row of weights to the next in shared memory: neighbours lie in different halves of the banks. */
function rowStride(columns: number): number {
  return 2 * columns % 128 === 64 ? 2 * columns : 2 * columns + 64;
}
