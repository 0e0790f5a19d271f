/**
 * What every {@linkcode Device} must do. An implementation runs {@linkcode testDevice} with a way to open itself.
 *
 * @module
 */
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { type Device, type DeviceOptions, SEGMENT_TOKENS, type StepSequence } from "../../runtime/device/device.ts";
import { ReferenceDevice } from "../../runtime/device/reference_device.ts";
import type { ActivationType, KvType } from "../../kernels/dtype.ts";
import type { OpenModel } from "../../runtime/model/model.ts";
import type { SyntheticSpec } from "../synthetic/spec.ts";
import { SeededRandom } from "../synthetic/random.ts";
import { openSynthetic } from "./open_synthetic.ts";

/** Opens the device under test. */
export type OpenDevice = (model: OpenModel, options: DeviceOptions) => Device | Promise<Device>;

/** A model variant and how far a device's logits may be from the f64 reference with f32 activations. */
interface Variant {
  readonly name: string;
  readonly spec: SyntheticSpec;
}

const VARIANTS: readonly Variant[] = [
  { name: "F32, two query heads a KV head", spec: {} },
  { name: "F16, one query head a KV head, untied head", spec: { dtype: "F16", heads: 3, kvHeads: 3, tied: false } },
  {
    name: "BF16, eight query heads a KV head, biases",
    spec: { dtype: "BF16", heads: 8, kvHeads: 1, headDim: 8, biases: true },
  },
  { name: "Q8_0, odd head count", spec: { dtype: "Q8_0", hidden: 96, heads: 9, kvHeads: 3, headDim: 32 } },
  { name: "Q4_0", spec: { dtype: "Q4_0", hidden: 96, heads: 6, kvHeads: 3, headDim: 16, intermediate: 160 } },
  {
    name: "Q4_1 with a Q8_0 embedding",
    spec: { dtype: "Q4_1", embeddingDtype: "Q8_0", hidden: 64, intermediate: 224 },
  },
  { name: "Q4_K", spec: { dtype: "Q4_K", hidden: 256, heads: 4, headDim: 64, intermediate: 256 } },
  { name: "Q5_K, untied", spec: { dtype: "Q5_K", hidden: 256, heads: 4, headDim: 64, intermediate: 512, tied: false } },
  { name: "Q6_K", spec: { dtype: "Q6_K", hidden: 256, heads: 2, kvHeads: 1, headDim: 128, intermediate: 256 } },
  {
    name: "types that differ within a layer",
    spec: {
      dtype: "Q4_0",
      hidden: 256,
      heads: 4,
      kvHeads: 2,
      headDim: 64,
      intermediate: 256,
      tied: false,
      embeddingDtype: "Q6_K",
      tensorDtypes: {
        "0.attn_k": "Q4_1",
        "0.attn_v": "Q8_0",
        "0.ffn_down": "Q4_1",
        "1.attn_v": "Q6_K",
        "1.ffn_up": "Q4_1",
      },
    },
  },
  { name: "linear RoPE", spec: { rope: { kind: "linear", factor: 4 } } },
  {
    name: "llama3 RoPE",
    spec: {
      rope: { kind: "llama3", factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 64 },
    },
  },
  { name: "YaRN", spec: { rope: { kind: "yarn", factor: 4, originalContext: 64 }, ropeDimensions: 8 } },
];

/** How exact a device is: the same bits however tokens come, or logits within this of each other, in the units of the largest. */
export type Sameness = "bits" | Tolerance;

/** How far logits may be from others, in the units of the row's largest. */
export interface Tolerance {
  /** Each. */
  readonly within: number;
  /** The root of the mean square over all rows. @default {no bound} */
  readonly rms?: number;
}

/** How to run the suite. */
export interface DeviceSuite {
  /** Opens the device under test. */
  readonly open: OpenDevice;
  /** Bounds the distance from the reference. */
  readonly tolerance: number | Tolerance;
  /** What neighbours, chunks and blocks may change. @default {"bits"} */
  readonly sameness?: Sameness;
  /** Tokens of a block. @default {16} */
  readonly blockTokens?: number;
  /** Element types of the pool. @default {all} */
  readonly kvTypes?: readonly KvType[];
  /** Inputs of products. @default {all} */
  readonly activations?: readonly ActivationType[];
  /** Why the tests cannot run here; then they are ignored. @default {they can} */
  readonly ignored?: string;
}

