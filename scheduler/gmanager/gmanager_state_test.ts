import { assert, assertEquals, assertThrows } from "@std/assert";
import type { MemberIdentity } from "../protocol/member.ts";
import type { Heartbeat } from "../protocol/messages.ts";
import { GManagerState, type GManagerStateOptions, type HeartbeatOutcome } from "./gmanager_state.ts";
import { entry, identity, snapshot } from "./test_snapshots.ts";

const ANNA = identity("anna", 1);
const BERT = identity("bert", 2);

class Bench {
  nowMs = 0;
  readonly state: GManagerState;

  constructor(options: Partial<GManagerStateOptions> = {}) {
    this.state = new GManagerState({ now: () => this.nowMs, ...options });
  }

  beat(member: MemberIdentity, version: number, given: Partial<Heartbeat> = {}): HeartbeatOutcome {
    const outcome = this.state.accept(member, { ...snapshot(member), kind: "heartbeat", version, ...given });
    this.state.checkIntegrity();
    return outcome;
  }

  wantsFull(member: MemberIdentity, version: number, given: Partial<Heartbeat> = {}): boolean {
    const outcome = this.beat(member, version, given);
    assert(outcome.kind === "accepted", JSON.stringify(outcome));
    return outcome.ack.wantFull;
  }

  get states(): string[] {
    return this.state.directory().map(({ card, state, silentMs }) => `${card.name} ${state} ${silentMs}`);
  }
}

Deno.test("GManagerState builds the directory and the placement map from heartbeats", () => {
  const bench = new Bench();
  const local = entry("anna");
  const remote = entry("anna", { member: "bert" });
  assertEquals(bench.wantsFull(ANNA, 1, { entries: [local, remote] }), false);
  bench.nowMs = 400;
  const outcome = bench.beat(BERT, 1, {
    leaving: true,
    leases: [{ lease: 3, debtor: "anna", segments: 2, expiresMs: 10 }],
    moves: [{ sequence: "bert/4", from: "bert", to: "anna", segments: 1, state: "copying" }],
  });
  assert(outcome.kind === "accepted");
  assertEquals([outcome.joined, outcome.replaced, outcome.ack.version], [true, undefined, 1]);
  assertEquals(outcome.ack.members, bench.state.directory());
  assertEquals(bench.states, ["anna alive 400", "bert leaving 0"]);
  assertEquals(bench.state.placements(), [local, remote]);
  assertEquals(bench.state.leases(), [{ lease: 3, debtor: "anna", segments: 2, expiresMs: 10, creditor: "bert" }]);
  assertEquals(bench.state.moves().map(({ sequence }) => sequence), ["bert/4"]);
  bench.wantsFull(ANNA, 2, { base: 1, entries: [{ ...remote, blocks: 0 }, { ...local, length: 70 }] });
  assertEquals(bench.state.placements(), [{ ...local, length: 70 }]);
});

Deno.test("GManagerState asks for everything after a gap and keeps the map as it was", () => {
  const bench = new Bench();
  bench.wantsFull(ANNA, 1, { entries: [entry("anna")] });
  const other = entry("anna", { handle: 2 });
  assertEquals(bench.wantsFull(ANNA, 5, { base: 3, entries: [other] }), true);
  assertEquals(bench.state.placements(), [entry("anna")]);
  assertEquals(bench.state.whole, false);
  assertEquals(bench.wantsFull(ANNA, 6, { base: 5, entries: [] }), true, "what 5 builds on is still missing");
  assertEquals(bench.wantsFull(ANNA, 7, { entries: [other] }), false);
  assertEquals(bench.state.placements(), [other]);
  assertEquals(bench.state.whole, true);
});

Deno.test("GManagerState accepts what builds on an older version than it has", () => {
  const bench = new Bench();
  bench.wantsFull(ANNA, 1);
  bench.wantsFull(ANNA, 2, { base: 1, entries: [entry("anna")] });
  assertEquals(bench.wantsFull(ANNA, 4, { base: 1, entries: [entry("anna", { length: 9 })] }), false);
  assertEquals(bench.state.placements().map(({ length }) => length), [9]);
});

Deno.test("GManagerState is rebuilt by a restarted gManager from the next heartbeats", () => {
  const bench = new Bench();
  assertEquals(bench.wantsFull(ANNA, 40, { base: 39, entries: [entry("anna")] }), true);
  assertEquals(bench.states, ["anna alive 0"], "the directory is there at once");
  assertEquals(bench.state.placements(), []);
  assertEquals(bench.wantsFull(ANNA, 41, { entries: [entry("anna")] }), false);
  assertEquals(bench.state.placements().length, 1);
});

