import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { FakeHub, sampleBytes, sha256 } from "../../runtime/hub/fake_hub.ts";
import { makeModelDirectory, runCli } from "./cli_process.ts";

/** One line that begins as all errors of the program do. */
const ONE_LINE = /^infinite-llm: [^\n]+\n$/;

Deno.test("cli.ts shows help and version without any permission", async () => {
  const permissions: string[] = [];
  const [help, serveHelp, version] = await Promise.all([
    runCli(["--help"], { permissions }),
    runCli(["serve", "--help"], { permissions }),
    runCli(["--version"], { permissions }),
  ]);
  assertStringIncludes(help.output, "Usage: infinite-llm COMMAND");
  assertStringIncludes(serveHelp.output, "--kv-memory SIZE");
  const config = JSON.parse(await Deno.readTextFile(new URL("../../deno.json", import.meta.url)));
  assertEquals(version.output, `infinite-llm ${config.version}\n`);
  for (const { status, errors } of [help, serveHelp, version]) {
    assertEquals({ status, errors }, { status: 0, errors: "" });
  }
});

Deno.test("cli.ts ends with 2 and one line when the command line is wrong", async () => {
  const cases = [
    { args: ["serve", "--prot", "1"], says: "did you mean --port?" },
    { args: ["sevre"], says: "did you mean serve?" },
    { args: ["serve", "--port", "99999"], says: 'wanted a whole number from 0 to 65535, got "99999"' },
    {
      args: ["serve", "a.gguf", "--model", "b.gguf"],
      says: "Cannot choose a model: wanted one, got a.gguf and --model",
    },
  ];
  for (
    const { status, errors, says } of await Promise.all(cases.map(async (c) => ({ ...c, ...await runCli(c.args) })))
  ) {
    assertEquals(status, 2, errors);
    assertMatch(errors, ONE_LINE);
    assertStringIncludes(errors, says);
  }
});

Deno.test("cli.ts ends with 1 and one line when a file or value is bad, and shows a stack only with --debug", async () => {
  await using directory = await makeModelDirectory();
  const bad = join(directory.path, "bad.gguf");
  const template = join(directory.path, "none.jinja");
  await Deno.writeTextFile(bad, "not a model at all");
  const cases: { args: string[]; says: string; env?: Record<string, string> }[] = [
    { args: ["serve", "--model", bad, "--port", "0"], says: 'magic must be "GGUF"' },
    { args: ["run", "--model", bad], says: 'magic must be "GGUF"' },
    { args: ["serve", "--model", join(directory.path, "none.gguf")], says: "found no such file" },
    { args: ["serve", "--model", directory.model, "--device", "cuda", "--kv-type", "f16"], says: "stores bf16" },
    {
      args: ["serve", "--model", directory.model, "--device", "wasm", "--kv-type", "fp8"],
      says: "processors store f32, f16 or bf16, got fp8",
    },
    {
      args: ["serve", "--model", directory.model, "--chat-template", template],
      says: "wanted a readable file, found nothing",
    },
    {
      args: ["serve", "--model", directory.model, "--port", "0", "--kv-memory", "1GB", "--threads", "1"],
      env: {
        INFINITE_LLM_SCHEDULER: "./none.ts",
      },
      says: "Cannot load plugin ./none.ts: wanted a file, got nothing",
    },
    { args: ["serve", "--model", directory.model, "--port", "0", "--kv-memory", "1"], says: "Cannot size the KV pool" },
    { args: ["serve", "--model", directory.model, "--host", "0.0.0.0", "--port", "0"], says: "wanted API keys" },
    { args: ["list"], env: { INFINITE_LLM_CACHE: "a\nb" }, says: "wanted text without control characters" },
  ];
  for (const { args, env, says } of cases) {
    const { status, errors } = await runCli(args, { env });
    assertEquals(status, 1, errors);
    assertMatch(errors, ONE_LINE);
    assertStringIncludes(errors, says);
  }
  const { errors } = await runCli(["run", "--model", bad, "--debug"]);
  assertMatch(errors, /\n {4}at .*\.ts:/);
});

Deno.test("cli.ts serve says so when its port is taken or may not be used", async () => {
  await using directory = await makeModelDirectory();
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const args = ["serve", "--model", directory.model, "--port", String(listener.addr.port)];
  const taken = await runCli(args);
  assertEquals(taken.status, 1);
  assertEquals(taken.errors, `infinite-llm: Cannot listen on 127.0.0.1:${listener.addr.port}: EADDRINUSE\n`);
  const denied = await runCli(args, { permissions: ["--allow-read", "--allow-env"] });
  assertEquals(denied.status, 1);
  assertMatch(denied.errors, /^infinite-llm: [^\n]*net[^\n]*\n$/);
});

