/** The creditor over a real pool against a plain model, with a toy memory that shows who wrote where. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { type BlockId, BlockPool } from "../block_pool.ts";
import type { KvFormat, MemberIdentity } from "../protocol/member.ts";
import type { SlotRun } from "../protocol/messages.ts";
import { Creditor } from "./creditor.ts";
import type { SlotUse } from "./creditor_lease.ts";
import { LendLimit } from "./lend_limit.ts";

const TTL_MS = 100;
const RECALL_MS = 30;
const SEGMENT = 2;

const FORMAT: KvFormat = {
  modelDigest: "m",
  kvType: "f16",
  layout: "toy",
  layers: 1,
  heads: 1,
  kvHeads: 1,
  headDim: 1,
  blockTokens: 1,
  segmentTokens: SEGMENT,
  blockBytes: 4,
};

type SlotState = "empty" | "filled" | "freed";

/** A lease as the model knows it. */
interface ModelLease {
  readonly run: SlotRun;
  readonly debtor: MemberIdentity;
  readonly call: number;
  /** Blocks by slot. */
  readonly blocks: readonly (readonly BlockId[])[];
  readonly slots: SlotState[];
  expiresMs: number;
  over: boolean;
  overMs: number;
}

interface ModelHold {
  readonly hold: Disposable;
  readonly blocks: readonly BlockId[];
  readonly writer: string;
}

/** Everything around a creditor, and what must be true of it. */
class World {
  nowMs = 0;
  readonly pool: BlockPool;
  readonly limit: LendLimit;
  readonly creditor: Creditor;
  /** Who wrote each block last. */
  readonly memory: string[];
  readonly leases: ModelLease[] = [];
  readonly own = new Map<BlockId, string>();
  readonly holds: ModelHold[] = [];
  /** Given-back blocks that are not free yet. */
  quarantined: BlockId[] = [];
  waitingBlocks = 0;
  #incarnations = 2;
  #calls = 0;
  #writes = 0;
  readonly debtors: MemberIdentity[] = [identity("a", 1), identity("b", 2)];

  constructor(segments: number) {
    const now = () => this.nowMs;
    this.pool = new BlockPool(segments * SEGMENT);
    this.memory = new Array<string>(this.pool.total).fill("nobody");
    this.limit = new LendLimit({ now, cap: { kind: "share", share: 1 }, recallMs: RECALL_MS });
    this.creditor = new Creditor({
      pool: this.pool,
      blocksPerSegment: SEGMENT,
      format: () => FORMAT,
      now,
      ttlMs: TTL_MS,
      limit: this.limit,
      self: identity("self", 0),
      fill: { newcomerMs: 0 },
    });
  }

  live(): ModelLease[] {
    return this.leases.filter(({ over }) => !over);
  }

  pick(index: number): ModelLease | undefined {
    // Old ones too: whoever names memory that was given away must be refused.
    const recent = this.leases.slice(-12);
    return recent[index % Math.max(1, recent.length)];
  }

  grant(who: number, segments: number): void {
    const debtor = this.debtors[who];
    const before = this.pool.counts;
    const call = ++this.#calls;
    const answer = this.creditor.grant(debtor, { call, sequence: "a/1", segments, format: FORMAT, epoch: 0 });
    const room = before.free + before.cached - this.waitingBlocks;
    assertEquals(answer.kind, segments * SEGMENT <= room ? "granted" : "refused");
    if (answer.kind === "refused") return;
    const { run } = answer;
    assertEquals(this.leases.some(({ run: { stamp } }) => stamp === run.stamp), false, "a stamp came twice");
    const touched = this.creditor.touch(debtor, run, "write");
    assert(touched.kind === "blocks");
    this.leases.push({
      run,
      debtor,
      call,
      blocks: Array.from({ length: segments }, (_, slot) => touched.blocks.slice(slot * SEGMENT, (slot + 1) * SEGMENT)),
      slots: new Array<SlotState>(segments).fill("empty"),
      expiresMs: this.nowMs + TTL_MS,
      over: false,
      overMs: 0,
    });
  }

