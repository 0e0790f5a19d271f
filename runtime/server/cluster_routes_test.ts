import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { digestKey } from "./api_keys.ts";
import { clusterReport } from "./cluster_schema.ts";
import { FakeCluster, SAMPLE_REPORT } from "./fakes/cluster.ts";
import { FakeEngine } from "./fakes/engine.ts";
import { type Harness, KeptLog, serve, serveHolder } from "./fakes/server.ts";
import { startServer } from "./server.ts";
import { FakeText } from "./fakes/text.ts";

async function withCluster(use: (harness: Harness, cluster: FakeCluster) => Promise<void>): Promise<void> {
  const cluster = new FakeCluster();
  await using harness = await serve({ engine: new FakeEngine({ cluster }) });
  await use(harness, cluster);
}

Deno.test("GET /cluster shows the report", async () => {
  await withCluster(async (harness) => {
    const response = await harness.fetch("/cluster");
    assertEquals([response.status, response.headers.get("cache-control")], [200, "no-store"]);
    const body = await response.json();
    assertEquals(body, JSON.parse(JSON.stringify(SAMPLE_REPORT)));
    assertEquals(clusterReport.parse(body), SAMPLE_REPORT);
  });
});

Deno.test("cluster routes answer 404 on an instance that is in no cluster", async () => {
  await using harness = await serve();
  const answers = [
    await harness.fetch("/cluster"),
    await harness.post("/cluster/leave", { member: "one" }),
  ];
  for (const response of answers) {
    const { error } = await response.json();
    assertEquals([response.status, error.code], [404, "no_cluster"]);
    assertStringIncludes(error.message, "this instance is in none, see serve --join");
  }
});

Deno.test("cluster routes pass commands on and answer what was done", async () => {
  await withCluster(async (harness, cluster) => {
    const posts: [string, object][] = [
      ["move", { sequence: "one/7", segments: 2, to: "attic" }],
      ["move", { sequence: "one/7", segments: 1, from: "attic", to: "two" }],
      ["evacuate", { member: "attic" }],
      ["evacuate", { member: "attic", undo: true }],
      ["pin", { sequence: "one/7" }],
      ["pin", { sequence: "one/7", pinned: false }],
      ["leave", { member: "two" }],
    ];
    for (const [name, body] of posts) {
      const response = await harness.post(`/cluster/${name}`, body);
      assertEquals([response.status, await response.json()], [200, { message: "done as told" }]);
    }
    assertEquals(cluster.commands, [
      { kind: "move", sequence: "one/7", segments: 2, to: "attic" },
      { kind: "move", sequence: "one/7", segments: 1, from: "attic", to: "two" },
      { kind: "evacuate", member: "attic" },
      { kind: "evacuate", member: "attic", undo: true },
      { kind: "pin", sequence: "one/7", pinned: true },
      { kind: "pin", sequence: "one/7", pinned: false },
      { kind: "leave", member: "two" },
    ]);
  });
});

Deno.test("cluster routes name the field at fault and pass nothing on", async () => {
  await withCluster(async (harness, cluster) => {
    const cases: [string, object, string][] = [
      ["move", {}, "sequence"],
      ["move", { sequence: "seven", segments: 1, to: "two" }, "sequence"],
      ["move", { sequence: "one/7", segments: 0, to: "two" }, "segments"],
      ["move", { sequence: "one/7", segments: 1.5, to: "two" }, "segments"],
      ["move", { sequence: "one/7", segments: "1", to: "two" }, "segments"],
      ["move", { sequence: "one/7", segments: 1 }, "to"],
      ["move", { sequence: "one/7", segments: 1, to: "Two" }, "to"],
      ["move", { sequence: "one/7", segments: 1, to: "two", fast: true }, "fast"],
      ["evacuate", { member: "" }, "member"],
      ["evacuate", { member: "two", undo: "yes" }, "undo"],
      ["pin", { sequence: "one/7", pinned: 1 }, "pinned"],
      ["leave", { member: "x".repeat(65) }, "member"],
      ["leave", { member: "two", constructor: 1 }, "constructor"],
    ];
    for (const [name, body, param] of cases) {
      const response = await harness.post(`/cluster/${name}`, body);
      const { error } = await response.json();
      assertEquals([response.status, error.param, error.code], [400, param, "invalid_value"], JSON.stringify(body));
    }
    const long = await harness.post("/cluster/leave", `{"member": "two"${" ".repeat(20_000)}}`);
    assertEquals([long.status, (await long.json()).error.code], [413, "body_too_large"]);
    const form = await harness.post("/cluster/leave", "member=two", { "content-type": "text/plain" });
    assertEquals([form.status, (await form.json()).error.code], [415, "unsupported_media_type"]);
    assertEquals(cluster.commands, []);
  });
});

Deno.test("cluster routes answer refusals with their own status", async () => {
  await withCluster(async (harness, cluster) => {
    const cases = [[400, "invalid_value"], [404, "not_found"], [409, "cannot_now"], [503, "no_manager"]] as const;
    for (const [status, code] of cases) {
      cluster.result = { ok: false, message: `Cannot do it: ${code}`, status };
      const response = await harness.post("/cluster/evacuate", { member: "two" });
      const { error } = await response.json();
      assertEquals([response.status, error.code, error.message], [status, code, `Cannot do it: ${code}`]);
    }
    cluster.result = { ok: false, message: "Cannot do it: not now" };
    const response = await harness.post("/cluster/evacuate", { member: "two" });
    assertEquals([response.status, (await response.json()).error.code], [409, "cannot_now"]);
  });
});

