/**
 * Times attention over a paged pool: decode of one query token against the read stream, from cold and from warm memory, and
 * prefill of a tile of query tokens against the multiply-add peak.
 *
 * `deno run -A kernels/attend_partial/launch_bench.ts [threads] [--json FILE]`
 *
 * @module
 */
import { Arena } from "../arena.ts";
import type { HostKvType } from "../dtype.ts";
import { KV_ELEMENT_BYTES } from "../dtype.ts";
import { type BenchItem, benchMain } from "../kernel_bench.ts";
import type { WasmRuntime } from "../wasm/instance.ts";
import { KV_CODE, SEEDS } from "./spec.ts";
import { randomValues } from "./test_data.ts";

/** Tokens of context. */
const CONTEXT = 2000;
/** Query tokens of the prefill items. */
const QUERIES = 64;
/** Layers of the pool: a cold run takes one that no earlier run of the round touched. */
const LAYERS = 8;

interface Shape {
  readonly kvType: HostKvType;
  readonly kvHeads: number;
  readonly group: number;
  readonly headDim: number;
  readonly blockTokens: number;
}

const SHAPES: readonly Shape[] = [
  { kvType: "f16", kvHeads: 3, group: 3, headDim: 64, blockTokens: 16 },
  { kvType: "f16", kvHeads: 3, group: 3, headDim: 64, blockTokens: 64 },
  { kvType: "bf16", kvHeads: 3, group: 3, headDim: 64, blockTokens: 16 },
  { kvType: "f32", kvHeads: 3, group: 3, headDim: 64, blockTokens: 16 },
  { kvType: "f16", kvHeads: 4, group: 4, headDim: 128, blockTokens: 16 },
  { kvType: "f16", kvHeads: 4, group: 1, headDim: 128, blockTokens: 16 },
];

function items(wasm: WasmRuntime, stack: DisposableStack, shape: Shape): BenchItem[] {
  const { kvType, kvHeads, group, headDim, blockTokens } = shape;
  const arena = stack.use(new Arena(wasm));
  const { exports, team } = wasm;
  const blocks = Math.ceil(CONTEXT / blockTokens);
  const code = KV_CODE[kvType];
  const base = arena.bytes(blocks * exports.kv_block_bytes(LAYERS, kvHeads, headDim, blockTokens, code));
  const pool = stack.adopt(
    exports.kv_pool_new(base, blocks, LAYERS, kvHeads, headDim, blockTokens, code),
    (address) => exports.kv_pool_free(address),
  );
  const table = arena.copy(Uint32Array.from({ length: blocks }, (_, index) => index));
  const kv = arena.copy(randomValues(CONTEXT * kvHeads * headDim, SEEDS.bench));
  for (let layer = 0; layer < LAYERS; layer++) exports.kv_append(pool, layer, table, 0, CONTEXT, kv, kv);
  const heads = kvHeads * group;
  const q = arena.copy(randomValues(QUERIES * heads * headDim, SEEDS.bench, 4));
  const [o, lse] = [arena.poisoned(QUERIES * heads * headDim), arena.poisoned(QUERIES * heads)];
  const attend = (layer: number, queries: number, span: number): void =>
    exports.attend_run(team, pool, layer, table, 0, 0, CONTEXT, CONTEXT - queries, queries, group, q, o, lse, 0, span);
  let layer = 0;
  const name = `${kvType} ${heads}/${kvHeads} heads of ${headDim}, blocks of ${blockTokens}`;
  const bytes = 2 * CONTEXT * kvHeads * headDim * KV_ELEMENT_BYTES[kvType];
  const decode = { bytes, flops: 4 * CONTEXT * heads * headDim };
  const pairs = QUERIES * CONTEXT - QUERIES * (QUERIES - 1) / 2;
  return [
    { name: `decode cold  ${name}`, run: () => attend(layer = (layer + 1) % LAYERS, 1, 1), cold: true, ...decode },
    { name: `decode warm  ${name}`, run: () => attend(0, 1, 1), ...decode },
    { name: `prefill ${QUERIES}   ${name}`, run: () => attend(0, QUERIES, 0), flops: 4 * pairs * heads * headDim },
  ];
}

if (import.meta.main) {
  await benchMain("attend_partial", {
    seed: SEEDS.bench,
    threads: 2,
    items: (wasm, stack) => SHAPES.flatMap((shape) => items(wasm, stack, shape)),
  });
}