  grantAgain(lease: ModelLease): void {
    const answer = this.creditor.grant(lease.debtor, {
      call: lease.call,
      sequence: "a/1",
      segments: lease.slots.length,
      format: FORMAT,
      epoch: 0,
    });
    if (!lease.over && lease.expiresMs > this.nowMs) {
      assertEquals(answer, { kind: "granted", run: lease.run, ttlMs: lease.expiresMs - this.nowMs });
    } else if (answer.kind === "granted") {
      assert(lease.over && lease.overMs + TTL_MS <= this.nowMs, "a call whose lease is over was granted again");
      // Its call is forgotten, so that this is a new lease; nobody uses it.
      assert(answer.run.lease !== lease.run.lease);
      this.creditor.revoke(answer.run.lease);
      this.quarantined.push(...this.lentBlocksBeside());
    }
  }

  /** Blocks that the pool quarantines and the model does not know of. */
  lentBlocksBeside(): BlockId[] {
    return this.blocks().filter((block) =>
      this.pool.state(block) === "quarantined" && !this.quarantined.includes(block)
    );
  }

  blocks(): BlockId[] {
    return this.memory.map((_, block) => block as BlockId);
  }

  /** What the creditor must answer. */
  expected(lease: ModelLease, { debtor, run, use }: {
    readonly debtor: MemberIdentity;
    readonly run: SlotRun;
    readonly use: SlotUse;
  }): string {
    if (lease.over) return "unknown_lease";
    if (debtor.name !== lease.debtor.name) return "wrong_debtor";
    if (debtor.incarnation !== lease.debtor.incarnation) return "unknown_lease";
    if (run.stamp !== lease.run.stamp) return "stale_stamp";
    if (lease.expiresMs <= this.nowMs) return "expired";
    const slots = lease.slots.slice(run.from, run.from + run.count);
    if (slots.length !== run.count || slots.includes("freed")) return "bad_slot";
    if (use === "read" && slots.includes("empty")) return "bad_slot";
    if (use === "write" && slots.includes("filled")) return "bad_slot";
    return "blocks";
  }

  touch(lease: ModelLease, touch: { readonly debtor: MemberIdentity; readonly run: SlotRun; readonly use: SlotUse }) {
    const { debtor, run, use } = touch;
    const expected = this.expected(lease, touch);
    const answer = this.creditor.touch(debtor, run, use);
    assertEquals(answer.kind === "refused" ? answer.code : answer.kind, expected);
    if (answer.kind === "refused") return;
    assertEquals(answer.blocks, lease.blocks.slice(run.from, run.from + run.count).flat());
    if (use === "write") { for (const block of answer.blocks) this.memory[block] = writer(lease); }
  }

  fill(lease: ModelLease, run: SlotRun): void {
    const touch = { debtor: lease.debtor, run, use: "commit" } as const;
    const expected = this.expected(lease, touch);
    const slots = lease.blocks.slice(run.from, run.from + run.count);
    // A commit comes after the content.
    if (expected === "blocks") { for (const block of slots.flat()) this.memory[block] = writer(lease); }
    assertEquals(this.creditor.fill(lease.debtor, run).kind, expected === "blocks" ? "filled" : "refused");
    if (expected === "blocks") lease.slots.fill("filled", run.from, run.from + run.count);
  }

  renew(debtor: MemberIdentity): void {
    const ids = this.leases.map(({ run }) => run.lease);
    const alive = this.live().filter((lease) =>
      lease.debtor.incarnation === debtor.incarnation && lease.expiresMs > this.nowMs
    );
    const dead = this.creditor.renew(debtor, ids);
    const expected = ids.filter((id) => !alive.some(({ run }) => run.lease === id));
    assertEquals(dead, expected);
    for (const lease of alive) lease.expiresMs = this.nowMs + TTL_MS;
  }

