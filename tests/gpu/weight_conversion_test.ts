/**
 * Weights of every type as the GPU rounds them, against their exact values.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { bf16Bits, bf16Value, gpuTest } from "../../kernels/cuda/test_gpu.ts";
import { type DType, DTYPE_LAYOUT } from "../../kernels/dtype.ts";
import { type ConvertedType, WeightKernels } from "../../kernels/weight_bf16/weight_bf16_cuda.ts";
import { dequantizeRow } from "../../runtime/weights/dequantize.ts";
import { quantize } from "../synthetic/quantize.ts";
import { SeededRandom } from "../synthetic/random.ts";

const TYPES = ["F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K"] as const satisfies readonly DType[];

/** Values of three blocks of 256, the last ones of which are 0. */
function stored(type: ConvertedType): Uint8Array {
  const random = new SeededRandom(12, type);
  const values = Float32Array.from({ length: 768 }, (_, i) => i < 512 ? random.normal() * 10 ** (i % 5 - 2) : 0);
  return quantize(type, values);
}

for (const type of TYPES) {
  gpuTest(`WeightKernels.convert() rounds the exact values of ${type} to bf16 and writes nothing else`, (gpu) => {
    const bytes = stored(type);
    const count = bytes.length / DTYPE_LAYOUT[type].bytes * DTYPE_LAYOUT[type].elements;
    const to = gpu.poisoned(2 * count + 64);
    new WeightKernels(gpu.kernels).convert(gpu.stream, { type, from: gpu.upload(bytes), to, count });
    const expected = Float32Array.from(dequantizeRow(type, bytes), (value) => bf16Value(bf16Bits(value)));
    assertEquals(gpu.bf16(to, count), expected);
    assertEquals(gpu.bytes(to, 2 * count + 64).slice(2 * count), new Uint8Array(64).fill(0xff));
  });
}
