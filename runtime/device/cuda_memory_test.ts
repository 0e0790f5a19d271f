import { assertEquals, assertThrows } from "@std/assert";
import { openSynthetic } from "../../tests/conformance/open_synthetic.ts";
import { cudaBlocks } from "./cuda_memory.ts";
import { checkCudaPool, cudaBlockBytes } from "./cuda_pool.ts";
import { weightPlaces } from "./cuda_weights.ts";
import { layoutOf } from "./kv_layout.ts";

const GIB = 2 ** 30;

Deno.test("cudaBlocks() fills what others have left of nine tenths of the GPU, or of more where that is asked for", () => {
  const memory = { totalBytes: 80 * GIB, freeBytes: 60 * GIB, stepBytes: 1.625 * GIB, blockBytes: GIB / 4 };
  // 384 MiB are kept; a tenth of 80 GiB stays free.
  assertEquals(cudaBlocks(memory), 200);
  assertEquals(cudaBlocks({ ...memory, utilization: 1 }), 232);
  assertEquals(cudaBlocks({ ...memory, mostBlocks: 7 }), 7);
});

Deno.test("cudaBlocks() stays within the process's own share, with its weights, whatever is free", () => {
  const memory = { totalBytes: 80 * GIB, freeBytes: 79 * GIB, stepBytes: 0.625 * GIB, blockBytes: GIB / 4 };
  // A quarter is 20 GiB: 4 GiB of weights, 1 GiB of steps with what is kept for them, 15 GiB of blocks.
  assertEquals(cudaBlocks({ ...memory, weightBytes: 4 * GIB, utilization: 0.25 }), 60);
  // Four processes with a quarter of nine tenths each: the last one has its share although the others came first.
  const own = 80 * GIB * 0.225;
  for (let others = 0; others < 4; others++) {
    const freeBytes = 80 * GIB - others * own - 4 * GIB;
    assertEquals(cudaBlocks({ ...memory, freeBytes, weightBytes: 4 * GIB, utilization: 0.225 }), 52);
  }
});

Deno.test("cudaBlocks() refuses shares out of range and memory that holds no block, naming the sizes", () => {
  const memory = { totalBytes: 80 * GIB, freeBytes: 9 * GIB, stepBytes: GIB, blockBytes: GIB / 4 };
  for (const utilization of [0, -1, 1.5, NaN]) {
    assertThrows(() => cudaBlocks({ ...memory, utilization }), RangeError, "share of GPU memory");
  }
  assertThrows(() => cudaBlocks(memory), RangeError, "9216 MiB of 81920 MiB are free");
});

Deno.test("checkCudaPool() takes blocks of 64 tokens of bf16 or fp8 alone", () => {
  const layout = { layers: 2, heads: 4, kvHeads: 2, headDim: 80, blockTokens: 64, kvType: "bf16" } as const;
  checkCudaPool({ layout, blocks: 1 });
  assertThrows(() => checkCudaPool({ layout: { ...layout, blockTokens: 16 }, blocks: 1 }), RangeError, "64 tokens");
  assertThrows(
    () => checkCudaPool({ layout: { ...layout, kvType: "f16" }, blocks: 1 }),
    RangeError,
    "stores bf16 or fp8, got f16",
  );
  // 80 dimensions take 128.
  assertEquals(cudaBlockBytes(layout), 2 * 2 * 2 * 64 * 128 * 2);
  assertEquals(cudaBlockBytes({ ...layout, kvType: "fp8" }), 2 * 2 * 2 * 64 * 128);
});

Deno.test("weightPlaces() gives every weight of a model its own aligned bytes; a tied head is the embedding", () => {
  using model = openSynthetic({ biases: true });
  const { config } = model;
  for (const tied of [true, false]) {
    const places = weightPlaces(config, { tied, biases: true });
    const { hidden, heads, kvHeads, headDim, intermediate, vocab } = config;
    const rows = (heads + 2 * kvHeads) * headDim;
    const sizes = [
      [places.embedding, 2 * vocab * hidden],
      ...places.layers.flatMap((layer) => [
        [layer.attentionNorm, 4 * hidden],
        [layer.qkv.full ?? NaN, 2 * rows * hidden],
        [layer.qkvBias ?? NaN, 4 * rows],
        [layer.output.full ?? NaN, 2 * hidden * heads * headDim],
        [layer.mlpNorm, 4 * hidden],
        [layer.gateUp.full ?? NaN, 4 * intermediate * hidden],
        [layer.down.full ?? NaN, 2 * hidden * intermediate],
      ]),
      [places.outputNorm, 4 * hidden],
      ...(tied ? [] : [[places.head.full ?? NaN, 2 * vocab * hidden]]),
    ].sort(([a], [b]) => a - b);
    let end = 0;
    for (const [at, bytes] of sizes) {
      assertEquals([at % 1024, at >= end], [0, true]);
      end = at + bytes;
    }
    assertEquals(places.bytes >= end, true);
    assertEquals(places.head.full === places.embedding, tied);
  }
  assertEquals(layoutOf(config, { blockTokens: 64, kvType: "bf16" }).blockTokens, 64);
});
