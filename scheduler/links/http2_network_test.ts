import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { connect } from "node:http2";
import {
  attendMessage,
  type LinkHarness,
  openMember,
  suiteCard,
  type SuiteMember,
  testNetwork,
} from "../../tests/conformance/link_suite.ts";
import { startTcpProxy } from "../../tests/faults/tcp_proxy.ts";
import { FrameSealer } from "../protocol/frame_sealer.ts";
import { FrameWriter } from "../protocol/frame_writer.ts";
import { type Http2Network, type Http2NetworkOptions, openHttp2Network } from "./http2_network.ts";
import { PeerError } from "./link.ts";

const KEY = new Uint8Array(32).fill(5);

function certificates(name: string) {
  const read = (file: string) => Deno.readTextFileSync(new URL(`testdata/${file}.pem`, import.meta.url));
  return { cert: read(`${name}.cert`), key: read(`${name}.key`), ca: read(`${name}.ca`) };
}

/** Opens members and waits for every connection to be gone in the end. */
class Harness implements LinkHarness {
  readonly networks: Http2Network[] = [];
  readonly #options: Partial<Http2NetworkOptions>;

  constructor(options: Partial<Http2NetworkOptions> = {}) {
    this.#options = options;
  }

  async open(card: ReturnType<typeof suiteCard>, options: Partial<Http2NetworkOptions> = {}): Promise<Http2Network> {
    const network = await openHttp2Network({ card, host: "127.0.0.1", port: 0, ...this.#options, ...options });
    this.networks.push(network);
    return network;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const network of this.networks) network[Symbol.dispose]();
    await Promise.all(this.networks.map(({ finished }) => finished));
  }
}

testNetwork("HTTP/2", () => new Harness());
testNetwork("HTTP/2 with a key", () => new Harness({ key: KEY }));
testNetwork("HTTP/2 with certificates", () => new Harness({ tls: certificates("cluster") }));

function portOf(url: string): number {
  return Number(new URL(url).port);
}

async function failure(member: SuiteMember, url: string): Promise<PeerError> {
  member.network.dial(url);
  await member.recorder.until("failure", () => member.recorder.failures.length === 1);
  const { error } = member.recorder.failures[0];
  assert(error instanceof PeerError, String(error));
  return error;
}

Deno.test("openHttp2Network() listens beyond loopback only with a key or certificates, and a url to advertise", async () => {
  const card = suiteCard(1);
  const wanted = "wanted a cluster key or certificates";
  await assertRejects(() => openHttp2Network({ card, host: "0.0.0.0", port: 0 }), RangeError, wanted);
  await assertRejects(() => openHttp2Network({ card, host: "192.168.1.1", port: 0 }), RangeError, wanted);
  await assertRejects(
    () => openHttp2Network({ card, host: "0.0.0.0", port: 0, key: KEY }),
    RangeError,
    "wanted a url to advertise",
  );
  await assertRejects(
    () => openHttp2Network({ card, host: "127.0.0.1", port: 0, key: KEY.subarray(1) }),
    RangeError,
    "wanted at least 32 bytes, got 31",
  );
  await using harness = new Harness({ key: KEY });
  const network = await harness.open(card, { host: "0.0.0.0", advertise: "http://elsewhere:7" });
  assertEquals(network.url, "http://elsewhere:7");
});

Deno.test("openHttp2Network() says so when it cannot listen", async () => {
  await using harness = new Harness();
  const network = await harness.open(suiteCard(1));
  await assertRejects(
    () => openHttp2Network({ card: suiteCard(2), host: "127.0.0.1", port: portOf(network.url) }),
    Error,
  );
});

Deno.test("Http2Network refuses peers with another key, with none and without", async () => {
  await using harness = new Harness();
  using keyed = await openMember(harness, suiteCard(1), { key: KEY });
  for (
    const [key, wanted] of [[new Uint8Array(32).fill(6), "cluster key is another"], [
      undefined,
      "no cluster key",
    ]] as const
  ) {
    using other = await openMember(harness, suiteCard(2), { key });
    const error = await failure(other, keyed.network.url);
    assertEquals(error.code, "auth");
    assert(error.message.includes(wanted), error.message);
  }
  using open = await openMember(harness, suiteCard(3));
  const error = await failure(keyed, open.network.url);
  assert(error.message.includes("wanted a peer with a cluster key, got one with no cluster key"), error.message);
  assertEquals([keyed.recorder.told, open.recorder.told], [["failed"], []]);
  assertEquals(harness.networks[0].counters.auth, 3);
});

Deno.test("Http2Network with certificates refuses those of another authority, and none", async () => {
  await using harness = new Harness();
  using a = await openMember(harness, suiteCard(1), { tls: certificates("cluster") });
  using b = await openMember(harness, suiteCard(2), { tls: certificates("foreign") });
  // A stranger that trusts this cluster's authority has still no certificate of it.
  using c = await openMember(harness, suiteCard(3), {
    tls: { ...certificates("foreign"), ca: certificates("cluster").ca },
  });
  assertEquals((await failure(b, a.network.url)).code, "auth");
  assertMatch((await failure(c, a.network.url)).message, /may not take this member's certificate/);
  using plain = await openMember(harness, suiteCard(4));
  assertEquals((await failure(plain, a.network.url)).code, "unreachable");
  assertEquals(a.recorder.told, []);
});

Deno.test("Http2Network checks the certificate of whom it dials also where the environment turns such checks off", async () => {
  await using harness = new Harness();
  using a = await openMember(harness, suiteCard(1), { tls: certificates("cluster") });
  // The cluster takes its certificate, so that nothing but its own check stands between them.
  using b = await openMember(harness, suiteCard(2), {
    tls: { ...certificates("cluster"), ca: certificates("foreign").ca },
  });
  using c = await openMember(harness, suiteCard(3), { tls: certificates("cluster") });
  const variable = "NODE_TLS_REJECT_UNAUTHORIZED";
  const before = Deno.env.get(variable);
  Deno.env.set(variable, "0");
  try {
    assertEquals((await failure(b, a.network.url)).code, "auth");
    // And of whom dials it.
    assertMatch((await failure(c, b.network.url)).message, /may not take this member's certificate/);
  } finally {
    if (before === undefined) Deno.env.delete(variable);
    else Deno.env.set(variable, before);
  }
  assertEquals([a.recorder.told, b.recorder.told, c.recorder.told], [[], ["failed"], ["failed"]]);
});

Deno.test("Http2Network ends connections that do not finish the hello", async () => {
  await using harness = new Harness({ limits: { helloMs: 300 } });
  using a = await openMember(harness, suiteCard(1));
  using silent = await Deno.connect({ hostname: "127.0.0.1", port: portOf(a.network.url) });
  const buffer = new Uint8Array(1000);
  while (await silent.read(buffer) !== null);
  const session = connect(a.network.url);
  session.on("error", () => {});
  const stream = session.request({ ":method": "POST", ":path": "/cluster/control" });
  stream.on("error", () => {});
  stream.resume();
  const closed = new Promise((resolve) => session.once("close", resolve));
  stream.write(new Uint8Array(10));
  await closed;
  assertEquals([a.recorder.told, harness.networks[0].counters.protocol], [[], 1]);
});

Deno.test("Http2Network with certificates ends connections that do not finish the TLS handshake", async () => {
  await using harness = new Harness({ tls: certificates("cluster"), limits: { helloMs: 300, connections: 2 } });
  using a = await openMember(harness, suiteCard(1));
  const port = portOf(a.network.url);
  const buffer = new Uint8Array(1000);
  using first = await Deno.connect({ hostname: "127.0.0.1", port });
  using second = await Deno.connect({ hostname: "127.0.0.1", port });
  using third = await Deno.connect({ hostname: "127.0.0.1", port });
  for (const silent of [third, first, second]) while (await silent.read(buffer) !== null);
  assertEquals(harness.networks[0].counters.turnedAway, 1);
  // One that is still silent when the network is disposed of does not keep it; the harness waits for that.
  using _last = await Deno.connect({ hostname: "127.0.0.1", port });
});

/** Opens a stream by hand, sends bytes, and returns the status and what came back once the stream has closed. */
async function request(
  url: string,
  path: string,
  options: { readonly method?: string; readonly bytes?: Uint8Array; readonly twice?: boolean } = {},
): Promise<{ status: number | undefined; bytes: Uint8Array }> {
  const session = connect(url);
  session.on("error", () => {});
  if (options.twice) {
    const first = session.request({ ":method": "POST", ":path": path });
    first.on("error", () => {});
    first.resume();
  }
  const stream = session.request({ ":method": options.method ?? "POST", ":path": path });
  const chunks: Uint8Array[] = [];
  let status: number | undefined;
  stream.on("response", (headers) => status = headers[":status"]);
  stream.on("data", (chunk: Uint8Array) => chunks.push(chunk));
  stream.on("error", () => {});
  if (options.bytes) stream.write(options.bytes);
  // A stream does not always hear that its connection closed.
  const closed = new Promise((resolve) => session.once("close", resolve));
  await Promise.race([closed, new Promise((resolve) => stream.once("close", resolve))]);
  await new Promise((resolve) => setTimeout(resolve, 0));
  session.destroy();
  await closed;
  return { status, bytes: new Uint8Array(Buffer.concat(chunks)) };
}

Deno.test("Http2Network turns other requests away", async () => {
  await using harness = new Harness();
  const { url } = await harness.open(suiteCard(1));
  for (const path of ["/", "/cluster", "/cluster/attention", "/cluster/kv/xyz", "/cluster/control/", "/v1/models"]) {
    assertEquals((await request(url, path)).status, 404, path);
  }
  assertEquals((await request(url, "/cluster/control", { method: "GET" })).status, 404);
  assertEquals((await request(url, "/cluster/control", { twice: true })).status, 404, "two hellos");
  await request(url, `/cluster/kv/${"0".repeat(32)}`);
  assertEquals(harness.networks[0].counters.turnedAway, 8);
});

Deno.test("Http2Network names both versions to a dialler of another", async () => {
  await using harness = new Harness({ key: KEY });
  const { url } = await harness.open(suiteCard(1));
  const writer = new FrameWriter();
  writer.begin(36);
  writer.u32(1);
  writer.bytes(new Uint8Array(32));
  const frame = new FrameSealer("hello").seal(writer, "hello", 0).slice();
  frame[4] = 9;
  const { bytes } = await request(url, "/cluster/control", { bytes: frame });
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  assertEquals([bytes[6], view.getUint32(36, true), view.getUint32(40, true)], [5, 1, 9]);
});

Deno.test("Http2Network turns hellos away beyond its limit and takes them again later", async () => {
  await using harness = new Harness();
  using a = await openMember(harness, suiteCard(1), { limits: { openHellos: 1, helloMs: 1000 } });
  using b = await openMember(harness, suiteCard(2));
  const session = connect(a.network.url);
  session.on("error", () => {});
  const closed = new Promise((resolve) => session.once("close", resolve));
  const stream = session.request({ ":method": "POST", ":path": "/cluster/control" });
  stream.on("error", () => {});
  await new Promise((resolve) => stream.once("response", resolve));
  const error = await failure(b, a.network.url);
  assertEquals([error.code, error.message.includes("too many hellos")], ["unreachable", true]);
  await closed;
  b.network.dial(a.network.url);
  await b.recorder.until("a link", () => b.recorder.open.length === 1);
});

Deno.test("Http2Network drops connections beyond its limit", async () => {
  await using harness = new Harness();
  using a = await openMember(harness, suiteCard(1), { limits: { connections: 2 } });
  using b = await openMember(harness, suiteCard(2));
  using c = await openMember(harness, suiteCard(3));
  b.network.dial(a.network.url);
  await b.recorder.until("a link", () => b.recorder.open.length === 1);
  assertEquals((await failure(c, a.network.url)).code, "unreachable");
  b.recorder.link.control({ kind: "ping", call: 1 });
  await a.recorder.until("a message", () => a.recorder.envelopes.length === 1);
});

/** Two members linked through a proxy: a dials b. */
async function proxied(options: Partial<Http2NetworkOptions>) {
  const harness = new Harness(options);
  const a = await openMember(harness, suiteCard(1));
  const b = await openMember(harness, suiteCard(2));
  const proxy = await startTcpProxy({ target: portOf(b.network.url) });
  a.network.dial(`http://127.0.0.1:${proxy.port}`);
  await a.recorder.until("a link", () => a.recorder.open.length === 1);
  await b.recorder.until("a link", () => b.recorder.open.length === 1);
  return {
    a,
    b,
    proxy,
    harness,
    async [Symbol.asyncDispose]() {
      a[Symbol.dispose]();
      b[Symbol.dispose]();
      await proxy[Symbol.asyncDispose]();
      await harness[Symbol.asyncDispose]();
      assertEquals([...a.recorder.complaints, ...b.recorder.complaints], []);
    },
  };
}

Deno.test("Http2Network closes a link whose bytes were changed on the way", async () => {
  await using pair = await proxied({ key: KEY });
  const { a, b, proxy } = pair;
  proxy.flip({ direction: "up", after: 100 });
  a.recorder.link.attention.send(attendMessage(1, 8));
  await b.recorder.until("closed", () => b.recorder.open.length === 0);
  await a.recorder.until("closed", () => a.recorder.open.length === 0);
  assertEquals(b.recorder.envelopes, []);
  assertEquals(pair.harness.networks[1].counters.auth, 1);
});

Deno.test("Http2Network closes a link that is cut, reset or truncated, on both sides", async () => {
  for (const harm of ["cut", "reset", "truncate"] as const) {
    await using pair = await proxied({ key: KEY });
    const { a, b, proxy } = pair;
    if (harm === "truncate") proxy.truncate({ direction: "up", after: 100 });
    else proxy[harm]();
    if (harm === "truncate") a.recorder.link.attention.send(attendMessage(1, 8));
    await b.recorder.until("closed", () => b.recorder.open.length === 0);
    await a.recorder.until("closed", () => a.recorder.open.length === 0);
    assertEquals(b.recorder.envelopes, []);
  }
});

Deno.test("Http2Network closes a link over which nothing comes any more", async () => {
  await using pair = await proxied({ limits: { silenceMs: 100 } });
  const { a, b, proxy } = pair;
  await new Promise((resolve) => setTimeout(resolve, 300));
  assertEquals([a.recorder.told, b.recorder.told], [["opened member-2"], ["opened member-1"]]);
  proxy.set({ swallow: ["down"] });
  await a.recorder.until("closed", () => a.recorder.open.length === 0);
  await b.recorder.until("closed", () => b.recorder.open.length === 0);
});

Deno.test("Http2Network closes a link whose peer does not take what is sent", async () => {
  await using pair = await proxied({ limits: { backlog: { attention: 2 ** 20, control: 2 ** 20, kv: 2 ** 20 } } });
  const { a, b, proxy } = pair;
  proxy.set({ latencyMs: 60_000 });
  const { link } = a.recorder;
  const attend = attendMessage(1, 10_000);
  let sent = 0;
  try {
    for (; sent < 1000; sent++) {
      link.attention.send(attend);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  } catch (error) {
    assert(error instanceof PeerError && error.code === "closed", String(error));
  }
  assert(sent < 1000, "it takes no end of messages");
  await a.recorder.until("closed", () => a.recorder.open.length === 0);
  proxy.reset();
  await b.recorder.until("closed", () => b.recorder.open.length === 0);
});

Deno.test("Http2Network links with a restarted member in place of its earlier run", async () => {
  await using harness = new Harness();
  using a = await openMember(harness, suiteCard(1));
  using earlier = await openMember(harness, suiteCard(2));
  a.network.dial(earlier.network.url);
  await a.recorder.until("a link", () => a.recorder.open.length === 1);
  const old = a.recorder.link;
  using later = await openMember(harness, suiteCard(3, { name: "member-2" }), { advertise: earlier.network.url });
  later.network.dial(a.network.url);
  await later.recorder.until("a link", () => later.recorder.open.length === 1);
  await earlier.recorder.until("closed", () => earlier.recorder.open.length === 0);
  assertEquals(a.recorder.told, ["opened member-2", "closed member-2", "opened member-2"]);
  assertEquals(a.recorder.link.peer.incarnation, suiteCard(3).incarnation);
  assert(a.recorder.link !== old);
});

Deno.test("Http2Network says that a dial leads to itself or nowhere", async () => {
  await using harness = new Harness({ limits: { dialMs: 100 } });
  using a = await openMember(harness, suiteCard(1));
  const error = await failure(a, a.network.url);
  assertEquals([error.code, error.message.includes("itself")], ["refused", true]);
  using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  for (const url of ["not a url", "https://127.0.0.1:1", `http://127.0.0.1:${silent.addr.port}`]) {
    using other = await openMember(harness, suiteCard(2));
    assertEquals((await failure(other, url)).code, "unreachable", url);
  }
});

Deno.test("Http2Network serves a peer that sends a hundred times as much without starving another", async () => {
  await using harness = new Harness({ key: KEY });
  using a = await openMember(harness, suiteCard(1));
  using flood = await openMember(harness, suiteCard(2));
  using calm = await openMember(harness, suiteCard(3));
  for (const { network, recorder } of [flood, calm]) {
    network.dial(a.network.url);
    await recorder.until("a link", () => recorder.open.length === 1);
  }
  a.recorder.onMessage = (link, message) => {
    if (message.kind === "ping") link.control({ kind: "pong", call: message.call });
  };
  for (let call = 0; call < 20; call++) {
    for (let i = 0; i < 100; i++) flood.recorder.link.control({ kind: "ping", call: call * 100 + i });
    calm.recorder.link.control({ kind: "ping", call });
    await calm.recorder.until("a pong", () => calm.recorder.envelopes.length === call + 1);
  }
  await flood.recorder.until("every pong", () => flood.recorder.envelopes.length === 2000);
});
