/**
 * Rows `decode-quarter`, `batch-quarter` and `decode-moving`: decoding with a part of the context elsewhere, and while it
 * goes there.
 *
 * @module
 */
import { SEGMENT_TOKENS } from "../../runtime/device/device.ts";
import { kvTokenBytes } from "../../runtime/device/kv_size.ts";
import { ClusterProcesses } from "../../tests/cluster/cluster_processes.ts";
import { summarize } from "../statistics.ts";
import { type BenchContext, drawPrompt } from "./bench_context.ts";
import { holderMemory } from "./holder_memory.ts";
import { Home, MOST_TOKENS, type Stream } from "./home.ts";
import { quantile } from "./quantile.ts";
import type { Detail, Measured } from "./result.ts";

/** Tokens that a sequence generates before its first sample and between two of them. */
const LEAD = 8;
/** Tokens of a prompt below the stated context: what is generated before and between samples. */
const SLACK = 64;
const HOLDER = "holder";

/** A home and a holder process beside it. */
async function openPair(
  context: BenchContext,
  options: { readonly kvTokens: number; readonly holderTokens: number; readonly moveBytesPerSecond?: number },
) {
  const { model, modelPath } = context;
  await using opened = new AsyncDisposableStack();
  const home = opened.use(await Home.open({ ...options, model, name: "home" }));
  const processes = opened.use(new ClusterProcesses(modelPath));
  await processes.start({
    name: HOLDER,
    role: "holder",
    kvMemory: holderMemory(model, options.holderTokens),
    flags: ["--join", home.clusterUrl, "--gentle-fill", "0"],
  });
  await home.sees(2);
  return { home, stack: opened.move() };
}

function detail(what: string, unit: string, samples: readonly number[]): Detail {
  return { what, unit, figures: summarize(samples) };
}

/** Measures `decode-quarter`. */
export async function measureDecodeQuarter(context: BenchContext): Promise<Measured> {
  const { model, options: { context: tokens, steps, repeats, seed, warmMs }, log } = context;
  const quarter = tokens / 4 / SEGMENT_TOKENS;
  const prompt = drawPrompt(tokens - SLACK, seed);
  const kvTokens = tokens + MOST_TOKENS + SEGMENT_TOKENS;
  const { home, stack } = await openPair(context, { kvTokens, holderTokens: tokens / 4 });
  await using _opened = stack;
  using alone = await Home.open({ model, kvTokens });
  for (const instance of [alone, home]) {
    await instance.warm(warmMs);
    instance.cancel(await instance.start(prompt, { maxTokens: MOST_TOKENS }));
  }
  const rates: Record<"alone" | "local" | "quarter", number[]> = { alone: [], local: [], quarter: [] };
  const answerMs: number[] = [];
  const waitMs: number[] = [];
  for (let sample = 0; sample < repeats; sample++) {
    const there = await alone.start(prompt, { maxTokens: MOST_TOKENS });
    await alone.rate([there], LEAD);
    rates.alone.push(await alone.rate([there], steps));
    alone.cancel(there);
    const stream = await home.start(prompt, { maxTokens: MOST_TOKENS });
    await home.rate([stream], LEAD);
    rates.local.push(await home.rate([stream], steps));
    await home.place(stream, { segments: quarter, to: HOLDER, away: quarter });
    await home.rate([stream], LEAD);
    home.layers.answerMs.length = home.layers.waitMs.length = 0;
    rates.quarter.push(await home.rate([stream], steps));
    answerMs.push(...home.layers.answerMs);
    waitMs.push(...home.layers.waitMs);
    await home.place(stream, { segments: quarter, from: HOLDER, to: "home", away: 0 });
    home.cancel(stream);
    log(`  alone ${at(rates.alone)}, local ${at(rates.local)}, a quarter away ${at(rates.quarter)} tokens/s`);
  }
  return {
    figures: summarize(rates.quarter.map((rate, i) => rate / rates.alone[i])),
    how:
      `an instance and a holder process; the same sequence of ${tokens} tokens decodes ${steps} tokens with all KV at ` +
      `home and ${steps} with its first ${quarter} segments on the holder; all local is an instance in no cluster, in ` +
      `turns with it`,
    details: [
      detail("all local, in no cluster", "tokens/s", rates.alone),
      detail("all local, as a member", "tokens/s", rates.local),
      detail("a quarter on the holder", "tokens/s", rates.quarter),
      detail(
        "a quarter away, against all local as a member",
        "×",
        rates.quarter.map((rate, i) => rate / rates.local[i]),
      ),
      ...layerDetails(answerMs, waitMs),
    ],
  };
}

