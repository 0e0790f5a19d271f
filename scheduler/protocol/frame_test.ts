import { assert, assertEquals, assertThrows } from "@std/assert";
import { createSecretKey, type KeyObject } from "node:crypto";
import fc from "fast-check";
import { PeerError } from "../links/link.ts";
import {
  DEFAULT_FRAME_LIMITS,
  type Frame,
  FRAME_HEADER_BYTES,
  FRAME_TAG_BYTES,
  type FrameLane,
  frameTypeName,
} from "./frame.ts";
import { FrameReader, VersionError } from "./frame_reader.ts";
import { FrameSealer } from "./frame_sealer.ts";
import { FrameWriter } from "./frame_writer.ts";
import { deriveKeys } from "./session_keys.ts";

const KEYS = deriveKeys(new Uint8Array(32).fill(1), [new Uint8Array([1])]);
const KEY = KEYS("control", "dialler") ?? null;

/** Frames of the control lane with these payloads. */
function seal(payloads: readonly Uint8Array[], key: KeyObject | null = KEY, lane: FrameLane = "control"): Uint8Array[] {
  const sealer = new FrameSealer(lane, key ?? undefined);
  const writer = new FrameWriter(16);
  return payloads.map((payload) => {
    writer.begin(0);
    writer.bytes(payload);
    return sealer.seal(writer, lane === "control" ? "control" : "attend", 2 ** 40 + 3).slice();
  });
}

function reader(key: KeyObject | null = KEY): FrameReader {
  return new FrameReader({ lane: "control", key: key ?? undefined, maxPayloadBytes: 1000 });
}

/** What a reader makes of bytes that come in pieces of the given sizes, the last repeating. */
function read(bytes: Uint8Array, sizes: readonly number[] = [bytes.length], into = reader()): Frame[] {
  const frames: Frame[] = [];
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[Math.min(i, sizes.length - 1)];
    into.push(bytes.slice(at, at + size), (frame) => frames.push({ ...frame, payload: frame.payload.slice() }));
    at += size;
  }
  return frames;
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

const PAYLOADS = [new Uint8Array([1, 2, 3]), new Uint8Array(0), new Uint8Array(900).fill(7)];

Deno.test("FrameReader reads what FrameSealer sealed, however it is cut", () => {
  for (const key of [KEY, null]) {
    const bytes = concat(seal(PAYLOADS, key));
    const expected: Frame[] = PAYLOADS.map((payload) => ({ type: "control", epoch: 2 ** 40 + 3, payload }));
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 20 }), (sizes) => {
        assertEquals(read(bytes, sizes, reader(key)), expected);
      }),
      { numRuns: 50 },
    );
  }
});

Deno.test("FrameReader waits for the rest of a frame cut at every byte", () => {
  const [frame] = seal([new Uint8Array([1, 2, 3, 4, 5])]);
  for (let length = 0; length < frame.length; length++) {
    const cut = reader();
    assertEquals(read(frame.subarray(0, length), [length || 1], cut), []);
    assertEquals(cut.midFrame, length > 0);
  }
});

Deno.test("FrameReader refuses a frame with any byte changed", () => {
  const [frame] = seal([new Uint8Array([1, 2, 3, 4, 5])]);
  for (let at = 0; at < frame.length; at++) {
    const changed = frame.slice();
    changed[at] ^= 1;
    const inTime = reader();
    // Where the length grew the reader waits for as much: let it come.
    assertThrows(
      () => read(concat([changed, new Uint8Array(1000)]), undefined, inTime),
      PeerError,
      "Cannot read frame",
    );
    assertEquals(inTime.midFrame, false);
  }
});

Deno.test("FrameReader refuses replays, gaps, reordering and counters used again", () => {
  const [a, b, c] = seal(PAYLOADS);
  for (const order of [[a, a], [a, c], [b], [a, b, a], [a, b, c, c]]) {
    const error = assertThrows(() => read(concat(order)), PeerError, "wanted counter");
    assertEquals(error.code, "auth");
  }
  assertEquals(read(concat([a, b, c])).length, 3);
});

