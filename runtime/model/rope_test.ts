import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { ropeConfig, type RopeScaling, yarnAttentionFactor } from "./rope.ts";

function frequencies(dimensions: number, theta: number, scaling?: RopeScaling): Float64Array {
  return ropeConfig({ dimensions, theta, pairing: "halves", ...(scaling && { scaling }) }).inverseFrequencies;
}

function assertClose(actual: ArrayLike<number>, expected: readonly number[]): void {
  assertEquals(actual.length, expected.length);
  expected.forEach((value, index) => assertAlmostEquals(actual[index], value, 1e-15 + 1e-14 * value, `pair ${index}`));
}

Deno.test("ropeConfig() without scaling is the geometric series", () => {
  assertClose(frequencies(8, 10_000), [1, 0.1, 0.01, 0.001]);
  assertClose(frequencies(4, 100), [1, 0.1]);
  const { magnitude, pairing, dimensions } = ropeConfig({ dimensions: 8, theta: 10_000, pairing: "adjacent" });
  assertEquals([magnitude, pairing, dimensions], [1, "adjacent", 8]);
});

Deno.test("ropeConfig() linear divides every frequency", () => {
  assertClose(frequencies(8, 10_000, { kind: "linear", factor: 4 }), [0.25, 0.025, 0.0025, 0.00025]);
});

Deno.test("ropeConfig() llama3 keeps high frequencies, stretches low ones and blends between", () => {
  const scaling = {
    kind: "llama3",
    factor: 8,
    lowFrequencyFactor: 1,
    highFrequencyFactor: 4,
    originalContext: 1000,
  } as const;
  // Rotations over 1000 tokens: 159.15, 15.915, 1.5915, 0.15915. The third blends with (1.5915 - 1) / 3 = 0.19718...
  const kept = (10 / (2 * Math.PI) - 1) / 3;
  assertClose(frequencies(8, 10_000, scaling), [1, 0.1, 0.01 * (kept + (1 - kept) / 8), 0.000125]);
});

Deno.test("ropeConfig() llama3 gives the frequencies of Llama 3.1", () => {
  const scaled = frequencies(128, 500_000, {
    kind: "llama3",
    factor: 8,
    lowFrequencyFactor: 1,
    highFrequencyFactor: 4,
    originalContext: 8192,
  });
  // Computed with the Python package transformers' formula in f64.
  assertAlmostEquals(scaled[0], 1, 1e-15);
  assertAlmostEquals(scaled[20], 500_000 ** (-40 / 128), 1e-15);
  assertAlmostEquals(scaled[30], 0.0013718935677611381, 1e-15);
  assertAlmostEquals(scaled[63], 500_000 ** (-126 / 128) / 8, 1e-18);
});

Deno.test("ropeConfig() yarn ramps from kept to stretched pairs by dimension", () => {
  const config = ropeConfig({
    dimensions: 16,
    theta: 10_000,
    pairing: "halves",
    scaling: { kind: "yarn", factor: 4, originalContext: 2048 },
  });
  // pairAt(32) = 16 ln(2048 / 64 pi) / (2 ln 10000) = 2.0160, floor 2; pairAt(1) = 16 ln(2048 / 2 pi) / (2 ln 10000) =
  // 5.0263, ceil 6. Ramp over pairs 2 to 6: 0, 0, 0, 1/4, 1/2, 3/4, 1, 1.
  const stretched = [0, 0, 0, 0.25, 0.5, 0.75, 1, 1];
  const expected = stretched.map((share, pair) => 10 ** (-pair / 2) * (share / 4 + 1 - share));
  assertClose(config.inverseFrequencies, expected);
  assertAlmostEquals(config.magnitude, 1.1386294361119891, 1e-15);
});

