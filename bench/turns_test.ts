import { assertEquals, assertStringIncludes } from "@std/assert";
import type { Contestant } from "./contestant.ts";
import { ROWS } from "./rows.ts";
import { takeTurns } from "./turns.ts";

const ROW = ROWS[0];

interface FakeOptions {
  readonly log: string[];
  readonly fail?: (turn: number) => boolean;
  readonly maxSamples?: number;
}

function fake(name: string, { log, fail = () => false, maxSamples }: FakeOptions): Contestant {
  return {
    name,
    version: "1",
    rows: [ROW.id],
    maxSamples,
    warm: () => {
      log.push(`warm ${name}`);
      return Promise.resolve();
    },
    sample: (_row, turn) => {
      if (fail(turn)) return Promise.reject(new Error(`no turn ${turn}`));
      log.push(`${name}${turn}`);
      return Promise.resolve(turn);
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function run(contestants: readonly Contestant[], log: string[], repeats: number) {
  return takeTurns(ROW, {
    contestants,
    measureCeiling: (id) => {
      log.push(id);
      return Promise.resolve(1);
    },
    repeats,
    onSample: () => {},
  });
}

Deno.test("takeTurns() warms up first, then alternates with the ceilings in every turn", async () => {
  const log: string[] = [];
  const { contestants, ceilings } = await run([fake("a", { log }), fake("b", { log })], log, 2);
  assertEquals(log, ["warm a", "warm b", "read-1", "read", "a0", "b0", "read-1", "read", "b1", "a1"]);
  assertEquals(contestants.get("a"), [0, 1]);
  assertEquals(ceilings.get("read"), [1, 1]);
});

Deno.test("takeTurns() asks nobody for a row it has no figure for", async () => {
  const log: string[] = [];
  const { contestants } = await run([{ ...fake("a", { log }), rows: [] }], log, 1);
  assertEquals([...contestants], []);
});

Deno.test("takeTurns() stops asking a slow contestant after its most samples", async () => {
  const log: string[] = [];
  const { contestants } = await run([fake("a", { log }), fake("slow", { log, maxSamples: 1 })], log, 3);
  assertEquals(contestants.get("slow"), [0]);
  assertEquals(contestants.get("a"), [0, 1, 2]);
});

Deno.test("takeTurns() drops the figures of a contestant that fails and goes on", async () => {
  const log: string[] = [];
  const broken = fake("broken", { log, fail: (turn) => turn === 1 });
  const { contestants, failures } = await run([broken, fake("b", { log })], log, 3);
  assertEquals([...contestants.keys()], ["b"]);
  assertEquals(contestants.get("b"), [0, 1, 2]);
  assertStringIncludes(failures.get("broken") ?? "", "no turn 1");
});
