/**
 * Proves that `lib/` is what the crate's sources build to: `deno task wasm:verify`.
 *
 * The manifest's hashes are always checked. Then the crate is rebuilt: with the manifest's tool versions the bytes must be
 * equal; with others they differ, so the kernel tests run on the rebuilt module instead.
 *
 * @module
 */
import { buildKernels, type KernelBuild } from "./crate.ts";
import { type Manifest, MANIFEST_URL, sha256, sourceHash } from "./manifest.ts";
import { prepareToolchain, type Toolchain } from "./toolchain.ts";

const LIB = new URL("./lib/", import.meta.url);

/** Differences between `lib/`, the sources and the manifest; none when all agree. */
export async function manifestProblems(manifest: Manifest): Promise<string[]> {
  const problems: string[] = [];
  const compare = (what: string, wanted: string | number, actual: string | number): void => {
    if (wanted !== actual) problems.push(`${what}: the manifest has ${wanted}, found ${actual}`);
  };
  for (const [name, hash] of Object.entries(manifest.files)) {
    compare(`lib/${name}`, hash, await sha256(await Deno.readFile(new URL(name, LIB))));
  }
  const base64 = await Deno.readTextFile(new URL("kernels.b64", LIB));
  const wasm = Uint8Array.fromBase64(base64.trim());
  compare("kernel module", manifest.wasm, await sha256(wasm));
  compare("size of the kernel module", manifest.bytes, wasm.length);
  compare("crate sources and flags", manifest.sources, await sourceHash());
  return problems;
}

function sameTools(manifest: Manifest, toolchain: Toolchain): boolean {
  const names = new Set([...Object.keys(manifest.tools), ...Object.keys(toolchain.versions)]);
  return [...names].every((name) => manifest.tools[name] === toolchain.versions[name]);
}

/** Runs the kernel tests on a rebuilt module, in a copy of the kernel folder. */
async function testRebuilt(build: KernelBuild): Promise<boolean> {
  const copy = await Deno.makeTempDir({ prefix: "kernels-verify-" });
  try {
    const folders = ["kernels", "ffi", "tests", "deno.json", "deno.lock"];
    for (const name of folders) {
      const from = `${import.meta.dirname}/../../${name}`;
      const status = await new Deno.Command("cp", { args: ["-R", from, `${copy}/${name}`] }).output();
      if (!status.success) throw new Error(`Cannot copy ${name}: ${new TextDecoder().decode(status.stderr)}`);
    }
    await Deno.writeTextFile(`${copy}/kernels/wasm/lib/kernels.b64`, build.base64);
    await Deno.writeTextFile(`${copy}/kernels/wasm/lib/exports.ts`, build.exportsModule);
    // What compiles and loads CUDA kernels does not depend on the module, and writes files.
    const args = ["test", "--allow-read", "--allow-env", "--allow-ffi", "--ignore=kernels/cuda", "kernels"];
    const status = await new Deno.Command(Deno.execPath(), { args, cwd: copy }).spawn().status;
    return status.success;
  } finally {
    await Deno.remove(copy, { recursive: true });
  }
}

async function verify(): Promise<number> {
  const manifest: Manifest = JSON.parse(await Deno.readTextFile(MANIFEST_URL));
  const problems = await manifestProblems(manifest);
  for (const problem of problems) console.error(`wasm:verify: ${problem}`);
  if (problems.length > 0) return 1;
  console.log(`wasm:verify: ${Object.keys(manifest.files).length} files and the sources match the manifest`);
  const toolchain = await prepareToolchain();
  if (toolchain.kind === "missing") {
    console.log(`wasm:verify: rebuild skipped: ${toolchain.reason}`);
    return 0;
  }
  const build = await buildKernels(toolchain, { clean: true });
  const rebuilt = await sha256(build.wasm);
  if (sameTools(manifest, toolchain)) {
    const same = rebuilt === manifest.wasm && await sha256(build.exportsModule) === manifest.files["exports.ts"];
    console.log(
      same
        ? `wasm:verify: the rebuilt module has the same ${build.wasm.length} bytes`
        : `wasm:verify: the rebuilt module differs: the manifest has ${manifest.wasm}, built ${rebuilt}`,
    );
    return same ? 0 : 1;
  }
  for (const name of Object.keys(manifest.tools)) {
    const [wanted, here] = [manifest.tools[name], toolchain.versions[name]];
    if (wanted !== here) console.log(`wasm:verify: ${name} is "${here}" here, "${wanted}" in the manifest`);
  }
  console.log("wasm:verify: other tools give other bytes; running the kernel tests on the rebuilt module");
  return await testRebuilt(build) ? 0 : 1;
}

if (import.meta.main) Deno.exit(await verify());