function randomIds(count: number, vocab: number, seed: number): number[] {
  const random = new SeededRandom(seed, "ids");
  return Array.from({ length: count }, () => Math.floor(random.uniform() * vocab));
}

/** Logits of every token of `ids`, fed in chunks of the given sizes (the last repeats) into the given blocks. */
function run(
  device: Device,
  ids: readonly number[],
  options: { chunks?: readonly number[]; blocks?: readonly number[]; beside?: (step: number) => StepSequence[] } = {},
): Float32Array[] {
  const { chunks = [64], beside = () => [] } = options;
  const count = Math.ceil(ids.length / device.info.blockTokens);
  const blocks = options.blocks ?? Array.from({ length: count }, (_, i) => i);
  const rows: Float32Array[] = [];
  let position = 0;
  for (let step = 0; position < ids.length; step++) {
    const size = chunks[Math.min(step, chunks.length - 1)];
    const tokens = ids.slice(position, position + size);
    const output = device.step([{ tokens, position, blocks, logits: "all" }, ...beside(step)]);
    for (let row = 0; row < tokens.length; row++) rows.push(output.logits(row).slice());
    position += tokens.length;
  }
  return rows;
}

function largest(values: Float32Array): number {
  return values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
}

function assertNear(
  actual: readonly Float32Array[],
  expected: readonly Float32Array[],
  { within, rms = Infinity }: Tolerance,
): void {
  assertEquals(actual.length, expected.length);
  let squares = 0;
  for (const [row, logits] of expected.entries()) {
    const unit = largest(logits);
    for (const [i, value] of logits.entries()) {
      assert(Number.isFinite(actual[row][i]), `row ${row}, logit ${i} is ${actual[row][i]}`);
      assertAlmostEquals(actual[row][i], value, within * unit, `row ${row}, logit ${i}`);
      squares += ((actual[row][i] - value) / unit) ** 2 / logits.length;
    }
  }
  const found = Math.sqrt(squares / expected.length);
  assert(found <= rms, `the root mean square distance is ${found}, wanted at most ${rms}`);
}

function assertSameBits(actual: readonly Float32Array[], expected: readonly Float32Array[], what: string): void {
  assertEquals(actual.length, expected.length);
  for (const [row, values] of actual.entries()) {
    const got = new Uint32Array(values.buffer, values.byteOffset, values.length);
    const want = new Uint32Array(expected[row].buffer, expected[row].byteOffset, values.length);
    const at = got.findIndex((bits, i) => bits !== want[i]);
    assert(at < 0, `${what}: row ${row}, logit ${at}: ${values[at]} is not ${expected[row][at]}`);
  }
}

