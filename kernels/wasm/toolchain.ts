/**
 * The Rust toolchain that builds the kernels: Debian's compiler for WebAssembly, its own standard library sources (std is
 * rebuilt with atomics), and wasm-bindgen and wasm-pack from the crate registry.
 *
 * @module
 */

/** wasm-bindgen's command line version; equals the crate's version in Cargo.lock. */
const WASM_BINDGEN = "0.2.126";
const WASM_PACK = "0.15.1";
const PACKAGES = ["rustc-web", "cargo-web", "rust-web-src", "lld-22", "gcc", "libc6-dev"];
const TARGET = "wasm32-unknown-unknown";

/** A toolchain that can build the crate. */
export interface Toolchain {
  /** Discriminates from {@linkcode MissingToolchain}. */
  readonly kind: "ready";
  /** Environment to run the tools in, with the build flags that do not depend on the crate's folder. */
  readonly env: Readonly<Record<string, string>>;
  /** Version line of each tool that decides the bytes of a build. */
  readonly versions: Readonly<Record<string, string>>;
}

/** Why no toolchain can be had here. */
export interface MissingToolchain {
  /** Discriminates from {@linkcode Toolchain}. */
  readonly kind: "missing";
  /** One clause for people. */
  readonly reason: string;
}

/** Linker and compiler flags of every build; part of the manifest's source hash. */
export const RUST_FLAGS: readonly string[] = [
  "-C target-feature=+simd128,+relaxed-simd,+atomics,+bulk-memory,+mutable-globals",
  "-C link-arg=--shared-memory",
  "-C link-arg=--import-memory",
  "-C link-arg=--max-memory=4294967296",
  // Loop strength reduction rewrites addresses so that constant offsets no longer fold into loads and stores.
  "-C llvm-args=-disable-lsr",
  // The kernels are written in the order that suits 16 registers; LLVM's own order spills more.
  "-C llvm-args=-pre-RA-sched=source",
  ...["__wasm_init_tls", "__tls_size", "__tls_align", "__tls_base"].map((name) => `-C link-arg=--export=${name}`),
];

async function capture(command: string, args: readonly string[], env?: Record<string, string>): Promise<string> {
  try {
    const output = await new Deno.Command(command, { args: [...args], env, stderr: "null" }).output();
    return output.success ? new TextDecoder().decode(output.stdout).trim() : "";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

async function run(command: string, args: readonly string[], env?: Record<string, string>): Promise<void> {
  console.error(`> ${command} ${args.join(" ")}`);
  const status = await new Deno.Command(command, { args: [...args], env, stdout: "inherit", stderr: "inherit" }).spawn()
    .status;
  if (!status.success) throw new Error(`Cannot run ${command}: it ended with exit status ${status.code}`);
}

async function missingPackages(): Promise<string[]> {
  const missing: string[] = [];
  for (const name of PACKAGES) {
    const status = await capture("dpkg-query", ["-W", "-f=${Status}", name]);
    if (!status.endsWith("install ok installed")) missing.push(name);
  }
  return missing;
}

/** Installs Debian packages that are missing. Returns why that cannot be done here, if so. */
async function installPackages(): Promise<string | undefined> {
  const missing = await missingPackages();
  if (missing.length === 0) return undefined;
  const release = await Deno.readTextFile("/etc/os-release").catch(() => "");
  if (!/^ID=debian$/m.test(release)) return "the toolchain comes from Debian's packages and this is not Debian";
  if (await capture("id", ["-u"]) !== "0") {
    return `the packages ${missing.join(", ")} are not installed and this user is not root`;
  }
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  await run("apt-get", ["update", "-q"], env);
  await run("apt-get", ["install", "-y", "-q", "--no-install-recommends", ...missing], env);
  return undefined;
}

/** wasm-pack refuses to start without the target's library folder, even where std is built from source. */
async function ensureTargetFolder(env: Record<string, string>): Promise<void> {
  const folder = await capture("/usr/bin/rustc", ["--print", "target-libdir", "--target", TARGET], env);
  await Deno.mkdir(folder, { recursive: true });
}

async function installTool(name: string, version: string, root: string, extra: readonly string[]): Promise<void> {
  const binary = `${root}/bin/${name.replace(/-cli$/, "")}`;
  if ((await capture(binary, ["--version"])).split(" ")[1] === version) return;
  const target = await Deno.makeTempDir({ prefix: "wasm-tools-" });
  try {
    await run("/usr/bin/cargo", [
      "install",
      "--locked",
      "--force",
      "-q",
      "--root",
      root,
      name,
      "--version",
      version,
      ...extra,
    ], {
      PATH: `/usr/bin:${Deno.env.get("PATH") ?? ""}`,
      RUSTFLAGS: "",
      CARGO_TARGET_DIR: target,
      // These tools run for a second a build: compile them fast rather than well.
      CARGO_PROFILE_RELEASE_OPT_LEVEL: "1",
      CARGO_PROFILE_RELEASE_STRIP: "true",
    });
  } finally {
    await Deno.remove(target, { recursive: true });
  }
}

/**
 * Finds the toolchain, installing what is missing (Debian packages as root, tools into `$WASM_TOOLS_DIR` or
 * `~/.local/wasm-tools`).
 *
 * @throws {Error} when an installation that should work fails.
 */
export async function prepareToolchain(): Promise<Toolchain | MissingToolchain> {
  const refused = await installPackages();
  if (refused !== undefined) return { kind: "missing", reason: refused };
  const root = Deno.env.get("WASM_TOOLS_DIR") ?? `${Deno.env.get("HOME")}/.local/wasm-tools`;
  const env: Record<string, string> = {
    PATH: `${root}/bin:/usr/bin:${Deno.env.get("PATH") ?? ""}`,
    // std is built from source with atomics, which stable compilers allow only with this variable.
    RUSTC_BOOTSTRAP: "1",
    CARGO_UNSTABLE_BUILD_STD: "std,panic_abort",
    CARGO_INCREMENTAL: "0",
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER: "wasm-ld-22",
  };
  await ensureTargetFolder(env);
  await installTool("wasm-bindgen-cli", WASM_BINDGEN, root, ["--no-default-features", "--bin", "wasm-bindgen"]);
  await installTool("wasm-pack", WASM_PACK, root, []);
  const version = (command: string, args: string[]): Promise<string> => capture(command, args, env);
  return {
    kind: "ready",
    env,
    versions: {
      rustc: await version("/usr/bin/rustc", ["-V"]),
      linker: await version("wasm-ld-22", ["--version"]),
      "wasm-bindgen": await version(`${root}/bin/wasm-bindgen`, ["--version"]),
      "wasm-pack": await version(`${root}/bin/wasm-pack`, ["--version"]),
      "rust-web-src": await version("dpkg-query", ["-W", "-f=${Version}", "rust-web-src"]),
    },
  };
}
