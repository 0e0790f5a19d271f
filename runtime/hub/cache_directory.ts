/**
 * Where models are kept on this machine.
 *
 * @module
 */
import { posix, win32 } from "node:path";

/** What the place depends on. */
export interface CacheDirectoryOptions {
  /** Reads an environment variable. */
  readonly env: (name: string) => string | undefined;
  /** Operating system. @default {Deno.build.os} */
  readonly os?: typeof Deno.build.os;
}

/** Environment variable that names the cache directory. */
export const CACHE_VARIABLE = "INFINITE_LLM_CACHE";

/**
 * The model cache: where {@linkcode CACHE_VARIABLE} says, else {@linkcode defaultCacheDirectory}.
 *
 * @throws {TypeError} when neither is known.
 */
export function cacheDirectory(options: CacheDirectoryOptions): string {
  return options.env(CACHE_VARIABLE) || defaultCacheDirectory(options);
}

/**
 * The model cache by the platform's convention: `$XDG_CACHE_HOME/infinite-llm` or `~/.cache/infinite-llm`,
 * `~/Library/Caches/infinite-llm` on macOS, `%LOCALAPPDATA%\infinite-llm` on Windows.
 *
 * @throws {TypeError} when the variables that name the home directory are not set.
 */
export function defaultCacheDirectory({ env, os = Deno.build.os }: CacheDirectoryOptions): string {
  const base = platformBase(env, os);
  if (base === undefined) {
    throw new TypeError(
      `Cannot find the cache directory: wanted ${os === "windows" ? "LOCALAPPDATA" : "HOME"} to be set, or --cache-dir`,
    );
  }
  return (os === "windows" ? win32 : posix).join(base, "infinite-llm");
}

function platformBase(env: CacheDirectoryOptions["env"], os: typeof Deno.build.os): string | undefined {
  if (os === "windows") return env("LOCALAPPDATA") || undefined;
  const home = env("HOME") || undefined;
  if (os === "darwin") return home && posix.join(home, "Library", "Caches");
  const xdg = env("XDG_CACHE_HOME");
  // The specification says that relative paths are to be ignored.
  return xdg !== undefined && posix.isAbsolute(xdg) ? xdg : home && posix.join(home, ".cache");
}

// Tasks grant the right to write to this directory alone.
if (import.meta.main) console.log(cacheDirectory({ env: (name) => Deno.env.get(name) }));