Deno.test("GManagerState ignores repeated and late heartbeats", () => {
  const bench = new Bench();
  bench.wantsFull(ANNA, 2, { entries: [entry("anna")] });
  bench.nowMs = 900;
  for (const version of [2, 1]) {
    const outcome = bench.beat(ANNA, version, { entries: [], leaving: true });
    assert(outcome.kind === "ignored");
    assertEquals([outcome.ack?.version, outcome.ack?.wantFull], [version, false]);
  }
  assertEquals(bench.states, ["anna alive 900"]);
  assertEquals(bench.state.placements().length, 1);
});

Deno.test("GManagerState suspects after three missed heartbeats and drops after five seconds", () => {
  const bench = new Bench();
  bench.beat(ANNA, 1);
  assertEquals(bench.state.nextDropMs, 5_001);
  bench.nowMs = 3_000;
  bench.beat(BERT, 1);
  assertEquals(bench.states, ["anna alive 3000", "bert alive 0"]);
  bench.nowMs = 3_001;
  assertEquals(bench.states, ["anna suspect 3001", "bert alive 1"]);
  bench.nowMs = 5_000;
  assertEquals(bench.state.sweep(), []);
  bench.nowMs = 5_001;
  assertEquals(bench.states, ["bert alive 2001"], "also before anybody sweeps");
  assertEquals(bench.state.sweep(), [ANNA]);
  assertEquals(bench.state.nextDropMs, 8_001);
});

Deno.test("GManagerState takes a dropped member back for a later heartbeat only", () => {
  const bench = new Bench();
  bench.beat(ANNA, 7);
  bench.nowMs = 6_000;
  assertEquals(bench.beat(ANNA, 7).kind, "ignored");
  assertEquals(bench.beat(ANNA, 3).kind, "ignored");
  assertEquals(bench.states, []);
  assertEquals(bench.wantsFull(ANNA, 8, { base: 7 }), true);
  assertEquals(bench.states, ["anna alive 0"]);
});

Deno.test("GManagerState replaces a member that restarts once the new run has shown that it lives", () => {
  const bench = new Bench();
  const again = identity("anna", 5);
  bench.beat(ANNA, 9, { entries: [entry("anna")] });
  const first = bench.beat(again, 1, { entries: [entry("anna", { handle: 2 })] });
  assert(first.kind === "pending");
  assertEquals([first.ack.version, first.ack.wantFull], [1, false]);
  assertEquals(bench.state.directory().map(({ card }) => card.incarnation), [ANNA.incarnation]);
  const second = bench.beat(again, 2, { base: 1 });
  assert(second.kind === "accepted");
  assertEquals([second.joined, second.replaced, second.ack.wantFull], [false, ANNA, false]);
  assertEquals(bench.state.placements(), [entry("anna", { handle: 2 })]);
  const late = bench.beat(ANNA, 10);
  assert(late.kind === "refused");
  assertEquals([late.code, late.detail], ["unable", `incarnation ${ANNA.incarnation} of anna is gone`]);
  assertEquals(bench.state.directory().map(({ card }) => card.incarnation), [again.incarnation]);
});

Deno.test("GManagerState keeps a living member when heartbeats of an earlier run come late", () => {
  const bench = new Bench();
  const old = identity("anna", 5);
  bench.beat(ANNA, 1);
  assertEquals([bench.beat(old, 7).kind, bench.beat(old, 8).kind], ["pending", "pending"]);
  assertEquals(bench.beat(old, 9, { base: 6 }).kind, "pending", "it builds on an answer from before");
  assertEquals(bench.beat(ANNA, 2).kind, "accepted");
  assertEquals(bench.state.directory().map(({ card }) => card.incarnation), [ANNA.incarnation]);
});

Deno.test("GManagerState takes a run that fell silent back from an earlier one that came late", () => {
  const bench = new Bench();
  const old = identity("anna", 5);
  bench.beat(ANNA, 1);
  bench.nowMs = 6_000;
  assertEquals(bench.beat(old, 1).kind, "accepted", "the name is free");
  assertEquals(bench.beat(ANNA, 2, { base: 1 }).kind, "pending");
  assertEquals(bench.beat(ANNA, 3).kind, "pending");
  assertEquals(bench.beat(ANNA, 4, { base: 3 }).kind, "accepted");
  assertEquals(bench.beat(old, 2).kind, "refused");
});

Deno.test("GManagerState lets a restarted member in at once when the old run was dropped", () => {
  const bench = new Bench();
  const again = identity("anna", 5);
  bench.beat(ANNA, 1);
  bench.beat(again, 1);
  bench.nowMs = 6_000;
  const outcome = bench.beat(again, 2);
  assert(outcome.kind === "accepted");
  assertEquals([outcome.joined, outcome.replaced], [true, undefined]);
  assertEquals(bench.beat(ANNA, 2).kind, "pending");
  assertEquals(bench.state.directory().map(({ card }) => card.incarnation), [again.incarnation]);
});

Deno.test("GManagerState.remove() keeps what comes late from bringing a member back", () => {
  const bench = new Bench();
  bench.beat(ANNA, 1);
  assertEquals(bench.state.remove(identity("anna", 5)), false);
  assertEquals(bench.state.remove(ANNA), true);
  assertEquals(bench.beat(ANNA, 2).kind, "refused");
  assertEquals(bench.states, []);
});