  release(lease: ModelLease, { debtor, run }: { readonly debtor: MemberIdentity; readonly run: SlotRun }): void {
    const theirs = !lease.over && debtor.incarnation === lease.debtor.incarnation &&
      run.from + run.count <= lease.slots.length;
    const freed = theirs ? this.free(lease, run) : 0;
    assertEquals(this.creditor.release(debtor, [run]), freed);
  }

  /** Takes slots back in the model. @returns how many were live. */
  free(lease: ModelLease, { from, count }: SlotRun): number {
    let freed = 0;
    for (let slot = from; slot < from + count; slot++) {
      if (lease.slots[slot] === "freed") continue;
      lease.slots[slot] = "freed";
      this.quarantined.push(...lease.blocks[slot]);
      freed++;
    }
    lease.over = lease.slots.every((slot) => slot === "freed");
    lease.overMs = this.nowMs;
    return freed;
  }

  ended(leases: readonly { readonly lease: number; readonly segments: number }[]): ModelLease[] {
    return leases.map(({ lease: id, segments }) => {
      const lease = this.live().find(({ run }) => run.lease === id);
      assert(lease !== undefined, `lease ${id} ended and was not live`);
      assertEquals(this.free(lease, lease.run), segments);
      return lease;
    });
  }

  expire(): void {
    const due = this.live().filter(({ expiresMs }) => expiresMs <= this.nowMs);
    const revoked = this.creditor.expire();
    const expired = this.ended(revoked.filter(({ reason }) => reason === "expired"));
    assertEquals(new Set(expired), new Set(due), "what ran out is what ends");
    for (const lease of this.ended(revoked.filter(({ reason }) => reason === "recalled"))) {
      assert(this.waitingBlocks > 0, `lease ${lease.run.lease} was taken back for nobody`);
    }
  }

