import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { RunningCli } from "../cli/cli_process.ts";
import { buildSyntheticGguf } from "../synthetic/synthetic_gguf.ts";
import { countCommon, type StreamedToken, streamGreedy } from "./streamed_text.ts";

/** Twice the error that bf16 may give a logit of such a model: 0.03 of the largest, some 15. */
const TIE = 0.9;
const PROMPTS = ["Rain fell on the harbour all night.", "1 2 3 4 5 6", "f(x) = "].map((text) => text.repeat(9));
const TOKENS = 48;

const ignore = TestGpu.missing() !== undefined;

async function serveAndStream(model: string, device: string): Promise<{ streams: StreamedToken[][]; ready: string }> {
  await using cli = new RunningCli(["serve", model, "--port", "0", "--kv-tokens", "8192", "--device", device]);
  const [, url] = await cli.match(/^Listening on (http:\/\/127\.0\.0\.1:\d+)\n/);
  const [ready] = await cli.match(/\nReady in .*\n/);
  // Together, so that they share steps.
  const streams = await Promise.all(PROMPTS.map((prompt) => streamGreedy(url, { prompt, tokens: TOKENS })));
  const metrics = await (await fetch(`${url}/metrics`)).text();
  assertMatch(metrics, /kv_blocks\{[^}]*state="owned"\} 0\n/);
  cli.signal("SIGTERM");
  const { status, errors } = await cli.end();
  assertEquals(status, 0, errors);
  return { streams, ready };
}

Deno.test({
  name: "cli.ts serve --device cuda streams the text that the WASM device does, and owns no block afterwards",
  ignore,
  async fn() {
    const directory = await Deno.makeTempDir();
    try {
      const model = `${directory}/model.gguf`;
      const spec = { layers: 2, hidden: 256, heads: 4, kvHeads: 2, headDim: 64, intermediate: 384, tied: false };
      await Deno.writeFile(model, buildSyntheticGguf({ ...spec, contextLength: 2048 }));
      const wanted = await serveAndStream(model, "wasm");
      const got = await serveAndStream(model, "cuda");
      assertStringIncludes(got.ready, "cuda:0");
      const common = PROMPTS.map((_, i) => countCommon(got.streams[i], wanted.streams[i], TIE));
      console.log(`tokens in common before the first tie that parts them: ${common.join(", ")} of ${TOKENS}`);
      assert(common.every((count) => count > 0), `${common}`);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
});
