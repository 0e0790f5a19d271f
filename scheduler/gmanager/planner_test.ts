import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import * as fc from "fast-check";
import type { ClusterView } from "../../plugins/types.ts";
import type { PlannedMove } from "../memory_policy.ts";
import type { MemberStatus } from "../protocol/messages.ts";
import { MovePlanner, type MovePlannerOptions } from "./planner.ts";
import { entryOf, FORMAT, statusOf } from "./test_members.ts";

/** A planner over a policy that always proposes the same moves, and its clock. */
function plannerOf(moves: readonly PlannedMove[], options: Partial<MovePlannerOptions> = {}) {
  const clock = { ms: 0 };
  const seen: ClusterView[] = [];
  const policy = { move: (view: ClusterView) => (seen.push(view), moves) };
  return { planner: new MovePlanner({ policy, now: () => clock.ms, ...options }), clock, seen };
}

const placements = [1, 2, 3, 4].map((handle) => entryOf(`a/${handle}`, "a", { from: 0, to: 8 }));

function knowledge(members: readonly MemberStatus[] = [statusOf("a"), statusOf("b"), statusOf("c")]) {
  return { members, placements, segmentTokens: 64, format: FORMAT };
}

const move = (sequence: number, to = 1): PlannedMove => ({ sequence, from: 0, to, segments: 2, predictedGain: 5 });

Deno.test("MovePlanner.plan() turns a move into an order for the sequence's home", () => {
  const { planner, seen } = plannerOf([move(1)]);
  assertEquals(planner.plan(knowledge()), [
    { id: 1, home: "a", sequence: "a/2", segments: 2, from: "a", to: "b", predictedGain: 5 },
  ]);
  assertEquals([seen[0].self, seen[0].sequences.length, seen[0].members.length], [-1, 4, 3]);
  assertEquals(planner.report(), [
    { sequence: "a/2", from: "a", to: "b", segments: 2, state: "copying", predictedGain: 5 },
  ]);
});

Deno.test("MovePlanner.plan() leaves a sequence alone while it moves and for a while after", () => {
  const { planner, clock } = plannerOf([move(0)], { pauseMs: 1000 });
  const [{ id }] = planner.plan(knowledge());
  clock.ms = 5000;
  assertEquals(planner.plan(knowledge()), []);
  planner.ended(id, { moved: 2 });
  clock.ms = 5999;
  assertEquals(planner.plan(knowledge()), []);
  clock.ms = 6000;
  assertEquals(planner.plan(knowledge()).length, 1);
});

Deno.test("MovePlanner.plan() lets no member give or take more than it may at once", () => {
  const { planner } = plannerOf([move(0, 1), move(1, 2), move(2, 1), { ...move(3, 2), from: 1 }], { memberMoves: 2 });
  const orders = planner.plan(knowledge());
  assertEquals(orders.map(({ sequence, to }) => [sequence, to]), [["a/1", "b"], ["a/2", "c"], ["a/4", "c"]]);
  planner.ended(orders[0].id, { moved: 2 });
  assertEquals(planner.plan(knowledge()).map(({ sequence, to }) => [sequence, to]), [["a/3", "b"]]);
});

Deno.test("MovePlanner.plan() gives nothing to suspects and leaving members, and asks no suspect", () => {
  const states = (a: MemberStatus["state"], b: MemberStatus["state"]) =>
    plannerOf([move(0)]).planner.plan(knowledge([statusOf("a", { state: a }), statusOf("b", { state: b })])).length;
  assertEquals(states("alive", "alive"), 1);
  assertEquals(states("alive", "suspect"), 0);
  assertEquals(states("alive", "leaving"), 0);
  assertEquals(states("suspect", "alive"), 0);
  assertEquals(states("leaving", "alive"), 1, "it gets rid of what it has");
});

