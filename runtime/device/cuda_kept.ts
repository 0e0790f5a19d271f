/**
 * Decides in which form a GPU keeps weights that are packed in their file.
 *
 * @module
 */
import type { CudaProperties } from "../../ffi/cuda/cuda.ts";
import { PackedLinear } from "../../kernels/linear/linear_packed_cuda.ts";
import type { ModelConfig } from "../model/model.ts";
import type { KeptForm } from "./cuda_matrix.ts";
import { anyPacked, fullLayerBytes, type StoredTypes } from "./cuda_weights.ts";

/** The forms that can be asked for; `auto` takes what is fastest with the memory there is. */
export type WeightForm = "auto" | KeptForm;

/** Share of the memory that a process may use, up to which `auto` spends it on bf16 copies. */
const COPIES_SHARE = 0.25;

/** What is decided by. */
export interface KeptFormOptions {
  /** What is asked for. @default {"auto"} */
  readonly wanted?: WeightForm;
  /** Sizes of the model. */
  readonly config: ModelConfig;
  /** Types of its matrices; undefined when all are bf16. */
  readonly stored?: StoredTypes;
  /** The GPU. */
  readonly properties: Pick<CudaProperties, "name" | "major" | "minor">;
  /** Memory that the process may use, bytes. */
  readonly memoryBytes: number;
  /** Whether a row must have the same bits whatever rows are beside it. */
  readonly deterministic: boolean;
}

/**
 * The form that packed weights are kept in.
 *
 * @throws {RangeError} when they should stay packed and the GPU has no kernels for that.
 */
export function keptForm(options: KeptFormOptions): KeptForm {
  const { wanted = "auto", config, stored, properties, memoryBytes, deterministic } = options;
  if (wanted === "bf16" || stored === undefined || !anyPacked(config, stored)) return "bf16";
  const supported = PackedLinear.supports(properties);
  if (wanted === "auto") {
    // One way to multiply for any number of tokens: expanding for every step would read and write far more.
    if (!supported || deterministic) return "bf16";
    return fullLayerBytes(config) <= COPIES_SHARE * memoryBytes ? "both" : "packed";
  }
  if (!supported) {
    const { name, major, minor } = properties;
    throw new RangeError(
      `Cannot keep weights packed: wanted a GPU of compute capability 9.x, got ${major}.${minor} (${name})`,
    );
  }
  return wanted;
}
