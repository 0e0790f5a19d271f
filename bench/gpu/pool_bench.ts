/**
 * What it costs that a part of a sequence's KV lies with another member on the same GPU, or with the processors: time of a
 * token, of a layer's wait, and what the lender's own decoding loses.
 *
 *     deno run -A bench/gpu/pool_bench.ts [--model NAME ...] [--lender cuda|wasm|full ...] [--remote TOKENS] [--json FILE]
 *
 * The home decodes one sequence of which `--remote` tokens lie elsewhere; `none` is the same sequence all at home. A `full`
 * lender decodes a sequence of its own besides, and is timed with the home and without. Processes share a GPU by turns of the
 * driver, which is part of what is measured.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openPoolMember, type Pace, type PoolMember } from "./pool_member.ts";

/** Tokens at the home: two segments, and the window in which a segment fills before it moves out. */
const LOCAL_TOKENS = 768;
const DECODED = 64;
/** Tokens at the beginning that are not counted: segments still move. */
const WARM = 16;

/** A measured case. */
export interface PoolRow {
  /** Shape. */
  readonly model: string;
  /** Where the rest lies: nowhere else, a holder of this device, or an instance that decodes. */
  readonly lender: "none" | "cuda" | "wasm" | "full";
  /** Tokens elsewhere when decoding began. */
  readonly remoteTokens: number;
  /** Tokens in all. */
  readonly tokens: number;
  /** Time of a token at the home, median, ms. */
  readonly tokenMs: number;
  /** Time of a layer in which the home only waits, mean, us. */
  readonly layerWaitUs?: number;
  /** Time from a question to its answer, mean, us. */
  readonly roundTripUs?: number;
  /** Time of a token at the lender, median, ms: alone, and beside this home. */
  readonly lenderMs?: { readonly alone: number; readonly beside: number };
}

/** The middle value. */
function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

function gapsOf(times: readonly number[]): number[] {
  return times.slice(WARM + 1).map((ms, i) => ms - times[WARM + i]);
}

/** A lender as a process. */
class Lender implements AsyncDisposable {
  readonly gaps: number[] = [];
  readonly #child: Deno.ChildProcess;
  readonly #read: Promise<void>;

  constructor(args: readonly string[]) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-check", "--cached-only", "-A", ...args],
      cwd: fileURLToPath(new URL("../..", import.meta.url)),
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#read = this.#lines();
  }

  async #lines(): Promise<void> {
    let rest = "";
    for await (const part of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + part).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (!line.startsWith('{"gaps"')) continue;
        const { gaps }: Pace = JSON.parse(line);
        this.gaps.push(...gaps);
      }
    }
  }

  /** Median of what it decodes from now until `work` is done. */
  async during(work: () => Promise<unknown>): Promise<number> {
    this.gaps.length = 0;
    await work();
    // A line a tenth of a second.
    if (this.gaps.length === 0) await until(() => this.gaps.length > 0, 3000).catch(() => {});
    return median(this.gaps);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.status;
    await this.#read;
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function until(done: () => boolean | Promise<boolean>, ms: number): Promise<void> {
  const endMs = performance.now() + ms;
  while (!await done()) {
    if (performance.now() > endMs) throw new Error(`Cannot measure: it took longer than ${ms} ms`);
    await pause(50);
  }
}

function lenderArgs(model: string, kind: "cuda" | "wasm" | "full", home: PoolMember, tokens: number): string[] {
  if (kind === "full") {
    return ["bench/gpu/pool_member.ts", "--model", model, "--kv-tokens", String(tokens + 1024), "--join", home.url];
  }
  const bytes = Math.ceil(tokens * home.device.blockBytes / home.device.layout.blockTokens / 2 ** 20);
  const holder = ["cli.ts", "serve", "--role", "holder", "--device", kind, "--kv-memory", `${bytes}MiB`, "--port", "0"];
  return [...holder, "--gentle-fill", "0", "--join", home.url, "--threads", "4"];
}

/** Measures one case. */
async function measure(model: string, lender: PoolRow["lender"], remote: number): Promise<PoolRow> {
  const prompt = LOCAL_TOKENS - 256 + remote;
  const kvTokens = lender === "none" ? prompt + 256 : LOCAL_TOKENS;
  using home = await openPoolMember({ model, kvTokens, join: [] });
  // Compiles, captures and chooses.
  await home.decode({ prompt: 128, tokens: 4 });
  if (lender === "none") {
    const tokenMs = median(gapsOf(await home.decode({ prompt, tokens: DECODED })));
    return { model, lender, remoteTokens: 0, tokens: prompt, tokenMs };
  }
  await using process = new Lender(lenderArgs(model, lender, home, remote + 1024));
  const reach = () => home.open.member.engine?.reachableModelLen ?? 0;
  await until(() => reach() >= prompt + DECODED + 256, 30_000);
  if (lender === "full") await until(() => process.gaps.length > 0, 30_000);
  const { counters } = home.open.member;
  let before = counters.values;
  let remoteTokens = 0;
  let times: number[] = [];
  let count = 0;
  const beside = await process.during(async () => {
    times = await home.decode({
      prompt,
      tokens: DECODED,
      onToken() {
        if (++count !== WARM) return;
        process.gaps.length = 0;
        before = counters.values;
        remoteTokens = (home.open.member.engine?.memory.borrowedBlocks ?? 0) * home.device.layout.blockTokens;
      },
    });
  });
  const after = counters.values;
  const alone = lender === "full" ? await process.during(() => pause(1000)) : NaN;
  const since = (name: string) => (after[name] ?? 0) - (before[name] ?? 0);
  return {
    model,
    lender,
    remoteTokens,
    tokens: prompt,
    tokenMs: median(gapsOf(times)),
    layerWaitUs: since("remote_layer_wait_seconds") / since("remote_layer_waits") * 1e6,
    roundTripUs: since("remote_attention_seconds") / since("remote_layers") * 1e6,
    ...lender === "full" ? { lenderMs: { alone, beside } } : {},
  };
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      "model": { type: "string", multiple: true, default: ["smollm2-135m", "llama2-7b"] },
      "lender": { type: "string", multiple: true, default: ["cuda", "wasm", "full"] },
      "remote": { type: "string", default: "1024" },
      "json": { type: "string" },
    },
  });
  const rows: PoolRow[] = [];
  for (const model of values.model) {
    for (const lender of ["none", "cuda", "wasm", "full"] as const) {
      if (lender !== "none" && !values.lender.includes(lender)) continue;
      try {
        const row = await measure(model, lender, Number(values.remote));
        rows.push(row);
        console.log(JSON.stringify(row));
      } catch (error) {
        console.log(`${model}, ${lender}: ${error instanceof Error ? error.message : error}`);
      }
    }
  }
  if (values.json !== undefined) await Deno.writeTextFile(values.json, JSON.stringify({ rows }));
  Deno.exit(0);
}