  restart(who: number, forget: boolean): void {
    const { name, incarnation } = this.debtors[who];
    this.debtors[who] = identity(name, ++this.#incarnations);
    if (!forget) return;
    const theirs = this.live().filter((lease) => lease.debtor.incarnation === incarnation);
    assertEquals(new Set(this.ended(this.creditor.forget(incarnation))), new Set(theirs));
  }

  hold(lease: ModelLease): void {
    const slot = lease.slots.findIndex((state) => state !== "freed");
    if (lease.over || this.holds.length >= 6) return;
    const run = { ...lease.run, from: slot, count: 1 };
    this.holds.push({ hold: this.creditor.hold(run), blocks: lease.blocks[slot], writer: writer(lease) });
  }

  /** Work in flight touches its blocks one last time and is done. */
  drop(index: number): void {
    const [held] = this.holds.splice(index % Math.max(1, this.holds.length), 1);
    if (held === undefined) return;
    for (const block of held.blocks) this.memory[block] = held.writer;
    held.hold[Symbol.dispose]();
  }

  settle(): void {
    const held = new Set(this.holds.flatMap(({ blocks }) => blocks));
    const settled = this.quarantined.filter((block) => !held.has(block));
    this.quarantined = this.quarantined.filter((block) => held.has(block));
    assertEquals(this.creditor.settle(), settled.length);
    for (const block of settled) this.memory[block] = "nobody";
  }

  allocate(): void {
    if (this.pool.available === 0) return;
    const block = this.pool.allocate();
    const tag = `own ${++this.#writes}`;
    assert(!this.own.has(block));
    this.own.set(block, tag);
    this.memory[block] = tag;
  }

  releaseOwn(index: number, publish: boolean): void {
    const entry = [...this.own][index % Math.max(1, this.own.size)];
    if (entry === undefined) return;
    const [block, tag] = entry;
    if (publish) this.pool.publish(block, tag);
    this.pool.release(block);
    this.own.delete(block);
  }

  recall(waitingBlocks: number): void {
    this.waitingBlocks = waitingBlocks;
    this.limit.observe({ own: this.own.size, waitingBlocks });
    const asked = this.creditor.recall();
    for (const { debtor, leases } of asked) {
      const theirs = this.live().filter((lease) => lease.debtor.incarnation === debtor.incarnation);
      assertEquals(leases, theirs.map(({ run }) => run.lease));
    }
    const segments = asked.reduce((sum, request) => sum + request.segments, 0);
    assert(segments * SEGMENT < waitingBlocks + SEGMENT, "more was called back than anybody waits for");
    if (this.pool.available >= waitingBlocks) assertEquals(asked, []);
    assertEquals(this.creditor.recall(), [], "the same blocks were called back twice");
  }

  check(): void {
    this.creditor.checkIntegrity();
    const { free, owned, cached, lent, quarantined, total } = this.pool.counts;
    assertEquals(free + owned + cached + lent + quarantined, total);
    assertEquals(owned, this.own.size);
    assertEquals(quarantined, this.quarantined.length);
    const owners = new Map<BlockId, string>();
    const claim = (block: BlockId, owner: string) => {
      assertEquals(owners.get(block), undefined, `block ${block} has two owners`);
      owners.set(block, owner);
    };
    for (const [block, tag] of this.own) {
      claim(block, tag);
      assertEquals(this.memory[block], tag, `somebody wrote into own block ${block}`);
    }
    let live = 0;
    for (const lease of this.live()) {
      for (const [slot, state] of lease.slots.entries()) {
        if (state === "freed") continue;
        live++;
        for (const block of lease.blocks[slot]) {
          claim(block, writer(lease));
          if (state === "filled") assertEquals(this.memory[block], writer(lease), `block ${block} was overwritten`);
        }
      }
    }
    for (const block of this.quarantined) claim(block, "quarantine");
    assertEquals(lent, live * SEGMENT);
    const { leases, segments, holds } = this.creditor.counts;
    assertEquals([leases, segments, holds], [this.live().length, live, this.holds.length]);
    assertEquals(this.creditor.leases().map(({ lease }) => lease), this.live().map(({ run }) => run.lease));
    const next = this.creditor.nextExpiryMs ?? Infinity;
    assert(next <= Math.min(Infinity, ...this.live().map(({ expiresMs }) => expiresMs)), "the reaper would oversleep");
  }

  /** Everybody goes away: nothing may be left. */
  quiesce(): void {
    this.recall(0);
    while (this.holds.length > 0) this.drop(0);
    while (this.own.size > 0) this.releaseOwn(0, false);
    this.nowMs += TTL_MS;
    this.expire();
    this.settle();
    this.check();
    const { free, cached, total } = this.pool.counts;
    assertEquals(free + cached, total);
    assertEquals(this.creditor.nextExpiryMs, undefined);
  }
}

function identity(name: string, run: number): MemberIdentity {
  return { name, incarnation: run.toString(16).padStart(32, "0") };
}

function writer(lease: ModelLease): string {
  return `lease ${lease.run.lease}`;
}

/** A command: a name for the counterexample and what it does to the world. */
function command(name: string, run: (world: World) => void): fc.Command<World, World> {
  return {
    check: () => true,
    run: (world) => {
      run(world);
      world.check();
    },
    toString: () => name,
  };
}

const who = fc.nat(1);
const index = fc.nat(20);

/** Slots of a lease, sometimes outside it. */
function cut(lease: ModelLease, from: number, count: number): SlotRun {
  return { ...lease.run, from: from % (lease.slots.length + 1), count: 1 + count % lease.slots.length };
}

const COMMANDS: readonly fc.Arbitrary<fc.Command<World, World>>[] = [
  fc.tuple(who, fc.integer({ min: 1, max: 4 })).map(([debtor, segments]) =>
    command(`grant(${debtor}, ${segments})`, (world) => world.grant(debtor, segments))
  ),
  index.map((pick) =>
    command(`grant again(${pick})`, (world) => {
      const lease = world.pick(pick);
      if (lease !== undefined) world.grantAgain(lease);
    })
  ),
  fc.tuple(index, index, index, fc.constantFrom<SlotUse>("read", "write", "commit"), fc.constantFrom("own", 0, 1)).map(
    ([pick, from, count, use, debtor]) =>
      command(`touch(${pick}, ${from}, ${count}, ${use}, ${debtor})`, (world) => {
        const lease = world.pick(pick);
        if (lease === undefined) return;
        const asks = typeof debtor === "number" ? world.debtors[debtor] : lease.debtor;
        world.touch(lease, { debtor: asks, run: cut(lease, from, count), use });
      }),
  ),
  fc.tuple(index, fc.constantFrom(-1, 1)).map(([pick, off]) =>
    command(`touch stale(${pick}, ${off})`, (world) => {
      const lease = world.pick(pick);
      if (lease === undefined) return;
      const run = { ...lease.run, stamp: lease.run.stamp + off };
      world.touch(lease, { debtor: lease.debtor, run, use: "commit" });
      assertEquals(world.creditor.release(lease.debtor, [run]), 0);
    })
  ),
  fc.tuple(index, index, index).map(([pick, from, count]) =>
    command(`fill(${pick}, ${from}, ${count})`, (world) => {
      const lease = world.pick(pick);
      if (lease !== undefined) world.fill(lease, cut(lease, from, count));
    })
  ),
  who.map((debtor) => command(`renew(${debtor})`, (world) => world.renew(world.debtors[debtor]))),
  fc.tuple(index, index, index, fc.constantFrom("own", 0, 1)).map(([pick, from, count, debtor]) =>
    command(`release(${pick}, ${from}, ${count}, ${debtor})`, (world) => {
      const lease = world.pick(pick);
      if (lease === undefined) return;
      const gives = typeof debtor === "number" ? world.debtors[debtor] : lease.debtor;
      world.release(lease, { debtor: gives, run: cut(lease, from, count) });
    })
  ),
  fc.constant(command("expire", (world) => world.expire())),
  fc.tuple(who, fc.boolean()).map(([debtor, forget]) =>
    command(`restart(${debtor}, ${forget})`, (world) => world.restart(debtor, forget))
  ),
  index.map((pick) =>
    command(`revoke(${pick})`, (world) => {
      const lease = world.pick(pick);
      if (lease !== undefined) world.ended(world.creditor.revoke(lease.run.lease));
    })
  ),
  index.map((pick) =>
    command(`hold(${pick})`, (world) => {
      const lease = world.pick(pick);
      if (lease !== undefined) world.hold(lease);
    })
  ),
  index.map((pick) => command(`drop(${pick})`, (world) => world.drop(pick))),
  fc.constant(command("settle", (world) => world.settle())),
  fc.constant(command("allocate", (world) => world.allocate())),
  fc.tuple(index, fc.boolean()).map(([pick, publish]) =>
    command(`release own(${pick}, ${publish})`, (world) => world.releaseOwn(pick, publish))
  ),
  fc.nat(12).map((blocks) => command(`recall(${blocks})`, (world) => world.recall(blocks))),
  fc.integer({ min: 1, max: 70 }).map((ms) =>
    command(`advance(${ms})`, (world) => {
      world.nowMs += ms;
    })
  ),
];

Deno.test("Creditor and BlockPool agree with a plain model over random commands, and leak nothing", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 8 }),
      fc.commands([...COMMANDS], { maxCommands: 120, size: "max" }),
      (segments, run) => {
        const world = new World(segments);
        fc.modelRun(() => ({ model: world, real: world }), run);
        world.quiesce();
      },
    ),
    { numRuns: 300 },
  );
});
