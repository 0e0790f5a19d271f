import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { buildSyntheticGguf } from "../synthetic/synthetic_gguf.ts";
import { serveAndStream } from "./serve_and_stream.ts";
import { countCommon } from "./streamed_text.ts";

/** Twice the error that bf16 may give a logit of such a model: 0.03 of the largest, some 15. */
const TIE = 0.9;
const PROMPTS = ["Rain fell on the harbour all night.", "1 2 3 4 5 6", "f(x) = "].map((text) => text.repeat(9));
const TOKENS = 48;

Deno.test({
  name: "cli.ts serve --device cuda streams the text that the WASM device does, and owns no block afterwards",
  ignore: TestGpu.missing() !== undefined,
  async fn() {
    const directory = await Deno.makeTempDir();
    try {
      const model = `${directory}/model.gguf`;
      const spec = { layers: 2, hidden: 256, heads: 4, kvHeads: 2, headDim: 64, intermediate: 384, tied: false };
      await Deno.writeFile(model, buildSyntheticGguf({ ...spec, contextLength: 2048 }));
      const serve = (device: string) =>
        serveAndStream([model, "--kv-tokens", "8192", "--device", device], { prompts: PROMPTS, tokens: TOKENS });
      const wanted = await serve("wasm");
      const got = await serve("cuda");
      assertStringIncludes(got.ready, "cuda:0");
      const common = PROMPTS.map((_, i) => countCommon(got.streams[i], wanted.streams[i], TIE));
      console.log(`tokens in common before the first tie that parts them: ${common.join(", ")} of ${TOKENS}`);
      assert(common.every((count) => count > 0), `${common}`);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
});

/** Tokens and bytes of the KV cache in the line in which a server says that it is ready. */
function capacity(ready: string): { readonly tokens: number; readonly size: string } {
  const [, tokens, size] = /KV cache of (\d+) tokens, (.+)$/.exec(ready.trim()) ?? [];
  return { tokens: Number(tokens), size };
}

Deno.test({
  name: "cli.ts serve --device cuda --kv-type fp8 holds twice the tokens of bf16 in the same memory and streams text",
  ignore: TestGpu.missing() !== undefined,
  async fn() {
    const directory = await Deno.makeTempDir();
    try {
      const model = `${directory}/model.gguf`;
      const spec = { layers: 2, hidden: 256, heads: 4, kvHeads: 2, headDim: 128, intermediate: 384 };
      await Deno.writeFile(model, buildSyntheticGguf({ ...spec, contextLength: 2048 }));
      const serve = (kvType: string) =>
        serveAndStream([model, "--kv-memory", "16MiB", "--device", "cuda", "--kv-type", kvType], {
          prompts: PROMPTS,
          tokens: 16,
        });
      const [bf16, fp8] = [await serve("bf16"), await serve("fp8")];
      assertStringIncludes(fp8.ready, "KV fp8");
      assertEquals(capacity(fp8.ready), { ...capacity(bf16.ready), tokens: 2 * capacity(bf16.ready).tokens });
      assertEquals(capacity(fp8.ready).tokens, 2 ** 24 / (2 * 2 * 2 * 128));
      assert(fp8.streams.every((stream) => stream.length === 16));
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
});