Deno.test("ropeConfig() yarn without truncation ramps between the exact pairs", () => {
  const pairAt = (rotations: number) => 16 * Math.log(2048 / (rotations * 2 * Math.PI)) / (2 * Math.log(10_000));
  const [low, high] = [pairAt(32), pairAt(1)];
  const share = (4 - low) / (high - low);
  const scaling: RopeScaling = { kind: "yarn", factor: 4, originalContext: 2048, truncate: false, attentionFactor: 1 };
  assertAlmostEquals(frequencies(16, 10_000, scaling)[4], 0.01 * (share / 4 + 1 - share), 1e-16);
});

Deno.test("ropeConfig() yarn takes the stated betas and attention factor", () => {
  const config = ropeConfig({
    dimensions: 16,
    theta: 10_000,
    pairing: "halves",
    scaling: { kind: "yarn", factor: 2, originalContext: 2048, betaFast: 64, betaSlow: 8, attentionFactor: 1.5 },
  });
  // pairAt(64) = 1.4138, floor 1; pairAt(8) = 3.2201, ceil 4: ramp over pairs 1 to 4.
  const stretched = [0, 0, 1 / 3, 2 / 3, 1, 1, 1, 1];
  assertClose(config.inverseFrequencies, stretched.map((share, pair) => 10 ** (-pair / 2) * (1 - share / 2)));
  assertEquals(config.magnitude, 1.5);
});

Deno.test("yarnAttentionFactor() is 0.1 ln s + 1, and 1 where nothing is stretched", () => {
  assertAlmostEquals(yarnAttentionFactor(Math.E), 1.1, 1e-15);
  assertEquals(yarnAttentionFactor(1), 1);
  assertAlmostEquals(yarnAttentionFactor(Math.E, 2), 1.2, 1e-15);
});

Deno.test("ropeConfig() divides frequencies by the divisors of the file before it scales", () => {
  const config = ropeConfig({
    dimensions: 4,
    theta: 100,
    pairing: "adjacent",
    divisors: [2, 5],
    scaling: { kind: "linear", factor: 10 },
  });
  assertClose(config.inverseFrequencies, [0.05, 0.002]);
});

const BROKEN: readonly (readonly [string, Parameters<typeof ropeConfig>[0], string])[] = [
  ["odd dimensions", { dimensions: 7, theta: 10, pairing: "halves" }, "even and at least 2, got 7"],
  ["no dimensions", { dimensions: 0, theta: 10, pairing: "halves" }, "got 0"],
  ["theta NaN", { dimensions: 8, theta: NaN, pairing: "halves" }, "theta must be a finite number above 1, got NaN"],
  ["theta infinite", { dimensions: 8, theta: Infinity, pairing: "halves" }, "got Infinity"],
  ["theta 1", { dimensions: 8, theta: 1, pairing: "halves" }, "got 1"],
  ["theta negative", { dimensions: 8, theta: -1, pairing: "halves" }, "got -1"],
  ["a factor of 0", { dimensions: 8, theta: 10, pairing: "halves", scaling: { kind: "linear", factor: 0 } }, "factor"],
  [
    "llama3 bounds in the wrong order",
    {
      dimensions: 8,
      theta: 10,
      pairing: "halves",
      scaling: { kind: "llama3", factor: 8, lowFrequencyFactor: 4, highFrequencyFactor: 4, originalContext: 8 },
    },
    "high frequency factor must exceed 4, got 4",
  ],
  [
    "yarn over a context of 0",
    { dimensions: 8, theta: 10, pairing: "halves", scaling: { kind: "yarn", factor: 2, originalContext: 0 } },
    "original context",
  ],
  ["divisors of another length", { dimensions: 8, theta: 10, pairing: "halves", divisors: [1] }, "wanted 4"],
  ["a divisor of 0", { dimensions: 4, theta: 10, pairing: "halves", divisors: [1, 0] }, "divisor 1"],
];
for (const [name, init, message] of BROKEN) {
  Deno.test(`ropeConfig() refuses ${name}`, () => {
    assertThrows(() => ropeConfig(init), RangeError, message);
  });
}
