/**
 * SmolLM2 on the GPU against the reference outputs and the WASM device.
 *
 * The model's file is named by `INFINITE_LLM_MODEL`, or else the default model of the cache or the hub.
 *
 * @module
 */
import { assert, assertAlmostEquals, assertEquals, assertLess, assertLessOrEqual } from "@std/assert";
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { CudaDevice, type CudaDeviceOptions } from "../../runtime/device/cuda_device.ts";
import { openModel } from "../../runtime/model/open_model.ts";
import { readGreedy, readLogits, readPerplexity } from "../golden/golden_files.ts";
import { DeviceSequence, scoreText } from "../golden/scoring.ts";
import { realModelPath } from "../real_model.ts";
import { serveAndStream } from "./serve_and_stream.ts";
import { countCommon } from "./streamed_text.ts";

/** How far results may be from the reference's. */
interface Bounds {
  /** A log-probability of one of the best tokens. */
  readonly topLogprob: number;
  /** A log-sum-exp. */
  readonly logSumExp: number;
  /** The log-probability of a text's token, in the root mean square. */
  readonly textRms: number;
  /** The mean log-probability of a text. */
  readonly textMean: number;
  /** Margin of two logits below which rounding may choose the other token. */
  readonly tie: number;
}

/**
 * Bounds with bf16 weights, activations and KV; none is above what 8-bit activations are at over the same texts, 0.113
 * (root mean square) and 1.03 (largest). Roundings of 2^-9 in each of 30 layers add up to some hundredths in the mean
 * (0.027 was measured on an H100) and, for an unlikely token, to twenty times that (0.58; 0.40 in the deterministic mode).
 */
const BF16: Bounds = { topLogprob: 1, logSumExp: 0.5, textRms: 0.057, textMean: 0.01, tie: 0.5 };
/**
 * Keys and values of 8 bits have 3 bits of fraction: with these alone rounded, and f32 otherwise, the log-probabilities of a
 * text are 0.12 away (docs/adr/0009-fp8-kv.md).
 */
const FP8: Bounds = { topLogprob: 3.5, logSumExp: 3.5, textRms: 0.2, textMean: 0.05, tie: 1.5 };

interface Mode {
  readonly mode: string;
  readonly options: Pick<CudaDeviceOptions, "deterministic" | "kvType" | "weights">;
  readonly bounds: Bounds;
}

const MODES: readonly Mode[] = [
  { mode: "CudaDevice", options: {}, bounds: BF16 },
  { mode: "deterministic CudaDevice", options: { deterministic: true }, bounds: BF16 },
  { mode: "CudaDevice with packed weights", options: { weights: "packed" }, bounds: BF16 },
  { mode: "CudaDevice with packed weights and copies", options: { weights: "both" }, bounds: BF16 },
  { mode: "CudaDevice with fp8 KV", options: { kvType: "fp8" }, bounds: FP8 },
  { mode: "deterministic CudaDevice with fp8 KV", options: { deterministic: true, kvType: "fp8" }, bounds: FP8 },
];

interface FoundModel {
  readonly path?: string;
  readonly missing?: string;
}

async function findModel(): Promise<FoundModel> {
  const missing = TestGpu.missing();
  if (missing !== undefined) return { missing };
  try {
    return { path: Deno.env.get("INFINITE_LLM_MODEL") ?? await realModelPath() };
  } catch (error) {
    return { missing: `no model: ${error instanceof Error ? error.message : error}` };
  }
}

const { path = "", missing } = await findModel();

function test(name: string, fn: () => void | Promise<void>): void {
  Deno.test({
    name: missing === undefined ? name : `${name} (ignored: ${missing})`,
    ignore: missing !== undefined,
    fn,
  });
}

function open(options: Mode["options"]): CudaDevice {
  using model = openModel(path);
  return CudaDevice.open(model, { blocks: 160, maxLogitRows: 256, ...options });
}

