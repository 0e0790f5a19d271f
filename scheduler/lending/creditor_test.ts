import { assert, assertEquals, assertThrows } from "@std/assert";
import { type BlockId, BlockPool } from "../block_pool.ts";
import type { KvFormat, MemberIdentity } from "../protocol/member.ts";
import type { SlotRun } from "../protocol/messages.ts";
import { Creditor } from "./creditor.ts";
import type { CreditorOptions, GrantAnswer, GrantRequest } from "./creditor_types.ts";
import { LendLimit, type LendLimitOptions } from "./lend_limit.ts";

const FORMAT: KvFormat = {
  modelDigest: "m",
  kvType: "f16",
  layout: "wasm-1",
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  blockTokens: 16,
  segmentTokens: 32,
  blockBytes: 4096,
};

function member(name: string, run: number): MemberIdentity {
  return { name, incarnation: run.toString(16).padStart(32, "0") };
}

const SELF = member("self", 1);
const ANNA = member("anna", 2);
const BERT = member("bert", 3);

/** A creditor of 8 segments of 2 blocks on a clock that the test moves. */
class Bench {
  nowMs = 0;
  /** Off where a thousand checks of a thousand leases would take too long. */
  checks = true;
  readonly pool: BlockPool;
  readonly limit: LendLimit;
  readonly creditor: Creditor;
  #call = 0;

  constructor(
    options: Partial<CreditorOptions> & { readonly lending?: Partial<LendLimitOptions>; readonly blocks?: number } = {},
  ) {
    const now = () => this.nowMs;
    this.pool = options.pool ?? new BlockPool(options.blocks ?? 16);
    this.limit = new LendLimit({ now, cap: { kind: "share", share: 1 }, ...options.lending });
    this.creditor = new Creditor({
      blocksPerSegment: 2,
      format: () => FORMAT,
      self: SELF,
      fill: { newcomerMs: 0 },
      ...options,
      pool: this.pool,
      limit: this.limit,
      now,
    });
  }

  ask(debtor: MemberIdentity, segments: number, request: Partial<GrantRequest> = {}): GrantAnswer {
    const answer = this.creditor.grant(debtor, {
      call: ++this.#call,
      sequence: `${debtor.name}/1`,
      segments,
      format: FORMAT,
      epoch: 0,
      ...request,
    });
    if (this.checks) this.creditor.checkIntegrity();
    return answer;
  }

  borrow(debtor: MemberIdentity, segments: number): SlotRun {
    const answer = this.ask(debtor, segments);
    assert(answer.kind === "granted", JSON.stringify(answer));
    return answer.run;
  }
}

function slots(run: SlotRun, from: number, count: number = 1): SlotRun {
  return { ...run, from, count };
}

Deno.test("Creditor.grant() reserves whole segments at once, first come, first served", () => {
  const bench = new Bench();
  const answer = bench.ask(ANNA, 3);
  assert(answer.kind === "granted");
  assertEquals([answer.ttlMs, answer.run.from, answer.run.count], [10_000, 0, 3]);
  assertEquals(bench.pool.counts.lent, 6);
  assertEquals(bench.creditor.lendable, 10);
  bench.borrow(BERT, 5);
  assertEquals(bench.creditor.lendable, 0);
  assertEquals(bench.creditor.leases(), [
    { lease: 1, debtor: "anna", segments: 3, expiresMs: 10_000 },
    { lease: 2, debtor: "bert", segments: 5, expiresMs: 10_000 },
  ]);
});

Deno.test("Creditor.grant() answers a repeated call with the same lease and what is left of its time", () => {
  const bench = new Bench();
  const first = bench.ask(ANNA, 2, { call: 7 });
  assert(first.kind === "granted");
  bench.nowMs = 4_000;
  assertEquals(bench.ask(ANNA, 2, { call: 7 }), { kind: "granted", run: first.run, ttlMs: 6_000 });
  assertEquals(bench.pool.counts.lent, 4);
  assertEquals(codeOf(bench.ask(ANNA, 3, { call: 7 })), "bad_shape");
  assertEquals(codeOf(bench.ask(member("anna", 9), 2, { call: 7 })), "granted");
});

Deno.test("Creditor.grant() gives nothing for a late repetition of a call whose lease is over", () => {
  const bench = new Bench();
  const first = bench.ask(ANNA, 2, { call: 7 });
  assert(first.kind === "granted");
  bench.creditor.release(ANNA, [first.run]);
  assertEquals(codeOf(bench.ask(ANNA, 2, { call: 7 })), "unknown_lease");
  assertEquals(bench.pool.counts.lent, 0);
});

