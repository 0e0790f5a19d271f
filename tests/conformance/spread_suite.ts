/**
 * What every {@linkcode Device} and its stores must do so that a sequence may lie on several instances.
 *
 * @module
 */
import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { segmentNodes } from "../../kernels/merge_partials/spec.ts";
import {
  type Device,
  type DeviceOptions,
  type KvLayout,
  type KvStore,
  SEGMENT_TOKENS,
  type SegmentRange,
  type StepSequence,
} from "../../runtime/device/device.ts";
import { kernelDigest } from "../../runtime/device/kernel_digest.ts";
import type { OpenModel } from "../../runtime/model/model.ts";
import { SeededRandom } from "../synthetic/random.ts";
import type { SyntheticSpec } from "../synthetic/spec.ts";
import { openSynthetic } from "./open_synthetic.ts";
import { bits, type Setting, SETTINGS, SpreadBench, TAIL } from "./spread_bench.ts";
import { runSpread, type Share, sharePartials, type SpreadOptions } from "./spread_sequence.ts";

/** How to run the suite. */
export interface SpreadSuite {
  /** Opens the device under test. */
  readonly open: (model: OpenModel, options: DeviceOptions) => Device | Promise<Device>;
  /** Opens a pool without weights. */
  readonly openStore: (options: { layout: KvLayout; blocks: number }) => KvStore | Promise<KvStore>;
  /** Whole segments of the test sequences, at least 2; more take longer. */
  readonly segments: number;
  /** Changes to the models, to make them smaller. @default {none} */
  readonly spec?: SyntheticSpec;
  /** Layouts the device has. @default {all} */
  readonly settings?: readonly Setting[];
  /** Why the tests cannot run here; then they are ignored. @default {they can} */
  readonly ignored?: string;
}

/** Absent ranges out of bounds that ascend. */
function rangesOf(bounds: readonly number[]): SegmentRange[] {
  const sorted = [...new Set(bounds)].sort((a, b) => a - b);
  const ranges: SegmentRange[] = [];
  for (let i = 0; i + 1 < sorted.length; i += 2) ranges.push({ from: sorted[i], to: sorted[i + 1] });
  return ranges;
}

