/**
 * Log-probabilities under the model's own distribution.
 *
 * @module
 */
import type { TokenLogprob } from "../engine/request.ts";
import type { LogitRow } from "./row.ts";

/**
 * Log-probability and rank of token `id` and of the `topN` most likely tokens, before adjustments and temperature. At
 * most as many are listed as the device reports candidates.
 */
export function tokenLogprob(row: LogitRow, id: number, topN: number): TokenLogprob {
  const { ids, logits } = row.top;
  return {
    id,
    logprob: row.logits[id] - row.logSumExp,
    rank: rankOf(row, id),
    top: Array.from(ids.subarray(0, topN), (topId, i) => ({ id: topId, logprob: logits[i] - row.logSumExp })),
  };
}

function rankOf(row: LogitRow, id: number): number {
  const candidate = row.top.ids.indexOf(id);
  if (candidate >= 0) return candidate + 1;
  const { logits } = row;
  const logit = logits[id];
  let rank = 1;
  for (let other = 0; other < logits.length; other++) {
    if (logits[other] > logit || (logits[other] === logit && other < id)) rank++;
  }
  return rank;
}
