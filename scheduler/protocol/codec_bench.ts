/**
 * Times encoding, sealing, reading and decoding of what travels for each layer: 4 KB of queries, the reply over a range of
 * 1,024 tokens (one node), a batch of 8 of both, and 512 tokens of prefill.
 *
 * `deno run -A scheduler/protocol/codec_bench.ts [--json FILE]`
 *
 * @module
 */
import { createSecretKey, type KeyObject } from "node:crypto";
import { parseArgs } from "node:util";
import { DEFAULT_FRAME_LIMITS } from "./frame.ts";
import { FrameReader } from "./frame_reader.ts";
import { FrameSealer } from "./frame_sealer.ts";
import { FrameWriter } from "./frame_writer.ts";
import type { KvFormat } from "./member.ts";
import { decodeMessage, encodeMessage } from "./message_codec.ts";
import type { AttendReply, AttendRequest, AttentionMessage } from "./messages.ts";

const FORMAT: KvFormat = {
  modelDigest: "bench",
  kvType: "f16",
  layout: "bench",
  layers: 32,
  heads: 16,
  kvHeads: 16,
  headDim: 64,
  blockTokens: 16,
  segmentTokens: 256,
  blockBytes: 2 ** 20,
};

const ROUND_MS = 60;
const ROUNDS = 12;

function attend(batch: number, tokens: number): AttendRequest {
  const item = {
    segment: 4,
    runs: [{ lease: 1, stamp: 2, from: 3, count: 4 }],
    position: 4096,
    tokens,
    queries: new Float32Array(tokens * FORMAT.heads * FORMAT.headDim).fill(0.5),
  };
  return { kind: "attend", call: 1, layer: 3, items: Array.from({ length: batch }, () => item) };
}

function partials(batch: number, tokens: number): AttendReply {
  const rows = tokens * FORMAT.heads;
  const o = new Float32Array(rows * FORMAT.headDim).fill(0.5);
  const node = { first: 4, segments: 4, o, lse: new Float32Array(rows) };
  return { kind: "partials", call: 1, layer: 3, items: Array.from({ length: batch }, () => [node]) };
}

/** Best mean time of a run over some rounds, microseconds. */
function best(run: () => void): number {
  let fastest = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    const begun = performance.now();
    let runs = 0;
    while (performance.now() - begun < ROUND_MS) {
      for (let i = 0; i < 20; i++) run();
      runs += 20;
    }
    fastest = Math.min(fastest, (performance.now() - begun) * 1000 / runs);
  }
  return fastest;
}

interface Row {
  readonly what: string;
  readonly tagged: boolean;
  readonly bytes: number;
  readonly encodeUs: number;
  readonly decodeUs: number;
  /** Copying the same bytes once: what the encoder cannot do without. */
  readonly copyUs: number;
}

function time(what: string, message: AttentionMessage, key: KeyObject | undefined): Row {
  const writer = new FrameWriter();
  const encodeOne = (sealer: FrameSealer) =>
    sealer.seal(writer, encodeMessage(writer, { lane: "attention", message }), 1);
  const frame = encodeOne(new FrameSealer("attention", key)).slice();
  const sealer = new FrameSealer("attention", key);
  const target = new Uint8Array(frame.length);
  const decodeOne = () =>
    new FrameReader({ lane: "attention", key, maxPayloadBytes: DEFAULT_FRAME_LIMITS.attention })
      .push(frame, (frame) => void decodeMessage("attention", frame, FORMAT));
  return {
    what,
    tagged: key !== undefined,
    bytes: frame.length,
    encodeUs: best(() => encodeOne(sealer)),
    decodeUs: best(decodeOne),
    copyUs: best(() => target.set(frame)),
  };
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { json: { type: "string" } } });
  const rows: Row[] = [];
  for (const key of [undefined, createSecretKey(new Uint8Array(32).fill(1))]) {
    rows.push(
      time("4 KB of queries", attend(1, 1), key),
      time("reply over 1,024 tokens", partials(1, 1), key),
      time("batch of 8 queries", attend(8, 1), key),
      time("batch of 8 replies", partials(8, 1), key),
      time("512 tokens of prefill", attend(1, 512), key),
      time("reply to 512 tokens", partials(1, 512), key),
    );
  }
  for (const { what, tagged, bytes, encodeUs, decodeUs, copyUs } of rows) {
    console.log(
      `${what.padEnd(24)} ${tagged ? "tagged" : "plain "} ${String(bytes).padStart(8)} bytes: encode ${
        encodeUs.toFixed(2)
      } us, decode ${decodeUs.toFixed(2)} us, one copy ${copyUs.toFixed(2)} us`,
    );
  }
  if (values.json) Deno.writeTextFileSync(values.json, JSON.stringify({ rows }, undefined, 2));
}
