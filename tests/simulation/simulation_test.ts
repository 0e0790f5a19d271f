import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { runFleet } from "./fleet.ts";
import { describeFailure } from "./run.ts";
import { FAULTS } from "./scenario.ts";
import { runSeed } from "./world.ts";

/** Seeds of the gate. */
const SEEDS = 1000;

/** What a thousand seeds must have exercised at least once: every fault, and every rung of every ladder. */
const EXERCISED = [
  ...FAULTS.map((fault) => `fault.${fault}`),
  "fault.restarted",
  "fault.left",
  "client.aborts",
  "operator.moved",
  "creditor.granted",
  "creditor.ended.released",
  "creditor.ended.expired",
  "engine.preemptions",
  "engine.prefixHits",
  "engine.lostSteps",
  "engine.repairs",
  "member.remote_layers",
  "member.retries",
  "member.moves_done",
  "member.moves_failed",
  "member.peers_lost",
  "member.segments_lost",
  "member.segments_recalled",
  "member.refused_bad_digest",
  "member.refused_not_finite",
  "member.refused_over_cap",
  "member.refused_unknown_lease",
  "member.refused_wrong_incarnation",
  "member.requests_forwarded",
  "member.restarts",
  "request.finished",
  "request.cancelled",
];

Deno.test("runSeed() repeats a run exactly", () => {
  for (const seed of [11, 12, 13]) {
    const [first, second] = [runSeed({ seed }), runSeed({ seed })];
    assertEquals(second, first);
    assert(first.events > 1000);
  }
  assertNotEquals(runSeed({ seed: 11 }).hash, runSeed({ seed: 12 }).hash);
});

Deno.test("A cluster keeps every promise under a thousand seeds of faults, and comes to rest when they end", async () => {
  const { failures, statistics, runs } = await runFleet({ first: 1, seeds: SEEDS, jobs: 2, stopAfter: 3 });
  assertEquals(failures.map((failure) => describeFailure(failure)).join("\n\n"), "");
  assertEquals(runs, SEEDS);
  assertEquals(EXERCISED.filter((name) => statistics.sum(name) === 0), [], "never exercised");
});
