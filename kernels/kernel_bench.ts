/**
 * Timing for kernel benches: every item and every ceiling in turn, round after round, the best time of each. Neighbours on
 * a shared machine then hit all of them alike.
 *
 * @module
 */
import { openWasm, type WasmRuntime } from "./wasm/instance.ts";

/** Bytes of one read of the stream ceiling; also what flushes the caches before an item that starts cold. */
const STREAM_BYTES = 1 << 26;
/** Products of one call of the f32 multiply-add loop: see `peak_run`. */
const MADD_PRODUCTS = 196608;
const MADD_KIND = 2;
const MADD_CALLS = 8;
/** Each item runs this long before anything is timed, so that its code has reached the optimising tier. */
const WARMUP_MS = 400;

/** What is timed. */
export interface BenchItem {
  /** Names what runs, its sizes and whether memory starts cold. */
  readonly name: string;
  /** One run. */
  run(): void;
  /** Bytes a run reads from memory, when that is its limit. */
  readonly bytes?: number;
  /** Floating-point operations of a run, when they are its limit. */
  readonly flops?: number;
  /** Whether caches are flushed before every run. @default {false} */
  readonly cold?: boolean;
}

/** One measurement. */
export interface BenchRow {
  /** What ran. */
  readonly name: string;
  /** Best time of a run, microseconds. */
  readonly us: number;
  /** Memory read, GB/s. */
  readonly gbs?: number;
  /** `gbs` as a share of the read stream of the same run. */
  readonly shareOfRead?: number;
  /** Arithmetic, GFLOP/s. */
  readonly gflops?: number;
  /** `gflops` as a share of the multiply-add peak of the same run. */
  readonly shareOfMadd?: number;
}

/** Results of a bench. */
export interface BenchRecord {
  /** Kernel. */
  readonly kernel: string;
  /** Compute threads. */
  readonly threads: number;
  /** Seed of the inputs. */
  readonly seed: number;
  /** Read stream, GB/s. */
  readonly readGbs: number;
  /** f32 multiply-add peak, GFLOP/s. */
  readonly maddGflops: number;
  /** Measurements. */
  readonly rows: readonly BenchRow[];
}

/** Times `items` in turn for about `seconds`. */
export function measure(
  wasm: WasmRuntime,
  items: readonly BenchItem[],
  options: { kernel: string; seed: number; seconds: number },
): BenchRecord {
  const stream = wasm.alloc(STREAM_BYTES);
  const read: BenchItem = {
    name: "read stream",
    run: () => wasm.exports.stream_read(wasm.team, stream, STREAM_BYTES),
    bytes: STREAM_BYTES,
  };
  const madd: BenchItem = {
    name: "multiply-add peak",
    run: () => wasm.exports.peak_run(wasm.team, MADD_KIND, MADD_CALLS),
    flops: 2 * MADD_CALLS * MADD_PRODUCTS * wasm.threads,
  };
  const all = [read, madd, ...items];
  for (const item of all) {
    const end = performance.now() + WARMUP_MS;
    do item.run(); while (performance.now() < end);
  }
  const best = all.map(() => Infinity);
  const end = performance.now() + options.seconds * 1000;
  do {
    all.forEach((item, index) => {
      if (item.cold) read.run();
      const start = performance.now();
      item.run();
      best[index] = Math.min(best[index], performance.now() - start);
    });
  } while (performance.now() < end);
  wasm.free(stream, STREAM_BYTES);
  const readGbs = STREAM_BYTES / best[0] / 1e6;
  const maddGflops = 2 * MADD_CALLS * MADD_PRODUCTS * wasm.threads / best[1] / 1e6;
  const rows = items.map(({ name, bytes, flops }, index): BenchRow => {
    const ms = best[index + 2];
    const gbs = bytes === undefined ? {} : { gbs: bytes / ms / 1e6, shareOfRead: bytes / ms / 1e6 / readGbs };
    const gflops = flops === undefined ? {} : { gflops: flops / ms / 1e6, shareOfMadd: flops / ms / 1e6 / maddGflops };
    return { name, us: ms * 1000, ...gbs, ...gflops };
  });
  return { kernel: options.kernel, threads: wasm.threads, seed: options.seed, readGbs, maddGflops, rows };
}

function line({ name, us, gbs, shareOfRead, gflops, shareOfMadd }: BenchRow): string {
  const number = (value: number | undefined, digits: number, unit: string): string =>
    value === undefined ? "" : ` ${value.toFixed(digits).padStart(7)}${unit}`;
  return name.padEnd(52) + number(us, 1, " us") + number(gbs, 1, " GB/s") + number(shareOfRead, 2, " of read") +
    number(gflops, 1, " GFLOP/s") + number(shareOfMadd, 2, " of madd");
}

/**
 * Command line of a kernel bench, `[threads] [--json FILE]`: opens a runtime, times the items that `items` makes on it, prints
 * a table and writes the record.
 */
export async function benchMain(
  kernel: string,
  options: { seed: number; threads: number; items: (wasm: WasmRuntime, stack: DisposableStack) => BenchItem[] },
): Promise<void> {
  const [first] = Deno.args;
  using wasm = await openWasm({ threads: first?.match(/^\d+$/) ? Number(first) : options.threads, pin: true });
  using stack = new DisposableStack();
  const record = measure(wasm, options.items(wasm, stack), { kernel, seed: options.seed, seconds: 8 });
  console.log(
    `${kernel}, ${record.threads} thread(s): read stream ${record.readGbs.toFixed(1)} GB/s, f32 multiply-add ` +
      `${record.maddGflops.toFixed(1)} GFLOP/s`,
  );
  for (const row of record.rows) console.log(line(row));
  const json = Deno.args.indexOf("--json");
  if (json >= 0) await Deno.writeTextFile(Deno.args[json + 1], JSON.stringify(record, null, 2) + "\n");
}
