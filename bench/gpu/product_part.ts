/**
 * Products of few tokens, beside cuBLASLt and a read of as many bytes.
 *
 * @module
 */
import type { Part, PartContext, PartResult } from "./part.ts";
import { runProgram } from "./part.ts";
import type { Comparison, GpuRow } from "./row.ts";

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

/** Rows of the table. */
export function productRows(measured: readonly ProductMeasurement[]): GpuRow[] {
  return measured.map(({ name, dtype, tokens, us, readUs, blasUs }): GpuRow => {
    const asked = dtype === "BF16" && tokens <= ASKED_TOKENS && !name.startsWith("135M");
    const comparisons: Comparison[] = [{
      basis: "a read of that size",
      ratio: readUs / us,
      ...asked ? { aim: 0.95 } : {},
    }];
    if (blasUs !== undefined) {
      comparisons.unshift({ basis: "cuBLASLt", ratio: blasUs / us, ...asked ? { atLeast: 1 } : {} });
    }
    const peers: Readonly<Record<string, number>> = blasUs === undefined ? {} : { cuBLASLt: blasUs };
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

async function run({ quick, log }: PartContext): Promise<PartResult> {
  const { readTbs, rows } = await runProgram<ProductRecord>(PROGRAM, { args: quick ? ["--quick"] : [], log });
  return { rows: productRows(rows), ceilings: { "read beside products, bytes/s": readTbs * 1e12 } };
}

/** Products of few tokens. */
export const PRODUCT_PART: Part = { id: "products", run };
