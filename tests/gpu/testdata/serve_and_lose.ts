/**
 * `cli.ts` whose GPU is lost at SIGUSR1: a kernel writes where nothing is, in the context that all of a process share.
 *
 * @module
 */
import { CudaContext, Nvrtc } from "../../../ffi/cuda/cuda.ts";
import { main } from "../../../runtime/cli/main.ts";

const SOURCE = 'extern "C" __global__ void crash() { *(float*)0x10 = 1.f; }';

function crash(): void {
  const context = CudaContext.open();
  const { major, minor, driverVersion } = context.properties;
  using nvrtc = Nvrtc.open(context.libraries.get("nvrtc", { maxMajor: Number.parseInt(driverVersion) }));
  const { cubin } = nvrtc.compile({ name: "crash.cu", source: SOURCE, options: [`-arch=sm_${major}${minor}`] });
  context.stream().launch(context.load(cubin).function("crash"), { grid: [1], block: [1], args: [] });
}

Deno.addSignalListener("SIGUSR1", crash);
Deno.exit(await main(Deno.args, { version: "test", bench: () => Promise.resolve(1) }));
