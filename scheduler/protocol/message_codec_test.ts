import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { attendMessage, SUITE_FORMAT, suiteCard } from "../../tests/conformance/link_suite.ts";
import { segmentNodes } from "../../kernels/merge_partials/spec.ts";
import { PeerError } from "../links/link.ts";
import { FRAME_HEADER_BYTES, type FrameTypeName } from "./frame.ts";
import { FrameSealer } from "./frame_sealer.ts";
import { FrameWriter } from "./frame_writer.ts";
import { decodeMessage, encodeMessage, type LaneMessage, receiveMessage } from "./message_codec.ts";
import { MessageError } from "./message_error.ts";
import type { AttendReply, ControlMessage, Message } from "./messages.ts";
import { cutNodes } from "./segment_nodes.ts";

const GOLDEN = new URL("testdata/frames.json", import.meta.url);

const RUN = { lease: 2 ** 40, stamp: 7, from: 2, count: 1 };

function reply(change: { nodes?: readonly { first: number; segments: number }[]; tokens?: number } = {}): AttendReply {
  const { nodes = [{ first: 5, segments: 1 }, { first: 6, segments: 2 }], tokens = 1 } = change;
  const rows = tokens * SUITE_FORMAT.heads;
  return {
    kind: "partials",
    call: 9,
    layer: 2,
    items: [nodes.map((node, i) => ({
      ...node,
      o: Float32Array.from({ length: rows * SUITE_FORMAT.headDim }, (_, j) => i + j / 8),
      lse: Float32Array.from({ length: rows }, (_, j) => j - 0.5),
    }))],
  };
}

/** One of each kind of message, by a name. */
const MESSAGES: readonly (readonly [string, LaneMessage])[] = [
  ["attend", { lane: "attention", message: attendMessage(3) }],
  ["partials", { lane: "attention", message: reply() }],
  ["refused", {
    lane: "attention",
    message: { kind: "refused", call: 4, code: "bad_slot", detail: "wanted 1, got ä" },
  }],
  ["piece", {
    lane: "kv",
    message: { kind: "piece", call: 5, run: RUN, offset: 32, bytes: new Uint8Array([1, 2, 3]) },
  }],
  ["commit", { lane: "kv", message: { kind: "commit", call: 6, run: RUN, digest: "0123456789abcdef".repeat(4) } }],
  ["written", { lane: "kv", message: { kind: "written", call: 7 } }],
  ["read", { lane: "kv", message: { kind: "read", call: 8, run: RUN } }],
  ["sent", { lane: "kv", message: { kind: "sent", call: 9, digest: "0123456789abcdef".repeat(4) } }],
  ["ping", { lane: "control", message: { kind: "ping", call: 10 } }],
  ["granted", { lane: "control", message: { kind: "granted", call: 11, run: RUN, ttlMs: 10_000 } }],
];

function encode(of: LaneMessage): { type: FrameTypeName; payload: Uint8Array } {
  const writer = new FrameWriter(4);
  const type = encodeMessage(writer, of);
  return { type, payload: writer.buffer.slice(FRAME_HEADER_BYTES, writer.length) };
}

function decode({ lane }: LaneMessage, frame: { type: FrameTypeName; payload: Uint8Array }): Message {
  return decodeMessage(lane, frame, SUITE_FORMAT);
}

Deno.test("The bytes of every message are the golden ones", () => {
  const actual: Record<string, string> = {};
  for (const [name, of] of MESSAGES) {
    const writer = new FrameWriter();
    const type = encodeMessage(writer, of);
    actual[name] = new FrameSealer(of.lane).seal(writer, type, 5).toHex();
  }
  const golden: Record<string, string> = JSON.parse(Deno.readTextFileSync(GOLDEN));
  assertEquals(actual, golden);
  for (const [name, of] of MESSAGES) {
    const payload = Uint8Array.fromHex(golden[name]).slice(FRAME_HEADER_BYTES);
    assertEquals(decode(of, { type: encode(of).type, payload }), of.message, name);
  }
});

