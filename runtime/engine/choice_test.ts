import { assertEquals } from "@std/assert";
import { Sequence } from "../../scheduler/sequence.ts";
import { Choice, type TakenToken } from "./choice.ts";
import type { SamplingParams } from "./request.ts";
import { TEST_VOCAB, testVocabulary } from "./test_device.ts";

const [STOP_A, STOP_B] = [94, 95];

/** Feeds rows that make `ids` the greedy choice, until one ends the text. */
function takeAll(ids: number[] | string, sampling: SamplingParams = {}, maxTokens = 20): TakenToken[] {
  const wanted = typeof ids === "string" ? Array.from(ids, (letter) => letter.charCodeAt(0) - 33) : ids;
  const sequence = new Sequence({
    id: 1,
    prompt: Int32Array.of(1),
    maxTokens,
    arrivedMs: 0,
    salt: new Uint8Array(32),
    blockTokens: 4,
  });
  const choice = new Choice({
    index: 0,
    sequence,
    sampling: { temperature: 0, ...sampling },
    seed: 0,
    vocab: TEST_VOCAB,
    vocabulary: testVocabulary(),
    eos: [STOP_A],
  });
  const taken: TakenToken[] = [];
  for (const id of wanted) {
    taken.push(choice.take(rowFor(id)));
    if (taken.at(-1)?.end !== undefined) break;
  }
  return taken;
}

function rowFor(id: number) {
  const order = [id, ...Array.from({ length: TEST_VOCAB }, (_, other) => other).filter((other) => other !== id)];
  const logits = new Float32Array(TEST_VOCAB);
  order.forEach((one, place) => logits[one] = -place);
  const ids = Int32Array.from(order.slice(0, 64));
  return {
    vocab: TEST_VOCAB,
    logits,
    logSumExp: 0.4587,
    top: { ids, logits: Float32Array.from(ids, (one) => logits[one]) },
  };
}

function textOf(taken: TakenToken[]): string {
  return taken.map(({ text, end }) => text + (end?.text ?? "")).join("");
}

Deno.test("Choice.take() ends at the model's end token, which has no text and names no stop", () => {
  const taken = takeAll([40, STOP_A, 41]);
  assertEquals(taken.map(({ id }) => id), [40, STOP_A]);
  assertEquals(taken[1].end, { reason: "stop", text: "" });
  assertEquals(textOf(takeAll([40, STOP_A], { skipSpecial: false })), "I");
});

Deno.test("Choice.take() ends at a stop id and names it", () => {
  const taken = takeAll([40, 41, 42], { stopTokenIds: [41] });
  assertEquals(taken.at(-1)?.end, { reason: "stop", text: "", stop: 41 });
  assertEquals(textOf(taken), "I");
  assertEquals(textOf(takeAll([40, 41, 42], { stopTokenIds: [41], includeStop: true })), "IJ");
});

Deno.test("Choice.take() goes on past end tokens that are to be ignored, but not past stop ids", () => {
  const taken = takeAll([40, STOP_A, STOP_B, 41], { ignoreEos: true, stopTokenIds: [STOP_B], skipSpecial: false });
  assertEquals(taken.length, 3);
  assertEquals(textOf(taken), "I<94>");
});

Deno.test("Choice.take() ends at the length and releases the text held back", () => {
  const taken = takeAll("abcSTx", { stop: ["STOP"] }, 5);
  assertEquals(taken.map(({ text }) => text), ["a", "b", "c", "", ""]);
  assertEquals(taken[4].end, { reason: "length", text: "ST" });
});

Deno.test("Choice.take() ends at a stop string across tokens, with or without it", () => {
  const taken = takeAll("abSTOPcd", { stop: ["STOP"] });
  assertEquals(taken.length, 6);
  assertEquals(taken.at(-1)?.end, { reason: "stop", text: "", stop: "STOP" });
  assertEquals(textOf(taken), "ab");
  assertEquals(textOf(takeAll("abSTOPcd", { stop: ["STOP"], includeStop: true })), "abSTOP");
});

Deno.test("Choice.take() releases the text held back when an end token comes first", () => {
  const ids = [..."abST"].map((letter) => letter.charCodeAt(0) - 33);
  const taken = takeAll([...ids, STOP_A], { stop: ["STOP"] });
  assertEquals(taken.at(-1)?.end, { reason: "stop", text: "ST" });
});

Deno.test("Choice.take() lets no stop string end the text before minTokens", () => {
  const taken = takeAll("xxaxxbx", { stop: ["x"], minTokens: 4 });
  assertEquals(taken.map(({ text }) => text), ["x", "x", "a", ""]);
  assertEquals(taken.at(-1)?.end, { reason: "stop", text: "", stop: "x" });
});

Deno.test("Choice.take() chooses no end id before minTokens", () => {
  const taken = takeAll([STOP_A, STOP_B, STOP_A], { minTokens: 2, stopTokenIds: [STOP_B] });
  assertEquals(taken.map(({ id }) => id), [0, 0, STOP_A]);
});

Deno.test("Choice.cut() releases the text held back", () => {
  const sequence = new Sequence({
    id: 1,
    prompt: Int32Array.of(1),
    maxTokens: 9,
    arrivedMs: 0,
    salt: new Uint8Array(32),
    blockTokens: 4,
  });
  const choice = new Choice({
    index: 0,
    sequence,
    sampling: { temperature: 0, stop: ["STOP"] },
    seed: 0,
    vocab: TEST_VOCAB,
    vocabulary: testVocabulary(),
    eos: [],
  });
  assertEquals(choice.take(rowFor("S".charCodeAt(0) - 33)).text, "");
  assertEquals(choice.cut("cancelled"), { reason: "cancelled", text: "S" });
});
