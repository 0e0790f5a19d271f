import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import type { MemberIdentity } from "../protocol/member.ts";
import { EpochGuard, MAX_EPOCH } from "./epoch_guard.ts";
import { Term } from "./term.ts";

class Manager {
  readonly self: MemberIdentity;
  readonly guard: EpochGuard;
  readonly term: Term;

  constructor(run: number, clock: { ms: number }, seed: number = 0) {
    this.self = { name: `g${run}`, incarnation: run.toString(16).padStart(32, "0") };
    this.guard = new EpochGuard(seed);
    this.term = new Term({ self: this.self, guard: this.guard, now: () => clock.ms });
  }
}

Deno.test("Term.claim() takes an epoch above the stored seed and every one heard of", () => {
  const manager = new Manager(1, { ms: 0 }, 7);
  assertEquals([manager.term.leads, manager.term.look()], [false, "follows"]);
  manager.guard.see(11);
  assertEquals([manager.term.claim(), manager.term.leads, manager.term.look()], [12, true, "leads"]);
  assertEquals(manager.guard.leader, manager.self);
});

Deno.test("Term.look() raises its epoch above a predecessor's once, and follows a rival that outdoes it", () => {
  const clock = { ms: 0 };
  const manager = new Manager(1, clock);
  manager.term.claim();
  manager.guard.see(40);
  assertEquals([manager.term.look(), manager.term.epoch], ["raised", 41]);
  clock.ms = 20_000;
  manager.guard.see(50);
  assertEquals([manager.term.look(), manager.term.epoch], ["raised", 51], "another predecessor, much later");
  clock.ms = 21_000;
  manager.guard.see(52);
  assertEquals([manager.term.look(), manager.term.leads], ["follows", false]);
  assertEquals(manager.term.claim(), 53, "it may lead again when the other one is gone");
});

Deno.test("Term.look() follows at once a leader of a higher epoch that it meets", () => {
  const clock = { ms: 0 };
  const [low, high] = [new Manager(1, clock), new Manager(2, clock, 5)];
  low.term.claim();
  low.guard.order(high.term.claim(), high.self);
  assertEquals(low.term.look(), "follows");
  high.guard.see(low.term.epoch);
  assertEquals(high.term.look(), "leads");
});

Deno.test("Term.refused() makes one of two with the same epoch follow", () => {
  const clock = { ms: 0 };
  const managers = [new Manager(1, clock), new Manager(2, clock)];
  const member = new EpochGuard();
  for (const { term, self } of managers) assertEquals(member.order(term.claim(), self), undefined);
  const refused = managers.map(({ term, self }) => member.order(term.epoch, self)?.code);
  assertEquals(refused, ["stale_epoch", undefined]);
  assertEquals(managers[0].term.refused(1), "follows");
  assertEquals(managers[1].term.look(), "leads");
});

Deno.test("Term.refused() does not make a gManager follow for an order that was late", () => {
  const manager = new Manager(1, { ms: 0 });
  const late = manager.term.claim();
  manager.guard.see(4);
  assertEquals(manager.term.look(), "raised");
  assertEquals(manager.term.refused(late), "leads");
});

Deno.test("Term.claim() throws when no epoch is left", () => {
  assertThrows(() => new Manager(1, { ms: 0 }, MAX_EPOCH).term.claim(), RangeError, "Cannot lead");
});

Deno.test("Term settles on one leader whatever its members hear, and never on none", () => {
  const step = fc.record({
    manager: fc.nat(2),
    member: fc.nat(3),
    what: fc.constantFrom("claim", "order", "send", "deliver", "hear", "gossip", "wait"),
    other: fc.nat(3),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const clock = { ms: 0 };
      const managers = [new Manager(1, clock), new Manager(2, clock), new Manager(3, clock)];
      const members = Array.from({ length: 4 }, () => new EpochGuard());
      const late: { readonly manager: Manager; readonly epoch: number }[] = [];
      const deliver = (manager: Manager, { epoch, member }: { epoch: number; member: EpochGuard }) => {
        if (member.order(epoch, manager.self) === undefined) return;
        manager.guard.see(member.highest);
        manager.term.refused(epoch);
      };
      const order = (manager: Manager, member: EpochGuard) => {
        if (manager.term.leads) deliver(manager, { epoch: manager.term.epoch, member });
      };
      const hear = (manager: Manager, member: EpochGuard) => {
        manager.guard.see(member.highest);
        manager.term.look();
      };
      managers[0].term.claim();
      for (const { manager, member, what, other } of steps) {
        if (what === "claim" && !managers[manager].term.leads) managers[manager].term.claim();
        if (what === "order") order(managers[manager], members[member]);
        if (what === "send" && managers[manager].term.leads) {
          late.push({ manager: managers[manager], epoch: managers[manager].term.epoch });
        }
        const sent = what === "deliver" ? late.splice(other % Math.max(1, late.length), 1) : [];
        for (const { manager, epoch } of sent) deliver(manager, { epoch, member: members[member] });
        if (what === "hear") hear(managers[manager], members[member]);
        if (what === "gossip") members[other].see(members[member].highest);
        if (what === "wait") clock.ms += 4_000;
        assert(managers.some(({ term }) => term.leads), "nobody leads");
      }
      for (let round = 0; round < 12; round++) {
        for (const manager of managers) {
          for (const member of members) {
            order(manager, member);
            hear(manager, member);
          }
        }
      }
      const leaders = managers.filter(({ term }) => term.leads);
      assertEquals(leaders.length, 1);
      for (const member of members) assertEquals(member.order(leaders[0].term.epoch, leaders[0].self), undefined);
    }),
    { numRuns: 500 },
  );
});