/** Runs the suite. */
export function testDevice(name: string, suite: DeviceSuite): void {
  const { open, tolerance, sameness = "bits", blockTokens = 16 } = suite;
  const { kvTypes = ["f32", "f16", "bf16"], activations: activationTypes = ["f32", "i8"] } = suite;
  const base: DeviceOptions = {
    blocks: 64,
    blockTokens,
    kvType: kvTypes[0],
    activations: activationTypes[0],
    maxLogitRows: 64,
  };
  const test = (behaviour: string, fn: () => Promise<void>): void => {
    const because = suite.ignored === undefined ? "" : ` (ignored: ${suite.ignored})`;
    Deno.test({ name: `${name}${behaviour}${because}`, ignore: suite.ignored !== undefined, fn });
  };
  const blocksOf = (tokens: number): number => Math.ceil(tokens / blockTokens);
  const same = sameness === "bits" ? "the same bits" : "near the same logits";

  function assertSame(actual: readonly Float32Array[], expected: readonly Float32Array[], what: string): void {
    if (sameness === "bits") assertSameBits(actual, expected, what);
    else assertNear(actual, expected, sameness);
  }

  for (const { name: variant, spec } of VARIANTS) {
    test(`.step() agrees with the reference: ${variant}`, async () => {
      using model = openSynthetic(spec);
      using device = await open(model, base);
      using reference = new ReferenceDevice(model, base);
      const ids = randomIds(41, model.config.vocab, 7);
      assertNear(
        run(device, ids, { chunks: [17, 1, 23] }),
        run(reference, ids),
        typeof tolerance === "number" ? { within: tolerance } : tolerance,
      );
    });
  }

  for (const activations of activationTypes) {
    for (const kvType of kvTypes) {
      test(`.step() gives ${same} for any chunks, blocks and neighbours: ${activations}, ${kvType}`, async () => {
        using model = openSynthetic({ dtype: "Q4_1", embeddingDtype: "Q8_0", heads: 6, kvHeads: 2, intermediate: 160 });
        using device = await open(model, { ...base, activations, kvType });
        const { vocab } = model.config;
        // Longer than a segment, so that partials of two segments are merged.
        const ids = randomIds(SEGMENT_TOKENS + 37, vocab, 3);
        const whole = run(device, ids);
        assertSame(run(device, ids, { chunks: [1, 15, 16, 17, 3, 64] }), whole, "odd chunks");
        const count = blocksOf(ids.length);
        const shuffled = Array.from({ length: count }, (_, i) => 63 - ((i * 7) % count));
        assertSame(run(device, ids, { blocks: shuffled }), whole, "other blocks");
        const neighbour = randomIds(300, vocab, 4);
        const beside = (step: number): StepSequence[] => [
          {
            tokens: neighbour.slice(step * 5, step * 5 + 5),
            position: step * 5,
            blocks: Array.from({ length: blocksOf(neighbour.length) }, (_, i) => 40 + i),
            logits: "last",
          },
        ];
        assertSame(run(device, ids, { chunks: [13, 40], beside }), whole, "with a neighbour");
        const decoded = run(device, ids.slice(0, 30), { chunks: [1] });
        assertSame(decoded, whole.slice(0, 30), "token by token");
      });
    }
  }

  test(`.step() reads nothing but the sequence's own tokens`, async () => {
    using model = openSynthetic({ heads: 6, kvHeads: 2 });
    using device = await open(model, base);
    const ids = randomIds(37, model.config.vocab, 5);
    const clean = run(device, ids);
    const poison = new Uint8Array(device.blockBytes).fill(0xff);
    for (let block = 0; block < device.info.blocks; block++) device.writeBlock(block, poison);
    const blocks = [5, 9, 2].slice(0, blocksOf(ids.length));
    blocks.push(63, 63, 63, 63);
    assertSame(run(device, ids, { blocks }), clean, "poisoned pool");
  });

  test(`.step() reports log-sum-exp and the best candidates of each row`, async () => {
    using model = openSynthetic({});
    using device = await open(model, base);
    const output = device.step([{ tokens: [1, 2, 3], position: 0, blocks: [4], logits: "all" }]);
    assertEquals(output.rows, 3);
    for (let row = 0; row < 3; row++) {
      const logits = output.logits(row);
      const most = Math.max(...logits);
      const sum = logits.reduce((total, x) => total + Math.exp(x - most), 0);
      assertAlmostEquals(output.logSumExp(row), most + Math.log(sum), 1e-5);
      const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b).slice(0, 64);
      const top = output.top(row);
      assertEquals(Array.from(top.ids), order);
      assertEquals(Array.from(top.logits), order.map((id) => logits[id]));
    }
    assertThrows(() => output.logits(3), RangeError);
  });

  test(`.step() returns rows in batch order and none for a chunk that is not the last`, async () => {
    using model = openSynthetic({});
    using device = await open(model, base);
    const a = { tokens: [7, 8], position: 0, blocks: [0], logits: "last" as const };
    const b = { tokens: [9], position: 0, blocks: [1], logits: "none" as const };
    const c = { tokens: [3, 4, 5], position: 0, blocks: [2], logits: "all" as const };
    const output = device.step([a, b, c]);
    assertEquals(output.rows, 4);
    const together = [0, 1, 2, 3].map((row) => output.logits(row).slice());
    const alone = [device.step([a]).logits(0).slice()];
    const rows = device.step([c]);
    for (let row = 0; row < 3; row++) alone.push(rows.logits(row).slice());
    assertSame(together, alone, "together");
  });

  test(`.step() refuses what is out of range and writes nothing`, async () => {
    using model = openSynthetic({});
    using device = await open(model, { ...base, maxStepTokens: 32, maxLogitRows: 4 });
    const good: StepSequence = { tokens: [1], position: 0, blocks: [0], logits: "last" };
    const bad: [Partial<StepSequence>, string][] = [
      [{ tokens: [] }, "at least one token"],
      [{ tokens: [model.config.vocab] }, "token ids"],
      [{ tokens: [-1] }, "token ids"],
      [{ tokens: [1.5] }, "token ids"],
      [{ position: -1 }, "position"],
      [{ position: blockTokens }, "need 2 blocks"],
      [{ blocks: [64] }, "block ids"],
      [{ blocks: [-1] }, "block ids"],
      [{ tokens: Array(33).fill(1), blocks: [0, 1, 2] }, "at most 32 tokens"],
      [{ tokens: [1, 1, 1, 1, 1], logits: "all" }, "at most 4 rows"],
    ];
    device.step([good]);
    const before = device.readBlock(0);
    for (const [change, message] of bad) {
      assertThrows(() => device.step([{ ...good, tokens: [5] }, { ...good, ...change }]), RangeError, message);
    }
    assertEquals(device.readBlock(0), before);
  });

  test(`.readBlock() and writeBlock() move KV to another block`, async () => {
    using model = openSynthetic({});
    using device = await open(model, { ...base, kvType: kvTypes[1] ?? kvTypes[0] });
    const position = 2 * blockTokens;
    const ids = randomIds(position + 1, model.config.vocab, 9);
    const whole = run(device, ids);
    run(device, ids.slice(0, position), { blocks: [0, 1] });
    device.writeBlock(40, device.readBlock(0));
    device.writeBlock(41, device.readBlock(1));
    const output = device.step([{ tokens: [ids[position]], position, blocks: [40, 41, 7], logits: "last" }]);
    assertSame([output.logits(0).slice()], [whole[position]], "moved");
    assertThrows(() => device.readBlock(64), RangeError);
    assertThrows(() => device.writeBlock(0, new Uint8Array(3)), RangeError);
  });

  test(`.attend() of ranges merges to attention over the whole`, async () => {
    using model = openSynthetic({ heads: 6, kvHeads: 2 });
    const { heads, headDim } = model.config;
    using device = await open(model, base);
    const length = 2 * SEGMENT_TOKENS + 19;
    const blocks = Array.from({ length: blocksOf(length) }, (_, i) => i);
    run(device, randomIds(length, model.config.vocab, 11), { blocks });
    const random = new SeededRandom(2, "query");
    const query = Float32Array.from({ length: heads * headDim }, () => random.normal());
    const range = (start: number, end: number) => ({
      query,
      start,
      length: end - start,
      blocks: blocks.slice(start / blockTokens),
    });
    const whole = device.attend(1, [range(0, length)]);
    const parts = device.attend(1, [
      range(0, SEGMENT_TOKENS),
      range(SEGMENT_TOKENS, 2 * SEGMENT_TOKENS),
      range(2 * SEGMENT_TOKENS, length),
      range(0, 0),
    ]);
    for (let head = 0; head < heads; head++) {
      const lse = [0, 1, 2].map((part) => parts.lse[part * heads + head]);
      assertEquals(parts.lse[3 * heads + head], -Infinity);
      const most = Math.max(...lse);
      const total = most + Math.log(lse.reduce((sum, x) => sum + Math.exp(x - most), 0));
      assertAlmostEquals(whole.lse[head], total, 1e-5);
      for (let d = 0; d < headDim; d++) {
        const merged = lse.reduce(
          (sum, x, part) => sum + Math.exp(x - total) * parts.o[(part * heads + head) * headDim + d],
          0,
        );
        assertAlmostEquals(whole.o[head * headDim + d], merged, 1e-5);
        assertEquals(parts.o[(3 * heads + head) * headDim + d], 0);
      }
    }
    assertThrows(() => device.attend(2, [range(0, 16)]), RangeError, "layer");
    assertThrows(() => device.attend(0, [{ ...range(0, 16), start: 16 }]), RangeError, "start");
    assertThrows(() => device.attend(0, [{ ...range(0, 2 * blockTokens), blocks: [0] }]), RangeError, "need 2 blocks");
  });
}
