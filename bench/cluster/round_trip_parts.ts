/**
 * The parts of a remote layer, each timed alone with the code that members run.
 *
 * @module
 */
import { AttentionServer } from "../../runtime/cluster/attention_server.ts";
import type { KvStore } from "../../runtime/device/device.ts";
import { BlockPool } from "../../scheduler/block_pool.ts";
import { EpochGuard } from "../../scheduler/gmanager/epoch_guard.ts";
import { Creditor } from "../../scheduler/lending/creditor.ts";
import { LendLimit } from "../../scheduler/lending/lend_limit.ts";
import { FrameReader } from "../../scheduler/protocol/frame_reader.ts";
import { FrameSealer } from "../../scheduler/protocol/frame_sealer.ts";
import { FrameWriter } from "../../scheduler/protocol/frame_writer.ts";
import type { KvFormat } from "../../scheduler/protocol/member.ts";
import { decodeMessage, encodeMessage } from "../../scheduler/protocol/message_codec.ts";
import type { AttendReply, AttendRequest, AttentionMessage, Message } from "../../scheduler/protocol/messages.ts";

/** Times of the parts, ms each, and what the messages weigh. */
export interface RoundTripParts {
  /** The home encodes queries. */
  readonly encodeRequestMs: readonly number[];
  /** The holder reads them. */
  readonly decodeRequestMs: readonly number[];
  /** The holder checks the slots and computes. */
  readonly computeMs: readonly number[];
  /** The holder encodes partials. */
  readonly encodeReplyMs: readonly number[];
  /** The home reads them and copies them. */
  readonly decodeReplyMs: readonly number[];
  /** Bytes of the request's frame. */
  readonly requestBytes: number;
  /** Bytes of the reply's frame. */
  readonly replyBytes: number;
}

const MAX_PAYLOAD = 2 ** 24;
const WARM_UP = 500;

/** Frames of one direction of the attention lane, in memory. */
class Lane {
  readonly #writer = new FrameWriter();
  readonly #sealer = new FrameSealer("attention");
  readonly #reader = new FrameReader({ lane: "attention", maxPayloadBytes: MAX_PAYLOAD });
  readonly #format: KvFormat;

  constructor(format: KvFormat) {
    this.#format = format;
  }

  encode(message: AttentionMessage): Uint8Array<ArrayBuffer> {
    const type = encodeMessage(this.#writer, { lane: "attention", message });
    return this.#sealer.seal(this.#writer, type, 0);
  }

  decode(bytes: Uint8Array, take: (message: Message) => void): void {
    this.#reader.push(bytes, (frame) => take(decodeMessage("attention", frame, this.#format)));
  }
}

/** Runs a request and its reply through every part, `rounds` times. `store`'s first blocks hold the segments. */
export function timeParts(
  store: KvStore,
  options: { readonly format: KvFormat; readonly segments: number; readonly rounds: number },
): RoundTripParts {
  const { format, segments, rounds } = options;
  const { heads, headDim, layers, blockTokens } = store.layout;
  const { server, debtor, run } = lendAll(store, { format, segments });
  const request = (layer: number): AttendRequest => ({
    kind: "attend",
    call: 1,
    layer,
    items: [{
      segment: 0,
      runs: [run],
      position: segments * format.segmentTokens,
      tokens: 1,
      queries: Float32Array.from({ length: heads * headDim }, (_, i) => Math.sin(i)),
    }],
  });
  const requests = Array.from({ length: layers }, (_, layer) => request(layer));
  const there = new Lane(format);
  const back = new Lane(format);
  const times = { encodeRequestMs: [], decodeRequestMs: [], computeMs: [], encodeReplyMs: [], decodeReplyMs: [] } as {
    -readonly [part in Exclude<keyof RoundTripParts, "requestBytes" | "replyBytes">]: number[];
  };
  const kept = new Float32Array(heads * (headDim + 1));
  let requestBytes = 0;
  let replyBytes = 0;
  for (let round = -WARM_UP; round < rounds; round++) {
    const t0 = performance.now();
    const asked = there.encode(requests[(round + WARM_UP) % layers]);
    const t1 = performance.now();
    let t2 = 0, t3 = 0;
    let reply: AttendReply | undefined;
    there.decode(asked, (message) => {
      t2 = performance.now();
      if (message.kind !== "attend") return;
      const answer = server.answer(debtor, message);
      t3 = performance.now();
      if (answer.kind === "partials") reply = answer;
    });
    if (reply === undefined) throw new Error("Cannot time the parts: the holder's half refused");
    const t4 = performance.now();
    const answered = back.encode(reply);
    const t5 = performance.now();
    back.decode(answered, (message) => {
      if (message.kind !== "partials") return;
      const [[{ o, lse }]] = message.items;
      kept.set(o);
      kept.set(lse, o.length);
    });
    const t6 = performance.now();
    requestBytes = asked.length;
    replyBytes = answered.length;
    if (round < 0) continue;
    times.encodeRequestMs.push(t1 - t0);
    times.decodeRequestMs.push(t2 - t1);
    times.computeMs.push(t3 - t2);
    times.encodeReplyMs.push(t5 - t4);
    times.decodeReplyMs.push(t6 - t5);
  }
  if (blockTokens === 0) throw new RangeError("Cannot time the parts: blocks hold no token");
  return { ...times, requestBytes, replyBytes };
}

/** Lends the first segments of a store to a debtor, filled, and makes the server that attends to them. */
function lendAll(store: KvStore, { format, segments }: { readonly format: KvFormat; readonly segments: number }) {
  const now = () => performance.now();
  const blocksPerSegment = format.segmentTokens / format.blockTokens;
  const debtor = { name: "home", incarnation: "1".repeat(32) };
  const creditor = new Creditor({
    pool: new BlockPool(store.blocks),
    blocksPerSegment,
    format: () => format,
    now,
    ttlMs: 600_000,
    limit: new LendLimit({ now, cap: { kind: "share", share: 1 }, unitBlocks: blocksPerSegment }),
    self: { name: "holder", incarnation: "2".repeat(32) },
    epochs: new EpochGuard(),
  });
  const granted = creditor.grant(debtor, { call: 1, sequence: "home/1", segments, format, epoch: 0 });
  if (granted.kind === "refused") throw new Error(`Cannot time the parts: ${granted.detail}`);
  for (let i = 0; i < segments; i++) creditor.fill(debtor, { ...granted.run, from: granted.run.from + i, count: 1 });
  const server = new AttentionServer({ store: () => store, creditor, segmentTokens: format.segmentTokens });
  return { server, debtor, run: granted.run };
}
