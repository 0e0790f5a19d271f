/**
 * Launches a kernel that writes where nothing is, and prints what the calls after it throw.
 *
 * @module
 */
import { CudaContext, CudaError, CudaLibraries, Nvrtc } from "../cuda.ts";

const SOURCE = 'extern "C" __global__ void crash() { *(float*)0x10 = 1.f; }';

function main(): void {
  const libraries = CudaLibraries.find();
  using context = CudaContext.open({ libraries });
  using nvrtc = Nvrtc.open(libraries.get("nvrtc"));
  const { major, minor } = context.properties;
  const { cubin } = nvrtc.compile({ name: "crash.cu", source: SOURCE, options: [`-arch=sm_${major}${minor}`] });
  const stream = context.stream();
  stream.launch(context.load(cubin).function("crash"), { grid: [1], block: [1], args: [] });
  for (const action of [() => stream.synchronize(), () => context.alloc(1000)]) {
    try {
      action();
    } catch (error) {
      if (!(error instanceof CudaError)) throw error;
      console.log(error.call, error.codeName, error.lost);
    }
  }
}

main();