Deno.test("cluster commands want a key where other machines reach the server", async () => {
  const cluster = new FakeCluster();
  const start = (options: object) =>
    startServer({
      engine: new FakeEngine({ cluster }),
      text: new FakeText(),
      hostname: "0.0.0.0",
      port: 0,
      logger: new KeptLog().logger,
      ...options,
    });
  const leave = (port: number, headers: Record<string, string> = {}) =>
    fetch(`http://127.0.0.1:${port}/cluster/leave`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: '{"member": "two"}',
    });
  {
    await using server = await start({ allowInsecureBind: true });
    const refused = await leave(server.port);
    assertEquals([refused.status, (await refused.json()).error.code], [403, "operator_key_required"]);
    const shown = await fetch(`http://127.0.0.1:${server.port}/cluster`);
    assertEquals([shown.status, (await shown.json()).from], [200, "one"]);
  }
  await using server = await start({ apiKeys: [digestKey("k")] });
  const keyless = await leave(server.port);
  assertEquals([keyless.status, (await keyless.json()).error.code], [401, "invalid_api_key"]);
  assertEquals(cluster.commands, []);
  const done = await leave(server.port, { authorization: "Bearer k" });
  assertEquals([done.status, await done.json()], [200, { message: "done as told" }]);
});

Deno.test("model lengths of a clustered instance are the cluster's", async () => {
  await withCluster(async (harness, cluster) => {
    const listed = await (await harness.fetch("/v1/models")).json();
    assertEquals(listed.data[0].max_model_len, 4096);
    const one = await (await harness.fetch("/v1/models/fake")).json();
    assertEquals(one.max_model_len, 4096);
    // The instance alone takes 200 tokens.
    const prompt = Array.from({ length: 300 }, () => 97);
    const long = await harness.post("/v1/completions", { prompt, max_tokens: 2 });
    assertEquals([long.status, (await long.json()).usage.prompt_tokens], [200, 300]);
    const longer = await harness.post("/v1/completions", { prompt: Array.from({ length: 4097 }, () => 97) });
    const { error } = await longer.json();
    assertEquals([longer.status, error.code], [400, "context_length_exceeded"]);
    assertStringIncludes(error.message, "at most 4096 tokens fit, got 4097");
    const tokenized = await (await harness.post("/tokenize", { prompt: "a" })).json();
    assertEquals(tokenized.max_model_len, 4096);
    assertEquals(cluster.reports, 1);
  });
});

Deno.test("startHolderServer() serves state and cluster, and says that a holder has no model", async () => {
  const cluster = new FakeCluster();
  const starting = Promise.withResolvers<{ readonly cluster: FakeCluster }>();
  await using harness = await serveHolder({ holder: starting.promise });
  for (const path of ["/health/ready", "/cluster"]) {
    const early = await harness.fetch(path);
    assertEquals([early.status, (await early.json()).error.code], [503, "holder_starting"], path);
  }
  assertEquals(await (await harness.fetch("/health")).json(), { status: "ok" });
  starting.resolve({ cluster });
  await starting.promise;
  assertEquals(await (await harness.fetch("/health/ready")).json(), { status: "ready" });
  assertEquals((await (await harness.fetch("/cluster")).json()).members.length, 3);
  assertEquals(await (await harness.fetch("/v1/models")).json(), { object: "list", data: [] });
  assertStringIncludes(await (await harness.fetch("/metrics")).text(), 'infinite_llm:cluster_blocks{state="lent"}');
  for (const path of ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/apply-template"]) {
    const refused = await harness.post(path, {});
    const { error } = await refused.json();
    assertEquals([refused.status, error.code], [501, "holder_has_no_model"], path);
  }
  const document = await (await harness.fetch("/openapi.json")).json();
  assert("/cluster/move" in document.paths);
  const left = await harness.post("/cluster/leave", { member: "attic" });
  assertEquals([left.status, await left.json()], [200, { message: "done as told" }]);
  cluster.answer = () => Promise.reject(new Error("gone"));
  const gone = await harness.fetch("/health/ready");
  assertEquals([gone.status, (await gone.json()).error.code], [503, "holder_unresponsive"]);
});

Deno.test("startHolderServer() says that the holder could not be started, and wants keys like any server", async () => {
  const failed = Promise.reject(new Error("secret path"));
  await using harness = await serveHolder({ holder: failed, apiKeys: [digestKey("k")] });
  const keyless = await harness.fetch("/cluster");
  assertEquals([keyless.status, (await keyless.json()).error.code], [401, "invalid_api_key"]);
  const ready = await harness.fetch("/health/ready", { headers: { authorization: "Bearer k" } });
  assertEquals([ready.status, (await ready.json()).error.code], [503, "holder_failed"]);
  assert(!harness.log.text.includes("secret path"));
});
