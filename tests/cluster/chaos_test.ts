import { assertEquals } from "@std/assert";
import { ChaosModels } from "./chaos_models.ts";
import { describePlan, drawRound, replayCommand } from "./chaos_plan.ts";
import { runRound } from "./chaos_round.ts";

/** Small rounds, one of them with the real model, that kill, stop, cut, corrupt, move, leave and join between them. */
const SEEDS: readonly number[] = [72, 143, 150, 234, 317];

Deno.test("Clusters of real processes answer as if nothing had happened, whatever is done to them", async (t) => {
  await using models = new ChaosModels();
  for (const seed of SEEDS) {
    const plan = drawRound(seed);
    await t.step(`round ${seed}, ${plan.model} model`, async () => {
      const { failure, history } = await runRound(plan, await models.setting(plan.model));
      const told = `${describePlan(plan)}\n${history.join("\n")}\nagain: ${replayCommand(plan)}`;
      assertEquals(failure, undefined, told);
    });
  }
});

Deno.test("drawRound() draws the same round from the same seed, and others from others", () => {
  assertEquals(drawRound(7), drawRound(7));
  const shapes = new Set(Array.from({ length: 50 }, (_, seed) => describePlan(drawRound(seed))));
  assertEquals(shapes.size, 50);
});
