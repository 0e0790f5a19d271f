/**
 * An engine on a GPU gives the same tokens whether steps are begun ahead or not, while requests come, end and are cancelled.
 *
 * @module
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { CudaDevice } from "../../runtime/device/cuda_device.ts";
import { Engine } from "../../runtime/engine/engine.ts";
import type { EngineRequest } from "../../runtime/engine/request.ts";
import type { TokenTable } from "../../runtime/text/codec.ts";
import { TestPolicy } from "../../scheduler/test_policy.ts";
import { openSynthetic } from "../conformance/open_synthetic.ts";
import { SeededRandom } from "../synthetic/random.ts";

const VOCAB_IDS = 250;

/** A request, the step it comes before, and the step it is cancelled before. */
interface Arrival {
  readonly request: EngineRequest;
  readonly step: number;
  readonly cancelStep?: number;
}

/** Thirty requests; some share the beginning of their prompts, some are drawn, some end early, some are cancelled. */
function arrivals(): Arrival[] {
  const random = new SeededRandom(12, "arrivals");
  const beginning = Array.from({ length: 150 }, () => random.integer(VOCAB_IDS));
  return Array.from({ length: 30 }, (_, index) => {
    const own = Array.from({ length: 1 + random.integer(200) }, () => random.integer(VOCAB_IDS));
    const temperature = index % 3 === 2 ? 0.8 : 0;
    const step = random.integer(60);
    return {
      request: {
        id: `${index}`,
        prompt: index % 4 === 1 ? [...beginning, ...own] : own,
        maxTokens: 1 + random.integer(90),
        sampling: { temperature, seed: index, ...(index % 5 === 4 && { stopTokenIds: [1, 2, 3, 4, 5, 6, 7, 8] }) },
      },
      step,
      ...(index % 7 === 3 && { cancelStep: step + 1 + random.integer(20) }),
    };
  });
}

/** A vocabulary of single letters. */
function letters(size: number): TokenTable {
  return {
    size,
    bytes: new Uint8Array(size).fill(0x61),
    offsets: Uint32Array.from({ length: size + 1 }, (_, i) => i),
    special: new Uint8Array(size),
  };
}

/** Tokens of every request that was not cancelled. */
function serve(device: CudaDevice, blocks: readonly number[]): number[][] {
  const engine = new Engine({
    device,
    policy: new TestPolicy(),
    vocabulary: letters(device.config.vocab),
    eos: [0],
    maxModelLen: 512,
    maxBatch: 24,
    mixedStepTokens: 96,
    modelName: "synthetic",
    modelDigest: "00",
  });
  const all = arrivals();
  const tokens = all.map((): number[] => []);
  for (let step = 0; step <= 60 || engine.busy; step++) {
    for (const [index, { request, step: at, cancelStep }] of all.entries()) {
      if (at === step) {
        engine.add(request, (event) => {
          if (event.kind === "token") tokens[index].push(...event.ids);
        });
      }
      if (cancelStep === step) engine.cancel(request.id);
    }
    engine.step();
    engine.checkIntegrity();
    // Others read and write blocks between steps.
    if (step % 9 === 0) { for (const block of blocks) device.writeBlock(block, device.readBlock(block)); }
  }
  assertEquals(engine.pool.counts.owned, 0);
  return tokens.filter((_, index) => all[index].cancelStep === undefined);
}

const missing = TestGpu.missing();

Deno.test({
  name: `Engine.step() gives the same tokens on a GPU whether steps are begun ahead or not${
    missing === undefined ? "" : ` (ignored: ${missing})`
  }`,
  ignore: missing !== undefined,
  fn: () => {
    using model = openSynthetic({ heads: 6, kvHeads: 2, contextLength: 512 });
    const served: number[] = [];
    // With few blocks, sequences are preempted.
    const results = [[true, 200], [false, 200], [true, 40]].map(([ahead, blocks]) => {
      using device = CudaDevice.open(model, {
        ahead: Boolean(ahead),
        deterministic: true,
        blocks: Number(blocks),
        maxStepTokens: 256,
        maxLogitRows: 64,
      });
      const tokens = serve(device, [0, 7, 21, 30]);
      served.push(device.stepsAhead);
      return tokens;
    });
    assert(results[0].some((tokens) => tokens.length > 20));
    assertEquals(results[0], results[1]);
    assertEquals(results[2], results[1]);
    assertGreater(served[0], 80);
    assertEquals(served[1], 0);
    assertGreater(served[2], 20);
  },
});