function codeOf(answer: { readonly kind: string; readonly code?: string }): string {
  return answer.code ?? answer.kind;
}

Deno.test("Creditor.grant() refuses with a code and says what was wanted", async (t) => {
  const bench = new Bench({ lending: { cap: { kind: "blocks", blocks: 10 } }, maxLeases: 2 });
  const refusals: readonly (readonly [string, GrantAnswer, string, string])[] = [
    ["itself", bench.ask(SELF, 1), "unable", "borrow from itself"],
    ["itself under another name", bench.ask({ ...SELF, name: "x" }, 1), "unable", "borrow from itself"],
    ["no segment", bench.ask(ANNA, 0), "bad_shape", "at least 1 segment"],
    ["half a segment", bench.ask(ANNA, 0.5), "bad_shape", "segments 0.5"],
    ["more than the cap", bench.ask(ANNA, 6), "over_cap", "wanted at most 10 blocks lent, got 12 more than 0"],
    [
      "another format",
      bench.ask(ANNA, 1, { format: { ...FORMAT, kvType: "f32", blockBytes: 8192 } }),
      "wrong_format",
      "kvType: wanted f16, got f32; blockBytes: wanted 4096, got 8192",
    ],
    ["an epoch that is none", bench.ask(ANNA, 1, { epoch: Number.NaN }), "bad_shape", "got NaN"],
  ];
  for (const [what, answer, code, detail] of refusals) {
    await t.step(what, () => {
      assert(answer.kind === "refused");
      assertEquals(answer.code, code);
      assert(answer.detail.includes(detail), answer.detail);
    });
  }
  await t.step("an epoch older than the highest seen", () => {
    assertEquals(codeOf(bench.ask(ANNA, 1, { epoch: 5 })), "granted");
    assertEquals(codeOf(bench.ask(ANNA, 1, { epoch: 4 })), "stale_epoch");
  });
  await t.step("more leases than it keeps", () => {
    assertEquals(codeOf(bench.ask(ANNA, 1, { epoch: 5 })), "granted");
    assertEquals(codeOf(bench.ask(ANNA, 1, { epoch: 5 })), "over_cap");
    assertEquals(bench.creditor.lendable, 0);
  });
  await t.step("when it is leaving", () => {
    bench.creditor.leave();
    assertEquals(codeOf(bench.ask(ANNA, 1, { epoch: 5 })), "leaving");
  });
});

Deno.test("Creditor.grant() refuses what own sequences hold or wait for", () => {
  const bench = new Bench();
  for (let i = 0; i < 10; i++) bench.pool.allocate();
  assertEquals(codeOf(bench.ask(ANNA, 4)), "no_space");
  bench.limit.observe({ own: 10, waitingBlocks: 4 });
  assertEquals(bench.creditor.lendable, 2);
  assertEquals(codeOf(bench.ask(ANNA, 2)), "no_space");
  assertEquals(codeOf(bench.ask(ANNA, 1)), "granted");
});

Deno.test("Creditor.touch() gives the blocks of the slots, in order, to the debtor alone", () => {
  const bench = new Bench();
  const run = bench.borrow(ANNA, 3);
  const all = bench.creditor.touch(ANNA, run, "write");
  assert(all.kind === "blocks");
  assertEquals(all.blocks, [0, 1, 2, 3, 4, 5] as BlockId[]);
  const one = bench.creditor.touch(ANNA, slots(run, 1), "write");
  assertEquals(one, { kind: "blocks", blocks: [2, 3] as BlockId[] });
});

