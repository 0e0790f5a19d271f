/**
 * What this machine has for CUDA, as rows for people.
 *
 * @module
 */
import { join } from "node:path";
import { CudaContext, CudaLibraries, type CudaProperties, Nvrtc } from "../../ffi/cuda/cuda.ts";
import { archOf, checkCapability } from "../../kernels/cuda/cuda.ts";
import { formatBytes } from "../hub/format_bytes.ts";
import { oneLine } from "./main.ts";

/** What a report is made of. */
export interface GpuReportOptions {
  /** Where the libraries are. Default: they are searched for. */
  readonly libraries?: CudaLibraries;
  /** Directory of compiled kernels. */
  readonly kernels: string;
}

/** A report. */
export interface GpuReport {
  /** `none`: no driver. `broken`: a driver, but something else is missing or fails. */
  readonly state: "usable" | "none" | "broken";
  /** What and what about it. */
  readonly rows: readonly (readonly [what: string, about: string])[];
}

/** Looks at driver, GPUs, libraries and compiled kernels. What fails becomes part of the report. */
export function gpuReport(options: GpuReportOptions): GpuReport {
  const { libraries = CudaLibraries.find(), kernels } = options;
  const driver = attempt(() => libraries.get("driver"));
  if (!("value" in driver)) return { state: "none", rows: [["driver", driver.failure]] };
  const gpus = attempt(() => CudaContext.list(libraries));
  if (!("value" in gpus)) return { state: "broken", rows: [["driver", gpus.failure]] };
  const served = gpus.value[0]?.driverVersion;
  const maxMajor = Number.parseInt(served ?? "0");
  const about = [`CUDA ${served ?? "unknown"}`, ...driverRelease(driver.value.path), driver.value.path];
  const parts = [
    ...gpus.value.map((gpu) => ({ what: `GPU ${gpu.ordinal}`, ...attempt(() => describeGpu(gpu, libraries)) })),
    { what: "NVRTC", ...attempt(() => describeCompiler(libraries, maxMajor)) },
    { what: "cuBLASLt", ...attempt(() => libraries.get("blasLt", { maxMajor }).path) },
  ];
  return {
    state: gpus.value.length > 0 && parts.every((part) => "value" in part) ? "usable" : "broken",
    rows: [
      ["driver", about.join(", ")],
      ...(gpus.value.length === 0 ? [["GPU", "none is visible"] as const] : []),
      ...parts.map((part) => [part.what, "value" in part ? part.value : part.failure] as const),
      ["kernels", describeKernels(kernels)],
      ["permission", `--allow-ffi=${libraries.paths.join(",")}`],
    ],
  };
}

function describeGpu(gpu: CudaProperties, libraries: CudaLibraries): string {
  checkCapability(gpu);
  using context = CudaContext.open({ ordinal: gpu.ordinal, libraries });
  const { freeBytes, totalBytes } = context.memory();
  return [
    gpu.name,
    archOf(gpu),
    `${gpu.multiprocessors} multiprocessors`,
    `${formatBytes(freeBytes)} of ${formatBytes(totalBytes)} free`,
    gpu.uuid,
  ].join(", ");
}

function describeCompiler(libraries: CudaLibraries, maxMajor: number): string {
  const library = libraries.get("nvrtc", { maxMajor });
  using nvrtc = Nvrtc.open(library);
  return `${nvrtc.version.major}.${nvrtc.version.minor}, ${library.path}`;
}

function describeKernels(directory: string): string {
  let count = 0;
  let bytes = 0;
  try {
    for (const { name } of Deno.readDirSync(directory)) {
      if (!name.endsWith(".cubin")) continue;
      bytes += Deno.statSync(join(directory, name)).size;
      count++;
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) return `${directory} cannot be read: ${oneLine(error)}`;
  }
  return `${count} compiled, ${formatBytes(bytes)}, ${directory}`;
}

/** The release of the driver, which the library does not tell but its file is named after. */
function driverRelease(path: string): readonly string[] {
  const release = attempt(() => /\.so\.(\d+\.[\d.]+)$/.exec(Deno.realPathSync(path))?.[1]);
  return "value" in release && release.value !== undefined ? [`release ${release.value}`] : [];
}

/** What an action gave, or why it did not. */
type Attempt<T> = { readonly value: T } | { readonly failure: string };

function attempt<T>(action: () => T): Attempt<T> {
  try {
    return { value: action() };
  } catch (error) {
    return { failure: oneLine(error) };
  }
}
