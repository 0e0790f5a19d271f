import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { makeModelDirectory, RunningCli } from "./cli_process.ts";

const SMALL = ["--port", "0", "--threads", "1", "--kv-tokens", "4096"];

function post(url: string, body: unknown, headers: Readonly<Record<string, string>> = {}): Promise<Response> {
  return fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}

Deno.test("cli.ts serve listens, tells when it is ready, answers, and ends well on SIGTERM", async () => {
  await using directory = await makeModelDirectory();
  await using cli = new RunningCli(["serve", directory.model, ...SMALL, "--served-model-name", "tiny"]);
  const [, url] = await cli.match(/^Listening on (http:\/\/127\.0\.0\.1:\d+)\n/);
  const health = await fetch(`${url}/health`);
  assertEquals(health.status, 200);
  await health.body?.cancel();
  const [, json] = await cli.match(/\nTry: curl http:\S+\/v1\/chat\/completions -H "[^"]+" -d '(.+)'\n/);
  assertMatch(cli.output, /\nReady in \d+\.\d s: tiny on wasm, 1 thread, .*; KV cache of 4096 tokens, /);

  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: json,
  });
  assertEquals(response.status, 200, await response.clone().text());
  assertEquals((await response.json()).model, "tiny");
  cli.signal("SIGTERM");
  const { status, errors } = await cli.end();
  assertEquals(status, 0, errors);
  assertStringIncludes(errors, "Stopping: running requests may take 30 s more");
});

Deno.test("cli.ts serve lets a running request end after one signal and ends it at the second", async () => {
  await using directory = await makeModelDirectory();
  const long = ["--port", "0", "--threads", "1", "--kv-tokens", "100000", "--max-model-len", "100000"];
  await using cli = new RunningCli(["serve", directory.model, ...long, "--log-level", "silent"]);
  const [, url] = await cli.match(/^Listening on (\S+)\n/);
  await cli.match(/\nReady in /);
  const endless = { prompt: "a", max_tokens: 90_000, ignore_eos: true, stream: true };
  const response = await post(url, endless);
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  assertStringIncludes((await reader?.read())?.value ?? "", "data: ");
  cli.signal("SIGINT");
  // The request goes on while the server drains.
  assertStringIncludes((await reader?.read())?.value ?? "", "data: ");
  cli.signal("SIGTERM");
  const { status, errors } = await cli.end();
  assertEquals(status, 143, errors);
  await reader?.cancel().catch(() => {});
});

Deno.test("cli.ts serve wants a key when there is a key file, and takes files, flags and variables together", async () => {
  await using directory = await makeModelDirectory();
  const keys = join(directory.path, "keys");
  const config = join(directory.path, "config.json");
  await Deno.writeTextFile(keys, "canary-key\n");
  await Deno.writeTextFile(config, JSON.stringify({ "api-key-file": keys, "kv-tokens": 4096, "port": 0 }));
  await using cli = new RunningCli(["serve", "--config", config, "--threads", "1"], {
    env: { INFINITE_LLM_MODEL: directory.model, INFINITE_LLM_LOG_FORMAT: "json" },
  });
  const [, url] = await cli.match(/^Listening on (\S+)\n/);
  await cli.match(/ -H "authorization: Bearer \$API_KEY" /);
  const refused = await post(url, { prompt: "a", max_tokens: 1 });
  assertEquals(refused.status, 401);
  await refused.body?.cancel();
  const served = await post(url, { prompt: "a", max_tokens: 1 }, { authorization: "Bearer canary-key" });
  assertEquals(served.status, 200);
  await served.body?.cancel();
  cli.signal("SIGTERM");
  const { status, output, errors } = await cli.end();
  assertEquals(status, 0);
  assertEquals((output + errors).includes("canary"), false);
  for (const line of errors.trim().split("\n").filter((line) => !line.startsWith("Stopping: "))) JSON.parse(line);
});

function hasIpv6(): boolean {
  try {
    Deno.listen({ hostname: "::1", port: 0 }).close();
    return true;
  } catch {
    return false;
  }
}

Deno.test("cli.ts serve listens on IPv6", { ignore: !hasIpv6() }, async () => {
  await using directory = await makeModelDirectory();
  await using cli = new RunningCli(["serve", directory.model, ...SMALL, "--host", "::1"]);
  const [, url] = await cli.match(/^Listening on (http:\/\/\[::1\]:\d+)\n/);
  const health = await fetch(`${url}/health`);
  assertEquals(health.status, 200);
  await health.body?.cancel();
  cli.signal("SIGTERM");
  assertEquals((await cli.end()).status, 0);
});
