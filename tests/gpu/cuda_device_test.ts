/**
 * The CUDA device against everything a device must do; ignored where there is no GPU.
 *
 * Tolerances. Weights, keys, values and every input of a product are bf16, a relative half ulp of 2^-9 each. The reference
 * with just these roundings put in is 0.0028 to 0.0049 (root mean square) and at most 0.040 away from itself on the suite's
 * models, in the units of a row's largest logit; the bounds are half as much again. Steps of other sizes take other orders
 * of summation, whose differences are rounded to bf16 as well; deterministic mode has one order and gives the same bits.
 * Keys and values of fp8 are rounded to it by the reference too; but where one is near the middle of two numbers, what bf16
 * changes in it chooses the other one, a sixteenth to an eighth away, and so do other orders of summation. That was 0.009 to
 * 0.018 (root mean square) and at most 0.13 on an H200; the bounds are half as much again.
 *
 * @module
 */
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { CudaDevice } from "../../runtime/device/cuda_device.ts";
import { openCudaKvStore } from "../../runtime/device/cuda_kv_store.ts";
import { testDevice } from "../conformance/device_suite.ts";
import { SETTINGS } from "../conformance/spread_bench.ts";
import { testSpread } from "../conformance/spread_suite.ts";

const TOLERANCE = { within: 0.06, rms: 0.0075 } as const;
const FP8_TOLERANCE = { within: 0.2, rms: 0.027 } as const;
const POOL = { blockTokens: 64, kvType: "bf16", activations: "f32" } as const;

/** What sets the suite's models apart. */
const SPREAD_NAMES = [
  "three heads a KV head",
  "one head a KV head, biases",
  "eight heads a KV head, heads of 20",
] as const;

const ignored = TestGpu.missing();

testDevice("CudaDevice", {
  open: (model, options) => CudaDevice.open(model, options),
  tolerance: TOLERANCE,
  sameness: TOLERANCE,
  blockTokens: POOL.blockTokens,
  kvTypes: [POOL.kvType],
  activations: [POOL.activations],
  ignored,
});

testDevice("CudaDevice, deterministic,", {
  open: (model, options) => CudaDevice.open(model, { ...options, deterministic: true }),
  tolerance: TOLERANCE,
  blockTokens: POOL.blockTokens,
  kvTypes: [POOL.kvType],
  activations: [POOL.activations],
  ignored,
});

testDevice("CudaDevice with packed weights", {
  open: (model, options) => CudaDevice.open(model, { ...options, weights: "packed" }),
  tolerance: TOLERANCE,
  sameness: TOLERANCE,
  blockTokens: POOL.blockTokens,
  kvTypes: [POOL.kvType],
  activations: [POOL.activations],
  ignored,
});

testDevice("CudaDevice with packed weights, deterministic,", {
  open: (model, options) => CudaDevice.open(model, { ...options, weights: "packed", deterministic: true }),
  tolerance: TOLERANCE,
  blockTokens: POOL.blockTokens,
  kvTypes: [POOL.kvType],
  activations: [POOL.activations],
  ignored,
});

testDevice("CudaDevice with fp8 KV", {
  open: (model, options) => CudaDevice.open(model, options),
  tolerance: FP8_TOLERANCE,
  sameness: FP8_TOLERANCE,
  blockTokens: POOL.blockTokens,
  kvTypes: ["fp8"],
  activations: [POOL.activations],
  ignored,
});

testDevice("CudaDevice with fp8 KV, deterministic,", {
  open: (model, options) => CudaDevice.open(model, { ...options, deterministic: true }),
  tolerance: FP8_TOLERANCE,
  blockTokens: POOL.blockTokens,
  kvTypes: ["fp8"],
  activations: [POOL.activations],
  ignored,
});

testSpread("CudaDevice, deterministic,", {
  open: (model, options) => CudaDevice.open(model, { ...options, deterministic: true }),
  openStore: (options) => openCudaKvStore({ ...options, deterministic: true }),
  segments: 3,
  settings: SETTINGS.map(({ spec }, index) => ({
    name: SPREAD_NAMES[index],
    spec,
    options: POOL,
  })),
  ignored,
});

testSpread("CudaDevice with fp8 KV, deterministic,", {
  open: (model, options) => CudaDevice.open(model, { ...options, deterministic: true }),
  openStore: (options) => openCudaKvStore({ ...options, deterministic: true }),
  segments: 3,
  settings: SETTINGS.map(({ spec }, index) => ({
    name: SPREAD_NAMES[index],
    spec,
    options: { ...POOL, kvType: "fp8" },
  })),
  ignored,
});
