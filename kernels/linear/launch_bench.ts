/**
 * Times the linear kernel: time, GB/s and GMAC/s, each as a share of a ceiling measured in the same run.
 *
 * `deno run -A kernels/linear/launch_bench.ts [threads] [--json FILE]`. One token reads 90 MB of different matrices a
 * round, as a decode step does, and is held against the read stream; more tokens are held against the relaxed dot with
 * sums of 32 bits.
 *
 * @module
 */
import { type ActivationType, type DType, DTYPE_LAYOUT, tensorBytes } from "../dtype.ts";
import { openWasm, type WasmRuntime } from "../wasm/instance.ts";
import { chunkRows, type MatrixShape, WasmMatrix } from "./launch.ts";
import { ACTIVATION_CODE, type IntegerInput, SEEDS } from "./spec.ts";
import { randomInputs, randomWeights } from "./test_data.ts";

const STREAM_BYTES = 90e6;
const MAX_TOKENS = 512;
/** Products of one call of each multiply loop: see `peak_run`. */
const PEAKS = { dot: [0, 786432], shortDot: [1, 786432], madd: [2, 196608] } as const;

/** One measurement. */
export interface BenchRow {
  /** What was run. */
  readonly name: string;
  /** Milliseconds a round, the best of several. */
  readonly ms: number;
  /** GB/s of weights for one token, GMAC/s for more. */
  readonly rate: number;
  /** Unit of `rate` and of the ceiling. */
  readonly unit: "GB/s" | "GMAC/s";
  /** Rate as a share of the ceiling. */
  readonly share: number;
}

/** What this machine gives in this run. */
export interface Ceilings {
  /** Read stream, GB/s. */
  readonly read: number;
  /** Relaxed 8-bit dot with sums of 32 bits, GMAC/s. */
  readonly dot: number;
  /** The same with sums of 16 bits. */
  readonly shortDot: number;
  /** f32 multiply-add, GMAC/s. */
  readonly madd: number;
}

function best(rounds: number, run: () => void): number {
  let least = Infinity;
  for (let round = -3; round < rounds; round++) {
    const start = performance.now();
    run();
    if (round >= 0) least = Math.min(least, performance.now() - start);
  }
  return least;
}

function measureCeilings(wasm: WasmRuntime): Ceilings {
  const bytes = Math.floor(STREAM_BYTES / 65536) * 65536;
  const address = wasm.alloc(bytes);
  const read = bytes / best(20, () => wasm.exports.stream_read(wasm.team, address, bytes)) / 1e6;
  wasm.free(address, bytes);
  const peak = ([kind, products]: readonly [number, number]): number => {
    const calls = 50;
    const ms = best(20, () => wasm.exports.peak_run(wasm.team, kind, calls));
    return products * calls * wasm.threads / ms / 1e6;
  };
  return { read, dot: peak(PEAKS.dot), shortDot: peak(PEAKS.shortDot), madd: peak(PEAKS.madd) };
}

function matrices(wasm: WasmRuntime, shape: MatrixShape, bytes: number): WasmMatrix[] {
  const stored = tensorBytes(shape.dtype, shape.rows, shape.cols);
  const weights = randomWeights(shape.dtype, Math.min(stored, 64 * stored / shape.rows), SEEDS.bench);
  const rowBytes = stored / shape.rows;
  const slab = weights.length / rowBytes;
  return Array.from({ length: Math.max(1, Math.round(bytes / stored)) }, () => {
    const matrix = new WasmMatrix(wasm, shape);
    for (let row = 0; row < shape.rows; row += slab) {
      matrix.load(row, weights.subarray(0, Math.min(slab, shape.rows - row) * rowBytes));
    }
    return matrix;
  });
}

interface Case {
  readonly dtype: DType;
  readonly rows: number;
  readonly cols: number;
  readonly tokens: readonly number[];
  readonly activations?: ActivationType;
  readonly input?: IntegerInput;
}