Deno.test("decodeMessage() gives views of aligned payloads and copies of others, with the same numbers", () => {
  const { type, payload } = encode(MESSAGES[0][1]);
  for (let shift = 0; shift < 4; shift++) {
    const memory = new Uint8Array(payload.length + 8);
    memory.set(payload, shift);
    const message = decodeMessage(
      "attention",
      { type, payload: memory.subarray(shift, shift + payload.length) },
      SUITE_FORMAT,
    );
    assertEquals(message, attendMessage(3));
    assert(message.kind === "attend");
    assertEquals(message.items[0].queries.buffer === memory.buffer, shift === 0);
  }
});

Deno.test("decodeMessage() refuses every message cut at every byte, and with bytes too many", () => {
  for (const [name, of] of MESSAGES) {
    const { type, payload } = encode(of);
    const ends = of.message.kind === "refused" ? 12 : of.message.kind === "piece" ? 41 : payload.length;
    for (let length = 0; length < ends; length++) {
      assertFails(() => decode(of, { type, payload: payload.slice(0, length) }), `${name} of ${length} bytes`);
    }
    if (of.message.kind === "refused" || of.message.kind === "piece") continue;
    assertFails(() => decode(of, { type, payload: new Uint8Array([...payload, 0]) }), `${name} and a byte`);
    assertFails(
      () => decode(of, { type, payload: new Uint8Array([...payload, 0, 0, 0, 0]) }),
      `${name} and four bytes`,
    );
  }
});

function assertFails(action: () => unknown, what: string): void {
  try {
    action();
  } catch (error) {
    assert(error instanceof PeerError || error instanceof MessageError, `${what}: ${error}`);
    return;
  }
  throw new Error(`Cannot pass: ${what} was taken`);
}

Deno.test("decodeMessage() takes nothing that encodes otherwise, whatever words of a message are changed", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...MESSAGES.filter(([, { lane }]) => lane !== "control")),
      fc.array(fc.tuple(fc.nat(40), fc.oneof(fc.nat(20), fc.integer({ min: 0, max: 0xffffffff })))),
      ([, of], changes) => {
        const { type, payload } = encode(of);
        const view = new DataView(payload.buffer);
        for (const [word, value] of changes) {
          if (word * 4 + 4 <= payload.length) view.setUint32(word * 4, value, true);
        }
        let message: Message;
        try {
          message = decode(of, { type, payload });
        } catch (error) {
          assert(error instanceof PeerError || error instanceof MessageError, String(error));
          return;
        }
        // Text that was not UTF-8 is refused, so what was taken has exactly one form.
        assertEquals(encode({ ...of, message } as LaneMessage).payload, payload);
      },
    ),
    { numRuns: 3000 },
  );
});

Deno.test("decodeMessage() survives arbitrary payloads", () => {
  const types: [LaneMessage["lane"], FrameTypeName][] = MESSAGES.map(([, of]) => [of.lane, encode(of).type]);
  fc.assert(
    fc.property(fc.constantFrom(...types), fc.uint8Array({ maxLength: 200 }), ([lane, type], payload) => {
      try {
        decodeMessage(lane, { type, payload }, SUITE_FORMAT);
      } catch (error) {
        assert(error instanceof PeerError || error instanceof MessageError, String(error));
      }
    }),
    { numRuns: 3000 },
  );
});

function assertRefused(of: LaneMessage, code: string, wanted: string): void {
  const error = assertThrows(() => decode(of, encode(of)), MessageError, wanted);
  assertEquals(error.code, code);
}