Deno.test("GManagerState refuses heartbeats that cannot be true, by name", async (t) => {
  const { blocks, load } = snapshot(ANNA);
  const bench = new Bench({ maxEntries: 2, maxBlocks: 1_000 });
  const range = { from: 0, to: 2, sinceMs: 0 };
  const cases: readonly (readonly [string, Partial<Heartbeat>, string])[] = [
    ["a sum that is not the total", { blocks: { ...blocks, free: 61 } }, "free 61 + own 20 + lent 20 + quarantined 0"],
    ["negative blocks", { blocks: { ...blocks, own: -20, free: 100 } }, "blocks.own from 0 to 1000, got -20"],
    ["half a block", { blocks: { ...blocks, borrowed: 0.5 } }, "blocks.borrowed"],
    ["more blocks than there can be", { blocks: { ...blocks, total: 1_100, free: 1_060 } }, "blocks.total"],
    ["more lendable than free", { blocks: { ...blocks, lendable: 61 } }, "at most free 60, got 61"],
    ["more held back than free", { blocks: { ...blocks, filling: 21 } }, "at most free 60 less lendable 40, got 21"],
    ["load that is not a number", { load: { ...load, tokensPerSecond: Number.NaN } }, "load.tokensPerSecond"],
    ["an endless counter", { load: { ...load, counters: { moves: Infinity } } }, "load.counters.moves"],
    ["half a sequence", { load: { ...load, running: 1.5 } }, "load.running"],
    [
      "batches without times",
      { load: { ...load, performance: { batch: [1], batchMs: [], attentionMs: 1, error: 0, steps: 1 } } },
      "a time for each of 1 batches, got 0",
    ],
    ["somebody else's sequence", { entries: [entry("bert")] }, "wanted a sequence of anna, got entry bert/1 on bert"],
    ["a stranger that is local", { entries: [entry("anna", { member: "bert", local: true })] }, "local only at"],
    ["more local blocks than it has", { entries: [entry("anna", { blocks: 101 })] }, "from 0 to 100, got 101"],
    ["the same entry twice", { entries: [entry("anna"), entry("anna")] }, "entry anna/1 on anna once"],
    ["ranges that overlap", { entries: [entry("anna", { ranges: [range, range] })] }, "ascending ranges"],
    ["an entry without a length", { entries: [entry("anna", { length: Number.NaN })] }, "with a length, got NaN"],
    [
      "more entries than allowed",
      { entries: [1, 2, 3].map((handle) => entry("anna", { handle })) },
      "at most 2 entries",
    ],
    ["leases of more than is lent", { leases: [{ lease: 1, debtor: "b", segments: 21, expiresMs: 1 }] }, "21 segments"],
    ["a lease without an end", { leases: [{ lease: 1, debtor: "b", segments: 1, expiresMs: Infinity }] }, "lease 1"],
    [
      "half a move",
      { moves: [{ sequence: "anna/1", from: "anna", to: "bert", segments: 0.5, state: "done" }] },
      "whole segments, got 0.5",
    ],
    ["version 0", { version: 0 }, "version a positive whole number, got 0"],
    ["a base of its own version", { version: 3, base: 3 }, "base from 1 to 2, got 3"],
  ];
  for (const [what, given, detail] of cases) {
    await t.step(what, () => {
      const outcome = bench.beat(ANNA, 4, given);
      assert(outcome.kind === "refused", what);
      assertEquals(outcome.code, "bad_shape");
      assert(outcome.detail.startsWith("heartbeat of anna: "), outcome.detail);
      assert(outcome.detail.includes(detail), outcome.detail);
      assertEquals(bench.states, []);
    });
  }
  await t.step("entries that add up to more than allowed", () => {
    bench.beat(ANNA, 4, { entries: [entry("anna"), entry("anna", { handle: 2 })] });
    const outcome = bench.beat(ANNA, 5, { base: 4, entries: [entry("anna", { handle: 3 })] });
    assertEquals(outcome.kind, "refused");
    assertEquals(bench.state.placements().length, 2);
  });
});

Deno.test("GManagerState refuses heartbeats in somebody else's name and more members than it keeps", () => {
  const bench = new Bench({ maxMembers: 1 });
  const forged = bench.state.accept(BERT, { ...snapshot(ANNA), kind: "heartbeat", version: 1 });
  assertEquals(forged.kind === "refused" && forged.code, "unable");
  bench.beat(ANNA, 1);
  const more = bench.beat(BERT, 1);
  assertEquals(more.kind === "refused" && more.code, "over_cap");
  assertEquals(bench.beat(identity("anna", 7), 1).kind, "pending", "a restart is not one more");
  assertThrows(() => new Bench({ dropMs: 0 }), RangeError, "wanted dropMs above 0, got 0");
});