Deno.test("MovePlanner keeps the measured gain of the pair beside the predicted one", () => {
  const { planner, clock } = plannerOf([move(0)], { settleMs: 2000 });
  const members = (a: number, b: number) => [
    statusOf("a", { load: { tokensPerSecond: a } }),
    statusOf("b", { load: { tokensPerSecond: b } }),
    statusOf("c", { load: { tokensPerSecond: 1000 * a } }),
  ];
  const [{ id }] = planner.plan(knowledge(members(10, 20)));
  clock.ms = 500;
  planner.ended(id, { moved: 1 });
  clock.ms = 2400;
  planner.observe(members(50, 50));
  assertEquals(planner.report()[0].measuredGain, undefined);
  clock.ms = 2500;
  planner.observe(members(18, 17));
  planner.observe(members(0, 0));
  const [{ state, segments, predictedGain, measuredGain }] = planner.report();
  assertEquals([state, segments, predictedGain], ["done", 1, 5]);
  assertAlmostEquals(measuredGain ?? NaN, 5, 1e-9);
});

Deno.test("MovePlanner counts the home too where segments go from one creditor to another", () => {
  const { planner, clock } = plannerOf([{ ...move(0, 2), from: 1 }], { settleMs: 0 });
  const members = (a: number) => [statusOf("a", { load: { tokensPerSecond: a } }), statusOf("b"), statusOf("c")];
  const [{ id, home, from, to }] = planner.plan(knowledge(members(10)));
  assertEquals([home, from, to], ["a", "b", "c"]);
  planner.ended(id, { moved: 2 });
  clock.ms = 1;
  planner.observe(members(13));
  assertEquals(planner.report()[0].measuredGain, 3);
});

Deno.test("MovePlanner fails orders that bring no result, move nothing, or lose a member", () => {
  const { planner, clock } = plannerOf([move(0, 1), move(1, 2), move(2, 1)], { expiryMs: 1000, memberMoves: 9 });
  const [nothing] = planner.plan(knowledge());
  planner.ended(nothing.id, { moved: 0 });
  planner.observe([statusOf("a"), statusOf("b")]);
  const states = () => planner.report().map(({ state }) => state);
  assertEquals(states(), ["failed", "failed", "copying"]);
  clock.ms = 1000;
  planner.observe([statusOf("a"), statusOf("b")]);
  assertEquals(states(), ["failed", "failed", "failed"]);
  planner.ended(3, { moved: 2 });
  planner.ended(99, { moved: 2 });
  assertEquals(states(), ["failed", "failed", "failed"]);
});

Deno.test("MovePlanner keeps its rules whatever is proposed and reported", () => {
  const anyMove = fc.record({
    sequence: fc.integer({ min: 0, max: 3 }),
    from: fc.integer({ min: 0, max: 2 }),
    to: fc.integer({ min: 0, max: 2 }),
    segments: fc.integer({ min: 1, max: 4 }),
  });
  const event = fc.record({ moves: fc.array(anyMove, { maxLength: 6 }), end: fc.nat(30), afterMs: fc.nat(3000) });
  fc.assert(fc.property(fc.array(event, { maxLength: 60 }), (events) => {
    const clock = { ms: 0 };
    let proposed: readonly PlannedMove[] = [];
    const planner = new MovePlanner({
      policy: { move: () => proposed },
      now: () => clock.ms,
      memberMoves: 2,
      history: 4,
      pauseMs: 500,
    });
    for (const { moves, end, afterMs } of events) {
      proposed = moves;
      planner.plan(knowledge());
      const copying = planner.report().filter(({ state }) => state === "copying");
      assertEquals(new Set(copying.map(({ sequence }) => sequence)).size, copying.length);
      for (const name of ["a", "b", "c"]) {
        assert(copying.filter(({ from, to }) => from === name || to === name).length <= 2);
      }
      planner.ended(end, { moved: end % 3 });
      clock.ms += afterMs;
      assert(planner.report().length <= 4 + 4 + copying.length);
    }
  }));
});