Deno.test("decodeMessage() checks a request against the format", () => {
  const attend = attendMessage(3);
  const [item] = attend.items;
  const change = (change: object, of: object = {}): LaneMessage => ({
    lane: "attention",
    message: { ...attend, items: [{ ...item, ...change }], ...of },
  });
  assertRefused(change({}, { layer: 4 }), "bad_shape", "wanted a layer below 4, got 4");
  assertRefused(change({}, { items: [] }), "bad_shape", "items, got 0");
  assertRefused(change({ tokens: 0, queries: new Float32Array(0) }), "bad_shape", "at least one query");
  assertRefused(change({ tokens: 2 }), "bad_shape", "wanted 128 bytes");
  assertRefused(change({ queries: new Float32Array(15) }), "bad_shape", "wanted 64 bytes");
  assertRefused(change({ queries: new Float32Array(17) }), "bad_shape", "4 bytes too many");
  assertRefused(change({ runs: [] }), "bad_shape", "runs, got 0");
  assertRefused(change({ runs: [{ ...RUN, count: 0 }] }), "bad_shape", "wanted slots");
  assertRefused(change({ position: 2047 }), "bad_shape", "wanted segments [5, 8) of item 0 below position 2047");
  assertRefused(change({ segment: 2 ** 32 - 1 }), "bad_shape", "below position");
  for (const value of [NaN, Infinity, -Infinity]) {
    const queries = item.queries.slice();
    for (const at of [0, 7, 15]) {
      queries[at] = value;
      assertRefused(change({ queries }), "not_finite", "wanted finite queries");
      queries[at] = 0;
    }
  }
  const { type, payload } = encode({ lane: "attention", message: attend });
  const error = assertThrows(() => decodeMessage("attention", { type, payload }), MessageError);
  assertEquals([error.code, error.call], ["wrong_format", 3]);
});

Deno.test("decodeMessage() checks partials: nodes, rows, finite o, lse below +Infinity", () => {
  const of = (message: AttendReply): LaneMessage => ({ lane: "attention", message });
  const nodes = (...list: [number, number][]) =>
    of(reply({ nodes: list.map(([first, segments]) => ({ first, segments })) }));
  assertRefused(nodes(), "bad_shape", "nodes in item 0, got 0");
  assertRefused(nodes([5, 3]), "bad_shape", "wanted 1 segments from 5 in item 0, got 3");
  assertRefused(nodes([6, 1], [7, 1]), "bad_shape", "wanted 2 segments from 6");
  assertRefused(nodes([5, 1], [7, 1]), "bad_shape", "to begin at 6, got 7");
  assertRefused(nodes([6, 0]), "bad_shape", "got 0");
  assertRefused(of({ ...reply(), layer: 9 }), "bad_shape", "layer below 4");
  const spoil = (change: (o: Float32Array, lse: Float32Array) => void) => {
    const message = reply();
    change(message.items[0][1].o, message.items[0][1].lse);
    return of(message);
  };
  assertRefused(spoil((o) => o[3] = NaN), "not_finite", "wanted finite o");
  assertRefused(spoil((o) => o[15] = -Infinity), "not_finite", "wanted finite o");
  assertRefused(spoil((_, lse) => lse[1] = NaN), "not_finite", "got NaN");
  assertRefused(spoil((_, lse) => lse[0] = Infinity), "not_finite", "got Infinity");
  assertRefused(spoil((_, lse) => lse[0] = -Infinity), "bad_shape", "wanted o = 0");
  const empty = spoil((o, lse) => {
    o.fill(0, 8);
    lse[1] = -Infinity;
  });
  assertEquals(decode(empty, encode(empty)), empty.message);
  assertThrows(
    () => encode(of({ ...reply(), items: [[...reply().items[0], ...reply({ tokens: 2 }).items[0]]] })),
    RangeError,
    "Cannot encode partials of call 9",
  );
});

Deno.test("cutNodes() cuts as the kernels do", () => {
  fc.assert(
    fc.property(fc.nat(5000), fc.nat(5000), (from, count) => {
      assertEquals(cutNodes(from, from + count), segmentNodes(from, from + count));
    }),
    { numRuns: 300 },
  );
});

