/**
 * Rounds of chaos over real processes: `deno task chaos [--rounds 300] [--seed 1] [--model synthetic|real] [--verbose]`.
 * A round that fails prints what happened and the command that plays it again; the exit status is 1 then.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { describePlan, drawRound, replayCommand, type RoundPlan } from "./chaos_plan.ts";
import { ChaosModels } from "./chaos_models.ts";
import { type RequestEnd, runRound } from "./chaos_round.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "300" },
    seed: { type: "string", default: "1" },
    model: { type: "string" },
    verbose: { type: "boolean", default: false },
  },
});
const rounds = Number(values.rounds);
const firstSeed = Number(values.seed);
if (!Number.isInteger(rounds) || rounds < 1 || !Number.isInteger(firstSeed)) {
  throw new RangeError(`Cannot run: wanted whole --rounds and --seed, got ${values.rounds} and ${values.seed}`);
}
const model = readModel(values.model);

Deno.exit(await run());

function readModel(name: string | undefined): RoundPlan["model"] | undefined {
  if (name === undefined || name === "synthetic" || name === "real") return name;
  throw new RangeError(`Cannot run: wanted --model synthetic or real, got ${name}`);
}

/** Plays all rounds. @returns the exit status. */
async function run(): Promise<number> {
  const ends = new Map<RequestEnd, number>();
  let failed = 0;
  await using models = new ChaosModels();
  for (let round = 0; round < rounds; round++) {
    const plan = drawRound(firstSeed + round, { model });
    const report = await runRound(plan, await models.setting(plan.model));
    for (const end of report.ends) ends.set(end, (ends.get(end) ?? 0) + 1);
    const seconds = (report.ms / 1000).toFixed(1);
    if (report.failure === undefined) console.log(`seed ${plan.seed}: ${report.ends.join(", ")} in ${seconds} s`);
    else console.log(`seed ${plan.seed} FAILED in ${seconds} s: ${report.failure}`);
    if (report.failure === undefined && !values.verbose) continue;
    console.log(`  ${describePlan(plan)}\n  ${report.history.join("\n  ")}`);
    if (report.failure === undefined) continue;
    failed++;
    console.log(`  again: ${replayCommand(plan, { model })}`);
  }
  const counted = [...ends].map(([end, count]) => `${count} ${end}`).join(", ");
  console.log(`${rounds} rounds, ${failed} failed; requests: ${counted}`);
  return failed === 0 ? 0 : 1;
}