/** Measures `batch-quarter`. */
export async function measureBatchQuarter(context: BenchContext): Promise<Measured> {
  const { options: { context: tokens, steps, repeats, seed, warmMs, batch }, log } = context;
  const quarter = tokens / 4 / SEGMENT_TOKENS;
  const kvTokens = batch * (tokens + MOST_TOKENS + SEGMENT_TOKENS);
  const { home, stack } = await openPair(context, { kvTokens, holderTokens: batch * tokens / 4 });
  await using _opened = stack;
  await home.warm(warmMs);
  const streams: Stream[] = [];
  for (let i = 0; i < batch; i++) {
    // Whatever runs already decodes meanwhile; it stands still, so that all have about the same length.
    for (const { handle } of streams) home.held.add(handle);
    streams.push(await home.start(drawPrompt(tokens - SLACK, seed * 1000 + i), { maxTokens: MOST_TOKENS }));
    log(`  sequence ${i + 1} of ${batch} is there`);
  }
  home.held.clear();
  const rates: Record<"before" | "quarter", number[]> = { before: [], quarter: [] };
  const answerMs: number[] = [];
  const waitMs: number[] = [];
  for (let sample = 0; sample < repeats; sample++) {
    await home.rate(streams, LEAD);
    rates.before.push(await home.rate(streams, steps));
    for (const stream of streams) await home.order(stream, { segments: quarter, to: HOLDER });
    await home.until(() => streams.every((stream) => home.away(stream).length === quarter), "every quarter to be away");
    await home.rate(streams, LEAD);
    home.layers.answerMs.length = home.layers.waitMs.length = 0;
    rates.quarter.push(await home.rate(streams, steps));
    answerMs.push(...home.layers.answerMs);
    waitMs.push(...home.layers.waitMs);
    for (const stream of streams) await home.order(stream, { segments: quarter, from: HOLDER, to: "home" });
    await home.until(() => streams.every((stream) => home.away(stream).length === 0), "every quarter to be home");
    log(`  local ${at(rates.before)}, a quarter of each away ${at(rates.quarter)} tokens/s`);
  }
  await home.rate(streams, LEAD);
  // What a sequence has grown by counts on both sides.
  const after = [...rates.before.slice(1), await home.rate(streams, steps)];
  const local = rates.before.map((rate, i) => 2 / (1 / rate + 1 / after[i]));
  return {
    figures: summarize(rates.quarter.map((rate, i) => rate / local[i])),
    how:
      `an instance and a holder process; ${batch} sequences of ${tokens} tokens decode together, ${steps} steps with ` +
      `all KV at home, ${steps} with the first ${quarter} segments of each on the holder, ${steps} at home again`,
    details: [
      detail("all local, before and after", "tokens/s", local),
      detail("a quarter of each on the holder", "tokens/s", rates.quarter),
      ...layerDetails(answerMs, waitMs),
    ],
  };
}

/** Tokens of KV that move away while a step runs, in `decode-moving`. */
const MOVED_PER_STEP = 32;

/** Share of a move that is timed: at its end there are steps with nothing left to send. */
const MOVED_SHARE = 0.9;