Deno.test("FrameReader refuses frames of another key, direction, lane or link", () => {
  const other = deriveKeys(new Uint8Array(32).fill(2), [new Uint8Array([1])]);
  const later = deriveKeys(new Uint8Array(32).fill(1), [new Uint8Array([2])]);
  for (
    const key of [
      other("control", "dialler"),
      KEYS("control", "acceptor"),
      KEYS("attention", "dialler"),
      KEYS("kv", "dialler"),
      later("control", "dialler"),
    ]
  ) {
    assert(key);
    assertEquals(assertThrows(() => read(seal(PAYLOADS, key)[0]), PeerError, "tag does not fit").code, "auth");
  }
  assertThrows(
    () => read(seal(PAYLOADS, KEYS("attention", "dialler"), "attention")[0]),
    PeerError,
    "wanted lane control",
  );
});

Deno.test("FrameReader refuses frames without a tag where there is a key, and with one where there is none", () => {
  const error = assertThrows(() => read(seal(PAYLOADS, null)[0]), PeerError, "wanted flags 1");
  assertEquals(error.code, "auth");
  assertThrows(() => read(seal(PAYLOADS)[0], undefined, reader(null)), PeerError, "wanted flags 0");
});

Deno.test("FrameReader refuses a length over the cap at the header, and sets aside no more than came", () => {
  const [frame] = seal([new Uint8Array(10)]);
  new DataView(frame.buffer).setUint32(24, 1001, true);
  assertThrows(() => read(frame.subarray(0, FRAME_HEADER_BYTES)), PeerError, "wanted at most 1000 bytes");
  new DataView(frame.buffer).setUint32(24, 0xffffffff, true);
  assertThrows(() => read(frame.subarray(0, FRAME_HEADER_BYTES)), PeerError, "got 4294967295");
});

Deno.test("FrameReader names both versions", () => {
  const [frame] = seal([new Uint8Array(10)]);
  frame[4] = 2;
  const error = assertThrows(() => read(frame), VersionError, "wanted version 1 of the protocol, got 2");
  assertEquals(error.version, 2);
});

Deno.test("FrameReader refuses numbers from 2^53 on", () => {
  for (const [at, what] of [[12, "an epoch"], [20, "a counter"]] as const) {
    const frame = seal(PAYLOADS, null)[0];
    new DataView(frame.buffer).setUint32(at, 2 ** 21, true);
    assertThrows(() => read(frame, undefined, reader(null)), PeerError, `wanted ${what} below 2^53`);
  }
});

Deno.test("FrameReader reads nothing after an error or after it was closed", () => {
  const [a, b] = seal(PAYLOADS);
  const broken = reader();
  assertThrows(() => read(b, undefined, broken), PeerError);
  assertEquals(read(a, undefined, broken), []);
  const closing = reader();
  const frames: Frame[] = [];
  closing.push(concat([a, b]), (frame) => {
    frames.push(frame);
    closing.close();
  });
  assertEquals(frames.length, 1);
});

Deno.test("FrameReader survives arbitrary bytes", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.integer({ min: 0, max: 60 }), (noise, keep) => {
      const [frame] = seal([noise], null);
      const bytes = concat([frame.subarray(0, keep), noise]);
      try {
        read(bytes, [7], reader(null));
      } catch (error) {
        assert(error instanceof PeerError, String(error));
      }
    }),
    { numRuns: 500 },
  );
});

Deno.test("frameTypeName() knows which lane carries which type", () => {
  assertEquals(frameTypeName("attention", 16), "attend");
  assertEquals(frameTypeName("control", 16), undefined);
  assertEquals([frameTypeName("attention", 18), frameTypeName("kv", 18)], ["refused", "refused"]);
  assertEquals(frameTypeName("kv", 255), undefined);
});

Deno.test("The tag is HMAC-SHA256 over header and payload, cut to 16 bytes", async () => {
  const raw = new Uint8Array(32).fill(9);
  const [frame] = seal([new Uint8Array([1, 2, 3])], createSecretKey(raw));
  const end = frame.length - FRAME_TAG_BYTES;
  const key = await crypto.subtle.importKey("raw", raw, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const tag = new Uint8Array(await crypto.subtle.sign("HMAC", key, frame.slice(0, end)));
  assertEquals(frame.slice(end), tag.slice(0, 16));
});

Deno.test("The limits fit what they must carry", () => {
  assertEquals(DEFAULT_FRAME_LIMITS.kv, 16 * 1024 + 40);
});