Deno.test("cli.ts pull, list and remove keep the cache", async () => {
  const bytes = sampleBytes(5000);
  await using hub = new FakeHub({ files: { "m.gguf": { bytes } }, token: "right" });
  const cache = await Deno.makeTempDir();
  try {
    const env = { INFINITE_LLM_CACHE: cache, HF_ENDPOINT: hub.endpoint, HF_TOKEN: "right" };
    const denied = await runCli(["pull", "hf:org/model"], { env: { ...env, HF_TOKEN: "" } });
    assertEquals(denied.status, 1);
    assertStringIncludes(denied.errors, "set HF_TOKEN");
    const offline = await runCli(["pull", "hf:org/model"], { env: { ...env, HF_HUB_OFFLINE: "1" } });
    assertStringIncludes(offline.errors, "Cannot fetch hf:org/model: offline");

    const pulled = await runCli(["pull", "hf:org/model"], { env });
    assertEquals(pulled.status, 0, pulled.errors);
    assertMatch(pulled.output, /^hf:org\/model is in the cache: 4\.9 KiB from hf:org\/model@[0-9a-f]{40}, checked\n$/);
    assertStringIncludes(pulled.errors, "m.gguf: 100%, 4.9 KiB of 4.9 KiB");
    const listed = await runCli(["list"], { env });
    assertMatch(listed.output, /^MODEL +SIZE +FETCHED +SOURCE\nhf:org\/model +4\.9 KiB +\d{4}-\d\d-\d\d +hf:org/);
    const entry = JSON.parse(await Deno.readTextFile(join(cache, "models", "hf--org--model", "entry.json")));
    assertEquals(entry.files, [{ name: "m.gguf", bytes: 5000, sha256: sha256(bytes) }]);

    assertEquals((await runCli(["remove", "hf:org/model"], { env })).output, "hf:org/model is removed\n");
    const again = await runCli(["remove", "hf:org/model"], { env });
    assertEquals(again.status, 1);
    assertMatch(again.errors, ONE_LINE);
    const empty = await runCli(["list"], { env });
    assertEquals(empty.errors, `No models in ${cache}\n`);
  } finally {
    await Deno.remove(cache, { recursive: true });
  }
});

Deno.test("cli.ts pull says that the disk is full", { ignore: Deno.build.os !== "linux" }, async () => {
  await using hub = new FakeHub({ files: { "m.gguf": { bytes: sampleBytes(5000) } } });
  const cache = await Deno.makeTempDir();
  try {
    const directory = join(cache, "models", "hf--org--model");
    await Deno.mkdir(directory, { recursive: true });
    await Deno.symlink("/dev/full", join(directory, "m.gguf.part"));
    const env = { HF_ENDPOINT: hub.endpoint, INFINITE_LLM_CACHE: cache };
    const { status, errors } = await runCli(["pull", "hf:org/model"], { env });
    assertEquals(status, 1);
    assertStringIncludes(errors, `infinite-llm: Cannot store m.gguf: no space left in ${directory}\n`);
  } finally {
    await Deno.remove(cache, { recursive: true });
  }
});

Deno.test("cli.ts pull goes through the proxy that the environment names", async () => {
  await using hub = new FakeHub({ files: { "m.gguf": { bytes: sampleBytes(5000) } } });
  const cache = await Deno.makeTempDir();
  try {
    const env = { HF_ENDPOINT: "http://hub.invalid", HTTP_PROXY: hub.endpoint, NO_PROXY: "" };
    const { status, errors } = await runCli(["pull", "hf:org/model", "--cache-dir", cache], { env });
    assertEquals(status, 0, errors);
    assertEquals(hub.downloads.length, 1);
  } finally {
    await Deno.remove(cache, { recursive: true });
  }
});

Deno.test("cli.ts plugin check runs the checks on a file", async () => {
  const good = await runCli(["plugin", "check", "builtin:priority", "--scheduler-opt", "agingMs=50"]);
  assertEquals(good.status, 0, good.output);
  assertMatch(good.output, /\d+ checks passed\n$/);
  const bad = await runCli(["plugin", "check", "builtin:priority", "--scheduler-opt", "agingMs=old"]);
  assertEquals(bad.status, 1);
  assertStringIncludes(bad.output, "FAILED  accepts its options");
  const missing = await runCli(["plugin", "check", "./no_such_policy.ts"]);
  assertEquals(missing.status, 1);
  assert(missing.output.includes("FAILED  loads"));
});
