import { assert, assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { PluginError } from "./error.ts";
import { BUILTIN_SCHEDULERS, loadSchedulerPlugin } from "./load.ts";

const directory = import.meta.dirname ?? "";

/** A module of that source. */
function moduleOf(source: string): string {
  return `data:application/typescript,${encodeURIComponent(source)}`;
}

/** A module whose default export has the given fields besides those of a sound policy. */
function pluginWith(fields: string): string {
  return moduleOf(
    `export default { api: 1, kind: "scheduler", name: "x", version: "1.0.0", create() {}, ${fields} };`,
  );
}

async function refusal(specifier: string, timeoutMs?: number): Promise<string> {
  const error = await assertRejects(() => loadSchedulerPlugin(specifier, { directory, timeoutMs }), PluginError);
  assertEquals(error.plugin, specifier);
  assertStringIncludes(error.message, `Cannot load plugin ${specifier}`.slice(0, 100));
  assert(!error.message.includes("\n"), error.message);
  return error.message;
}

Deno.test("loadSchedulerPlugin() finds the built-in policies through the same door", async () => {
  for (const [name, plugin] of BUILTIN_SCHEDULERS) {
    assertEquals((await loadSchedulerPlugin(`builtin:${name}`)).version, plugin.version);
  }
  assertStringIncludes(await refusal("builtin:nope"), "wanted builtin:fcfs or builtin:priority");
});

Deno.test("loadSchedulerPlugin() loads a relative path, an absolute one and a URL", async () => {
  const path = join("builtin", "fcfs.ts");
  for (const specifier of [path, `./${path}`, join(directory, path), new URL(path, import.meta.url).href]) {
    assertEquals((await loadSchedulerPlugin(specifier, { directory })).name, "fcfs");
  }
});

Deno.test("loadSchedulerPlugin() refuses a missing file", async () => {
  assertStringIncludes(await refusal("./missing.ts"), "wanted a file, got nothing at");
});

Deno.test("loadSchedulerPlugin() refuses a directory", async () => {
  assertStringIncludes(await refusal("./builtin"), "wanted a file, got a directory");
});

Deno.test("loadSchedulerPlugin() refuses a syntax error", async () => {
  const message = await refusal(moduleOf("export default {"));
  assertStringIncludes(message, "wanted a module that loads, got ");
  assertStringIncludes(message, "Unexpected token");
});

Deno.test("loadSchedulerPlugin() refuses a module without default export", async () => {
  assertStringIncludes(await refusal(moduleOf("export const api = 1;")), "wanted a default export");
});

Deno.test("loadSchedulerPlugin() names both versions of the interface when they differ", async () => {
  assertStringIncludes(await refusal(pluginWith("api: 2")), "wanted plugin API 1, got a plugin written for API 2");
  assertStringIncludes(await refusal(pluginWith("api: undefined")), "wanted plugin API 1, got none");
  assertStringIncludes(await refusal(pluginWith(`api: "1"`)), "written for API string");
});

Deno.test("loadSchedulerPlugin() gives up on a module whose top level never ends", async () => {
  const worker = new Worker(new URL("./testdata/load_worker.ts", import.meta.url), { type: "module" });
  const { promise, resolve } = Promise.withResolvers<string>();
  worker.onmessage = ({ data }) => resolve(data);
  const specifier = moduleOf("await new Promise(() => {}); export default {};");
  worker.postMessage({ specifier, timeoutMs: 50 });
  const message = await promise;
  worker.terminate();
  assertStringIncludes(message, "PluginError: Cannot load plugin data:");
  assertStringIncludes(message, "wanted a module that loads within 50 ms, got one that does not finish");
});

Deno.test("loadSchedulerPlugin() gives up on a module that is a promise that never settles", async () => {
  assertStringIncludes(await refusal(moduleOf("export function then() {}"), 50), "within 50 ms");
});

Deno.test("loadSchedulerPlugin() refuses a module that throws while it loads", async () => {
  const specifier = moduleOf(`throw new TypeError("no\\nluck");`);
  assertStringIncludes(await refusal(specifier), "wanted a module that loads, got TypeError: no luck");
  const error = await assertRejects(() => loadSchedulerPlugin(specifier), PluginError);
  assertInstanceOf(error.cause, TypeError);
});

Deno.test("loadSchedulerPlugin() refuses a default export with a getter that throws", async () => {
  assertStringIncludes(
    await refusal(pluginWith(`get name() { throw new Error("mine"); }`)),
    `wanted a readable property "name", got an exception from reading it (Error: mine)`,
  );
});

Deno.test("loadSchedulerPlugin() refuses a proxy that throws", async () => {
  const specifier = moduleOf(`export default new Proxy({}, { get() { throw { toString() { throw 1; } }; } });`);
  assertStringIncludes(await refusal(specifier), "a value that cannot be printed");
});

Deno.test("loadSchedulerPlugin() reads each property of a proxy once", async () => {
  const plugin = await loadSchedulerPlugin(moduleOf(`
    const reads = {};
    const sound = { api: 1, kind: "scheduler", name: "x", version: "1.0.0", create() { return reads; } };
    export default new Proxy(sound, { get(target, key) { reads[key] = (reads[key] ?? 0) + 1; return target[key]; } });
  `));
  const context = { config: {}, now: () => 0, random: () => 0, log: () => {} };
  const reads = new Map(Object.entries(plugin.create(context) as Record<string, number>));
  assertEquals([...reads].filter(([, count]) => count !== 1), []);
});

Deno.test("loadSchedulerPlugin() refuses promises and other values as default export", async () => {
  for (const source of ["Promise.resolve({})", "Promise.reject(new Error())", "{ then() {} }"]) {
    assertStringIncludes(await refusal(moduleOf(`export default ${source};`)), "got a promise");
  }
  assertStringIncludes(await refusal(moduleOf("export default null;")), "as default export, got null");
  assertStringIncludes(await refusal(moduleOf("export default 3;")), "as default export, got number");
});

Deno.test("loadSchedulerPlugin() refuses fields that are not what the interface says", async () => {
  assertStringIncludes(await refusal(pluginWith(`kind: "memory"`)), `wanted kind "scheduler", got "memory"`);
  assertStringIncludes(await refusal(pluginWith(`name: "Not Kebab"`)), "wanted a name in kebab-case");
  assertStringIncludes(await refusal(pluginWith(`version: "one"`)), "wanted a semantic version");
  assertStringIncludes(await refusal(pluginWith("configSchema: []")), "wanted a JSON Schema object");
  assertStringIncludes(await refusal(pluginWith("create: undefined")), "wanted a function as create, got none");
  assertStringIncludes(await refusal(pluginWith("rank: 3")), "wanted a function as rank, got number");
});
