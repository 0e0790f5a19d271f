import { assert, assertEquals } from "@std/assert";
import { blockAt, canGuess, matchGuess, stepBehind } from "./cuda_guess.ts";
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

Deno.test("canGuess() wants to know how every token is chosen, and a block for the one behind it", () => {
  assert(canGuess([sequence(10, 1), sequence(190, 2)]));
  assert(!canGuess([sequence(10, 1), sequence(191, 2)]));
  assert(!canGuess([sequence(10, 1, { next: undefined })]));
  assert(!canGuess([sequence(10, 1, { next: { mode: { kind: "host" }, accepted: 0 } })]));
  assert(!canGuess([sequence(10, 1, { logits: "none" })]));
});

Deno.test("stepBehind() goes one position on", () => {
  assertEquals(stepBehind([sequence(63, 9)]).map(({ position, blocks }) => [position, blocks]), [[64, [3, 4, 5]]]);
  assertEquals([63, 64].map((position) => blockAt(sequence(0, 0), position)), [3, 4]);
});

Deno.test("matchGuess() finds every sequence in order and leaves over those that have ended", () => {
  const guess = [
    { position: 10, block: 3, token: 7 },
    { position: 70, block: 4, token: 8 },
    { position: 10, block: 9, token: 7 },
  ];
  const other = sequence(10, 7, { blocks: [9] });
  assertEquals(matchGuess([sequence(10, 7), sequence(70, 8), other], guess), [0, 1, 2]);
  assertEquals(matchGuess([sequence(70, 8), other], guess), [1, 2]);
  assertEquals(matchGuess([other], guess), [2]);
  assertEquals(matchGuess([], guess), []);
});

Deno.test("matchGuess() refuses another token, position, block or order, and tokens the GPU could not tell", () => {
  const guess = [{ position: 10, block: 3, token: 7 }, { position: 70, block: 4, token: undefined }];
  assertEquals(matchGuess([sequence(10, 8)], guess), undefined);
  assertEquals(matchGuess([sequence(11, 7)], guess), undefined);
  assertEquals(matchGuess([sequence(10, 7, { blocks: [2] })], guess), undefined);
  assertEquals(matchGuess([sequence(70, 8)], guess), undefined);
  assertEquals(matchGuess([sequence(10, 7, { logits: "none" })], guess), undefined);
  assertEquals(matchGuess([sequence(10, 7), sequence(10, 7)], guess), undefined);
});
