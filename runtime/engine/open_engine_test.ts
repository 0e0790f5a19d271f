import { assertEquals, assertGreater, assertRejects } from "@std/assert";
import { buildSyntheticGguf } from "../../tests/synthetic/synthetic_gguf.ts";
import type { OpenEngineOptions } from "./engine_protocol.ts";
import type { EngineHandle, EngineRequest } from "./request.ts";
import { testVocabulary } from "./test_device.ts";
import { Transcript } from "./test_engine.ts";
import { openEngine } from "./worker_engine.ts";

const TEXT = { vocabulary: testVocabulary(), eos: [] };
const EXACT = { kvType: "f32", activations: "f32" } as const;

/** A tiny model in a file of its own. */
class ModelFile implements Disposable {
  readonly #directory = Deno.makeTempDirSync();
  readonly path = `${this.#directory}/tiny.gguf`;

  constructor() {
    Deno.writeFileSync(this.path, buildSyntheticGguf());
  }

  open(options: Partial<OpenEngineOptions>): Promise<EngineHandle> {
    return openEngine({ modelPath: this.path, maxBatch: 8, ...options }, { text: TEXT });
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.#directory, { recursive: true });
  }
}

async function run(engine: EngineHandle, request: EngineRequest): Promise<Transcript> {
  const transcript = new Transcript(request.n);
  for await (const event of engine.generate(request)) transcript.take(event);
  return transcript;
}

const requests: readonly EngineRequest[] = Array.from({ length: 8 }, (_, i) => ({
  id: `${i}`,
  prompt: Array.from({ length: 5 + 9 * i }, (_, j) => (i * 31 + j * 7) % 90),
  maxTokens: 30,
  sampling: i % 2 === 0 ? { temperature: 0, logprobs: 3 } : { seed: i, logprobs: 3 },
}));

Deno.test("openEngine() opens a model, whose facts the handle states", async () => {
  using model = new ModelFile();
  await using engine = await model.open({ kvTokens: 320, device: { kind: "wasm" }, scheduler: "builtin:priority" });
  const { digest, device: _device, weightBytes, kvBytes, ...facts } = engine.info;
  assertEquals(facts, {
    model: "tiny",
    maxModelLen: 320,
    vocab: engine.info.vocab,
    kvTokens: 320,
    scheduler: "priority",
  });
  assertEquals(digest.length, 64);
  assertGreater(weightBytes, 0);
  assertGreater(kvBytes, 0);
});

Deno.test("openEngine() gives each request the same tokens and log-probabilities alone and in a crowd", async () => {
  using model = new ModelFile();
  await using alone = await model.open({ kvTokens: 2048, device: { kind: "wasm", threads: 1, ...EXACT } });
  await using crowded = await model.open({
    kvTokens: 192,
    mixedStepTokens: 16,
    device: { kind: "wasm", threads: 2, ...EXACT },
  });
  const expected: Transcript[] = [];
  for (const request of requests) expected.push(await run(alone, request));
  const actual = await Promise.all(requests.map((request) => run(crowded, request)));
  for (const [i, { ids, logprobs }] of actual.entries()) {
    assertEquals(ids, expected[i].ids);
    assertEquals(logprobs, expected[i].logprobs);
  }
  const { preemptions, blocks } = await crowded.stats();
  assertGreater(preemptions, 0);
  assertEquals([blocks.owned, blocks.free + blocks.cached], [0, blocks.total]);
});

Deno.test("openEngine() runs the reference device", async () => {
  using model = new ModelFile();
  await using reference = await model.open({ kvTokens: 512, device: { kind: "reference", ...EXACT } });
  await using wasm = await model.open({ kvTokens: 512, device: { kind: "wasm", ...EXACT } });
  const request = { id: "a", prompt: [1, 2, 3, 4, 5], maxTokens: 8, sampling: { temperature: 0 } };
  assertEquals((await run(reference, request)).ids, (await run(wasm, request)).ids);
});

Deno.test("openEngine() says what it could not open", async (t) => {
  using model = new ModelFile();
  const cases: [name: string, options: Partial<OpenEngineOptions>, error: string, message: string][] = [
    ["a missing model", { modelPath: "/nowhere/at/all.gguf" }, "ModelFileError", "all.gguf"],
    ["an unknown policy", { scheduler: "builtin:none" }, "PluginError", "no such built-in policy"],
    ["options of a policy that takes none", { schedulerOptions: { a: 1 } }, "PluginError", "fcfs"],
    ["a batch beyond the device's step", { maxBatch: 9999 }, "RangeError", "got 9999"],
    ["two sizes of the pool", { kvBytes: 1e6, kvTokens: 100 }, "RangeError", "got both"],
    [
      "KV of a type that no GPU stores",
      { device: { kind: "cuda", kvType: "f16" } },
      "RangeError",
      "stores bf16 or fp8",
    ],
  ];
  for (const [name, options, className, message] of cases) {
    await t.step(name, async () => {
      const error = await assertRejects(() => model.open(options), Error, message);
      assertEquals(error.name, className);
    });
  }
});
