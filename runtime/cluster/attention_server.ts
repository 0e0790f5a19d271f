/**
 * Answers attention requests of homes over lent segments. Every slot is checked where the memory is, before it is read.
 *
 * @module
 */
import type { Creditor } from "../../scheduler/lending/creditor.ts";
import type { MemberIdentity } from "../../scheduler/protocol/member.ts";
import type {
  AttendItem,
  AttendReply,
  AttendRequest,
  Refused,
  WirePartial,
} from "../../scheduler/protocol/messages.ts";
import type { KvStore, NodePartial, NodeWork } from "../device/device.ts";

/** Makes an {@linkcode AttentionServer}. */
export interface AttentionServerOptions {
  /** Holds the blocks; undefined while a holder has no format yet. */
  readonly store: () => KvStore | undefined;
  /** Knows the leases. */
  readonly creditor: Creditor;
  /** Tokens of one segment. */
  readonly segmentTokens: number;
}

/** The holder's half of distributed attention. */
export class AttentionServer {
  readonly #options: AttentionServerOptions;

  /** Serves what a creditor has lent. */
  constructor(options: AttentionServerOptions) {
    this.#options = options;
  }

  /** Computes the partials of a request, or says why not. The answer's arrays are valid until the next request. */
  answer(debtor: MemberIdentity, request: AttendRequest): AttendReply | Refused {
    const { call, layer } = request;
    const store = this.#options.store();
    if (store === undefined) return { kind: "refused", call, code: "unknown_lease", detail: "nothing was lent here" };
    const { layers, heads, headDim } = store.layout;
    if (layer >= layers) {
      return { kind: "refused", call, code: "bad_shape", detail: `wanted a layer below ${layers}, got ${layer}` };
    }
    const work: NodeWork[] = [];
    for (const item of request.items) {
      const { queries, tokens } = item;
      if (queries.length !== tokens * heads * headDim) {
        const detail = `wanted ${tokens} x ${heads * headDim} query values, got ${queries.length}`;
        return { kind: "refused", call, code: "bad_shape", detail };
      }
      const found = this.#blocks(debtor, item);
      if ("code" in found) return { kind: "refused", call, ...found };
      work.push({ queries, segments: { from: item.segment, to: item.segment + found.segments }, blocks: found.blocks });
    }
    return {
      kind: "partials",
      call,
      layer,
      items: store.attendNodes(layer, work).map((nodes) => nodes.map(wirePartial)),
    };
  }

  #blocks(
    debtor: MemberIdentity,
    item: AttendItem,
  ): { readonly segments: number; readonly blocks: number[] } | Pick<Refused, "code" | "detail"> {
    const blocks: number[] = [];
    let segments = 0;
    for (const run of item.runs) {
      const touched = this.#options.creditor.touch(debtor, run, "read");
      if (touched.kind === "refused") return { code: touched.code, detail: touched.detail };
      for (const block of touched.blocks) blocks.push(block);
      segments += run.count;
    }
    const end = (item.segment + segments) * this.#options.segmentTokens;
    if (segments === 0 || item.position < end) {
      return {
        code: "bad_shape",
        detail: `wanted segments below the query at ${item.position}, got ${segments} that end at ${end}`,
      };
    }
    return { segments, blocks };
  }
}

function wirePartial({ node, o, lse }: NodePartial): WirePartial {
  return { first: node.first, segments: node.segments, o, lse };
}
