/**
 * Products of few tokens, beside cuBLASLt, PyTorch and a read of as many bytes.
 *
 * @module
 */
import type { Part, PartContext, PartResult } from "./part.ts";
import { runProgram } from "./part.ts";
import type { Comparison, GpuRow } from "./row.ts";
import { measureTorch, type TorchFigures, type TorchJob } from "./torch_peer.ts";

const PROGRAM = "kernels/linear/linear_cuda_bench.ts";

/** A row as the program writes it. */
export interface ProductMeasurement {
  /** Product. */
  readonly name: string;
  /** Type of the weights. */
  readonly dtype: string;
  /** Tokens. */
  readonly tokens: number;
  /** Microseconds of a launch. */
  readonly us: number;
  /** Microseconds of a read of as many bytes. */
  readonly readUs: number;
  /** Microseconds of cuBLASLt, for bf16. */
  readonly blasUs?: number;
}

/** What the program writes. */
interface ProductRecord {
  readonly readTbs: number;
  readonly rows: readonly ProductMeasurement[];
}

/** Most tokens of which something is asked. */
const ASKED_TOKENS = 32;
/** Numbers of tokens that PyTorch is asked for. */
const TORCH_TOKENS: readonly number[] = [1, 16, 32, 64];

function isLarge({ name, dtype }: ProductMeasurement): boolean {
  return dtype === "BF16" && !name.startsWith("135M");
}

/** The same product as a job for PyTorch; undefined where it is not asked for. */
export function productJob(measured: ProductMeasurement): TorchJob | undefined {
  const match = / (\d+)x(\d+)$/.exec(measured.name);
  if (match === null || !isLarge(measured) || !TORCH_TOKENS.includes(measured.tokens)) return undefined;
  return `mm,${measured.tokens},${Number(match[1])},${Number(match[2])}`;
}

/** Rows of the table. */
export function productRows(measured: readonly ProductMeasurement[], torch: TorchFigures): GpuRow[] {
  return measured.map((product): GpuRow => {
    const { name, dtype, tokens, us, readUs, blasUs } = product;
    const asked = isLarge(product) && tokens <= ASKED_TOKENS;
    const comparisons: Comparison[] = [{
      basis: "a read of that size",
      ratio: readUs / us,
      ...asked ? { aim: 0.95 } : {},
    }];
    if (blasUs !== undefined) {
      comparisons.unshift({ basis: "cuBLASLt", ratio: blasUs / us, ...asked ? { atLeast: 1 } : {} });
    }
    const job = productJob(product);
    const torchUs = job === undefined ? undefined : torch.us.get(job);
    const peers: Readonly<Record<string, number>> = {
      ...blasUs === undefined ? {} : { cuBLASLt: blasUs },
      ...torchUs === undefined ? {} : { PyTorch: torchUs },
    };
    return {
      part: "products",
      title: `product ${name}, ${dtype}, ${tokens} tokens`,
      unit: "µs",
      value: us,
      peers,
      comparisons,
    };
  });
}

async function run({ peers, quick, log }: PartContext): Promise<PartResult> {
  const { readTbs, rows } = await runProgram<ProductRecord>(PROGRAM, { args: quick ? ["--quick"] : [], log });
  const jobs = rows.flatMap((row) => productJob(row) ?? []);
  const torch: TorchFigures = peers ? await measureTorch(jobs) : { version: undefined, us: new Map() };
  return {
    rows: productRows(rows, torch),
    ceilings: { "read beside products, bytes/s": readTbs * 1e12 },
    torch: torch.version,
    notes: torch.version === undefined ? ["PyTorch beside products: it did not run"] : [],
  };
}

/** Products of few tokens. */
export const PRODUCT_PART: Part = { id: "products", run };
