/**
 * What every {@linkcode Network} must do. An implementation runs {@linkcode testNetwork} with a way to open members. The
 * tests stay in one file, long as it is: together they are the contract.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { type Network, type NetworkListener, PeerError, type PeerLink } from "../../scheduler/links/link.ts";
import type { KvFormat, MemberCard } from "../../scheduler/protocol/member.ts";
import type { AttendRequest, Envelope, KvMessage, Message } from "../../scheduler/protocol/messages.ts";
import { PROTOCOL_VERSION } from "../../scheduler/protocol/messages.ts";

/** Opens members that can reach each other. */
export interface LinkHarness extends AsyncDisposable {
  /** Opens the network of a member; its card's url is the network's. */
  open(card: MemberCard, options?: { readonly epoch?: () => number }): Promise<Network>;
}

/** Longest wait for anything, ms; far more than it takes. */
const DEADLINE_MS = 10_000;

/** Format of the members of the suite. */
export const SUITE_FORMAT: KvFormat = {
  modelDigest: "a".repeat(64),
  kvType: "f32",
  layout: "test/1",
  layers: 4,
  heads: 2,
  kvHeads: 1,
  headDim: 8,
  blockTokens: 16,
  segmentTokens: 256,
  blockBytes: 4096,
};

/** A card; `index` sets name and incarnation. */
export function suiteCard(index: number, change: Partial<MemberCard> = {}): MemberCard {
  return {
    name: `member-${index}`,
    incarnation: index.toString(16).padStart(32, "0"),
    role: "full",
    clusterUrl: `http://member-${index}:1`,
    publicUrl: "",
    pid: index,
    protocol: PROTOCOL_VERSION,
    pluginApi: 1,
    format: SUITE_FORMAT,
    kernelDigest: "k",
    ...change,
  };
}

/** A member that keeps what it is told and complains when it is told at the wrong time. */
export class Recorder implements NetworkListener {
  /** Links told open and not closed since. */
  readonly open: PeerLink[] = [];
  /** What was told, in order. */
  readonly told: string[] = [];
  /** Copies of what came. */
  readonly envelopes: Envelope[] = [];
  /** Reports of `failed`. */
  readonly failures: { readonly url: string; readonly error: Error }[] = [];
  /** Called after a message was kept. */
  onMessage: ((link: PeerLink, message: Message) => void) | undefined;
  /** What went wrong in a call. */
  readonly complaints: string[] = [];
  #inCall = false;
  #inTold = false;
  readonly #waiting = new Set<() => void>();

  /** Runs a call to the network, during which nothing may be told. */
  call<T>(action: () => T): T {
    const outer = this.#inCall;
    this.#inCall = true;
    try {
      return action();
    } finally {
      this.#inCall = outer;
    }
  }

  /** The only open link. */
  get link(): PeerLink {
    assertEquals(this.open.length, 1, "open links");
    return this.open[0];
  }

  /** Messages that came. */
  get messages(): readonly Message[] {
    return this.envelopes.map(({ message }) => message);
  }

  opened(link: PeerLink): void {
    this.#tell(`opened ${link.peer.name}`, () => this.open.push(link));
  }

