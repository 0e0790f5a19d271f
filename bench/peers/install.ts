/**
 * Installs the peers that come as npm packages, outside the repository's own dependencies.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** Exact versions of the packages. */
export const PEER_PACKAGES = {
  "node-llama-cpp": "3.22.1",
  "@wllama/wllama": "3.8.1",
  "playwright-core": "1.65.1",
} as const;

/** Folder the packages go to; ignored by git. */
const FOLDER = fileURLToPath(new URL("../out/peers/", import.meta.url));

function installedVersion(name: string): string | undefined {
  try {
    return JSON.parse(Deno.readTextFileSync(join(FOLDER, "node_modules", name, "package.json"))).version;
  } catch {
    return undefined;
  }
}

/**
 * Makes sure that packages are installed and copies a script of this folder beside them, where its imports resolve.
 * Returns the path of the copy. Install scripts are not run: everything needed comes with the packages.
 *
 * @throws {Error} when `npm` is missing or fails.
 */
export async function installPeer(script: string, packages: readonly (keyof typeof PEER_PACKAGES)[]): Promise<string> {
  Deno.mkdirSync(FOLDER, { recursive: true });
  const missing = packages.filter((name) => installedVersion(name) !== PEER_PACKAGES[name]);
  if (missing.length > 0) {
    if (!existsSync(join(FOLDER, "package.json"))) {
      Deno.writeTextFileSync(join(FOLDER, "package.json"), '{ "private": true }\n');
    }
    const specifiers = missing.map((name) => `${name}@${PEER_PACKAGES[name]}`);
    const { code, stderr } = await new Deno.Command("npm", {
      args: ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact", ...specifiers],
      cwd: FOLDER,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).output();
    if (code !== 0) {
      const reason = new TextDecoder().decode(stderr).trim().split("\n").at(-1);
      throw new Error(`Cannot install ${specifiers.join(", ")}: npm ended with code ${code}: ${reason}`);
    }
  }
  const copy = join(FOLDER, script);
  Deno.copyFileSync(fileURLToPath(new URL(script, import.meta.url)), copy);
  return copy;
}

/** Path of the first of `names` that is a program on the PATH. */
export function findProgram(...names: string[]): string | undefined {
  const folders = (Deno.env.get("PATH") ?? "").split(":");
  return names.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => existsSync(path));
}
