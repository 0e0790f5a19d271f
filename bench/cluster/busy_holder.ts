/**
 * Row `busy-holder`: how long remote attention waits for an instance that prefills prompts of its own without a pause, and
 * what answering costs that instance.
 *
 * @module
 */
import { SEGMENT_TOKENS } from "../../runtime/device/device.ts";
import { summarize } from "../statistics.ts";
import { type BenchContext, drawPrompt } from "./bench_context.ts";
import { Home, type HomeOptions, MOST_TOKENS, type Stream } from "./home.ts";
import { LoadedProcess } from "./loaded_process.ts";
import { quantile } from "./quantile.ts";
import type { Detail, Measured } from "./result.ts";

const BUSY = "busy";
/** Context that decodes; a quarter of it lies on the busy instance. */
const CONTEXT = 1024;
const QUICK_PROMPT = 512;
const PROMPT = 2048;
const SLICES = [10e6, 40e6, 160e6] as const;
/** The slice of members that are told nothing. */
const USUAL = 40e6;

/** What one setting gave. */
interface Setting {
  readonly answerMs: number[];
  readonly decodeRate: number[];
  readonly alone: number[];
  readonly serving: number[];
}

/** Measures the row. */
export async function measureBusyHolder(context: BenchContext): Promise<Measured> {
  const { model, options: { repeats, seed, warmMs, quick }, log } = context;
  using home = await Home.open({ model, name: "home", kvTokens: CONTEXT + MOST_TOKENS });
  await home.warm(warmMs);
  const settings = new Map<string, Setting>();
  const measure = async (name: string, options: Pick<HomeOptions, "sliceWork" | "turns">, samples: number) => {
    await using busy = await new LoadedProcess({
      ...options,
      modelPath: context.modelPath,
      name: BUSY,
      join: home.clusterUrl,
      kvTokens: 2 * PROMPT + CONTEXT,
      lendShare: 0.5,
      promptTokens: quick ? QUICK_PROMPT : PROMPT,
      warmMs,
      seed: seed + 1000,
    }).ready();
    await home.sees(2);
    const setting: Setting = { answerMs: [], decodeRate: [], alone: [], serving: [] };
    settings.set(name, setting);
    for (let sample = 0; sample < samples; sample++) {
      const stream = await home.start(drawPrompt(CONTEXT, seed), { maxTokens: MOST_TOKENS });
      await home.place(stream, {
        segments: CONTEXT / 4 / SEGMENT_TOKENS,
        to: BUSY,
        away: CONTEXT / 4 / SEGMENT_TOKENS,
      });
      await oneSample({ home, busy, stream, setting });
      log(
        `  ${name}: p99 ${quantile(setting.answerMs, 0.99).toFixed(2)} ms, prefill ${
          setting.alone[sample].toFixed(0)
        } ` +
          `alone, ${setting.serving[sample].toFixed(0)} tokens/s serving`,
      );
    }
  };
  await measure("usual slice", {}, repeats);
  for (const sliceWork of SLICES) {
    if (sliceWork !== USUAL) await measure(`slice of ${sliceWork / 1e6} M`, { sliceWork }, 1);
  }
  // Where this differs from the usual slice, it says what members' way of passing turns on is worth.
  await measure("turns with setImmediate", { turns: "immediate" }, 1);
  const usual = settings.get("usual slice");
  if (usual === undefined) throw new Error("Cannot judge a busy holder: nothing was measured");
  return {
    figures: summarize([quantile(usual.answerMs, 0.99)]),
    how:
      `an instance decodes with a quarter of ${CONTEXT} tokens on an instance in another process that prefills prompts ` +
      `of ${quick ? QUICK_PROMPT : PROMPT} tokens without a pause; from a layer's queries to the last partial, over ` +
      `${usual.answerMs.length} layers; prefill alone: the same prompts while nobody asks`,
    details: [...settings].flatMap(([name, setting]) => details(name, setting)),
  };
}

async function oneSample(
  parts: { readonly home: Home; readonly busy: LoadedProcess; readonly stream: Stream; readonly setting: Setting },
): Promise<void> {
  const { home, busy, stream, setting } = parts;
  await busy.load(true);
  // The first prompt of a load may have begun while the segments moved.
  await busy.prefill(1);
  const from = stream.tokenMs.length;
  const fromMs = performance.now();
  home.layers.answerMs.length = home.layers.waitMs.length = 0;
  setting.serving.push(await busy.prefill(1));
  if (stream.ended !== undefined) throw new Error(`Cannot measure: request ${stream.id} ended: ${stream.ended}`);
  setting.decodeRate.push((stream.tokenMs.length - from) / (performance.now() - fromMs) * 1000);
  for (const ms of home.layers.answerMs) setting.answerMs.push(ms);
  home.cancel(stream);
  await busy.prefill(1);
  setting.alone.push(await busy.prefill(1));
  await busy.load(false);
  await busy.prefill(1);
}

function details(name: string, { answerMs, decodeRate, alone, serving }: Setting): Detail[] {
  return [
    { what: `${name}: answer, median`, unit: "ms", figures: summarize([quantile(answerMs, 0.5)]) },
    { what: `${name}: answer, p99`, unit: "ms", figures: summarize([quantile(answerMs, 0.99)]) },
    { what: `${name}: who asks decodes`, unit: "tokens/s", figures: summarize(decodeRate) },
    { what: `${name}: who answers prefills, nobody asks`, unit: "tokens/s", figures: summarize(alone) },
    {
      what: `${name}: the same while it answers, share of that`,
      unit: "×",
      figures: summarize(serving.map((rate, i) => rate / alone[i])),
    },
  ];
}
