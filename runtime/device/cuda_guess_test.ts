import { assert, assertEquals } from "@std/assert";
import {
  blockAt,
  canFollow,
  type GuessedSequence,
  lastRows,
  matchGuess,
  stepBehind,
  writtenBlocks,
} from "./cuda_guess.ts";
import type { StepSequence } from "./device.ts";

function sequence(position: number, token: number, parts: Partial<StepSequence> = {}): StepSequence {
  return {
    tokens: [token],
    position,
    blocks: [3, 4, 5],
    logits: "last",
    next: { mode: { kind: "greedy" }, accepted: 1 },
    ...parts,
  };
}

function canGoOn(batch: readonly StepSequence[]): boolean {
  const behind = stepBehind(batch);
  return behind !== undefined && canFollow(batch, behind);
}

function guessed(position: number, block: number, token: number | undefined): GuessedSequence {
  return { sequence: sequence(position, 0, { blocks: [block, block, block] }), chosen: { token } };
}

Deno.test("canFollow() wants to know how every token is chosen, and a block for the one behind it", () => {
  assert(canGoOn([sequence(10, 1), sequence(190, 2)]));
  assert(!canGoOn([sequence(10, 1), sequence(191, 2)]));
  assert(!canGoOn([sequence(10, 1, { next: undefined })]));
  assert(!canGoOn([sequence(10, 1, { next: { mode: { kind: "host" }, accepted: 0 } })]));
  assert(!canGoOn([sequence(10, 1, { logits: "none" })]));
  assert(!canGoOn([]));
});

Deno.test("canFollow() takes known tokens behind anything, in blocks that are there", () => {
  const front = [sequence(0, 1, { tokens: [1, 2, 3], logits: "none" })];
  const behind = (parts: Partial<StepSequence>) => ({
    batch: [sequence(3, 0, { tokens: [4, 5], ...parts })],
    sources: [undefined],
  });
  assert(canFollow(front, behind({})));
  assert(canFollow(front, behind({ position: 190 })));
  assert(!canFollow(front, behind({ position: 191 })));
  assert(!canFollow(front, behind({ tokens: [] })));
  assert(!canFollow(front, behind({ position: 512, absent: [{ from: 0, to: 1 }] })));
  assert(!canFollow(front, { batch: [sequence(3, 0)], sources: [0] }));
});

Deno.test("stepBehind() goes one position on, behind single tokens alone", () => {
  const behind = stepBehind([sequence(63, 9)]);
  assertEquals(behind?.batch.map(({ position, blocks }) => [position, blocks]), [[64, [3, 4, 5]]]);
  assertEquals(behind?.sources, [0]);
  assertEquals(stepBehind([sequence(63, 9), sequence(0, 1, { tokens: [1, 2] })]), undefined);
  assertEquals([63, 64].map((position) => blockAt(sequence(0, 0), position)), [3, 4]);
});

Deno.test("lastRows() counts the rows of every sequence", () => {
  const parts: Partial<StepSequence>[] = [
    {},
    { tokens: [1, 2, 3], logits: "all" },
    { tokens: [1, 2], logits: "none" },
    { tokens: [1, 2] },
  ];
  assertEquals(lastRows(parts.map((part) => sequence(0, 1, part))), [0, 3, 3, 4]);
});

Deno.test("matchGuess() finds every sequence in order and leaves over those that have ended", () => {
  const guess = [guessed(10, 3, 7), guessed(70, 4, 8), guessed(10, 9, 7)];
  const other = sequence(10, 7, { blocks: [9] });
  assertEquals(matchGuess([sequence(10, 7), sequence(70, 8), other], guess), [0, 1, 2]);
  assertEquals(matchGuess([sequence(70, 8), other], guess), [1, 2]);
  assertEquals(matchGuess([other], guess), [2]);
  assertEquals(matchGuess([], guess), []);
});

Deno.test("matchGuess() refuses another token, position, block or order, and tokens the GPU could not tell", () => {
  const guess = [guessed(10, 3, 7), guessed(70, 4, undefined)];
  assertEquals(matchGuess([sequence(10, 8)], guess), undefined);
  assertEquals(matchGuess([sequence(11, 7)], guess), undefined);
  assertEquals(matchGuess([sequence(10, 7, { blocks: [2] })], guess), undefined);
  assertEquals(matchGuess([sequence(70, 8)], guess), undefined);
  assertEquals(matchGuess([sequence(10, 7, { logits: "none" })], guess), undefined);
  assertEquals(matchGuess([sequence(10, 7), sequence(10, 7)], guess), undefined);
});

Deno.test("matchGuess() gives the rows of parts of prompts, and wants their tokens, blocks and rows the same", () => {
  const part = (parts: Partial<StepSequence> = {}) => sequence(100, 0, { tokens: [1, 2, 3], logits: "none", ...parts });
  const all = sequence(0, 0, { tokens: [4, 5], logits: "all", blocks: [8] });
  const guess = [guessed(10, 3, 7), { sequence: part() }, { sequence: all }, { sequence: sequence(0, 6) }];
  assertEquals(matchGuess([sequence(10, 7), part(), all, sequence(0, 6)], guess), [0, 1, 2, 3]);
  assertEquals(matchGuess([part(), sequence(0, 6)], guess), [3]);
  assertEquals(matchGuess([part({ tokens: [1, 2, 4] })], guess), undefined);
  assertEquals(matchGuess([part({ tokens: [1, 2] })], guess), undefined);
  assertEquals(matchGuess([part({ blocks: [2, 4] })], guess), undefined);
  assertEquals(matchGuess([part({ logits: "last" })], guess), undefined);
});

Deno.test("writtenBlocks() lists the blocks of new tokens", () => {
  const long = sequence(60, 0, { tokens: Array.from({ length: 70 }, () => 1) });
  assertEquals([...writtenBlocks([sequence(63, 1, { blocks: [7, 8] }), long])], [7, 3, 4, 5]);
  assertEquals([...writtenBlocks([sequence(0, 0, { tokens: Array.from({ length: 64 }, () => 1) })])], [3]);
});