for (const { mode, options, bounds } of MODES) {
  test(`${mode} gives the reference's log-probabilities within the bound of its type`, () => {
    using device = open(options);
    let worst = 0;
    let worstSum = 0;
    for (const { name, ids, positions } of readLogits().cases) {
      const sequence = new DeviceSequence(device);
      let fed = 0;
      for (const { pos, lse, top } of positions) {
        sequence.feed(ids.slice(fed, pos + 1), {
          onRow(position, output, row) {
            assertEquals(position, pos);
            const logits = output.logits(row);
            worstSum = Math.max(worstSum, Math.abs(output.logSumExp(row) - lse));
            assertAlmostEquals(output.logSumExp(row), lse, bounds.logSumExp, `${name}: log-sum-exp at ${pos}`);
            for (const [id, logprob] of top) {
              const error = Math.abs(logits[id] - output.logSumExp(row) - logprob);
              worst = Math.max(worst, error);
              assertLessOrEqual(error, bounds.topLogprob, `${name}: log-probability of ${id} at ${pos}`);
            }
          },
        });
        fed = pos + 1;
      }
    }
    assert(worst > 0);
    console.log(
      `${mode}: largest error of a log-probability ${worst.toFixed(4)}, of a log-sum-exp ${worstSum.toFixed(4)}`,
    );
  });

  test(`${mode} chooses the reference's tokens where the two best are not almost equal`, () => {
    using device = open(options);
    let others = 0;
    let widest = 0;
    let steps = 0;
    for (const { prompt_ids, ids, margin } of readGreedy()) {
      const sequence = new DeviceSequence(device);
      let next = -1;
      const onRow = (_position: number, output: { top(row: number): { ids: Int32Array } }, row: number) => {
        next = output.top(row).ids[0];
      };
      sequence.feed(prompt_ids, { onRow });
      for (const [step, id] of ids.entries()) {
        steps++;
        if (next !== id) {
          others++;
          widest = Math.max(widest, margin[step]);
          assertLess(margin[step], bounds.tie, `step ${step}: chose ${next}, wanted ${id}`);
        }
        // The reference's token is fed, so that every step is compared.
        sequence.feed([id], { onRow });
      }
    }
    console.log(
      `${mode}: ${others} of ${steps} tokens chosen otherwise, widest margin among them ${widest.toFixed(4)}`,
    );
  });

  test(`${mode} scores texts as closely to the reference as its type allows`, () => {
    using device = open(options);
    let squares = 0;
    let count = 0;
    let worst = 0;
    for (const { name, ids, token_logprob, mean_nll } of readPerplexity()) {
      const scores = scoreText(device, ids);
      assertEquals(scores.length, token_logprob.length);
      for (const [i, score] of scores.entries()) {
        squares += (score - token_logprob[i]) ** 2;
        worst = Math.max(worst, Math.abs(score - token_logprob[i]));
      }
      count += scores.length;
      const mean = -scores.reduce((sum, score) => sum + score, 0) / scores.length;
      assertLess(Math.abs(mean - mean_nll), bounds.textMean, `${name}: mean negative log-probability`);
    }
    const rms = Math.sqrt(squares / count);
    console.log(`${mode}: error of a token's log-probability ${rms.toFixed(4)} (rms), ${worst.toFixed(4)} (largest)`);
    assertLessOrEqual(rms, bounds.textRms);
  });
}

test("cli.ts serve --device cuda continues SmolLM2's texts as the WASM device does", async () => {
  const prompts = [
    "The capital city of Italy is",
    "Once upon a time, in a village by the sea, there lived",
    "To make bread you need flour, water, salt and",
  ];
  const tokens = 48;
  const flags = { wasm: ["--device", "wasm", "--activations", "f32"], cuda: ["--device", "cuda"] };
  const serve = (device: keyof typeof flags) =>
    serveAndStream([path, "--kv-tokens", "8192", ...flags[device]], { prompts, tokens });
  const wanted = await serve("wasm");
  const got = await serve("cuda");
  const common = prompts.map((_, i) => countCommon(got.streams[i], wanted.streams[i], BF16.tie));
  console.log(`SmolLM2, tokens in common before the first tie that parts them: ${common.join(", ")} of ${tokens}`);
  console.log(got.streams.map((stream) => stream.map(({ token }) => token).join("")).join("\n"));
  assert(common.every((count) => count > 0), `${common}`);
});
