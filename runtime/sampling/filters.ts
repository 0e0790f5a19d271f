/**
 * The parameters that decide how much of the total order is kept and how it is weighed.
 *
 * @module
 */
import type { SamplingParams } from "../engine/request.ts";

/** Temperature and cuts, in the form both paths use. */
export interface Filters {
  /** 1 / temperature; a token weighs exp((logit - largest logit) * inverseTemperature). */
  readonly inverseTemperature: number;
  /** Most tokens kept; Infinity keeps all. */
  readonly topK: number;
  /** Share of the mass of those that the kept tokens reach; 1 keeps all. */
  readonly topP: number;
  /** Largest (largest logit - logit) * inverseTemperature kept; Infinity keeps all. */
  readonly depth: number;
}

/** Filters of a request whose temperature is above 0. */
export function filtersOf(params: SamplingParams): Filters {
  return {
    // A temperature so small that its inverse overflows leaves only the largest logits; 0 * 1e300 is still 0.
    inverseTemperature: Math.min(1 / (params.temperature ?? 1), 1e300),
    topK: params.topK ? params.topK : Infinity,
    topP: params.topP ?? 1,
    depth: params.minP ? -Math.log(params.minP) : Infinity,
  };
}
