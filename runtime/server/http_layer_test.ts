import { assertEquals, assertMatch } from "@std/assert";
import { FakeEngine } from "./fakes/engine.ts";
import { type Harness, serve } from "./fakes/server.ts";

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
