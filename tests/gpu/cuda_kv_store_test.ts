/**
 * Pools on a GPU against pools of the processors that hold the same bytes, as members of one cluster do.
 *
 * @module
 */
import { assert, assertEquals, assertLessOrEqual, assertThrows } from "@std/assert";
import { roundKv } from "../../kernels/attend_partial/reference.ts";
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { openCudaKvStore } from "../../runtime/device/cuda_kv_store.ts";
import { type KvLayout, type KvStore, type NodePartial, SEGMENT_TOKENS } from "../../runtime/device/device.ts";
import { openHolderStore } from "../../runtime/device/open_holder_store.ts";
import { kvTokenBytes } from "../../runtime/device/kv_size.ts";
import { SeededRandom } from "../synthetic/random.ts";

/** Queries are rounded to bf16 on the GPU: half an ulp is 2^-9, of scores of some 8. */
const WITHIN = 0.03;
/** Kernels of one GPU have the same inputs; the weights of one are rounded to bf16 for tensor cores. */
const WITHIN_GPU = 0.01;
const SEGMENTS = 7;

const LAYOUTS: readonly KvLayout[] = [
  { layers: 2, heads: 8, kvHeads: 2, headDim: 64, blockTokens: 16, kvType: "bf16" },
  { layers: 2, heads: 4, kvHeads: 4, headDim: 128, blockTokens: 16, kvType: "bf16" },
  { layers: 1, heads: 9, kvHeads: 3, headDim: 80, blockTokens: 32, kvType: "bf16" },
  { layers: 2, heads: 8, kvHeads: 2, headDim: 64, blockTokens: 16, kvType: "fp8" },
  { layers: 2, heads: 4, kvHeads: 4, headDim: 128, blockTokens: 16, kvType: "fp8" },
  { layers: 1, heads: 9, kvHeads: 3, headDim: 80, blockTokens: 32, kvType: "fp8" },
];

const ignore = TestGpu.missing() !== undefined;

/**
 * Bytes of normally distributed values, as the stored bytes of a block; padding of a head has none here: 80 and 64 are whole
 * units. An fp8 pool has values of its own type.
 */
function randomBlock(bytes: number, random: SeededRandom, { kvType }: KvLayout): Uint8Array {
  const values = Float32Array.from({ length: bytes / 2 }, () => roundKv(random.normal(), kvType));
  return new Uint8Array(Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16).buffer);
}

/** The bytes of a segment that begins with block `first`. */
function segmentBytes(store: KvStore, first: number): Uint8Array {
  const blocks = SEGMENT_TOKENS / store.layout.blockTokens;
  const bytes = new Uint8Array(blocks * store.blockBytes);
  for (let i = 0; i < blocks; i++) bytes.set(store.readBlock(first + i), i * store.blockBytes);
  return bytes;
}

function writeSegment(store: KvStore, first: number, bytes: Uint8Array): void {
  for (let i = 0; i * store.blockBytes < bytes.length; i++) {
    store.writeBlock(first + i, bytes.slice(i * store.blockBytes, (i + 1) * store.blockBytes));
  }
}

function blocksOf({ layout }: KvStore, from: number, to: number): number[] {
  const blocks = SEGMENT_TOKENS / layout.blockTokens;
  return Array.from({ length: (to - from) * blocks }, (_, i) => from * blocks + i);
}

function largestDifference(actual: readonly NodePartial[], wanted: readonly NodePartial[]): number {
  assertEquals(actual.map(({ node }) => node), wanted.map(({ node }) => node));
  let largest = 0;
  for (const [at, { o, lse }] of actual.entries()) {
    o.forEach((value, i) => largest = Math.max(largest, Math.abs(value - wanted[at].o[i])));
    lse.forEach((value, i) => largest = Math.max(largest, Math.abs(value - wanted[at].lse[i])));
  }
  assert(Number.isFinite(largest));
  return largest;
}

for (const layout of LAYOUTS) {
  const { heads, headDim, blockTokens, kvType } = layout;
  Deno.test({
    name:
      `openHolderStore() on a GPU holds segments of ${kvType} pools with blocks of ${blockTokens} tokens, heads of ${headDim}`,
    ignore,
    async fn() {
      const blocks = SEGMENTS * SEGMENT_TOKENS / blockTokens;
      // Processors hold the numbers of fp8 in bf16.
      const hostLayout = { ...layout, kvType: "bf16" } as const;
      using host = await openHolderStore({
        kind: "wasm",
        layout,
        kvBytes: kvTokenBytes(hostLayout, "bf16") * blocks * blockTokens,
      });
      using holder = await openHolderStore({ kind: "cuda", layout, kvBytes: 64 << 20 });
      using ordered = await openHolderStore({ kind: "cuda", layout, kvBytes: 64 << 20, deterministic: true });
      assertEquals([holder.layout.blockTokens, holder.storedTokens], [64, blockTokens]);
      assertEquals(holder.blockBytes, host.blockBytes * (64 / blockTokens));
      const random = new SeededRandom(7, "segments");
      for (let segment = 0; segment < SEGMENTS; segment++) {
        const bytes = randomBlock(SEGMENT_TOKENS / blockTokens * host.blockBytes, random, layout);
        writeSegment(host, segment * SEGMENT_TOKENS / blockTokens, bytes);
        for (const store of [holder, ordered]) {
          writeSegment(store, segment * 4, bytes);
          assertEquals(segmentBytes(store, segment * 4), bytes);
        }
      }
      // One token, the largest call of the kernel for single tokens, and more than that.
      for (const tokens of [1, 25, 200]) {
        const queries = Float32Array.from({ length: tokens * heads * headDim }, () => random.normal());
        const attend = (store: KvStore) => {
          const work = [{ from: 0, to: SEGMENTS }, { from: 2, to: 3 }].map((segments) => (
            { queries, segments, blocks: blocksOf(store, segments.from, segments.to) }
          ));
          return store.attendNodes(layout.layers - 1, work).flat().map(({ node, o, lse }) => (
            { node, o: o.slice(), lse: lse.slice() }
          ));
        };
        const [wanted, fast, exact] = [attend(host), attend(holder), attend(ordered)];
        assertLessOrEqual(largestDifference(exact, wanted), WITHIN, `${tokens} tokens, one order`);
        assertLessOrEqual(largestDifference(fast, exact), WITHIN_GPU, `${tokens} tokens, both kernels`);
        assertEquals(largestDifference(attend(holder), fast), 0);
      }
    },
  });
}

Deno.test({
  name: "openHolderStore() on a GPU refuses types, blocks and sizes that it cannot hold, by name",
  ignore,
  async fn() {
    const [layout] = LAYOUTS;
    const refused: [Promise<KvStore>, string][] = [
      [openHolderStore({ kind: "cuda", layout: { ...layout, kvType: "f16" } }), "stores bf16 or fp8, got f16"],
      [
        openHolderStore({ kind: "cuda", layout: { ...layout, blockTokens: 128 }, kvBytes: 1 << 24 }),
        "64 tokens, got 128",
      ],
      [openHolderStore({ kind: "cuda", layout, kvBytes: 1000 }), "got 1000 bytes"],
    ];
    for (const [opened, message] of refused) {
      const error = await opened.then(() => undefined, (error) => error);
      assertThrows(
        () => {
          throw error;
        },
        RangeError,
        message,
      );
    }
    assertThrows(() => openCudaKvStore({ layout }), RangeError, "blocks of 64 tokens, got 16");
  },
});