Deno.test("Creditor.touch() refuses every use that the lease does not cover", async (t) => {
  const bench = new Bench();
  const run = bench.borrow(ANNA, 3);
  bench.creditor.fill(ANNA, slots(run, 0));
  bench.creditor.release(ANNA, [slots(run, 2)]);
  const touch = (debtor: MemberIdentity, slots: SlotRun, use: "read" | "write" | "commit") =>
    codeOf(bench.creditor.touch(debtor, slots, use));
  await t.step("an unknown lease", () => assertEquals(touch(ANNA, { ...run, lease: 9 }, "read"), "unknown_lease"));
  await t.step("another debtor", () => assertEquals(touch(BERT, slots(run, 0), "read"), "wrong_debtor"));
  await t.step("another run of the debtor", () => {
    assertEquals(touch(member("anna", 9), slots(run, 0), "read"), "unknown_lease");
  });
  await t.step("another stamp", () => {
    assertEquals(touch(ANNA, { ...slots(run, 0), stamp: run.stamp + 1 }, "read"), "stale_stamp");
  });
  await t.step("slots outside the lease", () => {
    for (const [from, count] of [[0, 4], [3, 1], [-1, 1], [0, 0], [0.5, 1], [0, Number.NaN]]) {
      assertEquals(touch(ANNA, slots(run, from, count), "write"), "bad_slot");
    }
  });
  await t.step("reading an empty slot", () => assertEquals(touch(ANNA, slots(run, 0, 2), "read"), "bad_slot"));
  await t.step("writing a filled slot", () => assertEquals(touch(ANNA, slots(run, 0, 2), "write"), "bad_slot"));
  await t.step("any use of a freed slot", () => {
    for (const use of ["read", "write", "commit"] as const) assertEquals(touch(ANNA, slots(run, 2), use), "bad_slot");
  });
  await t.step("a lease that ran out, reaped or not", () => {
    bench.nowMs = 9_999;
    assertEquals(touch(ANNA, slots(run, 0), "read"), "blocks");
    bench.nowMs = 10_000;
    assertEquals(touch(ANNA, slots(run, 0), "read"), "expired");
    assertEquals(bench.creditor.renew(ANNA, [run.lease]), [run.lease]);
    bench.creditor.expire();
    assertEquals(touch(ANNA, slots(run, 0), "read"), "unknown_lease");
  });
});

Deno.test("Creditor.touch() throws when a lent block changed hands behind its back", () => {
  const bench = new Bench();
  const run = bench.borrow(ANNA, 1);
  bench.pool.quarantine([1 as BlockId]);
  bench.pool.settle([1 as BlockId]);
  assertThrows(() => bench.creditor.touch(ANNA, run, "write"), Error, "wanted block 1 of generation 0, it is of 1");
  assertThrows(() => bench.creditor.checkIntegrity(), Error, "is broken");
});

Deno.test("Creditor.fill() makes slots readable and lets a repeated commit find them", () => {
  const bench = new Bench();
  const run = bench.borrow(ANNA, 2);
  assertEquals(bench.creditor.fill(ANNA, slots(run, 1)), { kind: "filled" });
  assertEquals(bench.creditor.fill(ANNA, slots(run, 1)), { kind: "filled" });
  assertEquals(codeOf(bench.creditor.touch(ANNA, slots(run, 1), "read")), "blocks");
  assertEquals(codeOf(bench.creditor.touch(ANNA, slots(run, 1), "commit")), "blocks");
  assertEquals(bench.creditor.counts.filled, 1);
  assertEquals(codeOf(bench.creditor.fill(BERT, slots(run, 0))), "wrong_debtor");
});

Deno.test("Creditor.release() ignores what is not the debtor's and ends a lease with its last slot", () => {
  const bench = new Bench();
  const run = bench.borrow(ANNA, 3);
  assertEquals(bench.creditor.release(BERT, [run]), 0);
  assertEquals(bench.creditor.release(ANNA, [{ ...run, stamp: 0 }, { ...run, lease: 8 }, slots(run, 2, 2)]), 0);
  assertEquals(bench.creditor.release(ANNA, [slots(run, 1), slots(run, 1)]), 1);
  assertEquals(bench.creditor.release(ANNA, [run]), 2);
  assertEquals(bench.creditor.counts.leases, 0);
  assertEquals(bench.pool.counts.quarantined, 6);
  assertEquals(bench.creditor.settle(), 6);
  assertEquals(bench.pool.counts.free, 16);
  bench.creditor.checkIntegrity();
});

Deno.test("Creditor.hold() keeps given-back blocks in quarantine until it is disposed and settled", () => {
  const bench = new Bench();
  const run = bench.borrow(ANNA, 2);
  const hold = bench.creditor.hold(slots(run, 0));
  const second = bench.creditor.hold(slots(run, 0));
  bench.creditor.revoke(run.lease);
  assertEquals(bench.creditor.settle(), 2);
  hold[Symbol.dispose]();
  hold[Symbol.dispose]();
  assertEquals(bench.creditor.settle(), 0);
  second[Symbol.dispose]();
  assertEquals(bench.pool.counts.quarantined, 2, "disposing alone frees nothing");
  assertEquals(bench.creditor.settle(), 2);
  assertThrows(() => bench.creditor.hold(run), RangeError, "wanted a live lease");
});

