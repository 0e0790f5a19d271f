import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import type { SegmentRange, StepOutput, StepSequence } from "../../runtime/device/device.ts";
import { ToyDevice } from "./toy_device.ts";
import { TOY_VOCAB, TOY_WIDTH, toyGreedy } from "./toy_model.ts";
import { ToyStore } from "./toy_store.ts";

const BLOCK_TOKENS = 4;
const SEGMENT_TOKENS = 8;

function fault(message: string): never {
  throw new Error(message);
}

function openDevice(options: { blocks?: number; onFault?: (message: string) => void } = {}): ToyDevice {
  const { blocks = 32, onFault = fault } = options;
  return new ToyDevice({
    blocks,
    blockTokens: BLOCK_TOKENS,
    segmentTokens: SEGMENT_TOKENS,
    maxStepTokens: 64,
    maxLogitRows: 8,
    onFault,
  });
}

function tokensOf(length: number): number[] {
  return Array.from({ length }, (_, i) => (i * 37 + 11) % TOY_VOCAB);
}

function greedyOf(output: StepOutput): number {
  return output.top(0).ids[0];
}

/** Runs a step whose absent segments lie in `holder`, in the blocks of the same number. */
function runSpread(
  home: ToyDevice,
  options: { holder: ToyStore; sequence: StepSequence; budget?: number },
): StepOutput {
  const { holder, sequence, budget } = options;
  const step = home.begin([sequence]);
  const perSegment = SEGMENT_TOKENS / BLOCK_TOKENS;
  for (;;) {
    const stop = step.next(budget);
    if (stop.kind === "done") return stop.output;
    if (stop.kind !== "partials") continue;
    for (const { from, to } of sequence.absent ?? []) {
      const blocks = Array.from({ length: (to - from) * perSegment }, (_, i) => sequence.blocks[from * perSegment + i]);
      const [partials] = holder.attendNodes(stop.layer, [{ queries: step.queries(0), segments: { from, to }, blocks }]);
      for (const { node, o, lse } of partials) step.put(0, node, { o, lse });
    }
  }
}

Deno.test("ToyDevice.step() answers as the model run alone, in any cut of the prompt", () => {
  const prompt = tokensOf(30);
  const blocks = Array.from({ length: 9 }, (_, i) => 20 - i);
  const expected = toyGreedy(prompt, 1)[0];
  for (const chunk of [1, 7, 30]) {
    const device = openDevice();
    let output: StepOutput | undefined;
    for (let position = 0; position < 30; position += chunk) {
      output = device.step([{ tokens: prompt.slice(position, position + chunk), position, blocks, logits: "last" }]);
    }
    assertEquals(output && greedyOf(output), expected);
  }
});

Deno.test("ToyDevice.begin() answers the same wherever whole segments lie", () => {
  const prompt = tokensOf(60);
  const blocks = Array.from({ length: 16 }, (_, i) => i);
  const expected = toyGreedy(prompt, 1)[0];
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 127 }), fc.integer({ min: 1, max: 3 }), (mask, chunk) => {
      const position = 56;
      const whole = openDevice();
      for (let at = 0; at < position; at += 28) {
        whole.step([{ tokens: prompt.slice(at, at + 28), position: at, blocks, logits: "none" }]);
      }
      const home = openDevice();
      const absent: SegmentRange[] = [];
      for (let segment = 0; segment < 7; segment++) {
        if ((mask >> segment & 1) === 1) absent.push({ from: segment, to: segment + 1 });
        else for (const block of [2 * segment, 2 * segment + 1]) home.writeBlock(block, whole.readBlock(block));
      }
      let output: StepOutput | undefined;
      for (let at = position; at < 60; at += chunk) {
        const tokens = prompt.slice(at, at + chunk);
        const sequence = { tokens, position: at, blocks, absent, logits: "last" } as const;
        output = runSpread(home, { holder: whole, sequence, budget: 100 });
      }
      assertEquals(output && greedyOf(output), expected);
    }),
    { numRuns: 40 },
  );
});

Deno.test("ToyDevice tells of a token that is attended to twice or not at all", () => {
  const faults: string[] = [];
  const device = openDevice({ onFault: (message) => faults.push(message) });
  const prompt = tokensOf(17);
  const blocks = [0, 1, 2, 3, 4];
  device.step([{ tokens: prompt.slice(0, 16), position: 0, blocks, logits: "none" }]);
  const step = device.begin([{
    tokens: prompt.slice(16),
    position: 16,
    blocks,
    absent: [{ from: 0, to: 1 }],
    logits: "last",
  }]);
  assertEquals(step.next(), { kind: "queries", layer: 0 });
  assertEquals(step.next(), { kind: "partials", layer: 0 });
  assertThrows(() => step.next(), Error, "misses the partial of 1 segments at 0");
  const empty = { o: new Float32Array(TOY_WIDTH), lse: new Float32Array(2).fill(-Infinity) };
  step.put(0, { first: 0, segments: 1 }, empty);
  assertEquals(step.next(), { kind: "queries", layer: 1 });
  assertEquals(faults, ["I10: the query at position 16 attends to 9 tokens, wanted 17"]);
  step.abandon();
  device.step([{ tokens: [1], position: 0, blocks: [7], logits: "none" }]);
});

Deno.test("ToyStore tells of KV that nobody wrote, was freed, or is of another position", () => {
  const faults: string[] = [];
  const device = openDevice({ onFault: (message) => faults.push(message) });
  const blocks = [3, 4];
  device.step([{ tokens: tokensOf(8), position: 0, blocks, logits: "none" }]);
  const queries = new Float32Array(TOY_WIDTH).fill(5);
  device.attendNodes(1, [{ queries, segments: { from: 0, to: 1 }, blocks }]);
  assertEquals(faults, []);
  device.attendNodes(1, [{ queries, segments: { from: 2, to: 3 }, blocks }]);
  assertEquals(faults[0], "I2: block 3 is read for position 16 of layer 1, it holds KV of position 0");
  faults.length = 0;
  device.poison(4);
  device.attendNodes(0, [{ queries, segments: { from: 0, to: 1 }, blocks }]);
  assertEquals(faults[0], "I2: block 4 is read for position 4 of layer 0, it holds nothing");
});

Deno.test("ToyStore.writeBlock() brings over what readBlock() took", () => {
  const device = openDevice();
  device.step([{ tokens: tokensOf(8), position: 0, blocks: [0, 1], logits: "none" }]);
  const store = new ToyStore({ blocks: 4, blockTokens: BLOCK_TOKENS, onFault: fault });
  for (const block of [0, 1]) store.writeBlock(block + 2, device.readBlock(block));
  const queries = Float32Array.from({ length: TOY_WIDTH }, (_, i) => i * 100);
  const segments = { from: 0, to: 1 };
  assertEquals(
    store.attendNodes(1, [{ queries, segments, blocks: [2, 3] }]),
    device.attendNodes(1, [{ queries, segments, blocks: [0, 1] }]),
  );
  assertThrows(() => store.writeBlock(0, new Uint8Array(3)), RangeError, "wanted 256 bytes, got 3");
  assertThrows(() => store.readBlock(4), RangeError, "wanted an id in 0..3, got 4");
});

Deno.test("ToyDevice answers differently when one token of the context differs", () => {
  const prompt = tokensOf(40);
  const answers = toyGreedy(prompt, 6);
  for (const at of [0, 17, 39]) {
    const other = prompt.with(at, (prompt[at] + 1) % TOY_VOCAB);
    assertNotEquals(toyGreedy(other, 6), answers);
  }
  assert(new Set(answers).size > 1);
});
