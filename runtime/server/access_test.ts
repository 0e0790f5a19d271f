import { assert, assertEquals, assertMatch, assertNotEquals, assertStringIncludes } from "@std/assert";
import { Registry } from "prom-client";
import { AdmissionQueue } from "./admission_queue.ts";
import { digestKey } from "./api_keys.ts";
import { BackendGate } from "./backend.ts";
import { FakeEngine } from "./fakes/engine.ts";
import { KeptLog, serve } from "./fakes/server.ts";
import { FakeText } from "./fakes/text.ts";
import { DEFAULT_LIMITS } from "./limits.ts";
import { createRoutes } from "./routes.ts";
import { Service } from "./service.ts";

const CHAT = JSON.stringify({ messages: [{ role: "user", content: "hi" }] });

Deno.test("startServer() refuses wrong methods with the allowed ones", async () => {
  await using harness = await serve();
  const cases: [string, string, string][] = [
    ["GET", "/v1/chat/completions", "POST"],
    ["PUT", "/v1/completions", "POST"],
    ["DELETE", "/v1/models", "GET, HEAD"],
    ["POST", "/health", "GET, HEAD"],
    ["PATCH", "/health/ready", "GET, HEAD"],
    ["OPTIONS", "/tokenize", "POST"],
  ];
  for (const [method, path, allow] of cases) {
    const response = await harness.fetch(path, { method });
    assertEquals([response.status, response.headers.get("allow")], [405, allow]);
    assertEquals((await response.json()).error.code, "method_not_allowed");
  }
});

Deno.test("startServer() answers unknown paths with 404 as JSON", async () => {
  await using harness = await serve();
  for (
    const path of [
      "/",
      "/v1",
      "/v1/chat/completions/",
      "/v1/models/",
      "/..%2f..%2fetc",
      "/a?b=c",
      "//v1/models",
      "/%E0%A4%A",
      "/%00",
    ]
  ) {
    const response = await harness.fetch(path);
    assertEquals([response.status, (await response.json()).error.code], [404, "not_found"], path);
  }
});

Deno.test("startServer() answers HEAD without a body", async () => {
  await using harness = await serve();
  for (const path of ["/health", "/v1/models", "/metrics"]) {
    const response = await harness.fetch(path, { method: "HEAD" });
    assertEquals([response.status, await response.text()], [200, ""]);
  }
});

Deno.test("startServer() refuses content encodings", async () => {
  await using harness = await serve();
  for (const encoding of ["gzip", "br", "gzip, identity"]) {
    const response = await harness.post("/v1/chat/completions", CHAT, { "content-encoding": encoding });
    assertEquals([response.status, (await response.json()).error.code], [415, "unsupported_content_encoding"]);
  }
});

Deno.test("startServer() refuses content types other than JSON in UTF-8", async () => {
  await using harness = await serve();
  for (const type of ["text/plain", "application/json; charset=latin1", "multipart/form-data", ""]) {
    const response = await harness.post("/v1/chat/completions", CHAT, { "content-type": type });
    assertEquals([response.status, (await response.json()).error.code], [415, "unsupported_media_type"], type);
  }
  const response = await harness.post("/v1/chat/completions", CHAT, {
    "content-type": "Application/JSON; charset=UTF-8",
  });
  assertEquals(response.status, 200);
  await response.body?.cancel();
});

Deno.test("startServer() takes over a well-formed request id and replaces others", async () => {
  await using harness = await serve();
  const idFor = async (id: string) => {
    const response = await harness.fetch("/v1/models", { headers: { "x-request-id": id } });
    await response.body?.cancel();
    return response.headers.get("x-request-id");
  };
  assertEquals(await idFor("job-7:a.b_c"), "job-7:a.b_c");
  for (const bad of ["a b", "<script>", "a".repeat(129), "é"]) {
    assertMatch(await idFor(bad) ?? "", /^[0-9a-f-]{36}$/);
  }
  assertNotEquals(await idFor(""), await idFor(""));
  assertStringIncludes(harness.log.text, '"id":"job-7:a.b_c"');
});

