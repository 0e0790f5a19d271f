import { assertEquals, assertThrows } from "@std/assert";
import { type HostKvType, KV_ELEMENT_BYTES } from "../dtype.ts";
import type { AttentionPartial } from "../merge_partials/spec.ts";
import { openWasm, type WasmRuntime } from "../wasm/instance.ts";
import { type PoolAttend, WasmKvPool } from "./kv_pool.ts";
import { roundKv } from "./reference.ts";
import { SEEDS } from "./spec.ts";
import { randomValues, shuffled } from "./test_data.ts";

const KV_TYPES: readonly HostKvType[] = ["f32", "f16", "bf16"];

function bits({ o, lse }: AttentionPartial): Uint32Array[] {
  return [new Uint32Array(o.buffer), new Uint32Array(lse.buffer)];
}

/** A pool whose unused bytes are all ones (NaN in every type) and a table whose unused entries name no block. */
function poisonedPool(
  wasm: WasmRuntime,
  shape: { kvType: HostKvType; kvHeads: number; headDim: number; blockTokens: number; length: number },
): { pool: WasmKvPool; table: Uint32Array; k: Float32Array; v: Float32Array } {
  const { kvType, kvHeads, headDim, blockTokens, length } = shape;
  const used = Math.ceil(length / blockTokens);
  const pool = new WasmKvPool(wasm, { blocks: used + 5, blockTokens, layers: 2, kvHeads, headDim, kvType });
  pool.fill(0xff);
  const table = new Uint32Array(used + 40).fill(0xfffffff0);
  table.set(shuffled(used + 5, SEEDS.test).slice(0, used));
  const k = randomValues(length * kvHeads * headDim, SEEDS.test);
  const v = randomValues(length * kvHeads * headDim, SEEDS.test + 1);
  pool.append({ layer: 1, table, position: 0, k, v });
  return { pool, table, k, v };
}

