/**
 * Which GPU a benchmark or test ran on.
 *
 * @module
 */
import { CudaContext } from "../../ffi/cuda/cuda.ts";
import { type Hardware, readHardware } from "../hardware.ts";

/** What `nvidia-smi` tells, each as it prints it. */
export interface GpuState {
  /** Clock of the multiprocessors and the most it can be. */
  readonly clock: string;
  /** Most the clock can be. */
  readonly mostClock: string;
  /** Clock of the memory. */
  readonly memoryClock: string;
  /** Power limit. */
  readonly powerLimit: string;
}

/** A GPU and the machine it is in. */
export interface GpuHardware {
  /** Name of the GPU. */
  readonly name: string;
  /** Compute capability. */
  readonly capability: string;
  /** Multiprocessors. */
  readonly multiprocessors: number;
  /** Its memory, bytes. */
  readonly memoryBytes: number;
  /** CUDA version that the driver speaks. */
  readonly driver: string;
  /** Clocks and power; undefined where there is no `nvidia-smi`. */
  readonly state: GpuState | undefined;
  /** The machine. */
  readonly host: Hardware;
}

const FIELDS = ["clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit"] as const;

/** Fields of one line of `nvidia-smi --format=csv,noheader`; undefined when it is not one. */
export function parseGpuState(line: string): GpuState | undefined {
  const values = line.trim().split("\n")[0].split(",").map((value) => value.trim());
  if (values.length !== FIELDS.length || values.includes("")) return undefined;
  const [clock, mostClock, memoryClock, powerLimit] = values;
  return { clock, mostClock, memoryClock, powerLimit };
}

/** Clocks and power of GPU `ordinal` now; undefined where there is no `nvidia-smi`. */
export function readGpuState(ordinal = 0): GpuState | undefined {
  try {
    const { success, stdout } = new Deno.Command("nvidia-smi", {
      args: ["-i", String(ordinal), `--query-gpu=${FIELDS.join(",")}`, "--format=csv,noheader"],
      stderr: "null",
    }).outputSync();
    return success ? parseGpuState(new TextDecoder().decode(stdout)) : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Describes GPU `ordinal` and this machine. @throws {Error} when there is none. */
export function readGpu(ordinal = 0): GpuHardware {
  using context = CudaContext.open({ ordinal });
  const { name, major, minor, multiprocessors, totalBytes, driverVersion } = context.properties;
  return {
    name,
    capability: `${major}.${minor}`,
    multiprocessors,
    memoryBytes: totalBytes,
    driver: driverVersion,
    state: readGpuState(ordinal),
    host: readHardware(),
  };
}
