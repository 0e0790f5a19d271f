/**
 * What keeps this process from a GPU, as far as files and permissions tell.
 *
 * @module
 */
import type { CudaLibraries, LibraryName } from "../../ffi/cuda/libraries.ts";

const NEEDED: readonly LibraryName[] = ["driver", "nvrtc", "blasLt"];

/**
 * Why there is no use in opening a GPU: no driver, a library that is missing, or no permission to load one. Undefined where
 * opening it is worth trying. Loads nothing and asks nobody for a permission.
 *
 * @param granted Whether a library may be loaded. Default: asks the runtime.
 */
export function gpuObstacle(
  libraries: CudaLibraries,
  granted: (path: string) => boolean = isGranted,
): string | undefined {
  if (libraries.tryGet("driver") === undefined) return "there is no NVIDIA driver (libcuda.so.1)";
  const missing = NEEDED.find((name) => libraries.tryGet(name) === undefined);
  if (missing !== undefined) return libraries.whyMissing(missing);
  const permitted = libraries.all.filter(({ path, companions }) => [...companions, path].every(granted));
  // Which version is right only the driver knows.
  return NEEDED.every((name) => permitted.some((library) => library.name === name))
    ? undefined
    : `the permission to load it is missing: --allow-ffi=${libraries.paths.join(",")}`;
}

function isGranted(path: string): boolean {
  return Deno.permissions.querySync({ name: "ffi", path }).state === "granted";
}