Deno.test("startServer() gives browsers of other origins nothing by default", async () => {
  await using harness = await serve();
  const headers = { origin: "https://page.example", "access-control-request-method": "POST" };
  const preflight = await harness.fetch("/v1/chat/completions", { method: "OPTIONS", headers });
  assertEquals([preflight.status, (await preflight.json()).error.code], [403, "origin_not_allowed"]);
  const response = await harness.fetch("/v1/models", { headers: { origin: "https://page.example" } });
  await response.body?.cancel();
  for (const answer of [preflight, response]) {
    assertEquals([...answer.headers.keys()].filter((name) => name.startsWith("access-control")), []);
  }
});

Deno.test("startServer() lets configured origins read answers and errors, preflights without a key", async () => {
  await using harness = await serve({ corsOrigins: ["https://page.example"], apiKeys: [digestKey("k")] });
  const origin = "https://page.example";
  const preflight = await harness.fetch("/v1/chat/completions", {
    method: "OPTIONS",
    headers: { origin, "access-control-request-method": "POST" },
  });
  assertEquals(preflight.status, 204);
  assertStringIncludes(preflight.headers.get("access-control-allow-headers") ?? "", "authorization");
  const refused = await harness.fetch("/v1/models", { headers: { origin } });
  assertEquals(refused.status, 401);
  const allowed = await harness.fetch("/v1/models", { headers: { origin, authorization: "Bearer k" } });
  const other = await harness.fetch("/v1/models", {
    headers: { origin: "https://other.example", authorization: "Bearer k" },
  });
  for (const answer of [preflight, refused, allowed]) {
    assertEquals(answer.headers.get("access-control-allow-origin"), origin);
    assertEquals(answer.headers.get("vary"), "Origin");
  }
  assertEquals(other.headers.get("access-control-allow-origin"), null);
  await Promise.all([refused, allowed, other].map((answer) => answer.body?.cancel()));
});

Deno.test("startServer() closes every route but liveness when keys are set", async () => {
  const engine = new FakeEngine();
  await using harness = await serve({ engine, apiKeys: [digestKey("right"), digestKey("other")] });
  const routes = routeList();
  assert(routes.length >= 11);
  const bodies = new Set<string>();
  for (const { method, path } of [...routes, { method: "GET", path: "/nope" }, { method: "PUT", path: "/v1/models" }]) {
    if (path === "/health") continue;
    for (const authorization of [undefined, "Bearer", "Bearer wrong", "Basic right", "right", "Bearer right wrong"]) {
      const response = await harness.fetch(path, { method, headers: authorization ? { authorization } : {} });
      assertEquals([response.status, response.headers.get("www-authenticate")], [401, "Bearer"], `${method} ${path}`);
      bodies.add(await response.text());
    }
  }
  assertEquals(bodies.size, 1);
  assertEquals(engine.requests.length, 0);
  for (const path of ["/health", "/health?probe=1"]) {
    const response = await harness.fetch(path);
    assertEquals([response.status, await response.json()], [200, { status: "ok" }]);
  }
  for (const key of ["right", "other"]) {
    const response = await harness.post("/v1/chat/completions", CHAT, { authorization: `Bearer ${key}` });
    assertEquals(response.status, 200);
    await response.body?.cancel();
  }
});

/** Routes of a server, with parameters filled in. */
function routeList(): { readonly method: string; readonly path: string }[] {
  const registry = new Registry();
  const gate = new BackendGate({
    engine: new FakeEngine(),
    text: new FakeText(),
    models: [],
    registry,
    metricsPrefix: "x",
    stallMs: 1,
    onFailure: () => {},
  });
  const service = new Service({
    limits: DEFAULT_LIMITS,
    gate,
    queue: new AdmissionQueue(1),
    logger: new KeptLog().logger,
  });
  return createRoutes({ service, registry, version: "0", secured: true, operable: true }).map(({ method, path }) => {
    return { method, path: path.replace(/:id\{[^}]*\}/, "fake") };
  });
}
