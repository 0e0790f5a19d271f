import { assertEquals } from "@std/assert";
import { randomValues } from "../attend_partial/test_data.ts";
import { gpuTest } from "../cuda/test_gpu.ts";
import { KvCopyKernels } from "./kv_copy_cuda.ts";
import { PoolLayout } from "./pool_layout.ts";
import { exportReference, importReference } from "./reference.ts";
import { SEEDS } from "./spec.ts";

function randomBytes(count: number, seed: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(randomValues(count, seed, 128), (value) => Math.floor(value + 128));
}

for (
  const [layers, kvHeads, headDim, storedTokens, kvType] of [
    [2, 3, 64, 16],
    [3, 2, 128, 64],
    [1, 1, 256, 8],
    [2, 2, 80, 16],
    [2, 1, 77, 32],
    [1, 3, 13, 16],
    [1, 2, 200, 64],
    [2, 3, 64, 16, "fp8"],
    [2, 2, 128, 64, "fp8"],
    [1, 1, 256, 8, "fp8"],
    [2, 1, 77, 32, "fp8"],
  ] as const
) {
  const shape = { layers, kvHeads, headDim, storedTokens, kvType };
  gpuTest(`KvCopyKernels copies both ways as the reference does for ${JSON.stringify(shape)}`, (gpu) => {
    const kernels = new KvCopyKernels(gpu.kernels, shape);
    const { blockBytes } = new PoolLayout(shape);
    // Every bit pattern, NaN of all kinds included; also in the padding, which must not travel.
    const block = randomBytes(3 * blockBytes, SEEDS.test);
    const pool = gpu.upload(block);
    const middle = (pool + BigInt(blockBytes)) as typeof pool;
    const pinned = gpu.pinned(kernels.storedBytes + 16);
    const host = new Uint8Array(pinned.buffer, 0, kernels.storedBytes + 16).fill(0xee);
    kernels.exportBlock(gpu.stream, { block: middle, stored: pinned.address });
    gpu.stream.synchronize();
    const stored = exportReference(block.subarray(blockBytes, 2 * blockBytes), shape);
    assertEquals(host.slice(0, kernels.storedBytes), stored);
    assertEquals(host.slice(kernels.storedBytes), new Uint8Array(16).fill(0xee), "nothing behind the block");
    const incoming = randomBytes(kernels.storedBytes, SEEDS.test + 1);
    kernels.importBlock(gpu.stream, { block: middle, stored: gpu.upload(incoming) });
    const after = gpu.bytes(pool, 3 * blockBytes);
    assertEquals(after.subarray(blockBytes, 2 * blockBytes), importReference(incoming, shape));
    assertEquals(after.subarray(0, blockBytes), block.subarray(0, blockBytes), "the block before is left alone");
    assertEquals(after.subarray(2 * blockBytes), block.subarray(2 * blockBytes), "the block behind is left alone");
  });
}

gpuTest("KvCopyKernels finds the layers of a block apart from each other", (gpu) => {
  const shape = { layers: 3, kvHeads: 2, headDim: 64, storedTokens: 16 };
  const kernels = new KvCopyKernels(gpu.kernels, shape);
  const { blockBytes, layerBytes } = new PoolLayout(shape);
  const block = randomBytes(blockBytes, SEEDS.test);
  // Two blocks, layer by layer; the second one is copied.
  const apart = new Uint8Array(2 * blockBytes).fill(0xee);
  const layer = (of: Uint8Array, index: number, at: number) => of.subarray(index * at, index * at + layerBytes);
  for (let i = 0; i < 3; i++) apart.subarray(layerBytes).set(layer(block, i, layerBytes), i * 2 * layerBytes);
  const pool = gpu.upload(apart);
  const second = (pool + BigInt(layerBytes)) as typeof pool;
  const stored = gpu.poisoned(kernels.storedBytes);
  kernels.exportBlock(gpu.stream, { block: second, stored, layerBytes: 2 * layerBytes });
  assertEquals(gpu.bytes(stored, kernels.storedBytes), exportReference(block, shape));
  const incoming = randomBytes(kernels.storedBytes, SEEDS.test + 1);
  kernels.importBlock(gpu.stream, { block: second, stored: gpu.upload(incoming), layerBytes: 2 * layerBytes });
  const after = gpu.bytes(pool, 2 * blockBytes);
  const expected = importReference(incoming, shape);
  for (let i = 0; i < 3; i++) {
    assertEquals(layer(after.subarray(layerBytes), i, 2 * layerBytes), layer(expected, i, layerBytes), `layer ${i}`);
    assertEquals(
      layer(after, i, 2 * layerBytes),
      new Uint8Array(layerBytes).fill(0xee),
      `layer ${i} of the other block`,
    );
  }
});
