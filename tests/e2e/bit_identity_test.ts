import { assert, assertEquals, assertGreater } from "@std/assert";
import { SchedulerHost } from "../../plugins/host.ts";
import { WasmDevice } from "../../runtime/device/wasm_device.ts";
import { Engine } from "../../runtime/engine/engine.ts";
import type { EngineRequest, EngineStats, RequestEvent } from "../../runtime/engine/request.ts";
import { Tokenizer } from "../../runtime/text/tokenizer.ts";
import { openSynthetic } from "../conformance/open_synthetic.ts";

/** Everything that may not change a sequence's logits. */
interface Setting {
  readonly threads: number;
  readonly blocks: number;
  readonly maxStepTokens: number;
}

/** Ids and log-probabilities of one request, and what the engine went through. */
interface Run {
  readonly ids: readonly number[];
  readonly logprobs: readonly number[];
  readonly cachedTokens: number;
  readonly stats: EngineStats;
}

const SPEC = {
  dtype: "Q4_1",
  embeddingDtype: "Q8_0",
  heads: 6,
  kvHeads: 2,
  intermediate: 160,
  contextLength: 1024,
} as const;
const IDLE: Setting = { threads: 1, blocks: 128, maxStepTokens: 512 };

function ids(count: number, seed: number): number[] {
  return Array.from({ length: count }, (_, i) => (i * i * 7 + seed * 31 + i) % 250);
}

const PROBE: EngineRequest = {
  id: "probe",
  prompt: ids(300, 1),
  maxTokens: 40,
  sampling: { temperature: 1, seed: 5, logprobs: 20, ignoreEos: true },
};

/** Runs the probe after `before` has ended and together with `beside`. */
async function run(
  setting: Setting,
  others: { before?: readonly EngineRequest[]; beside?: readonly EngineRequest[] } = {},
): Promise<Run> {
  using model = openSynthetic(SPEC);
  using device = await WasmDevice.open(model, setting);
  using policy = await SchedulerHost.load("builtin:fcfs", { now: () => 0, random: () => 0, log: () => {} });
  const engine = new Engine({
    device,
    policy,
    vocabulary: new Tokenizer(model.text).vocabulary,
    eos: [],
    maxModelLen: 1024,
    maxBatch: 8,
    modelName: "synthetic",
    modelDigest: model.digest,
  });
  const drain = () => {
    while (engine.step()) engine.checkIntegrity();
  };
  for (const request of others.before ?? []) engine.add(request, () => {});
  drain();
  const events: RequestEvent[] = [];
  for (const request of others.beside ?? []) engine.add(request, () => {});
  engine.add(PROBE, (event) => events.push(event));
  drain();
  const tokens = events.filter((event) => event.kind === "token");
  const end = events.find((event) => event.kind === "end");
  assert(end?.error === undefined);
  return {
    ids: tokens.flatMap((event) => event.ids),
    logprobs: tokens.flatMap((event) => event.logprobs ?? []).flatMap((
      l,
    ) => [l.logprob, ...l.top.map((t) => t.logprob)]),
    cachedTokens: end?.usage.cachedTokens ?? 0,
    stats: engine.stats(),
  };
}

function other(index: number, promptTokens: number): EngineRequest {
  return {
    id: `other ${index}`,
    prompt: ids(promptTokens, index),
    maxTokens: 60,
    sampling: { seed: index, ignoreEos: true },
  };
}

function assertSameRun(actual: Run, expected: Run): void {
  assertEquals(actual.ids, expected.ids);
  assertEquals(actual.logprobs, expected.logprobs);
}

Deno.test("Engine gives a sequence the same bits whatever happens around it", async (t) => {
  const alone = await run(IDLE);
  assertEquals(alone.ids.length, PROBE.maxTokens);
  assertEquals(alone.logprobs.length, 21 * PROBE.maxTokens);

  await t.step("with 2 threads", async () => {
    assertSameRun(await run({ ...IDLE, threads: 2 }), alone);
  });
  await t.step("in a batch", async () => {
    const beside = [other(1, 17), other(2, 333), other(3, 64), other(4, 5)];
    assertSameRun(await run({ ...IDLE, threads: 2 }, { beside }), alone);
  });
  await t.step("with its prompt cut into small chunks", async () => {
    assertSameRun(await run({ ...IDLE, maxStepTokens: 23 }), alone);
  });
  await t.step("with its prefix from the cache", async () => {
    const cached = await run(IDLE, { before: [{ ...PROBE, id: "first", prompt: [...ids(280, 1), 9, 9, 9] }] });
    assertEquals(cached.cachedTokens, 272);
    assertSameRun(cached, alone);
  });
  await t.step("preempted and computed again", async () => {
    const beside = [other(1, 120), other(2, 120), other(3, 120)];
    // The probe comes last, so it is the first to lose its blocks.
    const preempted = await run({ ...IDLE, threads: 2, blocks: 44 }, { beside });
    assertGreater(preempted.stats.preemptions, 0);
    assertSameRun(preempted, alone);
  });
});