  received(link: PeerLink, envelope: Envelope): void {
    this.#tell(undefined, () => {
      if (!this.open.includes(link)) this.complaints.push(`a message of ${link.peer.name} came while it was not open`);
      this.envelopes.push(structuredClone(envelope));
      this.onMessage?.(link, envelope.message);
    });
  }

  closed(link: PeerLink, reason: string): void {
    this.#tell(`closed ${link.peer.name}`, () => {
      if (reason === "") this.complaints.push("a link closed for no reason");
      const index = this.open.indexOf(link);
      if (index < 0) this.complaints.push(`${link.peer.name} closed and was not open`);
      else this.open.splice(index, 1);
    });
  }

  failed(url: string, error: Error): void {
    this.#tell("failed", () => this.failures.push({ url, error }));
  }

  /** Resolves once `condition` holds after something was told. @throws {Error} after the deadline. */
  async until(what: string, condition: () => boolean): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const check = () => condition() && resolve();
    const timer = setTimeout(
      () =>
        reject(new Error(`Cannot wait for ${what}: told ${this.told.join(", ")}, ${this.envelopes.length} messages`)),
      DEADLINE_MS,
    );
    this.#waiting.add(check);
    check();
    try {
      await promise;
    } finally {
      this.#waiting.delete(check);
      clearTimeout(timer);
    }
  }

  #tell(what: string | undefined, action: () => void): void {
    if (this.#inCall) this.complaints.push(`told ${what ?? "a message"} inside a call to the network`);
    if (this.#inTold) this.complaints.push(`told ${what ?? "a message"} while being told`);
    this.#inTold = true;
    if (what !== undefined) this.told.push(what);
    try {
      action();
    } finally {
      this.#inTold = false;
    }
    for (const check of [...this.#waiting]) check();
  }
}

/** A member of a test. */
export interface SuiteMember extends Disposable {
  /** Its network. */
  readonly network: Network;
  /** What it was told. */
  readonly recorder: Recorder;
}

/** Opens a member and listens. */
export async function openMember<O>(
  harness: { open(card: MemberCard, options?: O): Promise<Network> },
  card: MemberCard,
  options?: O,
): Promise<SuiteMember> {
  const network = await harness.open(card, options);
  const recorder = new Recorder();
  network.listen(recorder);
  return { network, recorder, [Symbol.dispose]: () => recorder.call(() => network[Symbol.dispose]()) };
}

/** Two members with a link between them. */
async function linked(harness: LinkHarness): Promise<{ a: SuiteMember; b: SuiteMember } & Disposable> {
  const a = await openMember(harness, suiteCard(1), { epoch: () => 2 ** 40 + 7 });
  const b = await openMember(harness, suiteCard(2));
  a.recorder.call(() => a.network.dial(b.network.url));
  await a.recorder.until("a link", () => a.recorder.open.length === 1);
  await b.recorder.until("a link", () => b.recorder.open.length === 1);
  const dispose = () => {
    a[Symbol.dispose]();
    b[Symbol.dispose]();
    assertEquals([...a.recorder.complaints, ...b.recorder.complaints], []);
  };
  return { a, b, [Symbol.dispose]: dispose };
}

/** A request for `tokens` queries; the numbers tell one from another. */
export function attendMessage(call: number, tokens = 1): AttendRequest {
  const { heads, headDim } = SUITE_FORMAT;
  const queries = Float32Array.from({ length: tokens * heads * headDim }, (_, i) => call + i / 64);
  const runs = [{ lease: 2 ** 52 + 1, stamp: 2 ** 53 - 1, from: 3, count: 2 }, {
    lease: 9,
    stamp: 8,
    from: 0,
    count: 1,
  }];
  return { kind: "attend", call, layer: call % 4, items: [{ segment: 5, runs, position: 2048, tokens, queries }] };
}

function partialsMessage(call: number, tokens = 1): Message & { readonly kind: "partials" } {
  const { heads, headDim } = SUITE_FORMAT;
  const rows = tokens * heads;
  const node = (first: number, segments: number) => ({
    first,
    segments,
    o: new Float32Array(rows * headDim),
    lse: new Float32Array(rows).fill(-Infinity),
  });
  const full = node(6, 2);
  full.o.fill(call + 0.5);
  full.lse.fill(-1.25);
  return { kind: "partials", call, layer: 1, items: [[node(5, 1), full]] };
}

const RUN = { lease: 4, stamp: 5, from: 6, count: 1 };

function piece(call: number, offset: number, length: number): KvMessage & { readonly kind: "piece" } {
  return { kind: "piece", call, run: RUN, offset, bytes: new Uint8Array(length).fill(call) };
}

/** Runs the suite; `make` gives each test its own harness. */
export function testNetwork(name: string, make: () => LinkHarness | Promise<LinkHarness>): void {
  const test = (what: string, body: (harness: LinkHarness) => Promise<void>) =>
    Deno.test(`Network (${name}) ${what}`, async () => {
      await using harness = await make();
      await body(harness);
    });

  test("tells both sides of a dialled link who the other is", async (harness) => {
    using pair = await linked(harness);
    const { a, b } = pair;
    assertEquals(a.recorder.link.peer, suiteCard(2, { clusterUrl: b.network.url }));
    assertEquals(b.recorder.link.peer, suiteCard(1, { clusterUrl: a.network.url }));
    assertEquals([...a.recorder.told, ...b.recorder.told], ["opened member-2", "opened member-1"]);
  });

  test("carries the messages of every lane in order, both ways, with identities and epoch", async (harness) => {
    using pair = await linked(harness);
    const { a, b } = pair;
    const count = 100;
    for (const { recorder } of [a, b]) {
      recorder.call(() => {
        for (let call = 0; call < count; call++) {
          recorder.link.attention.send(call % 2 ? attendMessage(call) : partialsMessage(call));
          recorder.link.control({ kind: "ping", call });
          recorder.link.kv(piece(call, call, 10));
        }
      });
    }
    for (const { recorder } of [a, b]) {
      await recorder.until("all messages", () => recorder.envelopes.length === 3 * count);
      const of = (...kinds: string[]) => recorder.messages.filter(({ kind }) => kinds.includes(kind));
      assertEquals(
        of("attend", "partials"),
        Array.from({ length: count }, (_, i) => i % 2 ? attendMessage(i) : partialsMessage(i)),
      );
      assertEquals(of("ping"), Array.from({ length: count }, (_, call) => ({ kind: "ping", call })));
      assertEquals(of("piece"), Array.from({ length: count }, (_, call) => piece(call, call, 10)));
    }
    assertEquals(b.recorder.envelopes[0].from, { name: "member-1", incarnation: suiteCard(1).incarnation });
    assertEquals(b.recorder.envelopes[0].to, { name: "member-2", incarnation: suiteCard(2).incarnation });
    assertEquals([b.recorder.envelopes[0].epoch, a.recorder.envelopes[0].epoch], [2 ** 40 + 7, 0]);
  });

  test("carries every kind of message of the kv lane and refusals on all lanes", async (harness) => {
    using pair = await linked(harness);
    const { a, b } = pair;
    const refused = { kind: "refused", call: 3, code: "stale_stamp", detail: "wanted 5, got ä" } as const;
    const digest = "0123456789abcdef".repeat(4);
    const kv: KvMessage[] = [
      { kind: "commit", call: 1, run: RUN, digest },
      { kind: "written", call: 2 },
      { kind: "read", call: 3, run: RUN },
      { kind: "sent", call: 4, digest },
      refused,
    ];
    for (const message of kv) a.recorder.link.kv(message);
    await b.recorder.until("kv messages", () => b.recorder.envelopes.length === kv.length);
    assertEquals(b.recorder.messages, kv);
    a.recorder.link.attention.send(refused);
    await b.recorder.until("a refusal", () => b.recorder.envelopes.length === kv.length + 1);
    a.recorder.link.control({ ...refused, detail: "x".repeat(5000) });
    await b.recorder.until("a refusal", () => b.recorder.envelopes.length === kv.length + 2);
    assertEquals(b.recorder.messages.slice(-2), [refused, { ...refused, detail: "x".repeat(1024) }]);
  });

  test("carries large messages and cuts large pieces", async (harness) => {
    using pair = await linked(harness);
    const { a, b } = pair;
    const attend = attendMessage(1, 20_000);
    const json = JSON.stringify("é".repeat(600_000));
    const whole = piece(3, 100, 60_000);
    whole.bytes.forEach((_, i) => whole.bytes[i] = i % 251);
    a.recorder.call(() => {
      a.recorder.link.attention.send(attend);
      a.recorder.link.control({ kind: "submit", call: 2, request: { json } });
      a.recorder.link.kv(whole);
    });
    const arrived = () => {
      const bytes = new Uint8Array(whole.bytes.length);
      let count = 0;
      for (const message of b.recorder.messages) {
        if (message.kind !== "piece") continue;
        bytes.set(message.bytes, message.offset - 100);
        count += message.bytes.length;
      }
      return { bytes, count };
    };
    await b.recorder.until("all of it", () => {
      return arrived().count === whole.bytes.length && b.recorder.messages.some(({ kind }) => kind === "attend") &&
        b.recorder.messages.some(({ kind }) => kind === "submit");
    });
    assertEquals(arrived().bytes, whole.bytes);
    assertEquals(b.recorder.messages.find(({ kind }) => kind === "attend"), attend);
    assertEquals(b.recorder.messages.find(({ kind }) => kind === "submit"), {
      kind: "submit",
      call: 2,
      request: { json },
    });
    assert(b.recorder.messages.every((message) => message.kind !== "piece" || message.bytes.length <= 16384));
  });

  test("leaves a message's arrays to the caller when send returns", async (harness) => {
    using pair = await linked(harness);
    const { a, b } = pair;
    const attend = attendMessage(1, 64);
    const kv = piece(2, 0, 5000);
    a.recorder.link.attention.send(attend);
    a.recorder.link.kv(kv);
    attend.items[0].queries.fill(NaN);
    kv.bytes.fill(255);
    await b.recorder.until("both", () => b.recorder.envelopes.length === 2);
    assertEquals(b.recorder.messages.find(({ kind }) => kind === "attend"), attendMessage(1, 64));
    assertEquals(b.recorder.messages.find(({ kind }) => kind === "piece"), piece(2, 0, 5000));
  });

  test("lets a member answer and send while it is told", async (harness) => {
    using pair = await linked(harness);
    const { a, b } = pair;
    for (const { recorder } of [a, b]) {
      recorder.onMessage = (link, message) => {
        if (message.kind === "ping" && message.call < 100) {
          recorder.call(() => link.control({ kind: "ping", call: message.call + 1 }));
        }
      };
    }
    a.recorder.link.control({ kind: "ping", call: 0 });
    await a.recorder.until("the last", () => a.recorder.envelopes.length === 50);
    await b.recorder.until("the last", () => b.recorder.envelopes.length === 51);
  });

  test("tells both sides once when a link is closed, and sends nothing over it any more", async (harness) => {
    using pair = await linked(harness);
    const { a, b } = pair;
    const [mine, its] = [a.recorder.link, b.recorder.link];
    a.recorder.call(() => {
      mine.control({ kind: "bye" });
      mine[Symbol.dispose]();
      mine[Symbol.dispose]();
    });
    for (
      const send of [
        () => mine.control({ kind: "ping", call: 1 }),
        () => mine.attention.send(attendMessage(1)),
        () => mine.kv({ kind: "written", call: 1 }),
      ]
    ) {
      assertEquals(assertThrows(send, PeerError, "closed").code, "closed");
    }
    await a.recorder.until("closed", () => a.recorder.open.length === 0);
    await b.recorder.until("closed", () => b.recorder.open.length === 0);
    assertThrows(() => its.control({ kind: "ping", call: 1 }), PeerError, "closed");
    assertEquals(b.recorder.messages, [{ kind: "bye" }]);
    assertEquals(a.recorder.told, ["opened member-2", "closed member-2"]);
    assertEquals(b.recorder.told, ["opened member-1", "closed member-1"]);
  });

  test("links again after a link was closed", async (harness) => {
    using pair = await linked(harness);
    const { a, b } = pair;
    a.recorder.link[Symbol.dispose]();
    await a.recorder.until("closed", () => a.recorder.open.length === 0);
    await b.recorder.until("closed", () => b.recorder.open.length === 0);
    b.network.dial(a.network.url);
    await b.recorder.until("a link", () => b.recorder.open.length === 1);
    await a.recorder.until("a link", () => a.recorder.open.length === 1);
    b.recorder.link.control({ kind: "ping", call: 1 });
    await a.recorder.until("a message", () => a.recorder.envelopes.length === 1);
  });

  test("tells the others when it is disposed, and its own listener nothing more", async (harness) => {
    using pair = await linked(harness);
    const { a, b } = pair;
    a[Symbol.dispose]();
    await b.recorder.until("closed", () => b.recorder.open.length === 0);
    assertEquals(a.recorder.told, ["opened member-2"]);
    assertThrows(() => a.network.dial(b.network.url), ReferenceError);
  });

  test("opens one link when a url is dialled twice and again later", async (harness) => {
    using a = await openMember(harness, suiteCard(1));
    using b = await openMember(harness, suiteCard(2));
    using c = await openMember(harness, suiteCard(3));
    a.network.dial(b.network.url);
    a.network.dial(b.network.url);
    await a.recorder.until("a link", () => a.recorder.open.length === 1);
    a.network.dial(b.network.url);
    a.network.dial(c.network.url);
    await a.recorder.until("the other link", () => a.recorder.open.length === 2);
    a.recorder.open[0].control({ kind: "ping", call: 1 });
    await b.recorder.until("a message", () => b.recorder.envelopes.length === 1);
    assertEquals(a.recorder.told, ["opened member-2", "opened member-3"]);
    assertEquals(b.recorder.told, ["opened member-1"]);
  });

  test("keeps one link when two members dial each other", async (harness) => {
    for (const [first, second] of [[1, 2], [2, 1]]) {
      using a = await openMember(harness, suiteCard(first));
      using b = await openMember(harness, suiteCard(second));
      a.network.dial(b.network.url);
      b.network.dial(a.network.url);
      await a.recorder.until("a link", () => a.recorder.open.length === 1);
      await b.recorder.until("a link", () => b.recorder.open.length === 1);
      for (let call = 0; call < 20; call++) {
        a.recorder.link.control({ kind: "ping", call });
        b.recorder.link.attention.send(attendMessage(call));
        await b.recorder.until("a message", () => b.recorder.envelopes.length === call + 1);
        await a.recorder.until("a message", () => a.recorder.envelopes.length === call + 1);
      }
      assertEquals(a.recorder.told, [`opened member-${second}`]);
      assertEquals(b.recorder.told, [`opened member-${first}`]);
    }
  });

  test("says that nobody is there", async (harness) => {
    using a = await openMember(harness, suiteCard(1));
    using b = await openMember(harness, suiteCard(2));
    const { url } = b.network;
    b[Symbol.dispose]();
    a.recorder.call(() => a.network.dial(url));
    await a.recorder.until("failure", () => a.recorder.failures.length === 1);
    assertEquals(a.recorder.failures[0].url, url);
    const { error } = a.recorder.failures[0];
    assert(error instanceof PeerError && error.code === "unreachable", String(error));
    assert(error.message.includes(url), error.message);
  });

  for (
    const [what, change, wanted] of [
      ["another protocol", { protocol: 2 }, "wanted protocol"],
      ["another plugin API", { pluginApi: 2 }, "wanted plugin API"],
      ["another model", { format: { ...SUITE_FORMAT, modelDigest: "b".repeat(64) } }, "wanted modelDigest"],
      ["another block size", { format: { ...SUITE_FORMAT, blockTokens: 32 } }, "wanted blockTokens"],
      ["the same name", { name: "member-1" }, "wanted different names"],
      ["the same incarnation", { name: "other", incarnation: suiteCard(1).incarnation }, "itself"],
    ] satisfies [string, Partial<MemberCard>, string][]
  ) {
    test(`refuses a member with ${what} and says so`, async (harness) => {
      using a = await openMember(harness, suiteCard(1));
      using b = await openMember(harness, suiteCard(2, change));
      b.recorder.call(() => b.network.dial(a.network.url));
      await b.recorder.until("failure", () => b.recorder.failures.length === 1);
      const { error } = b.recorder.failures[0];
      assert(error instanceof PeerError && error.code === "refused", String(error));
      assert(error.message.includes(wanted), error.message);
      assertEquals([...a.recorder.told, ...b.recorder.told], ["failed"]);
    });
  }

  test("links members of which one has no format yet, and uses the other's", async (harness) => {
    using a = await openMember(harness, suiteCard(1));
    using b = await openMember(harness, suiteCard(2, { format: undefined, role: "holder" }));
    a.network.dial(b.network.url);
    await a.recorder.until("a link", () => a.recorder.open.length === 1);
    a.recorder.link.attention.send(attendMessage(1));
    await b.recorder.until("a message", () => b.recorder.envelopes.length === 1);
    b.recorder.link.attention.send(partialsMessage(1));
    await a.recorder.until("a message", () => a.recorder.envelopes.length === 1);
    assertEquals(b.recorder.messages, [attendMessage(1)]);
    assertEquals(a.recorder.messages, [partialsMessage(1)]);
  });

  test("refuses a second member of a name while the first is there", async (harness) => {
    using a = await openMember(harness, suiteCard(1));
    using b = await openMember(harness, suiteCard(2));
    using c = await openMember(harness, suiteCard(3, { name: "member-2" }));
    a.network.dial(b.network.url);
    await b.recorder.until("a link", () => b.recorder.open.length === 1);
    c.network.dial(a.network.url);
    await c.recorder.until("failure", () => c.recorder.failures.length === 1);
    const { message } = c.recorder.failures[0].error;
    assert(message.includes("wanted one member of that name") && message.includes(b.network.url), message);
    b.recorder.link.control({ kind: "ping", call: 1 });
    await a.recorder.until("a message", () => a.recorder.envelopes.length === 1);
    assertEquals(a.recorder.told, ["opened member-2"]);
  });

  test("answers queries that are not finite and tells partials that are not as refused", async (harness) => {
    using pair = await linked(harness);
    const { a, b } = pair;
    const attend = attendMessage(7);
    attend.items[0].queries[3] = Infinity;
    a.recorder.link.attention.send(attend);
    await a.recorder.until("an answer", () => a.recorder.envelopes.length === 1);
    const partials = partialsMessage(8);
    partials.items[0][1].lse[0] = NaN;
    a.recorder.link.attention.send(partials);
    await b.recorder.until("a refusal", () => b.recorder.envelopes.length === 1);
    const brief = (message: Message) => message.kind === "refused" && [message.call, message.code];
    assertEquals(a.recorder.messages.map(brief), [[7, "not_finite"]]);
    assertEquals(b.recorder.messages.map(brief), [[8, "not_finite"]]);
    assertEquals([a.recorder.open.length, b.recorder.open.length], [1, 1]);
  });

  test("closes a link whose peer breaks the protocol", async (harness) => {
    using pair = await linked(harness);
    const { a, b } = pair;
    a.recorder.link.kv(piece(1, 2 ** 40, 10));
    await b.recorder.until("closed", () => b.recorder.open.length === 0);
    await a.recorder.until("closed", () => a.recorder.open.length === 0);
    assertEquals(b.recorder.envelopes, []);
  });

  test("refuses to send what the peer would not take", async (harness) => {
    using pair = await linked(harness);
    const { link } = pair.a.recorder;
    assertThrows(() => link.control({ kind: "ping", call: NaN }), RangeError, "Cannot encode ping: call");
    assertThrows(() => link.attention.send(attendMessage(-1)), RangeError, "Cannot encode number");
    link.control({ kind: "ping", call: 1 });
    await pair.b.recorder.until("a message", () => pair.b.recorder.envelopes.length === 1);
  });

  test("counts what waits on the kv lane", async (harness) => {
    using pair = await linked(harness);
    const { a, b } = pair;
    for (let i = 0; i < 16; i++) a.recorder.link.kv(piece(i, 0, 16384));
    assert(a.recorder.link.kvBacklog > 100_000, String(a.recorder.link.kvBacklog));
    await b.recorder.until("all pieces", () => b.recorder.envelopes.length === 16);
    a.recorder.link.kv({ kind: "read", call: 20, run: RUN });
    b.recorder.onMessage = (link, { kind }) => void (kind === "read" && link.kv({ kind: "written", call: 20 }));
    await a.recorder.until("an answer", () => a.recorder.envelopes.length === 1);
    assertEquals(a.recorder.link.kvBacklog, 0);
  });

  test("tells nothing of a link after it was closed from inside a message", async (harness) => {
    using pair = await linked(harness);
    const { a, b } = pair;
    b.recorder.onMessage = (link, { kind }) => {
      if (kind === "pong") b.recorder.call(() => link[Symbol.dispose]());
    };
    const { link } = a.recorder;
    for (let call = 0; call < 10; call++) link.control({ kind: call === 4 ? "pong" : "ping", call });
    await b.recorder.until("closed", () => b.recorder.open.length === 0);
    await a.recorder.until("closed", () => a.recorder.open.length === 0);
    assertEquals(b.recorder.envelopes.length, 5);
  });

  test("is disposed in the middle of traffic", async (harness) => {
    using pair = await linked(harness);
    const { a, b } = pair;
    for (const { recorder } of [a, b]) {
      recorder.onMessage = (link, message) => {
        if (message.kind === "piece" && recorder.open.includes(link)) link.kv(piece(message.call, 0, 16384));
      };
      for (let call = 0; call < 64; call++) recorder.link.kv(piece(call, 0, 16384));
      for (let call = 0; call < 64; call++) recorder.link.attention.send(attendMessage(call, 200));
    }
    await b.recorder.until("traffic", () => b.recorder.envelopes.length > 200);
    a[Symbol.dispose]();
    await b.recorder.until("closed", () => b.recorder.open.length === 0);
    assertEquals(b.recorder.told, ["opened member-1", "closed member-1"]);
  });
}
