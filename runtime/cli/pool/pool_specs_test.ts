import { assert, assertEquals } from "@std/assert";
import { readCommandLine } from "../command_line.ts";
import type { Settings } from "../flags.ts";
import { resolveSettings } from "../settings.ts";
import { firstSpec, otherSpecs } from "./pool_specs.ts";

async function settle(...args: string[]): Promise<Settings> {
  const line = readCommandLine(["cluster", ...args]);
  assert(line.kind === "run");
  return await resolveSettings({ ...line, env: () => undefined });
}

/** Settings that a child makes of its command line. */
async function asChild(args: readonly string[]): Promise<Settings> {
  const line = readCommandLine(args);
  assert(line.kind === "run" && line.command === "serve");
  return await resolveSettings({ ...line, env: () => undefined });
}

Deno.test("firstSpec() gives the first instance the public address and what serve was told", async () => {
  const flags = ["--model", "m.gguf", "--port", "9000", "--kv-tokens", "1024", "--threads", "3", "--pin"];
  const options = ["--scheduler-opt", "a=1", "--scheduler-opt", "b=text", "--served-model-name", "n=1"];
  const settings = await settle("--instances", "3", ...flags, ...options, "--lend-share", "0.5");
  const { name, role, args } = firstSpec(settings);
  assertEquals([name, role], ["instance-1", "full"]);
  const child = await asChild(args);
  const same = [
    "model",
    "port",
    "host",
    "kvTokens",
    "threads",
    "pin",
    "schedulerOpt",
    "servedModelName",
    "lendShare",
  ] as const;
  for (const key of same) assertEquals(child[key], settings[key], key);
  assertEquals([child.name, child.role, child.clusterListen, child.join, child.announce], [
    "instance-1",
    "full",
    "127.0.0.1:0",
    [],
    true,
  ]);
});

Deno.test("otherSpecs() gives the others free ports of this machine and a member to join", async () => {
  const files = ["--tls-cert", "c", "--tls-key", "k", "--api-key-file", "keys", "--cluster-key-file", "ck"];
  const settings = await settle("--instances", "2", "--holders", "2", "--host", "0.0.0.0", "--port", "9000", ...files);
  const specs = otherSpecs(settings, "http://127.0.0.1:7600");
  assertEquals(specs.map(({ name, role }) => [name, role]), [
    ["instance-2", "full"],
    ["holder-1", "holder"],
    ["holder-2", "holder"],
  ]);
  for (const { name, role, args } of specs) {
    const child = await asChild(args);
    assertEquals([child.name, child.role, child.port, child.host], [name, role, 0, "127.0.0.1"]);
    assertEquals([child.join, child.clusterListen, child.tlsCert], [["http://127.0.0.1:7600"], undefined, undefined]);
    assertEquals([child.apiKeyFile, child.clusterKeyFile, child.announce], ["keys", "ck", true]);
  }
});

Deno.test("firstSpec() and otherSpecs() give every child the certificates of the cluster", async () => {
  const tls = ["--cluster-tls-cert", "cert", "--cluster-tls-key", "key", "--cluster-tls-ca", "ca"];
  const settings = await settle("--instances", "2", "--holders", "1", ...tls);
  const specs = [firstSpec(settings), ...otherSpecs(settings, "https://127.0.0.1:7600")];
  assertEquals(specs.length, 3);
  for (const { args } of specs) {
    const { clusterTlsCert, clusterTlsKey, clusterTlsCa } = await asChild(args);
    assertEquals([clusterTlsCert, clusterTlsKey, clusterTlsCa], ["cert", "key", "ca"]);
  }
});

Deno.test("otherSpecs() sizes holders by their own flag, else by --kv-memory, never by tokens", async () => {
  const memory = async (...args: string[]) => {
    const specs = otherSpecs(await settle("--instances", "1", "--holders", "1", ...args), "http://127.0.0.1:1");
    const { kvMemory, kvTokens } = await asChild(specs[0].args);
    return [kvMemory, kvTokens];
  };
  assertEquals(await memory("--kv-memory", "1MiB", "--holder-memory", "2MiB"), [2 ** 21, undefined]);
  assertEquals(await memory("--kv-memory", "1MiB"), [2 ** 20, undefined]);
  assertEquals(await memory("--kv-tokens", "64"), [undefined, undefined]);
});

Deno.test("firstSpec() shares the processors out and hides no setting from the environment", async () => {
  const settings = await settle("--instances", "60", "--holders", "60");
  const { args } = firstSpec(settings);
  assert(args.includes("--threads=1"));
  // A default stands there as well: a child reads the same environment and files.
  assert(args.includes("--port=8080") && args.includes("--pin=false"), args.join(" "));
});

Deno.test("firstSpec() and otherSpecs() share a GPU's memory among all that compute on it", async () => {
  const shares = async (...args: string[]) => {
    const settings = await settle("--instances", "2", "--holders", "1", ...args);
    const specs = [firstSpec(settings), ...otherSpecs(settings, "http://127.0.0.1:1")];
    return await Promise.all(specs.map(async ({ args }) => (await asChild(args)).gpuMemoryUtilization));
  };
  // By itself a holder lends memory of the host.
  assertEquals((await shares()).slice(0, 2), [0.45, 0.45]);
  assertEquals(await shares("--device", "cuda"), [0.3, 0.3, 0.3]);
  assertEquals(await shares("--device", "cuda:1", "--gpu-memory-utilization", "0.6"), [0.2, 0.2, 0.2]);
  const many = await settle("--instances", "7", "--gpu-memory-utilization", "1");
  assert(7 * (await asChild(firstSpec(many).args)).gpuMemoryUtilization <= 1);
});