Deno.test("decodeMessage() checks slots: one each, bytes inside, a digest", () => {
  const piece = { kind: "piece", call: 5, run: RUN, offset: 65_536 - 3, bytes: new Uint8Array(3) } as const;
  const of = (change: object): LaneMessage => ({ lane: "kv", message: { ...piece, ...change } });
  assertEquals(decode(of({}), encode(of({}))), piece);
  assertRefused(of({ offset: 65_536 - 2 }), "bad_shape", "wanted bytes inside a slot of 65536, got 3 at 65534");
  assertRefused(of({ bytes: new Uint8Array(0) }), "bad_shape", "got 0 at");
  assertThrows(() => encode(of({ run: { ...RUN, count: 2 } })), RangeError, "wanted a run of 1");
  assertThrows(() => encode({ lane: "kv", message: { kind: "sent", call: 1, digest: "00" } }), RangeError, "wanted 64");
  const { type, payload } = encode({ lane: "kv", message: { kind: "read", call: 8, run: RUN } });
  new DataView(payload.buffer).setUint32(28, 2, true);
  const error = assertThrows(() => decodeMessage("kv", { type, payload }, SUITE_FORMAT), MessageError, "one slot");
  assertEquals([error.code, error.call], ["bad_slot", 8]);
});

Deno.test("receiveMessage() answers unsound requests, tells unsound partials, and gives up the rest", () => {
  const spoiled = (of: LaneMessage, word: number, value: number) => {
    const { type, payload } = encode(of);
    new DataView(payload.buffer).setUint32(word * 4, value, true);
    return receiveMessage(of.lane, { type, payload }, SUITE_FORMAT);
  };
  const code = (receipt: ReturnType<typeof spoiled>) =>
    receipt.kind === "answer" ? receipt.refused.code : receipt.message.kind;
  const find = (name: string) => MESSAGES.find(([of]) => of === name)?.[1] ?? MESSAGES[0][1];
  assertEquals(spoiled(find("attend"), 2, 99).kind, "answer");
  assertEquals(code(spoiled(find("commit"), 7, 2)), "bad_slot");
  assertEquals(code(spoiled(find("read"), 7, 2)), "bad_slot");
  const told = spoiled(find("partials"), 2, 99);
  assertEquals([told.kind, code(told)], ["message", "refused"]);
  assertThrows(() => spoiled(find("piece"), 7, 2), PeerError, "one slot");
  assertThrows(() => spoiled(find("attend"), 1, 2 ** 31), PeerError, "below 2^53");
});

const CONTROL: readonly ControlMessage[] = [
  {
    kind: "heartbeat",
    version: 3,
    base: 2,
    card: suiteCard(1),
    blocks: { total: 8, free: 2, own: 2, lent: 3, quarantined: 1, borrowed: 0, lendable: 1, filling: 1 },
    load: {
      running: 1,
      waiting: 0,
      maxBatch: 8,
      tokensPerSecond: 12.5,
      counters: { "repairs": 1, "refused.no_space": 2 },
      performance: { batch: [1, 8], batchMs: [3, 4.5], attentionMs: 0.1, error: 0.02, steps: 99 },
    },
    entries: [{
      sequence: "a/1",
      member: "b",
      blocks: 16,
      local: false,
      length: 300,
      ranges: [{ from: 0, to: 1, sinceMs: 5.5 }],
      pinned: true,
    }],
    leases: [{ lease: 4, debtor: "b", segments: 1, expiresMs: 9000 }],
    moves: [{ sequence: "a/1", from: "a", to: "b", segments: 1, state: "copying", predictedGain: 0.5 }],
    leaving: false,
  },
  { kind: "renew", call: 1, leases: [1, 2, 3] },
  { kind: "events", call: 1, first: 0, events: ["{}", "é\u{1f600}"] },
  { kind: "try-move-kvcache", call: 2, sequence: "a/1", segments: 3, format: SUITE_FORMAT },
  { kind: "bye" },
];

