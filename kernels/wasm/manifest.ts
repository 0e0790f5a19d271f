/**
 * The record of a kernel build, kept beside the built files so that a stale or altered file is found.
 *
 * @module
 */
import type { KernelBuild } from "./crate.ts";
import { RUST_FLAGS } from "./toolchain.ts";

const FOLDER = new URL("./", import.meta.url);

/** Where the manifest lies. */
export const MANIFEST_URL: URL = new URL("./lib/MANIFEST.json", import.meta.url);

/** What was built, from what, with what. Hashes are SHA-256 in hexadecimal. */
export interface Manifest {
  /** Hash of every file of `lib/` but this one. */
  readonly files: Readonly<Record<string, string>>;
  /** Hash of the WebAssembly module itself. */
  readonly wasm: string;
  /** Size of the module in bytes. */
  readonly bytes: number;
  /** Hash over the crate's sources, Cargo.toml, Cargo.lock and the build flags. */
  readonly sources: string;
  /** Versions of the tools. */
  readonly tools: Readonly<Record<string, string>>;
  /** WebAssembly features a host needs beyond the first version. */
  readonly features: readonly string[];
  /** Exported functions. */
  readonly functions: readonly string[];
}

/** SHA-256 of `data` in hexadecimal. */
export async function sha256(data: Uint8Array<ArrayBuffer> | string): Promise<string> {
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

async function sourceFiles(folder: URL): Promise<string[]> {
  const files: string[] = [];
  for await (const entry of Deno.readDir(folder)) {
    if (entry.isDirectory) {
      for (const file of await sourceFiles(new URL(`${entry.name}/`, folder))) files.push(`${entry.name}/${file}`);
    } else if (entry.name.endsWith(".rs")) files.push(entry.name);
  }
  return files;
}

/** Hash over everything that decides a build's bytes but the tools. */
export async function sourceHash(): Promise<string> {
  const files = ["Cargo.toml", "Cargo.lock"];
  for (const file of await sourceFiles(new URL("src/", FOLDER))) files.push(`src/${file}`);
  let text = RUST_FLAGS.join("\n");
  for (const file of files.sort()) text += `\n${file} ${await sha256(await Deno.readFile(new URL(file, FOLDER)))}`;
  return await sha256(text);
}

/** The manifest of `build`, which was made from the sources as they are now. */
export async function manifestOf(build: KernelBuild): Promise<Manifest> {
  return {
    files: { "exports.ts": await sha256(build.exportsModule), "kernels.b64": await sha256(build.base64) },
    wasm: await sha256(build.wasm),
    bytes: build.wasm.length,
    sources: await sourceHash(),
    tools: build.versions,
    features: ["simd128", "relaxed-simd", "threads"],
    functions: build.functions,
  };
}
