import { assert, assertEquals } from "@std/assert";
import { decodeRows } from "./decode_part.ts";
import { isHeadline } from "./headlines.ts";
import { prefillRows } from "./prefill_part.ts";
import { productRows } from "./product_part.ts";
import { servingRows } from "./serving_part.ts";
import { startRows } from "./start_part.ts";
import { stepRows } from "./step_part.ts";

const FIGURES = { us: 1, tbs: 1, share: 1, readUs: 1 };

Deno.test("isHeadline() knows rows of every part by the titles that the parts give them", () => {
  const torch = { version: undefined, us: new Map() };
  const titles = [
    ...decodeRows([{ name: "32/8 heads of 128, 1 x 8K", ...FIGURES }], torch),
    ...prefillRows([{ name: "32/8 x 128, 16384 tokens", variant: "hopper", tflops: 1, share: 1 }]),
    ...productRows([{ name: "8B gate up 28672x4096", dtype: "BF16", tokens: 1, us: 1, readUs: 1 }], torch),
    ...stepRows([{ model: "llama3-8b", what: "decode b1 at 1024", ms: 1, tokensPerSecond: 1, roofline: 1 }], 1),
    ...servingRows([{
      model: "llama3-8b",
      requests: 256,
      promptTokens: 1024,
      answerTokens: 256,
      stream: true,
      seconds: 1,
      tokensPerSecond: 1,
      firstMs: { median: 1, max: 1 },
      ownedBlocks: 0,
      openSeconds: 1,
    }]),
    ...startRows([{ model: "smollm2-135m", first: true, seconds: 1 }]),
  ].map(({ title }) => title);
  assertEquals(titles.filter((title) => !isHeadline(title)), []);
  assert(!isHeadline("product 8B gate up 28672x4096, BF16, 2 tokens"));
});
