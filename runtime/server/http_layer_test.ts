import { assert, assertEquals, assertMatch, assertNotEquals, assertStringIncludes } from "@std/assert";
import { Registry } from "prom-client";
import { AdmissionQueue } from "./admission_queue.ts";
import { digestKey } from "./api_keys.ts";
import { BackendGate } from "./backend.ts";
import { FakeEngine } from "./fakes/engine.ts";
import { type Harness, KeptLog, serve } from "./fakes/server.ts";
import { FakeText } from "./fakes/text.ts";
import { DEFAULT_LIMITS } from "./limits.ts";
import { createRoutes } from "./routes.ts";
import { Service } from "./service.ts";

const CHAT = JSON.stringify({ messages: [{ role: "user", content: "hi" }] });
const CHAT_HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";

interface RawAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly code: string | undefined;
}

/** Reads the first answer of a raw conversation and checks that an error has OpenAI's shape. */
function answerOf(raw: string): RawAnswer {
  const at = raw.indexOf("\r\n\r\n");
  const [line, ...fields] = raw.slice(0, at).split("\r\n");
  const status = Number(line.split(" ")[1]);
  const headers = new Headers(fields.map((field): [string, string] => {
    const colon = field.indexOf(":");
    return [field.slice(0, colon), field.slice(colon + 1).trim()];
  }));
  if (status < 400) return { status, headers, code: undefined };
  const body = JSON.parse(raw.slice(at + 4, at + 4 + Number(headers.get("content-length"))));
  assertEquals(Object.keys(body.error).sort(), ["code", "message", "param", "type"]);
  return { status, headers, code: body.error.code };
}

async function assertAlive(harness: Harness): Promise<void> {
  const response = await harness.post("/v1/chat/completions", CHAT);
  assertEquals((await response.json()).choices[0].message.content, "Hello");
}

interface RawCase {
  readonly name: string;
  readonly send: string;
  readonly status: number;
  readonly code?: string;
}

const BODY = (length: string, body = CHAT) => `${CHAT_HEAD}${length}Connection: close\r\n\r\n${body}`;
const PLAIN = (extra: string) => `GET /v1/models HTTP/1.1\r\nHost: localhost\r\n${extra}Connection: close\r\n\r\n`;

const RAW_CASES: readonly RawCase[] = [
  { name: "a body without any length as empty", send: BODY("", ""), status: 400, code: "invalid_json" },
  {
    name: "two different Content-Length headers",
    send: BODY(`Content-Length: ${CHAT.length}\r\nContent-Length: 3\r\n`),
    status: 400,
    code: "invalid_http",
  },
  { name: "a negative Content-Length", send: BODY("Content-Length: -1\r\n"), status: 400, code: "invalid_http" },
  {
    name: "a Content-Length that is no number",
    send: BODY("Content-Length: ten\r\n"),
    status: 400,
    code: "invalid_http",
  },
  {
    name: "a Content-Length beyond 64 bits",
    send: BODY(`Content-Length: ${"9".repeat(30)}\r\n`),
    status: 400,
    code: "invalid_http",
  },
  {
    name: "a Content-Length beyond the limit before any byte of the body",
    send: BODY("Content-Length: 999999999999\r\n", ""),
    status: 413,
    code: "body_too_large",
  },
  {
    name: "Content-Length together with Transfer-Encoding",
    send: BODY(`Content-Length: ${CHAT.length}\r\nTransfer-Encoding: chunked\r\n`, "0\r\n\r\n"),
    status: 400,
    code: "invalid_http",
  },
  {
    name: "an unknown Transfer-Encoding",
    send: BODY("Transfer-Encoding: gzip\r\n"),
    status: 400,
    code: "invalid_http",
  },
  {
    name: "a chunk size that is no number",
    send: BODY("Transfer-Encoding: chunked\r\n", "zz\r\nabc\r\n0\r\n\r\n"),
    status: 400,
    code: "invalid_http",
  },
  {
    name: "an expectation other than 100-continue",
    send: BODY(`Content-Length: ${CHAT.length}\r\nExpect: miracles\r\n`),
    status: 417,
    code: "unknown_expectation",
  },
  {
    name: "a header section of 256 KiB",
    send: PLAIN(`X-Long: ${"a".repeat(256 * 1024)}\r\n`),
    status: 431,
    code: "headers_too_large",
  },
  {
    name: "2000 header fields",
    send: PLAIN(Array.from({ length: 2000 }, (_, index) => `X-${index}: a\r\n`).join("")),
    status: 431,
    code: "headers_too_large",
  },
  { name: "NUL in a header", send: PLAIN("X-A: a\0b\r\n"), status: 400, code: "invalid_http" },
  { name: "a lone carriage return in a header", send: PLAIN("X-A: a\rb\r\n"), status: 400, code: "invalid_http" },
  { name: "a header without a colon", send: PLAIN("broken\r\n"), status: 400, code: "invalid_http" },
  { name: "bytes that are not HTTP", send: "\x16\x03\x01hello\r\n\r\n", status: 400, code: "invalid_http" },
  {
    name: "a missing Host",
    send: "GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n",
    status: 400,
    code: "invalid_http",
  },
  { name: "a second Host", send: PLAIN("Host: localhost\r\n"), status: 400, code: "invalid_http" },
  {
    name: "the host name of another machine",
    send: "GET /v1/models HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n",
    status: 403,
    code: "host_not_allowed",
  },
  {
    name: "a target that is no path",
    send: "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    status: 400,
    code: "invalid_http",
  },
  {
    name: "a target on another host",
    send: "GET http://rebound.example/v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    status: 400,
    code: "invalid_http",
  },
  {
    name: "TRACE",
    send: "TRACE /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    status: 405,
    code: "method_not_allowed",
  },
];

