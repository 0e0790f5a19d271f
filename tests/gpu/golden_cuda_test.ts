/**
 * SmolLM2 on the GPU against the reference outputs and the WASM device.
 *
 * The model's file is named by `INFINITE_LLM_MODEL`, or else the default model of the cache or the hub.
 *
 * @module
 */
import { assert, assertAlmostEquals, assertEquals, assertLess, assertLessOrEqual } from "@std/assert";
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { CudaDevice } from "../../runtime/device/cuda_device.ts";
import { openModel } from "../../runtime/model/open_model.ts";
import { readGreedy, readLogits, readPerplexity } from "../golden/golden_files.ts";
import { DeviceSequence, scoreText } from "../golden/scoring.ts";
import { realModelPath } from "../real_model.ts";
import { serveAndStream } from "./serve_and_stream.ts";
import { countCommon } from "./streamed_text.ts";

/**
 * Bounds with bf16 weights, activations and KV; none is above what 8-bit activations are at over the same texts, 0.113
 * (root mean square) and 1.03 (largest). Roundings of 2^-9 in each of 30 layers add up to some hundredths in the mean
 * (0.027 was measured on an H100) and, for an unlikely token, to twenty times that (0.58; 0.40 in the deterministic mode).
 */
const TOP_LOGPROB = 1;
const LOG_SUM_EXP = 0.5;
const TEXT_RMS = 0.057;
const TEXT_MEAN = 0.01;
/** Margin of two logits below which rounding may choose the other token. */
const TIE = 0.5;

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

function open(deterministic: boolean): CudaDevice {
  using model = openModel(path);
  return CudaDevice.open(model, { blocks: 160, maxLogitRows: 256, deterministic });
}

for (const deterministic of [false, true]) {
  const mode = deterministic ? "deterministic CudaDevice" : "CudaDevice";

  test(`${mode} gives the reference's log-probabilities within the bound of bf16`, () => {
    using device = open(deterministic);
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
            assertAlmostEquals(output.logSumExp(row), lse, LOG_SUM_EXP, `${name}: log-sum-exp at ${pos}`);
            for (const [id, logprob] of top) {
              const error = Math.abs(logits[id] - output.logSumExp(row) - logprob);
              worst = Math.max(worst, error);
              assertLessOrEqual(error, TOP_LOGPROB, `${name}: log-probability of ${id} at ${pos}`);
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
    using device = open(deterministic);
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
          assertLess(margin[step], TIE, `step ${step}: chose ${next}, wanted ${id}`);
        }
        // The reference's token is fed, so that every step is compared.
        sequence.feed([id], { onRow });
      }
    }
    console.log(
      `${mode}: ${others} of ${steps} tokens chosen otherwise, widest margin among them ${widest.toFixed(4)}`,
    );
  });

  test(`${mode} scores texts closer to the reference than 8-bit activations do`, () => {
    using device = open(deterministic);
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
      assertLess(Math.abs(mean - mean_nll), TEXT_MEAN, `${name}: mean negative log-probability`);
    }
    const rms = Math.sqrt(squares / count);
    console.log(`${mode}: error of a token's log-probability ${rms.toFixed(4)} (rms), ${worst.toFixed(4)} (largest)`);
    assertLessOrEqual(rms, TEXT_RMS);
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
  const common = prompts.map((_, i) => countCommon(got.streams[i], wanted.streams[i], TIE));
  console.log(`SmolLM2, tokens in common before the first tie that parts them: ${common.join(", ")} of ${tokens}`);
  console.log(got.streams.map((stream) => stream.map(({ token }) => token).join("")).join("\n"));
  assert(common.every((count) => count > 0), `${common}`);
});
