/**
 * What one row of a 49,152-token vocabulary costs, with the fast path and without it.
 *
 *     deno bench runtime/sampling/sampler_bench.ts
 */
import type { SamplingParams } from "../engine/request.ts";
import { testRow } from "./test_row.ts";
import { Sampler } from "./sampler.ts";

const VOCAB = 49_152;
const ROWS = 64;
/** Logits of a model at work: about a tenth of the mass lies outside the candidates. */
const rows = Array.from({ length: ROWS }, (_, i) => testRow({ vocab: VOCAB, seed: i, spread: 2.2, peak: 14 }));
const outside = rows.reduce((sum, row) => {
  return sum + 1 - row.top.logits.reduce((mass, logit) => mass + Math.exp(logit - row.logSumExp), 0);
}, 0) / ROWS;
console.log(`mass outside the candidates: ${(outside * 100).toFixed(1)} %`);

const cases: Readonly<Record<string, SamplingParams>> = {
  greedy: { temperature: 0 },
  "temperature 1": {},
  "temperature 0.7": { temperature: 0.7 },
  "top_p 0.9, top_k 40": { topP: 0.9, topK: 40 },
  "top_p 0.9": { topP: 0.9 },
  "min_p 0.05": { minP: 0.05 },
  "penalties, 2,000-token prompt": { repetitionPenalty: 1.1, frequencyPenalty: 0.2 },
  "greedy with penalties, 2,000-token prompt": { temperature: 0, repetitionPenalty: 1.1, frequencyPenalty: 0.2 },
};
const prompt = Int32Array.from({ length: 2000 }, (_, i) => (i * 7919) % 3000);

for (const [group, params] of Object.entries(cases)) {
  for (const fastPath of [true, false]) {
    const sampler = new Sampler(params, { vocab: VOCAB, prompt, eos: [0], seed: 1, fastPath });
    let next = 0;
    Deno.bench(fastPath ? "fast" : "full", { group, baseline: fastPath }, () => {
      sampler.sample(rows[next % ROWS]);
      sampler.accept((next++ * 7919) % 1000);
    });
  }
}
