import { assertEquals, assertLess, assertThrows } from "@std/assert";
import { SchedulerHost } from "../../plugins/host.ts";
import { WasmDevice } from "../../runtime/device/wasm_device.ts";
import { Engine } from "../../runtime/engine/engine.ts";
import type { RequestEvent } from "../../runtime/engine/request.ts";
import { openModel } from "../../runtime/model/open_model.ts";
import { Tokenizer } from "../../runtime/text/tokenizer.ts";
import { buildNeedleModel, hideNeedles, NEEDLE_KEYS } from "./needle_model.ts";

const LENGTH = 2048;

async function engineFor(contextLength: number): Promise<Disposable & { readonly engine: Engine }> {
  const path = await Deno.makeTempFile({ suffix: ".gguf" });
  await Deno.writeFile(path, buildNeedleModel({ contextLength }));
  using opened = new DisposableStack();
  opened.defer(() => Deno.removeSync(path));
  const model = opened.use(openModel(path));
  const device = opened.use(await WasmDevice.open(model, { threads: 1, blocks: Math.ceil(contextLength / 16) }));
  const policy = opened.use(
    await SchedulerHost.load("builtin:fcfs", { now: () => 0, random: () => 0, log: () => {} }),
  );
  const engine = new Engine({
    device,
    policy,
    vocabulary: new Tokenizer(model.text).vocabulary,
    eos: [],
    maxModelLen: contextLength,
    maxBatch: 2,
    modelName: "needle",
    modelDigest: model.digest,
  });
  const kept = opened.move();
  return { engine, [Symbol.dispose]: () => kept.dispose() };
}

Deno.test("buildNeedleModel() makes a model that finds every needle exactly, with certainty, at any depth of 2,048 tokens", async () => {
  using opened = await engineFor(LENGTH + NEEDLE_KEYS);
  const { engine } = opened;
  const even = Array.from({ length: NEEDLE_KEYS }, (_, i) => i / (NEEDLE_KEYS - 1));
  // At the borders of blocks and segments, and side by side.
  const borders = [
    0,
    1,
    15,
    16,
    17,
    127,
    128,
    254,
    255,
    256,
    257,
    511,
    512,
    513,
    767,
    768,
    1023,
    1024,
    1025,
    1535,
    1536,
  ];
  const ends = [...borders, LENGTH - 4, LENGTH - 3, LENGTH - 2].map((position) => position / (LENGTH - 2));
  for (const [seed, depths] of [even, ends].entries()) {
    const { prompt, answer, positions } = hideNeedles({ length: LENGTH, depths, seed });
    const events: RequestEvent[] = [];
    engine.add(
      { id: `${seed}`, prompt, maxTokens: NEEDLE_KEYS, sampling: { temperature: 0, logprobs: 1 } },
      (event) => events.push(event),
    );
    while (engine.step());
    const tokens = events.filter((event) => event.kind === "token");
    assertEquals(tokens.flatMap(({ ids }) => ids), answer, `needles at ${positions}`);
    assertEquals(tokens.flatMap(({ logprobs = [] }) => logprobs).map(({ logprob }) => logprob), answer.map(() => 0));
  }
});

Deno.test("buildNeedleModel() makes a model that is not certain of a needle that is not there", async () => {
  using opened = await engineFor(512);
  const { engine } = opened;
  const depths = Array.from({ length: NEEDLE_KEYS }, (_, i) => i / NEEDLE_KEYS);
  const { prompt, positions } = hideNeedles({ length: 400, depths, seed: 5 });
  const logprobs: number[] = [];
  const without = prompt.with(positions[0], prompt[1]);
  engine.add({ id: "1", prompt: without, maxTokens: 1, sampling: { temperature: 0, logprobs: 1 } }, (event) => {
    if (event.kind === "token") logprobs.push(...(event.logprobs ?? []).map(({ logprob }) => logprob));
  });
  while (engine.step());
  assertEquals(logprobs.length, 1);
  assertLess(logprobs[0], -1);
});

Deno.test("hideNeedles() refuses depths that fall on one token", () => {
  const depths = Array.from({ length: NEEDLE_KEYS }, () => 0.5);
  assertThrows(() => hideNeedles({ length: 100, depths, seed: 1 }), RangeError, "different depths");
});