/** Runs the suite. */
export function testSpread(device: string, suite: SpreadSuite): void {
  const { open, openStore, segments, settings = SETTINGS } = suite;
  const test = (name: string, fn: () => Promise<void>): void => {
    const because = suite.ignored === undefined ? "" : ` (ignored: ${suite.ignored})`;
    Deno.test({ name: `${name}${because}`, ignore: suite.ignored !== undefined, fn });
  };

  /** Opens everything, runs `body` and closes it. */
  async function withBench(
    setting: Setting,
    body: (bench: SpreadBench, stores: readonly KvStore[]) => void,
  ): Promise<void> {
    using model = openSynthetic({ ...setting.spec, ...suite.spec });
    using opened = await open(model, SpreadBench.options(setting, segments));
    using first = await openStore({ layout: opened.layout, blocks: opened.blocks });
    using second = await openStore({ layout: opened.layout, blocks: opened.blocks + 3 });
    body(new SpreadBench(opened, segments), [first, second]);
  }

  for (const setting of settings) {
    test(`${device}.begin() gives the same bits for any spread of a sequence: ${setting.name}`, async () => {
      await withBench(setting, (bench, stores) => {
        // All absent, in one piece and in two that touch.
        bench.check([{ from: 0, to: segments }], { stores, chunks: [TAIL], late: true });
        bench.check([{ from: 0, to: 1 }, { from: 1, to: segments }], { stores, chunks: [1, 7], beside: true });
        const bound = fc.integer({ min: 0, max: segments });
        fc.assert(
          fc.property(
            fc.array(bound, { minLength: 2, maxLength: 6 }),
            fc.array(fc.constantFrom(1, 2, 5, 17, TAIL), { minLength: 1, maxLength: 3 }),
            fc.boolean(),
            fc.boolean(),
            (bounds, chunks, beside, late) => {
              const absent = rangesOf(bounds);
              fc.pre(absent.length > 0);
              // Few tokens first: a long run of single steps would take long and show nothing new.
              bench.check(absent, { stores, chunks: [...chunks, TAIL], beside, late });
            },
          ),
          { numRuns: 8, seed: 5 },
        );
      });
    });

    test(`${device}.begin() gives the same bits for any budgets: ${setting.name}`, async () => {
      await withBench(setting, (bench, stores) => {
        let slices = 0;
        const onStop: SpreadOptions["onStop"] = (stop) => {
          if (stop.kind === "slice") slices++;
        };
        for (const most of [1, 1e5, 1e6]) {
          const budget = () => Math.ceil(most * bench.random.uniform());
          bench.check([], { stores, chunks: [TAIL], beside: true, budget, onStop });
          bench.check([{ from: 0, to: 1 }], { stores, chunks: [1, TAIL - 1], budget, onStop });
        }
        assert(slices > 0);
      });
    });
  }

  const setting = settings[0];

  test(`${device}.begin() lets others attend, read and write between slices`, async () => {
    await withBench(setting, (bench, stores) => {
      const { device, blocks } = bench;
      const { heads, headDim, blockTokens } = device.layout;
      const random = new SeededRandom(4, "queries");
      const queries = Float32Array.from({ length: 3 * heads * headDim }, () => random.normal());
      const segmentBlocks = SEGMENT_TOKENS / blockTokens;
      const share: Share = { from: 0, to: 2, store: device, blocks: blocks.slice(0, 2 * segmentBlocks) };
      const before = sharePartials(share, { layer: 1, queries });
      const spare = device.blocks - 4;
      const onStop: SpreadOptions["onStop"] = () => {
        assertEquals(sharePartials(share, { layer: 1, queries }), before);
        device.writeBlock(spare, device.readBlock(blocks[0]));
        assertEquals(device.readBlock(spare), device.readBlock(blocks[0]));
        device.attend(0, [{ query: queries.slice(0, heads * headDim), start: 0, length: 40, blocks }]);
      };
      bench.check([{ from: 1, to: 2 }], { stores, chunks: [1, TAIL], onStop, budget: () => 2e6 });
    });
  });

  test(`${device}.attendNodes() gives each node's partial, equal to attend() of its range`, async () => {
    await withBench(setting, (bench, [store]) => {
      const { device } = bench;
      const { heads, headDim, blockTokens } = device.layout;
      const segmentBlocks = SEGMENT_TOKENS / blockTokens;
      const random = new SeededRandom(8, "queries");
      const counts = [1, 40, 2];
      const [whole] = bench.shares([{ from: 0, to: segments }], [store]);
      const works = counts.map((count, index) => {
        const from = index === 1 ? 1 : 0;
        return {
          queries: Float32Array.from({ length: count * heads * headDim }, () => random.normal()),
          segments: { from, to: segments },
          blocks: whole.blocks.slice(from * segmentBlocks),
        };
      });
      const results = store.attendNodes(1, works);
      assertEquals(results.length, works.length);
      for (const [index, { queries, segments: { from, to } }] of works.entries()) {
        assertEquals(results[index].map(({ node }) => node), segmentNodes(from, to));
        for (const { node, o, lse } of results[index]) {
          assertEquals([o.length, lse.length], [queries.length, queries.length / headDim]);
          for (let token = 0; token < counts[index]; token++) {
            const row = token * heads;
            const partial = device.attend(1, [{
              query: queries.slice(row * headDim, (row + heads) * headDim),
              start: node.first * SEGMENT_TOKENS,
              length: node.segments * SEGMENT_TOKENS,
              blocks: bench.blocks.slice(node.first * segmentBlocks),
            }]);
            assertEquals(bits(o.slice(row * headDim, (row + heads) * headDim)), bits(partial.o));
            assertEquals(bits(lse.slice(row, row + heads)), bits(partial.lse));
          }
        }
      }
      assertEquals(store.attendNodes(0, []), []);
    });
  });

  test(`${device}.attendNodes() refuses what is out of range`, async () => {
    await withBench(setting, (bench, [store]) => {
      const { heads, headDim, layers } = store.layout;
      const [share] = bench.shares([{ from: 0, to: 1 }], [store]);
      const good = { queries: new Float32Array(heads * headDim), segments: { from: 0, to: 1 }, blocks: share.blocks };
      const refused: [Partial<typeof good>, string][] = [
        [{ queries: new Float32Array(0) }, "values for each token"],
        [{ queries: new Float32Array(heads * headDim + 1) }, "values for each token"],
        [{ segments: { from: 1, to: 1 } }, "at least one segment"],
        [{ segments: { from: -1, to: 1 } }, "at least one segment"],
        [{ segments: { from: 0.5, to: 1 } }, "at least one segment"],
        [{ segments: { from: 0, to: 2 ** 24 } }, "at least one segment"],
        [{ segments: { from: 0, to: 2 } }, "blocks"],
        [{ blocks: share.blocks.map(() => store.blocks) }, "block ids"],
        [{ blocks: share.blocks.map(() => -1) }, "block ids"],
      ];
      for (const [change, message] of refused) {
        assertThrows(() => store.attendNodes(0, [good, { ...good, ...change }]), RangeError, message);
      }
      assertThrows(() => store.attendNodes(layers, [good]), RangeError, "layer");
      assertEquals(store.attendNodes(0, [good])[0].length, 1);
      assertThrows(() => store.readBlock(store.blocks), RangeError);
      assertThrows(() => store.writeBlock(0, new Uint8Array(3)), RangeError);
    });
  });

  test(`${device}.begin() refuses absent ranges that are empty, out of order or not below the position`, async () => {
    await withBench(setting, (bench, stores) => {
      const { device } = bench;
      const position = segments * SEGMENT_TOKENS;
      const good: StepSequence = { tokens: [1], position, blocks: bench.blocks, logits: "last" };
      const refused: SegmentRange[][] = [
        [{ from: 1, to: 1 }],
        [{ from: 1, to: 0 }],
        [{ from: -1, to: 1 }],
        [{ from: 0, to: 0.5 }],
        [{ from: 1, to: 2 }, { from: 0, to: 1 }],
        [{ from: 0, to: 2 }, { from: 1, to: 2 }],
        [{ from: 0, to: segments + 1 }],
      ];
      for (const absent of refused) {
        assertThrows(() => device.begin([{ ...good, absent }]), RangeError, "absent");
      }
      const early = { ...good, position: position - 1, absent: [{ from: 0, to: segments }] };
      assertThrows(() => device.begin([early]), RangeError, "absent");
      const outside = bench.blocks.map((block, i) => i === 0 ? device.blocks : block);
      const absent = [{ from: 1, to: 2 }];
      assertThrows(() => device.begin([{ ...good, blocks: outside, absent }]), RangeError, "block ids");
      assertThrows(() => device.begin([{ ...good, blocks: bench.blocks.slice(0, 1), absent }]), RangeError, "blocks");
      assertThrows(() => device.step([{ ...good, absent: [{ from: 0, to: 1 }] }]), RangeError, "absent");
      bench.check([{ from: 0, to: 1 }], { stores, chunks: [TAIL] });
    });
  });

  test(`${device}.begin() takes one step at a time`, async () => {
    await withBench(setting, ({ device, blocks }) => {
      const batch: StepSequence[] = [{ tokens: [1, 2, 3], position: 0, blocks: blocks.slice(-1), logits: "last" }];
      const whole = bits(device.step(batch).logits(0));
      const first = device.begin(batch);
      assertEquals(first.next(1).kind, "slice");
      assertThrows(() => device.begin(batch), Error, "done or abandoned");
      assertThrows(() => device.step(batch), Error, "done or abandoned");
      first.abandon();
      first.abandon();
      assertThrows(() => first.next(), Error, "abandoned");
      const second = device.begin(batch);
      const stop = second.next();
      assert(stop.kind === "done");
      assertEquals(bits(stop.output.logits(0)), whole);
      assertThrows(() => second.next(), Error, "complete");
      second.abandon();
      assertEquals(bits(device.step(batch).logits(0)), whole);
    });
  });

  test(`${device}.begin() goes on only with every partial, each of a node that is absent`, async () => {
    await withBench(setting, (bench, stores) => {
      const { device, blocks } = bench;
      const { heads, headDim } = device.layout;
      const position = segments * SEGMENT_TOKENS;
      const absent = [{ from: 0, to: 1 }, { from: 1, to: 2 }];
      const shares = bench.shares(absent, stores);
      const sequence: StepSequence = {
        tokens: bench.ids.slice(position, position + 2),
        position,
        blocks,
        logits: "all",
      };
      const [plain, spread] = [{ ...sequence, tokens: [5], blocks: bench.blocks.slice(), position: 0 }, {
        ...sequence,
        absent,
      }];
      plain.blocks = [device.blocks - 1];
      const step = device.begin([plain, spread]);
      const none = { o: new Float32Array(2 * heads * headDim), lse: new Float32Array(2 * heads) };
      const node = { first: 0, segments: 1 };
      assertThrows(() => step.put(1, node, none), Error, "layer");
      assertThrows(() => step.queries(1), Error, "layer");
      for (let stop = step.next(); stop.kind !== "done"; stop = step.next()) {
        assert(stop.kind === "queries");
        assertEquals(step.queries(0).length, heads * headDim);
        const queries = step.queries(1).slice();
        assertEquals(queries.length, 2 * heads * headDim);
        assertThrows(() => step.put(1, { first: 0, segments: 2 }, none), RangeError, "segments 0 to 1 of sequence 1");
        assertThrows(() => step.put(1, { first: 2, segments: 1 }, none), RangeError, "segment 2");
        assertThrows(() => step.put(0, node, none), RangeError, "sequence 0");
        assertThrows(() => step.put(2, node, none), RangeError, "sequence");
        assertThrows(() => step.put(1, node, { ...none, lse: none.lse.slice(1) }), RangeError, "lse");
        assertThrows(() => step.put(1, node, { ...none, o: none.o.slice(1) }), RangeError, "lse");
        // Replaced below.
        step.put(1, node, none);
        const next = step.next();
        assertEquals(next, { kind: "partials", layer: stop.layer });
        assertThrows(() => step.next(), Error, "segment 1 of sequence 1");
        for (const share of shares) {
          for (const { node, ...partial } of sharePartials(share, { layer: stop.layer, queries })) {
            step.put(1, node, partial);
          }
        }
      }
      const again = runSpread(device, [{ ...plain, shares: [] }, { ...spread, shares }]);
      assertEquals([0, 1].map((row) => bits(again.logits(1 + row))), bench.whole.slice(0, 2));
    });
  });

  test(`kernelDigest() is the same for every pool of ${device} and tells layouts apart`, async () => {
    await withBench(setting, ({ device }, stores) => {
      const before = [0, 1].map((block) => device.readBlock(block));
      const digest = kernelDigest(device);
      assertEquals([0, 1].map((block) => device.readBlock(block)), before);
      assert(/^[0-9a-f]{64}$/.test(digest));
      for (const store of stores) assertEquals(kernelDigest(store), digest);
    });
    const pools = settings.map(({ options: { blockTokens = 16, kvType = "f16" } }) => ({ blockTokens, kvType }));
    const layout = { layers: 1, heads: 2, kvHeads: 1, headDim: 8 };
    const digests = await Promise.all(pools.map(async (pool) => {
      using store = await openStore({ layout: { ...layout, ...pool }, blocks: 1 });
      return kernelDigest(store);
    }));
    using wider = await openStore({ layout: { ...layout, ...pools[0], heads: 4 }, blocks: 2 });
    assertNotEquals(kernelDigest(wider), digests[0]);
  });
}
