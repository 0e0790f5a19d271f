/**
 * The slow, obvious answer, in f64, one candidate after the other.
 *
 * @module
 */
import type { LogitSummary } from "../logits/spec.ts";
import { ROUNDING, type SampleOutcome, type SampleRow, SUM_ERROR } from "./spec.ts";

const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24];

/** Number `index` of the stream of `seed`, in [0, 1): Threefry-2x32-20, 53 bits; both are integers of up to 53 bits. */
export function drawReference(seed: number, index: number): number {
  const words = (integer: number) => [integer >>> 0, Math.floor(integer / 2 ** 32) >>> 0];
  const [low, high] = words(seed);
  const keys = [low, high, 0x1bd11bda ^ low ^ high];
  let [a, b] = words(index).map((word, i) => (word + keys[i]) | 0);
  for (let round = 0; round < 20; round++) {
    a = (a + b) | 0;
    const turn = ROTATIONS[round % 8];
    b = ((b << turn) | (b >>> (32 - turn))) ^ a;
    if (round % 4 < 3) continue;
    const injection = (round + 1) / 4;
    a = (a + keys[injection % 3]) | 0;
    b = (b + keys[(injection + 1) % 3] + injection) | 0;
  }
  return ((a >>> 5) * 2 ** 26 + (b >>> 6)) / 2 ** 53;
}

/** What becomes of a row of `vocab` logits by its candidates alone: see the spec. */
export function sampleReference(
  { mode, accepted }: SampleRow,
  { summary, vocab }: { readonly summary: LogitSummary; readonly vocab: number },
): SampleOutcome {
  const { logSumExp, ids, logits } = summary;
  if (!Number.isFinite(logSumExp)) return { kind: "bad logits" };
  if (mode.kind === "host") return { kind: "host" };
  if (mode.kind === "greedy") return { kind: "chosen", id: ids[0], logit: logits[0] };
  const { inverseTemperature: a, topK, topP, depth, seed } = mode;
  const head = logits.filter((logit) => logit > -Infinity);
  const distances = Array.from(head, (logit) => (head[0] - logit) * a).slice(0, topK);
  const kept = distances.length;
  const through: number[] = [];
  distances.reduce((sum, distance, i) => through[i] = sum + Math.exp(-distance), 0);
  const mass = through[kept - 1];
  const firstAbove = (target: number) => through.filter((sum) => sum <= target).length;
  const rest = restOf(summary, { vocab, inverseTemperature: a });
  const reaches = topK > head.length;
  let low = mass + (topK === Infinity ? rest.low : 0);
  let high = mass + (reaches ? rest.high : 0);
  if (!(high < Infinity)) return { kind: "undecided" };
  if (topP < 1) {
    const least = topP * low * (1 - ROUNDING);
    const most = topP * high * (1 + ROUNDING);
    low = through[firstAbove(least)] ?? Math.max(mass, least);
    high = through[firstAbove(most)] ?? high;
  }
  const shallow = distances.filter((distance) => distance <= depth).length;
  if (shallow < kept) {
    low = Math.min(low, through[shallow - 1]);
    high = Math.min(high, through[shallow - 1]);
  } else if (depth < Infinity) {
    low = Math.min(low, mass);
  }
  const u = drawReference(seed, accepted);
  const [least, most] = [firstAbove(u * low * (1 - ROUNDING)), firstAbove(u * high * (1 + ROUNDING))];
  if (least !== most || least === kept) return { kind: "undecided" };
  return { kind: "chosen", id: ids[least], logit: logits[least] };
}

/** Bounds on the mass of the tokens that are no candidates, as runtime/sampling/head_draw.ts derives them. */
function restOf(
  { logSumExp, logits }: LogitSummary,
  { vocab, inverseTemperature: a }: { readonly vocab: number; readonly inverseTemperature: number },
): { readonly low: number; readonly high: number } {
  const smallest = logits[logits.length - 1];
  const count = vocab - logits.length;
  if (count === 0 || smallest === -Infinity) return { low: 0, high: 0 };
  const sum = Math.exp(logSumExp - logits[0]);
  const unlisted = logits.reduce((left, logit) => left - Math.exp(logit - logits[0]), sum);
  const low = Math.max(0, unlisted - SUM_ERROR * sum);
  const high = Math.max(0, unlisted + SUM_ERROR * sum);
  const distance = logits[0] - smallest;
  const scaled = Math.exp(-distance * (a - 1));
  const byCount = count * Math.exp(-distance * a);
  if (a >= 1) return { low: a === 1 ? low : 0, high: Math.min(high * scaled, byCount) };
  return { low: low * scaled, high: Math.min(byCount, count ** (1 - a) * high ** a) };
}