/** Measures `decode-moving`. */
export async function measureDecodeMoving(context: BenchContext): Promise<Measured> {
  const { options: { context: tokens, repeats, seed, warmMs }, log } = context;
  const segments = tokens / SEGMENT_TOKENS - 2;
  const steps = segments * SEGMENT_TOKENS / MOVED_PER_STEP;
  const kvTokens = 2 * (tokens + MOST_TOKENS + SEGMENT_TOKENS);
  const stepsPerSecond = await localRate(context);
  const tokenBytes = kvTokenBytes(context.model.config, "f16");
  const { home, stack } = await openPair(context, {
    kvTokens,
    holderTokens: tokens,
    moveBytesPerSecond: MOVED_PER_STEP * stepsPerSecond * tokenBytes,
  });
  await using _opened = stack;
  await home.warm(warmMs);
  const moved = await home.start(drawPrompt(tokens - SLACK, seed), { maxTokens: MOST_TOKENS });
  home.held.add(moved.handle);
  const stream = await home.start(drawPrompt(tokens - SLACK, seed + 1), { maxTokens: MOST_TOKENS });
  const rates: Record<"still" | "moving" | "moved", number[]> = { still: [], moving: [], moved: [] };
  for (let sample = 0; sample < repeats; sample++) {
    home.held.add(moved.handle);
    await home.rate([stream], LEAD);
    rates.still.push(await home.rate([stream], steps));
    const sent = () => home.member?.counters.values.bytes_out ?? 0;
    const begun = sent();
    const most = MOVED_SHARE * segments * SEGMENT_TOKENS * tokenBytes;
    await home.order(moved, { segments, to: HOLDER });
    const moving = await home.rateWhile(stream, () => sent() - begun < most);
    rates.moving.push(moving.perSecond);
    rates.moved.push((sent() - begun) / tokenBytes / moving.tokens);
    await home.until(() => home.away(moved).length === segments, "everything to be away");
    await home.order(moved, { segments, from: HOLDER, to: "home" });
    await home.until(() => home.away(moved).length === 0, "everything to be home");
    // Before the scheduler overrules what is held.
    home.held.delete(moved.handle);
    await home.rate([moved], 1);
    log(`  still ${at(rates.still)}, moving ${at(rates.moving)} tokens/s, ${at(rates.moved)} tokens of KV a step`);
  }
  return {
    figures: summarize(rates.moving.map((rate, i) => rate / rates.still[i])),
    how:
      `an instance and a holder process; one sequence of ${tokens} tokens decodes while ${segments} segments of another ` +
      `one, which stands still, move to the holder at the stated pace; nothing is attended to remotely, so that the ` +
      `difference is the move alone`,
    details: [
      detail("nothing moves", "tokens/s", rates.still),
      detail("KV moves away", "tokens/s", rates.moving),
      detail("tokens of KV sent per step", "tokens", rates.moved),
    ],
  };
}

/** Steps a second of one sequence of that length on an instance alone, roughly: the pace of a move follows from it. */
async function localRate({ model, options: { context: tokens, warmMs, seed } }: BenchContext): Promise<number> {
  using alone = await Home.open({ model, kvTokens: tokens + SEGMENT_TOKENS });
  await alone.warm(warmMs);
  const stream = await alone.start(drawPrompt(tokens - SLACK, seed), { maxTokens: SLACK });
  const rate = await alone.rate([stream], SLACK / 2);
  alone.cancel(stream);
  return rate;
}

function layerDetails(answerMs: readonly number[], waitMs: readonly number[]): Detail[] {
  return [
    detail("remote layer, from the queries to the last partial, median", "ms", [quantile(answerMs, 0.5)]),
    detail("the same, p99", "ms", [quantile(answerMs, 0.99)]),
    detail("remote layer, nothing left to do but wait, median", "ms", [quantile(waitMs, 0.5)]),
    detail("the same, p99", "ms", [quantile(waitMs, 0.99)]),
  ];
}

function at(samples: readonly number[]): string {
  return samples[samples.length - 1].toFixed(1);
}