const CASES: readonly Case[] = [
  { dtype: "Q4_1", rows: 1536, cols: 576, tokens: [1, 2, 4, 8, 16, 64, 512] },
  { dtype: "Q4_1", rows: 576, cols: 1536, tokens: [1, 8, 512] },
  { dtype: "Q4_1", rows: 1536, cols: 576, tokens: [1, 8, 512], input: "i8" },
  { dtype: "Q4_1", rows: 1536, cols: 576, tokens: [1, 8, 512], input: "i16" },
  { dtype: "Q4_1", rows: 1536, cols: 576, tokens: [1, 512], activations: "f32" },
  { dtype: "Q8_0", rows: 49152, cols: 576, tokens: [1, 8] },
  { dtype: "Q4_0", rows: 1536, cols: 576, tokens: [1, 512] },
  { dtype: "Q4_K", rows: 1536, cols: 768, tokens: [1, 512] },
  { dtype: "Q5_K", rows: 1536, cols: 768, tokens: [1, 512] },
  { dtype: "Q6_K", rows: 1536, cols: 768, tokens: [1, 512] },
  { dtype: "F16", rows: 1536, cols: 576, tokens: [1, 512] },
];

/** Runs every case on an open runtime. */
export function benchLinear(wasm: WasmRuntime): { readonly ceilings: Ceilings; readonly rows: BenchRow[] } {
  const ceilings = measureCeilings(wasm);
  const rows: BenchRow[] = [];
  const widest = Math.max(...CASES.map(({ cols }) => cols));
  const tallest = Math.max(...CASES.map(({ rows, tokens }) => rows * Math.max(...tokens)));
  const values = randomInputs(MAX_TOKENS * widest, SEEDS.bench, 0.006);
  const x = wasm.alloc(values.length * 4);
  wasm.f32(x, values.length).set(values);
  const out = wasm.allocUntouched(tallest * 4);
  const inputs = wasm.exports.inputs_new(MAX_TOKENS, widest);
  for (const { tokens, activations = "i8", ...shape } of CASES) {
    const all = matrices(wasm, shape, STREAM_BYTES);
    for (const t of tokens) {
      const chunk = chunkRows(wasm.threads, { tokens: t, rows: shape.rows });
      const used = t === 1 ? all : all.slice(0, 1);
      const repeats = t === 1 || t >= 64 ? 1 : Math.ceil(64 / t);
      const ms = best(t === 1 ? 20 : 10, () => {
        for (let repeat = 0; repeat < repeats; repeat++) {
          for (const { address } of used) {
            wasm.exports.linear_run(
              wasm.team,
              address,
              inputs,
              x,
              t,
              out,
              ACTIVATION_CODE[activations],
              chunk,
              0,
            );
          }
        }
      });
      const bytes = used.reduce((sum, matrix) => sum + matrix.bytes, 0);
      const rate = (t === 1 ? bytes : shape.rows * shape.cols * t * repeats) / ms / 1e6;
      const floats = activations === "f32" || DTYPE_LAYOUT[shape.dtype].elements === 1;
      const ceiling = t === 1 ? ceilings.read : floats ? ceilings.madd : ceilings.dot;
      rows.push({
        name: `${shape.dtype} ${shape.rows}x${shape.cols} ${floats ? "f32" : shape.input ?? "default"} t=${t}`,
        ms: ms / repeats,
        rate,
        unit: t === 1 ? "GB/s" : "GMAC/s",
        share: rate / ceiling,
      });
    }
    for (const matrix of all) matrix[Symbol.dispose]();
  }
  wasm.exports.inputs_free(inputs);
  wasm.free(out, tallest * 4);
  wasm.free(x, values.length * 4);
  return { ceilings, rows };
}

if (import.meta.main) {
  const threads = Number(Deno.args[0] ?? 2);
  using wasm = await openWasm({ threads, pin: true });
  const { ceilings, rows } = benchLinear(wasm);
  console.log(
    `${threads} threads: read ${ceilings.read.toFixed(1)} GB/s, relaxed dot ${ceilings.dot.toFixed(0)} (16-bit sums ` +
      `${ceilings.shortDot.toFixed(0)}), f32 multiply-add ${ceilings.madd.toFixed(0)} GMAC/s`,
  );
  for (const { name, ms, rate, unit, share } of rows) {
    console.log(
      `${name.padEnd(36)} ${ms.toFixed(3).padStart(9)} ms ${rate.toFixed(1).padStart(7)} ${unit.padEnd(6)} ${
        share.toFixed(2)
      }`,
    );
  }
  const json = Deno.args.indexOf("--json");
  if (json >= 0) {
    const record = { threads, pinned: wasm.pinned, seed: SEEDS.bench, ceilings, rows };
    await Deno.writeTextFile(Deno.args[json + 1], JSON.stringify(record, null, 2) + "\n");
  }
}
