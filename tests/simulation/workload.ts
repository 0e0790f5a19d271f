/**
 * What clients ask for.
 *
 * @module
 */
import type { EngineRequest } from "../../runtime/engine/request.ts";
import type { Random } from "./random.ts";
import type { Scenario } from "./scenario.ts";
import { TOY_VOCAB } from "./toy_model.ts";

/** Prompts that others begin with. */
const FAMILIES = 3;

/** Draws requests. */
export class Workload {
  readonly #random: Random;
  readonly #scenario: Scenario;
  readonly #families: readonly (readonly number[])[];
  #count = 0;

  /** Draws from a stream of its own. */
  constructor(random: Random, scenario: Scenario) {
    this.#random = random.stream("work");
    this.#scenario = scenario;
    this.#families = Array.from({ length: FAMILIES }, () => this.#tokens(scenario.longest));
  }

  /** The next request; greedy, so that its answer is known. */
  next(): EngineRequest {
    const random = this.#random;
    const { longest } = this.#scenario;
    const length = random.pick([
      () => random.integer(1, 12),
      () => random.integer(1, Math.max(1, longest >> 2)),
      () => random.integer(1, longest),
      () => longest,
    ])();
    const shared = random.chance(0.5) ? random.integer(0, length) : 0;
    const family = random.pick(this.#families);
    return {
      id: `r${++this.#count}`,
      prompt: [...family.slice(0, shared), ...this.#tokens(length - shared)],
      maxTokens: random.pick([1, 6, 20, 50]),
      n: random.chance(0.2) ? random.integer(2, 3) : 1,
      sampling: { temperature: 0 },
      priority: random.integer(0, 2),
      cacheSalt: random.chance(0.2) ? "other" : undefined,
    };
  }

  /** A request that one home can run alone. */
  probe(tokens: number): EngineRequest {
    return { id: `p${++this.#count}`, prompt: this.#tokens(tokens), maxTokens: 4, sampling: { temperature: 0 } };
  }

  #tokens(length: number): number[] {
    return Array.from({ length }, () => this.#random.integer(0, TOY_VOCAB - 1));
  }
}