for (const kvType of KV_TYPES) {
  Deno.test(`WasmKvPool.attend() over ${kvType} gives the same bits for every tile, span and thread count`, async () => {
    using one = await openWasm({ threads: 1 });
    using two = await openWasm({ threads: 2 });
    for (
      const [kvHeads, group, headDim, blockTokens] of [[3, 3, 64, 16], [2, 4, 80, 8], [1, 7, 13, 64], [2, 1, 32, 256]]
    ) {
      const length = 1000;
      const queries = 21;
      const q = randomValues(queries * kvHeads * group * headDim, SEEDS.test + 2, 5);
      const run = (wasm: WasmRuntime, options: Partial<PoolAttend>): Uint32Array[] => {
        const { pool, table } = poisonedPool(wasm, { kvType, kvHeads, headDim, blockTokens, length });
        using _ = pool;
        return bits(
          pool.attend({ layer: 1, table, to: length, firstPosition: length - queries, group, q, ...options }),
        );
      };
      const expected = run(one, { tile: 1 });
      for (const tile of [2, 5, 16, 64]) assertEquals(run(one, { tile }), expected, `tile ${tile}`);
      for (const span of [1, 2, 4]) {
        assertEquals(run(one, { tile: 1, span }), expected, `span ${span}`);
        assertEquals(run(two, { tile: 8, span }), expected, `2 threads, span ${span}`);
      }
      assertEquals(run(two, {}), expected, "2 threads");
    }
  });

  Deno.test(`WasmKvPool.attend() over ${kvType} gives a query the same bits after its sequence has grown`, async () => {
    using wasm = await openWasm({ threads: 1 });
    const shape = { kvType, kvHeads: 2, headDim: 24, blockTokens: 16 };
    const q = randomValues(2 * 3 * 24, SEEDS.test + 2, 5);
    const at = (length: number): Uint32Array[] => {
      const { pool, table } = poisonedPool(wasm, { ...shape, length });
      using _ = pool;
      return bits(pool.attend({ layer: 1, table, to: length, firstPosition: 299, group: 3, q }));
    };
    assertEquals(at(700), at(300));
  });

  Deno.test(`WasmKvPool.append() stores ${kvType} rounded to nearest even and clamped, and touches its slots alone`, async () => {
    using wasm = await openWasm({ threads: 1 });
    const headDim = 6;
    using pool = new WasmKvPool(wasm, { blocks: 2, blockTokens: 8, layers: 1, kvHeads: 1, headDim, kvType });
    pool.fill(0x5a);
    const tiny = 2 ** -24;
    const k = Float32Array.of(1 + 2 ** -11, 1 + 3 * 2 ** -11, 1e30, -3.4e38, 1.5 * tiny, -0.5 * tiny);
    const v = Float32Array.of(1 / 3, -65519, 65521, 1 + 2 ** -8, 1 + 3 * 2 ** -8, 3.4e38);
    pool.append({ layer: 0, table: [1], position: 5, k, v });
    assertEquals(pool.readBlock(0), new Uint8Array(pool.blockBytes).fill(0x5a));
    const bytes = new DataView(pool.readBlock(1).buffer);
    const size = KV_ELEMENT_BYTES[kvType];
    const place = (neighbour: number): number => kvType === "f32" ? neighbour : neighbour % 4 * 2 + (neighbour >> 2);
    const read = (element: number): number => {
      if (kvType === "f32") return bytes.getFloat32(4 * element, true);
      if (kvType === "f16") return bytes.getFloat16(2 * element, true);
      const view = new DataView(new ArrayBuffer(4));
      view.setUint16(0, bytes.getUint16(2 * element, true));
      return view.getFloat32(0);
    };
    const written = new Set<number>();
    for (let d = 0; d < 8; d++) {
      const valueAt = headDim * 8 + 5 * 8 + place(d);
      written.add(valueAt);
      assertEquals(read(valueAt), d < headDim ? roundKv(v[d], kvType) : 0, `v[${d}]`);
      if (d === headDim || d > headDim) continue;
      const keyAt = d * 8 + place(5);
      written.add(keyAt);
      assertEquals(read(keyAt), roundKv(k[d], kvType), `k[${d}]`);
    }
    for (let at = 0; at < pool.blockBytes; at++) {
      if (!written.has(Math.floor(at / size))) assertEquals(bytes.getUint8(at), 0x5a, `byte ${at}`);
    }
  });

  Deno.test(`WasmKvPool.writeBlock() moves ${kvType} blocks to another pool, same bits`, async () => {
    using wasm = await openWasm({ threads: 1 });
    const length = 600;
    const { pool, table } = poisonedPool(wasm, { kvType, kvHeads: 2, headDim: 20, blockTokens: 32, length });
    using source = pool;
    using target = new WasmKvPool(wasm, { ...source.shape, blocks: 40 });
    const moved = shuffled(40, SEEDS.test + 3).slice(0, Math.ceil(length / 32));
    moved.forEach((block, i) => target.writeBlock(block, source.readBlock(table[i])));
    const attend = { layer: 1, to: length, group: 2, q: randomValues(4 * 20, SEEDS.test + 4, 5) };
    assertEquals(bits(target.attend({ ...attend, table: moved })), bits(source.attend({ ...attend, table })));
  });
}

Deno.test("WasmKvPool.attend() works with f16 and bf16 subnormals and large queries", async () => {
  using wasm = await openWasm({ threads: 1 });
  for (const kvType of ["f16", "bf16"] as const) {
    using pool = new WasmKvPool(wasm, { blocks: 1, blockTokens: 8, layers: 1, kvHeads: 1, headDim: 8, kvType });
    const k = new Float32Array(16).fill(0);
    k[0] = 2 ** -24;
    k[8] = 2 ** -23;
    pool.append({ layer: 0, table: [0], position: 0, k, v: k });
    const q = new Float32Array(8);
    q[0] = 2 ** 40;
    const { o, lse } = pool.attend({ layer: 0, table: [0], to: 2, group: 1, q });
    // The second token's score is 2^17 / sqrt(8) and the first's half of it: all weight is on the second.
    assertEquals(o[0], 2 ** -23);
    assertEquals(lse[0], Math.fround(Math.fround(2 ** 40 * Math.fround(1 / Math.sqrt(8))) * 2 ** -23));
  }
});

Deno.test("WasmKvPool refuses sizes the kernels do not have and use after dispose", async () => {
  using wasm = await openWasm({ threads: 1 });
  const shape = { blocks: 1, blockTokens: 8, layers: 1, kvHeads: 1, headDim: 8, kvType: "f32" as const };
  assertThrows(() => new WasmKvPool(wasm, { ...shape, blockTokens: 12 }), RangeError, "got 12 and 8");
  assertThrows(() => new WasmKvPool(wasm, { ...shape, headDim: 257 }), RangeError, "got 8 and 257");
  const pool = new WasmKvPool(wasm, shape);
  pool[Symbol.dispose]();
  pool[Symbol.dispose]();
  assertThrows(() => pool.readBlock(0), ReferenceError, "disposed");
});