Deno.test("Creditor.expire() ends what ran out and keeps what was renewed", () => {
  const bench = new Bench();
  const [kept, lost] = [bench.borrow(ANNA, 1), bench.borrow(BERT, 2)];
  bench.nowMs = 3_000;
  assertEquals(bench.creditor.renew(ANNA, [kept.lease, lost.lease, 77]), [lost.lease, 77]);
  assertEquals(bench.creditor.nextExpiryMs, 10_000);
  bench.nowMs = 9_999;
  assertEquals(bench.creditor.expire(), []);
  bench.nowMs = 10_000;
  assertEquals(bench.creditor.expire(), [
    { lease: lost.lease, debtor: BERT, sequence: "bert/1", segments: 2, reason: "expired" },
  ]);
  assertEquals(bench.creditor.nextExpiryMs, 13_000);
  bench.creditor.checkIntegrity();
});

Deno.test("Creditor.expire() frees every lease of a dead debtor among renewed ones", () => {
  const bench = new Bench({ blocks: 2_000 });
  bench.checks = false;
  const runs = Array.from({ length: 1_000 }, (_, i) => {
    bench.nowMs = i;
    return bench.borrow(i % 2 === 0 ? ANNA : BERT, 1);
  });
  // Renewed newest first, so that the renewed ones come to lie above those that are not.
  for (const [i, run] of [...runs.entries()].toReversed()) {
    bench.nowMs = 5_000 + i % 7;
    if (i % 2 === 0) assertEquals(bench.creditor.renew(ANNA, [run.lease]), []);
  }
  bench.nowMs = 10_999;
  const revoked = bench.creditor.expire();
  assertEquals(new Set(revoked.map(({ debtor }) => debtor.name)), new Set(["bert"]));
  assertEquals(revoked.length, 500);
  bench.creditor.checkIntegrity();
  bench.nowMs = 15_006;
  assertEquals(bench.creditor.expire().length, 500);
  bench.creditor.settle();
  assertEquals(bench.pool.counts.free, 2_000);
  assertEquals(bench.creditor.nextExpiryMs, undefined);
});

Deno.test("Creditor.forget() ends the leases of one incarnation only", () => {
  const bench = new Bench();
  const again = member("anna", 9);
  bench.borrow(ANNA, 1);
  bench.borrow(again, 1);
  bench.borrow(ANNA, 2);
  assertEquals(bench.creditor.forget(ANNA.incarnation).map(({ segments, reason }) => [segments, reason]), [
    [1, "gone"],
    [2, "gone"],
  ]);
  assertEquals(bench.creditor.counts.segments, 1);
  assertEquals(bench.creditor.forget(ANNA.incarnation), []);
});

Deno.test("Creditor.recall() asks the largest debtor for what own sequences wait for, once", () => {
  const bench = new Bench();
  const run = bench.borrow(ANNA, 3);
  const other = bench.borrow(BERT, 4);
  bench.limit.observe({ own: 0, waitingBlocks: 2 });
  assertEquals(bench.creditor.recall(), [], "two blocks are free");
  bench.limit.observe({ own: 2, waitingBlocks: 7 });
  bench.pool.allocate();
  bench.pool.allocate();
  assertEquals(bench.creditor.recall(), [
    { debtor: BERT, segments: 4, withinMs: 1_800, leases: [other.lease] },
  ]);
  assertEquals(bench.creditor.recall(), []);
  bench.limit.observe({ own: 2, waitingBlocks: 9 });
  assertEquals(bench.creditor.recall(), [{ debtor: ANNA, segments: 1, withinMs: 1_800, leases: [run.lease] }]);
  bench.creditor.release(BERT, [other]);
  assertEquals(bench.creditor.recall(), []);
  bench.creditor.checkIntegrity();
});

Deno.test("Creditor.expire() revokes what was called back in vain, oldest lease first, while it is needed", () => {
  const bench = new Bench();
  const runs = [bench.borrow(ANNA, 4), bench.borrow(ANNA, 4)];
  bench.limit.observe({ own: 0, waitingBlocks: 3 });
  assertEquals(bench.creditor.recall().map(({ segments }) => segments), [2]);
  assertEquals(bench.creditor.nextExpiryMs, 2_000);
  bench.nowMs = 1_999;
  assertEquals(bench.creditor.expire(), []);
  bench.creditor.release(ANNA, [slots(runs[1], 0)]);
  bench.nowMs = 2_000;
  assertEquals(bench.creditor.expire().map(({ lease, segments, reason }) => [lease, segments, reason]), [
    [runs[0].lease, 4, "recalled"],
  ]);
  assertEquals(bench.creditor.expire(), []);
  assertEquals(bench.creditor.counts.segments, 3);
  bench.creditor.checkIntegrity();
});

