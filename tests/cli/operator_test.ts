import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { digestKey } from "../../runtime/server/api_keys.ts";
import { FakeCluster, SAMPLE_REPORT } from "../../runtime/server/fakes/cluster.ts";
import { FakeEngine } from "../../runtime/server/fakes/engine.ts";
import { serve } from "../../runtime/server/fakes/server.ts";
import { type CliResult, runCli } from "./cli_process.ts";

const PERMISSIONS = ["--allow-net=127.0.0.1", "--allow-read"];

function operate(url: string, ...args: string[]): Promise<CliResult> {
  return runCli([...args, "--url", url], { permissions: PERMISSIONS });
}

Deno.test("cli.ts ps and cluster status show a running cluster, as tables and as JSON", async () => {
  await using harness = await serve({ engine: new FakeEngine({ cluster: new FakeCluster() }) });
  const { url } = harness.server;
  const [table, json, status, statusJson] = await Promise.all([
    operate(url, "ps"),
    operate(url, "ps", "--json"),
    operate(url, "cluster", "status"),
    operate(url, "cluster", "status", "--json"),
  ]);
  for (const result of [table, json, status, statusJson]) assertEquals([result.status, result.errors], [0, ""]);
  assertMatch(
    table.output,
    /^MEMBER +ROLE[^\n]*\none +full, gManager +alive [^]*\none\/7 +one +1400 [^\n]*attic 0-512,/,
  );
  const { members, sequences } = SAMPLE_REPORT;
  assertEquals(JSON.parse(json.output), { members, sequences });
  assertMatch(status.output, /^one: gManager one, epoch 3\n[^]*\nlongest prompt plus output now: 4096 tokens\n/);
  assertEquals(JSON.parse(statusJson.output), SAMPLE_REPORT);
});

Deno.test("cli.ts move, evacuate, pin and leave give their orders and say what was done", async () => {
  const cluster = new FakeCluster();
  await using harness = await serve({ engine: new FakeEngine({ cluster }) });
  const { url } = harness.server;
  const orders = [
    ["move", "one/7", "--segments", "2", "--to", "attic"],
    ["evacuate", "attic", "--undo"],
    ["pin", "one/7"],
    ["leave", "two"],
  ];
  for (const order of orders) {
    const { status, output, errors } = await operate(url, ...order);
    assertEquals([status, output, errors], [0, "done as told\n", ""]);
  }
  assertEquals(cluster.commands.map(({ kind }) => kind), ["move", "evacuate", "pin", "leave"]);
  cluster.result = { ok: false, message: "Cannot move one/7: two has no room", status: 409 };
  const refused = await operate(url, ...orders[0]);
  assertEquals([refused.status, refused.errors], [1, "infinite-llm: Cannot move one/7: two has no room\n"]);
});

Deno.test("cli.ts ps says why it has nothing to show", async () => {
  {
    await using alone = await serve();
    const { status, errors } = await operate(alone.server.url, "ps");
    assertEquals(status, 1);
    assertStringIncludes(errors, "infinite-llm: Cannot show the cluster: this instance is in none");
  }
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const url = `http://127.0.0.1:${listener.addr.port}`;
  listener.close();
  const gone = await operate(url, "ps");
  assertEquals([gone.status, gone.errors], [1, `infinite-llm: Cannot reach ${url}: ECONNREFUSED\n`]);
  await using other = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => new Response("{}"));
  const strange = await operate(`http://127.0.0.1:${other.addr.port}`, "ps");
  assertEquals(strange.status, 1);
  assertStringIncludes(strange.errors, "wanted that of a member, got another");
});

Deno.test("cli.ts ps takes its key from a file and asks no proxy", async () => {
  await using harness = await serve({
    engine: new FakeEngine({ cluster: new FakeCluster() }),
    apiKeys: [digestKey("canary-key")],
  });
  const { url } = harness.server;
  const directory = await Deno.makeTempDir();
  try {
    const keys = join(directory, "keys");
    await Deno.writeTextFile(keys, `# ours\nsha256:${"0".repeat(64)}\ncanary-key\n`);
    const args = ["ps", "--url", url, "--api-key-file", keys];
    const env = { HTTP_PROXY: "http://127.0.0.1:1", NO_PROXY: "" };
    const shown = await runCli(args, { env, permissions: PERMISSIONS });
    assertEquals(shown.status, 0, shown.errors);
    const keyless = await operate(url, "ps");
    assertEquals(keyless.status, 1);
    assertStringIncludes(keyless.errors, "give the key with --api-key-file");
    await Deno.writeTextFile(keys, `sha256:${"0".repeat(64)}\n`);
    const digests = await runCli(args, { permissions: PERMISSIONS });
    assertEquals(digests.status, 1);
    assertStringIncludes(digests.errors, "only digests");
    assert(!(shown.output + shown.errors + keyless.errors).includes("canary"));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