for (const { name, send, status, code } of RAW_CASES) {
  Deno.test(`startServer() refuses ${name}`, async () => {
    const engine = new FakeEngine();
    await using harness = await serve({ engine });
    const answer = answerOf(await harness.raw(send));
    assertEquals([answer.status, answer.code], [status, code]);
    assertEquals(engine.requests.length, 0);
    await assertAlive(harness);
  });
}

Deno.test("startServer() accepts a header section of 48 KiB", async () => {
  await using harness = await serve();
  assertEquals(answerOf(await harness.raw(PLAIN(`X-Long: ${"a".repeat(48 * 1024)}\r\n`))).status, 200);
});

Deno.test("startServer() answers HTTP/1.0 without a Host and closes", async () => {
  await using harness = await serve();
  const answer = answerOf(await harness.raw("GET /v1/models HTTP/1.0\r\n\r\n"));
  assertEquals([answer.status, answer.headers.get("connection")], [200, "close"]);
});

Deno.test("startServer() answers pipelined requests in order", async () => {
  await using harness = await serve();
  const raw = await harness.raw(
    "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nx-request-id: one\r\n\r\n",
    "GET /nope HTTP/1.1\r\nHost: localhost\r\nx-request-id: two\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
  );
  assertMatch(raw, /200 OK[^]*x-request-id: one[^]*404 Not Found[^]*x-request-id: two[^]*200 OK[^]*"status":"ok"/i);
});

Deno.test("startServer() sends 100 Continue before it reads a body that waits for it", async () => {
  await using harness = await serve();
  const raw = await harness.raw(BODY(`Content-Length: ${CHAT.length}\r\nExpect: 100-continue\r\n`));
  assertMatch(raw, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK/);
});

Deno.test("startServer() refuses a long body that waits for 100 Continue without asking for it", async () => {
  await using harness = await serve();
  const raw = await harness.raw(BODY("Content-Length: 99999999\r\nExpect: 100-continue\r\n", ""));
  assertEquals(answerOf(raw).status, 413);
});

Deno.test("startServer() ignores an offer to upgrade", async () => {
  await using harness = await serve();
  assertEquals(answerOf(await harness.raw(PLAIN("Upgrade: h2c\r\n"))).status, 200);
});

Deno.test("startServer() ends a chunked body at the limit without reading the rest", async () => {
  const engine = new FakeEngine();
  await using harness = await serve({ engine, limits: { bodyBytes: 4096 } });
  using connection = await Deno.connect({ hostname: "127.0.0.1", port: harness.server.port });
  const piece = `1000\r\n${"a".repeat(4096)}\r\n`;
  await connection.write(new TextEncoder().encode(`${CHAT_HEAD}Transfer-Encoding: chunked\r\n\r\n${piece}${piece}`));
  // The client goes on sending; the answer is there although the body never ends.
  let raw = "";
  const buffer = new Uint8Array(4096);
  for (let got = await connection.read(buffer); got !== null; got = await connection.read(buffer).catch(() => null)) {
    raw += new TextDecoder().decode(buffer.subarray(0, got));
    await connection.write(new TextEncoder().encode(piece)).catch(() => 0);
  }
  const answer = answerOf(raw);
  assertEquals([answer.status, answer.code, answer.headers.get("connection")], [413, "body_too_large", "close"]);
  assertEquals(engine.requests.length, 0);
});

Deno.test("startServer() allows bodies of 16 bytes a token of a long context", async () => {
  await using harness = await serve({
    engine: new FakeEngine({ info: { maxModelLen: 1000 } }),
    limits: { bodyBytes: 1 },
  });
  await assertAlive(harness);
  const long = JSON.stringify({ messages: [{ role: "user", content: "a".repeat(20_000) }] });
  assertEquals((await (await harness.post("/v1/chat/completions", long)).json()).error.code, "body_too_large");
});

for (
  const [name, send] of [
    ["a silent connection", ""],
    ["a header section that stalls", "GET / HTTP/1.1\r\nHos"],
    ["a body that stalls", `${CHAT_HEAD}Content-Length: 100\r\n\r\n{`],
  ]
) {
  Deno.test(`startServer() ends ${name} with 408`, async () => {
    const engine = new FakeEngine();
    await using harness = await serve({ engine, limits: { headerMs: 150, bodyMs: 300 } });
    const answer = answerOf(await harness.raw(send));
    assertEquals([answer.status, answer.code], [408, "request_timeout"]);
    assertEquals(engine.requests.length, 0);
    await assertAlive(harness);
  });
}

Deno.test("startServer() closes a connection that stays idle between requests", async () => {
  await using harness = await serve({ limits: { idleMs: 100 } });
  const raw = await harness.raw("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n");
  assertEquals(answerOf(raw).status, 200);
});

Deno.test("startServer() does not end a long generation as idle", async () => {
  const limits = { idleMs: 50, headerMs: 50, bodyMs: 100 };
  await using harness = await serve({ engine: new FakeEngine({ delayMs: 150 }), limits });
  await assertAlive(harness);
});

Deno.test("startServer() closes connections beyond its cap", async () => {
  await using harness = await serve({ limits: { connections: 1 } });
  using first = await Deno.connect({ hostname: "127.0.0.1", port: harness.server.port });
  await first.write(new TextEncoder().encode("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  await first.read(new Uint8Array(1024));
  assertEquals(await harness.raw(PLAIN("")), "");
});

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
  return createRoutes({ service, registry, version: "0", secured: true }).map(({ method, path }) => {
    return { method, path: path.replace(/:id\{[^}]*\}/, "fake") };
  });
}