Deno.test("Creditor.expire() revokes nothing for a demand that went away", () => {
  const bench = new Bench();
  bench.borrow(ANNA, 8);
  bench.limit.observe({ own: 0, waitingBlocks: 3 });
  bench.creditor.recall();
  bench.limit.observe({ own: 0, waitingBlocks: 0 });
  bench.nowMs = 5_000;
  assertEquals(bench.creditor.expire(), []);
  assertEquals(bench.creditor.nextExpiryMs, 10_000);
});

Deno.test("Creditor.grant() lets a newcomer fill gently", () => {
  const bench = new Bench({ fill: {} });
  const shown = () => [bench.creditor.lendable, bench.creditor.filling];
  assertEquals(shown(), [16, 0]);
  bench.borrow(ANNA, 4);
  // What it holds back for the moment is told apart.
  assertEquals(shown(), [0, 8]);
  const refused = bench.ask(BERT, 1);
  assert(refused.kind === "refused");
  assertEquals(refused.code, "over_cap");
  bench.nowMs = 1_001;
  assertEquals(shown(), [8, 0]);
  bench.borrow(BERT, 1);
  bench.nowMs = 10_000;
  bench.borrow(BERT, 1);
  bench.borrow(BERT, 1);
});

Deno.test("Creditor.grant() binds memory without a format to that of the first lease", () => {
  const bound: KvFormat[] = [];
  const other: KvFormat = { ...FORMAT, modelDigest: "other" };
  const bench: Bench = new Bench({
    format: () => bound.at(-1),
    acceptFormat: (format) => {
      if (format.modelDigest === "never") return { code: "unable", detail: "wanted a kernel for it" };
      bound.push(format);
      bench.creditor.rebind({ pool: new BlockPool(6), blocksPerSegment: 3 });
      return undefined;
    },
  });
  assertEquals(codeOf(bench.ask(ANNA, 1, { format: { ...FORMAT, modelDigest: "never" } })), "unable");
  const answer = bench.ask(ANNA, 2);
  assert(answer.kind === "granted");
  assertEquals(bound, [FORMAT]);
  assertEquals(bench.creditor.counts.lentBlocks, 6);
  assertEquals(codeOf(bench.ask(BERT, 1, { format: other })), "wrong_format");
  bench.creditor.release(ANNA, [answer.run]);
  assertEquals(codeOf(bench.ask(BERT, 1, { format: other })), "wrong_format", "blocks are still in quarantine");
  bench.creditor.settle();
  assertEquals(codeOf(bench.ask(BERT, 1, { format: other })), "granted");
  assertEquals(bound, [FORMAT, other]);
  assertThrows(
    () => bench.creditor.rebind({ pool: new BlockPool(1), blocksPerSegment: 1 }),
    RangeError,
    "got 1 leases, 0 blocks in quarantine, 0 holds",
  );
});

Deno.test("Creditor.grant() without acceptFormat refuses while no format is bound", () => {
  const bench = new Bench({ format: () => undefined });
  assertEquals(codeOf(bench.ask(ANNA, 1)), "wrong_format");
});

Deno.test("Creditor never gives two leases the same stamp", () => {
  const bench = new Bench();
  const stamps = Array.from({ length: 100 }, () => {
    const run = bench.borrow(ANNA, 1);
    bench.creditor.release(ANNA, [run]);
    bench.creditor.settle();
    return run.stamp;
  });
  assertEquals(new Set(stamps).size, 100);
  assert(stamps.every((stamp) => Number.isSafeInteger(stamp) && stamp >= 0));
  const other = new Bench({ self: member("self", 5) });
  assert(!stamps.includes(other.borrow(ANNA, 1).stamp));
});

Deno.test("Creditor counts what it granted, refused and ended", () => {
  const bench = new Bench();
  const run = bench.borrow(ANNA, 1);
  bench.ask(ANNA, 99);
  bench.creditor.touch(BERT, run, "read");
  bench.creditor.release(ANNA, [run]);
  assertEquals(bench.creditor.counters, {
    "granted": 1,
    "refused.over_cap": 1,
    "refused.wrong_debtor": 1,
    "ended.released": 1,
  });
});