Deno.test("Control messages survive, and nothing about them may change", () => {
  for (const message of CONTROL) {
    const { type, payload } = encode({ lane: "control", message });
    assertEquals(decodeMessage("control", { type, payload }), message);
    const json = JSON.parse(new TextDecoder().decode(payload));
    /** Every value in turn: taken away, of another type, or with a key beside it. */
    const spoil = (value: unknown, put: (value: unknown) => void, path: string): void => {
      for (const bad of path === "" ? [] : [null, "x".repeat(70_000), -1.5, {}, [[]], 1e300]) {
        if (typeof bad === "number" && typeof value === "number" && path !== "version" && path !== "call") continue;
        if (typeof bad === "string" && typeof value === "string" && path.startsWith("events")) continue;
        if (path === "load.counters" && bad !== null && typeof bad === "object") continue;
        put(bad);
        const text = new TextEncoder().encode(JSON.stringify(json));
        assertThrows(
          () => decodeMessage("control", { type, payload: text }),
          PeerError,
          "Cannot decode control message",
        );
      }
      put(value);
      if (value === null || typeof value !== "object") return;
      if (Array.isArray(value)) value.forEach((item, i) => spoil(item, (v) => value[i] = v, `${path}.${i}`));
      else {
        const fields = value as Record<string, unknown>;
        for (const key of Object.keys(fields)) {
          spoil(fields[key], (v) => fields[key] = v, path ? `${path}.${key}` : key);
        }
        if (path === "load.counters") return;
        fields.unknown = 1;
        const text = new TextEncoder().encode(JSON.stringify(json));
        assertThrows(() => decodeMessage("control", { type, payload: text }), PeerError, "unknown key");
        delete fields.unknown;
      }
    };
    spoil(json, () => {}, "");
  }
});

Deno.test("decodeMessage() refuses control messages that are not JSON, nest deep, lack or repeat a key, or are not text", () => {
  const refuse = (text: string | Uint8Array, wanted: string) => {
    const payload = typeof text === "string" ? new TextEncoder().encode(text) : text;
    const error = assertThrows(() => decodeMessage("control", { type: "control", payload }), PeerError, wanted);
    assertEquals(error.code, "protocol");
  };
  refuse("", "Cannot decode control message");
  refuse("null", "wanted a kind");
  refuse('{"kind":"ping","call":1', "JSON");
  refuse('{"kind":"ping"}', 'missing key "call"');
  refuse('{"kind":"pong","call":"1"}', "call: wanted an integer");
  refuse('{"kind":"constructor","call":1}', "wanted a kind");
  refuse('{"kind":"ping","call":1,"__proto__":{}}', 'unknown key "__proto__"');
  refuse('{"kind":"ping","call":1e999}', "call: wanted an integer");
  refuse('{"kind":"ping","call":9007199254740992}', "call: wanted an integer");
  refuse("[".repeat(100_000), "levels of brackets");
  refuse('{"kind":"events","call":1,"first":0,"events":["\\ud800"]}', "events.0: wanted text");
  refuse(new Uint8Array([0x22, 0xff, 0x22]), "Cannot decode control message");
  refuse(JSON.stringify({ kind: "renew", call: 1, leases: new Array(65_537).fill(0) }), "leases: wanted an array");
});

Deno.test("encodeMessage() names the field of a control message that nobody would take", () => {
  const heartbeat = CONTROL[0];
  assert(heartbeat.kind === "heartbeat");
  const message = { ...heartbeat, load: { ...heartbeat.load, tokensPerSecond: NaN } };
  assertThrows(
    () => encode({ lane: "control", message }),
    RangeError,
    "Cannot encode heartbeat: load.tokensPerSecond: wanted a finite number, got NaN",
  );
});
