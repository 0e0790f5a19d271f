/**
 * Decode attention of one layer over the paged pool, beside the read ceiling, a read of the same size and cuDNN.
 *
 * @module
 */
import type { Part, PartContext, PartResult } from "./part.ts";
import { runProgram } from "./part.ts";
import type { Comparison, GpuRow } from "./row.ts";
import { measureTorch, type TorchFigures, type TorchJob } from "./torch_peer.ts";

const PROGRAM = "kernels/attend_partial/attend_decode_cuda_bench.ts";
/** Name of the figure that cuDNN gives. */
const CUDNN = "cuDNN";

/** A row as the program writes it. */
export interface DecodeMeasurement {
  /** `HEADS/KV_HEADS heads of HEAD_DIM, CONTEXT`. */
  readonly name: string;
  /** Microseconds of a launch. */
  readonly us: number;
  /** KV bytes over time, TB/s. */
  readonly tbs: number;
  /** As a share of the read ceiling. */
  readonly share: number;
  /** Microseconds of a read of as many bytes. */
  readonly readUs: number;
}

/** What the program writes. */
interface DecodeRecord {
  readonly readTbs: number;
  readonly rows: readonly DecodeMeasurement[];
}

/** Contexts that are bandwidth's business. */
const LARGE: readonly string[] = ["1 x 128K", "1 x 1,000,000", "32 x 4K", "64 x 4K"];
/** Contexts that are latency's business, and what must be and what should be reached of the speed of a read of that size. */
const SMALL: Readonly<Record<string, { readonly atLeast: number; readonly aim: number }>> = {
  "1 x 1K": { atLeast: 2.6 / 9, aim: 2.6 / 5.5 },
  "1 x 8K": { atLeast: 9.5 / 16, aim: 9.5 / 12 },
  "1 x 32K": { atLeast: 33 / 41, aim: 33 / 35 },
};
/** The batch of one long and many short sequences, and the uniform one that it is held against. */
const MIXED = "1 x 128K + 31 x 4K";
const UNIFORM = "64 x 4K";
/** The shape that the latencies are asked of. */
const LATENCY_SHAPE = "32/8 heads of 128";
/** Ends the name of a shape whose pool is fp8. */
const FP8 = " in fp8";
/** Shapes that the bandwidth is asked of. */
const WIDE = /^(32\/32|32\/8|64\/8) heads of 128$/;

/** The same attention as a job for PyTorch; undefined for batches of unlike lengths, which cuDNN does not take. */
export function decodeJob(name: string): TorchJob | undefined {
  const match = /^(\d+)\/(\d+) heads of (\d+), (\d+) x ([\d,]+)(K?)$/.exec(name);
  if (match === null) return undefined;
  const [heads, kvHeads, headDim, batch] = match.slice(1, 5).map(Number);
  const tokens = Number(match[5].replaceAll(",", "")) * (match[6] === "K" ? 1024 : 1);
  return `${heads},${kvHeads},${headDim},${batch},${tokens}`;
}

/** Rows of the table from what was measured. */
export function decodeRows(measured: readonly DecodeMeasurement[], torch: TorchFigures): GpuRow[] {
  return measured.map(({ name, us, tbs, share, readUs }): GpuRow => {
    const [shape, context] = name.split(/, (.*)/);
    const job = decodeJob(name);
    const peerUs = job === undefined ? undefined : torch.us.get(job);
    const peers: Readonly<Record<string, number>> = peerUs === undefined ? {} : { [CUDNN]: peerUs };
    const cudnn: Comparison[] = job === undefined
      ? []
      : [{ basis: CUDNN, ratio: peerUs === undefined ? undefined : peerUs / us }];
    const comparisons: Comparison[] = [];
    if (LARGE.includes(context) && shape.endsWith(FP8)) {
      comparisons.push({ basis: "read ceiling", ratio: share });
      const bf16 = measured.find((other) => other.name === `${shape.slice(0, -FP8.length)}, ${context}`);
      comparisons.push({ basis: "the same in bf16", ratio: bf16 === undefined ? undefined : bf16.us / us });
    } else if (LARGE.includes(context) && WIDE.test(shape)) {
      comparisons.push({ basis: "read ceiling", ratio: share, atLeast: 0.9, aim: 0.97 });
      comparisons.push(...cudnn.map((comparison) => ({ ...comparison, aim: 1 })));
    } else if (context === MIXED) {
      const uniform = measured.find((other) => other.name === `${shape}, ${UNIFORM}`);
      const ratio = uniform === undefined ? undefined : tbs / uniform.tbs;
      comparisons.push({ basis: UNIFORM, ratio, ...WIDE.test(shape) ? { atLeast: 0.9, aim: 0.97 } : {} });
    } else {
      const goal = shape === LATENCY_SHAPE ? SMALL[context] : undefined;
      comparisons.push({ basis: "a read of that size", ratio: readUs / us, ...goal }, ...cudnn);
    }
    return { part: "decode", title: `decode attention, ${name}`, unit: "µs", value: us, peers, comparisons };
  });
}

async function run({ peers, log }: PartContext): Promise<PartResult> {
  const { readTbs, rows } = await runProgram<DecodeRecord>(PROGRAM, { log });
  const jobs = rows.flatMap(({ name }) => decodeJob(name) ?? []);
  const torch: TorchFigures = peers ? await measureTorch(jobs) : { version: undefined, us: new Map() };
  return {
    rows: decodeRows(rows, torch),
    ceilings: { "read, bytes/s": readTbs * 1e12 },
    torch: torch.version,
    notes: torch.version === undefined ? ["cuDNN beside decode attention: PyTorch did not run"] : [],
  };
}

/** Decode attention. */
export const DECODE_PART: Part = { id: "decode", run };
