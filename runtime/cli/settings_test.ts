import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { readCommandLine } from "./command_line.ts";
import type { Settings } from "./flags.ts";
import { resolveSettings } from "./settings.ts";
import { UsageError } from "./usage_error.ts";

async function settle(args: readonly string[], variables: Readonly<Record<string, string>> = {}): Promise<Settings> {
  const line = readCommandLine(args);
  assert(line.kind === "run");
  return await resolveSettings({ ...line, env: (name) => variables[name] });
}

async function withConfig(text: string, use: (path: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    const path = join(directory, "config.json");
    await Deno.writeTextFile(path, text);
    await use(path);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function refusedConfig(text: string, message: string): Promise<void> {
  await withConfig(text, async (path) => {
    await assertRejects(() => settle(["serve", "--config", path]), TypeError, message);
  });
}

Deno.test("resolveSettings() takes the command line before the environment before the file before defaults", async () => {
  await withConfig('{"port": 1, "host": "::1", "max-batch": 4, "temperature": 1}', async (path) => {
    const variables = { INFINITE_LLM_PORT: "2", INFINITE_LLM_HOST: "127.0.0.2", INFINITE_LLM_CONFIG: path };
    const settings = await settle(["serve", "--port", "3"], variables);
    const { port, host, maxBatch, device, kvType, temperature } = settings;
    assertEquals({ port, host, maxBatch, device, kvType, temperature }, {
      port: 3,
      host: "127.0.0.2",
      maxBatch: 4,
      device: "auto",
      kvType: undefined,
      temperature: 1,
    });
  });
});

Deno.test("resolveSettings() reads lists and pairs from the environment, and empty variables as unset", async () => {
  const settings = await settle(["serve"], {
    INFINITE_LLM_CORS_ORIGIN: "https://a, https://b",
    INFINITE_LLM_SCHEDULER_OPT: "agingMs=5,maxWaitMs=7",
    INFINITE_LLM_CACHE: "/somewhere",
    INFINITE_LLM_PORT: "",
  });
  assertEquals(settings.corsOrigin, ["https://a", "https://b"]);
  assertEquals(settings.schedulerOpt, { agingMs: 5, maxWaitMs: 7 });
  assertEquals(settings.cacheDir, "/somewhere");
  assertEquals(settings.port, 8080);
});

Deno.test("resolveSettings() names the variable that holds something wrong", async () => {
  const cases = [
    [{ INFINITE_LLM_PORT: "no" }, 'Cannot use INFINITE_LLM_PORT: wanted a whole number from 0 to 65535, got "no"'],
    [
      { INFINITE_LLM_HOST: "a\nb" },
      'Cannot use INFINITE_LLM_HOST: wanted text without control characters, got "a\\nb"',
    ],
    [{ INFINITE_LLM_OFFLINE: "perhaps" }, 'Cannot use INFINITE_LLM_OFFLINE: wanted true or false, got "perhaps"'],
  ] as const;
  for (const [variables, message] of cases) {
    await assertRejects(() => settle(["serve"], { ...variables }), TypeError, message);
  }
});

Deno.test("resolveSettings() refuses flags that contradict each other, wherever they come from", async () => {
  await assertRejects(
    () => settle(["serve", "--kv-tokens", "5"], { INFINITE_LLM_KV_MEMORY: "1GiB" }),
    UsageError,
    "Cannot size the KV cache: wanted --kv-memory or --kv-tokens, got both",
  );
  await assertRejects(() => settle(["serve", "--tls-key", "k.pem"]), UsageError, "got --tls-key alone");
  await assertRejects(() => settle(["serve", "--tls-cert", "c.pem"]), UsageError, "got --tls-cert alone");
});

Deno.test("resolveSettings() names unknown keys and wrong values of a configuration file", async () => {
  await refusedConfig('{"prot": 1}', 'there is no flag "prot", did you mean port?');
  await refusedConfig('{"config": "other.json"}', 'there is no flag "config"');
  await refusedConfig('{"__proto__": 1}', 'there is no flag "__proto__"');
  await refusedConfig('{"port": "1"}', 'wanted a whole number from 0 to 65535, got "1"');
  await refusedConfig('{"port": null}', "got null");
  await refusedConfig("[]", "wanted a JSON object with flags, got a list");
  await refusedConfig("null", "wanted a JSON object with flags, got null");
  await refusedConfig("{", "wanted JSON, got something else");
  await refusedConfig("", "wanted JSON, got something else");
});

Deno.test("resolveSettings() says why a configuration file cannot be read", async () => {
  await withConfig(" ".repeat(2 ** 20 + 1), async (path) => {
    const read = (file: string) => settle(["serve", "--config", file]);
    await assertRejects(() => read(path), TypeError, "found 1048577 bytes where 1048576 are allowed");
    await assertRejects(() => read(join(path, "..")), TypeError, "found a directory");
    await assertRejects(() => read(`${path}.none`), TypeError, "wanted a configuration file, found nothing");
  });
});
