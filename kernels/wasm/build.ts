/**
 * Builds the kernel crate into `lib/`: `deno task wasm:build`. Sets the toolchain up first where that is possible.
 *
 * @module
 */
import { buildKernels, type KernelBuild } from "./crate.ts";
import { MANIFEST_URL, manifestOf } from "./manifest.ts";
import { prepareToolchain } from "./toolchain.ts";

const LIB = new URL("./lib/", import.meta.url);

async function writeLib(build: KernelBuild): Promise<void> {
  await Deno.mkdir(LIB, { recursive: true });
  await Deno.writeTextFile(new URL("kernels.b64", LIB), build.base64);
  await Deno.writeTextFile(new URL("exports.ts", LIB), build.exportsModule);
  await Deno.writeTextFile(MANIFEST_URL, JSON.stringify(await manifestOf(build), null, 2) + "\n");
}

if (import.meta.main) {
  const toolchain = await prepareToolchain();
  if (toolchain.kind === "missing") {
    console.error(`Cannot build the kernels: ${toolchain.reason}`);
    Deno.exit(1);
  }
  const build = await buildKernels(toolchain);
  await writeLib(build);
  console.log(`kernels/wasm/lib: ${build.wasm.length} bytes of WebAssembly, ${build.functions.length} functions`);
}
