import { assertEquals, assertThrows } from "@std/assert";
import { defaultCacheDirectory } from "./cache_directory.ts";

function directory(os: typeof Deno.build.os, variables: Readonly<Record<string, string>>): string {
  return defaultCacheDirectory({ os, env: (name) => variables[name] });
}

Deno.test("defaultCacheDirectory() follows the convention of each platform", () => {
  assertEquals(directory("linux", { HOME: "/home/a" }), "/home/a/.cache/infinite-llm");
  assertEquals(directory("linux", { HOME: "/home/a", XDG_CACHE_HOME: "/big" }), "/big/infinite-llm");
  assertEquals(directory("linux", { HOME: "/home/a", XDG_CACHE_HOME: "not/absolute" }), "/home/a/.cache/infinite-llm");
  assertEquals(directory("darwin", { HOME: "/Users/a" }), "/Users/a/Library/Caches/infinite-llm");
  assertEquals(directory("windows", { LOCALAPPDATA: "C:\\Users\\a\\L" }), "C:\\Users\\a\\L\\infinite-llm");
});

Deno.test("defaultCacheDirectory() names the variable that is missing", () => {
  assertThrows(() => directory("linux", { HOME: "" }), TypeError, "wanted HOME to be set, or --cache-dir");
  assertThrows(() => directory("windows", {}), TypeError, "wanted LOCALAPPDATA to be set, or --cache-dir");
});
