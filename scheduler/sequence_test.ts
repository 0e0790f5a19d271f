import { assertEquals } from "@std/assert";
import type { BlockId } from "./block_pool.ts";
import { queueView } from "./queue_view.ts";
import { Sequence, type SequenceOptions } from "./sequence.ts";

function sequence(options: Partial<SequenceOptions> = {}): Sequence {
  return new Sequence({
    id: 1,
    prompt: Int32Array.of(10, 11, 12, 13, 14),
    maxTokens: 4,
    arrivedMs: 0,
    salt: new Uint8Array(32),
    blockTokens: 4,
    ...options,
  });
}

function start(one: Sequence, cachedTokens = 0): void {
  one.advance({ kind: "start", blocks: [0 as BlockId, 1 as BlockId], cachedTokens, atMs: 1 });
}

/** What {@linkcode Sequence.nextChunk} says of tokens and rows. */
function nextChunk(one: Sequence, limits: { readonly tokens: number; readonly rows: number }) {
  const { tokens, logits } = one.nextChunk(limits);
  return { tokens, logits };
}

const AMPLE = { tokens: 100, rows: 100 };

Deno.test("Sequence.advance() goes through prefill, decode, preemption and recomputation", () => {
  const one = sequence();
  start(one);
  one.advance({ kind: "computed", tokens: 3, atMs: 2 });
  assertEquals([one.computed, one.pending, one.decoding], [3, 2, false]);
  assertEquals(one.pendingTokens(2), Int32Array.of(13, 14));
  one.advance({ kind: "computed", tokens: 2, next: 20, atMs: 3 });
  assertEquals([one.length, one.pending, one.decoding, one.generated], [6, 1, true, 1]);
  assertEquals(one.pendingTokens(1), Int32Array.of(20));
  one.advance({ kind: "preempt", atMs: 4 });
  assertEquals([one.status, one.blocks, one.computed, one.peak, one.preemptions], ["waiting", [], 0, 5, 1]);
  start(one);
  assertEquals([one.pending, one.decoding], [6, false]);
  assertEquals(one.pendingTokens(6), Int32Array.of(10, 11, 12, 13, 14, 20));
  assertEquals(one.activeMs, 1);
});

Deno.test("Sequence.cachedTokens is what the first start found", () => {
  const one = sequence();
  assertEquals(one.cachedTokens, undefined);
  start(one, 4);
  one.advance({ kind: "preempt", atMs: 2 });
  start(one, 0);
  assertEquals(one.cachedTokens, 4);
});

Deno.test("Sequence.nextChunk() asks for the last row only when no token stays pending", () => {
  const one = sequence();
  start(one);
  assertEquals(nextChunk(one, { tokens: 4, rows: 9 }), { tokens: 4, logits: "none" });
  assertEquals(nextChunk(one, AMPLE), { tokens: 5, logits: "last" });
  assertEquals(nextChunk(one, { tokens: 9, rows: 0 }), { tokens: 4, logits: "none" });
});

Deno.test("Sequence.nextChunk() delivers each wanted row of the prompt once", () => {
  const one = sequence({ promptRows: true });
  assertEquals(one.sharable, 0);
  start(one);
  assertEquals(nextChunk(one, { tokens: 9, rows: 2 }), { tokens: 2, logits: "all" });
  one.advance({ kind: "computed", tokens: 2, atMs: 1 });
  one.advance({ kind: "preempt", atMs: 2 });
  assertEquals(one.sharable, 2);
  start(one);
  assertEquals(nextChunk(one, AMPLE), { tokens: 2, logits: "none" });
  one.advance({ kind: "computed", tokens: 2, atMs: 3 });
  assertEquals(nextChunk(one, AMPLE), { tokens: 3, logits: "all" });
  one.advance({ kind: "computed", tokens: 2, atMs: 4 });
  assertEquals(nextChunk(one, AMPLE), { tokens: 1, logits: "last" }, "the last token's row is no prompt row");
  assertEquals(one.sharable, 4);
});

Deno.test("Sequence.ready waits for the leader's prompt", () => {
  const leader = sequence();
  const sibling = sequence({ id: 2, leader });
  assertEquals([leader.ready, sibling.ready], [true, false]);
  start(leader);
  leader.advance({ kind: "computed", tokens: 4, atMs: 1 });
  assertEquals(sibling.ready, false);
  leader.advance({ kind: "computed", tokens: 1, next: 9, atMs: 1 });
  assertEquals(sibling.ready, true);
  leader.advance({ kind: "preempt", atMs: 2 });
  assertEquals(sibling.ready, true);
});

Deno.test("Sequence.ready does not wait for a leader that ended", () => {
  const leader = sequence();
  const sibling = sequence({ id: 2, leader });
  leader.advance({ kind: "end" });
  assertEquals(sibling.ready, true);
});

Deno.test("queueView() lays sequences out in their order", () => {
  const [waiting, running] = [sequence({ id: 8, priority: 2, arrivedMs: 5 }), sequence({ id: 9 })];
  start(running);
  running.advance({ kind: "computed", tokens: 5, next: 1, atMs: 1 });
  assertEquals(queueView([running, waiting]), {
    length: 2,
    id: Int32Array.of(9, 8),
    promptTokens: Int32Array.of(5, 5),
    pendingTokens: Int32Array.of(0, 5),
    generatedTokens: Int32Array.of(1, 0),
    maxTokens: Int32Array.of(4, 4),
    priority: Float64Array.of(0, 2),
    arrivedMs: Float64Array.of(0, 5),
    blocks: Int32Array.of(2, 0),
    preemptions: Int32Array.of(0, 0),
    running: Uint8Array.of(1, 0),
  });
});
