import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fileURLToPath } from "node:url";
import { readAnnouncement } from "../../runtime/cli/announcement.ts";
import type { ClusterReport } from "../../runtime/cluster/report.ts";
import { makeModelDirectory, runCli, RunningCli } from "./cli_process.ts";

/** What the project's tasks grant, but for the network beyond this machine and places to write. */
const PERMISSIONS = [
  "--allow-net=127.0.0.1",
  "--allow-read",
  "--allow-env=INFINITE_LLM_*,HF_*,HOME,XDG_CACHE_HOME,LOCALAPPDATA,USERPROFILE,SystemRoot,DENO_DIR,TZ",
  "--allow-ffi=/lib/x86_64-linux-gnu/libc.so.6,/lib/aarch64-linux-gnu/libc.so.6",
  `--allow-run=python3,${Deno.execPath()}`,
];

async function announced(cli: RunningCli): Promise<{ readonly url: string; readonly clusterUrl: string }> {
  const [line] = await cli.match(/^\{.*\}$/m);
  const announcement = readAnnouncement(line);
  assert(announcement !== undefined, line);
  return announcement;
}

async function longest(url: string): Promise<number> {
  const { data } = await (await fetch(`${url}/v1/models`)).json();
  return data[0].max_model_len;
}

Deno.test("cli.ts cluster serves a prompt that is longer than any of its instances takes", async () => {
  await using directory = await makeModelDirectory();
  const size = [
    "--kv-tokens",
    "512",
    "--max-model-len",
    "4096",
    "--holder-memory",
    "4MiB",
    "--port",
    "0",
    "--log-level",
    "warn",
  ];
  await using cli = new RunningCli(
    ["cluster", "--instances", "1", "--holders", "1", "--model", directory.model, ...size],
    {
      permissions: PERMISSIONS,
      // Flags of the whole are not flags of its parts.
      env: { INFINITE_LLM_KV_TOKENS: "512", INFINITE_LLM_JOIN: "http://127.0.0.1:1", INFINITE_LLM_ROLE: "holder" },
    },
  );
  const [, url] = await cli.match(/\nListening on (http:\S+), the public address of the cluster\n/);
  await cli.match(/\nholder-1 is ready: holder, /);
  for (let i = 0; i < 100 && await longest(url) <= 1024; i++) await new Promise((resolve) => setTimeout(resolve, 50));
  assert(await longest(url) > 1024);
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: Array.from({ length: 900 }, (_, at) => 3 + at % 100), max_tokens: 4 }),
  });
  const body = await response.json();
  assertEquals([response.status, body.usage?.prompt_tokens], [200, 900], JSON.stringify(body));
  const shown = await runCli(["ps", "--url", url], { permissions: PERMISSIONS });
  assertMatch(shown.output, /\ninstance-1 +full, gManager +alive [^]*\nholder-1 +holder +alive /);
  cli.signal("SIGTERM");
  const { status, output } = await cli.end();
  assertEquals(status, 0, output);
  assertMatch(output, /instance-1 has ended: status 0\n[^]*holder-1 has ended: status 0\n/);
});

Deno.test("cli.ts cluster links its instances over TLS", async () => {
  await using directory = await makeModelDirectory();
  const file = (name: string) => fileURLToPath(new URL(`../../scheduler/links/testdata/${name}.pem`, import.meta.url));
  const tls = ["--cluster-tls-cert", file("cluster.cert"), "--cluster-tls-key", file("cluster.key")];
  const size = ["--kv-tokens", "512", "--holder-memory", "4MiB", "--port", "0", "--log-level", "warn"];
  await using cli = new RunningCli(
    ["cluster", "--instances", "1", "--holders", "1", "--model", directory.model, ...size]
      .concat(tls, "--cluster-tls-ca", file("cluster.ca")),
    { permissions: PERMISSIONS },
  );
  const [, url] = await cli.match(/\nListening on (http:\S+), the public address of the cluster\n/);
  await cli.match(/\nholder-1 is ready: holder, /);
  const linked = async () => {
    const { members }: ClusterReport = await (await fetch(`${url}/cluster`)).json();
    return members.map(({ id, clusterUrl }) => `${id} ${new URL(clusterUrl).protocol}`).sort();
  };
  for (let i = 0; i < 100 && (await linked()).length < 2; i++) await new Promise((resolve) => setTimeout(resolve, 50));
  assertEquals(await linked(), ["holder-1 https:", "instance-1 https:"]);
  cli.signal("SIGTERM");
  const { status, output } = await cli.end();
  assertEquals(status, 0, output);
});

Deno.test("cli.ts gmanager and serve --role holder announce themselves and end with their input", async () => {
  const options = { permissions: PERMISSIONS, input: "" };
  await using manager = new RunningCli(
    ["gmanager", "--listen", "127.0.0.1:0", "--name", "boss", "--announce"],
    options,
  );
  const { clusterUrl } = await announced(manager);
  const flags = ["--role", "holder", "--join", clusterUrl, "--kv-memory", "4MiB", "--port", "0", "--name", "attic"];
  await using holder = new RunningCli(["serve", ...flags, "--announce"], options);
  const { url } = await announced(holder);
  // A gManager listens for a second before it leads.
  let status = await runCli(["cluster", "status", "--url", url], { permissions: PERMISSIONS });
  for (let left = 20; left > 0 && status.output.includes("no gManager"); left--) {
    status = await runCli(["cluster", "status", "--url", url], { permissions: PERMISSIONS });
  }
  assertMatch(status.output, /^attic: gManager boss, epoch \d+\n/, status.errors);
  assertMatch(status.output, /\nattic +holder +alive /);
  const refused = await fetch(`${url}/v1/completions`, { method: "POST", body: "{}" });
  assertEquals([refused.status, (await refused.json()).error.code], [501, "holder_has_no_model"]);
  // Ctrl-C in a terminal reaches children too; theirs is to wait for whoever started them.
  holder.signal("SIGINT");
  const left = await runCli(["leave", "attic", "--url", url], { permissions: PERMISSIONS });
  assertEquals([left.status, left.output], [0, "attic is leaving\n"]);
  const ended = await holder.end();
  assertEquals([ended.status, ended.errors.includes("Cannot leave")], [0, false], ended.errors);
  await manager.closeInput();
  assertEquals((await manager.end()).status, 0);
});

Deno.test("cli.ts serve --role holder notes a model that it does not use", async () => {
  const flags = ["--role", "holder", "--cluster-listen", "127.0.0.1:0", "--kv-memory", "4MiB", "--port", "0"];
  await using cli = new RunningCli(["serve", ...flags, "--model", "m.gguf"], { permissions: PERMISSIONS });
  await cli.match(/^Listening on http:\S+\nReady in \d+\.\d s: holder \S+ lends 4\.0 MiB, reached at http:\S+\n/);
  cli.signal("SIGTERM");
  const { status, errors } = await cli.end();
  assertEquals(status, 0, errors);
  assertStringIncludes(errors, "A holder has no model: m.gguf is not used\n");
});
