import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { NODE_LIST_WORDS, NODE_WORDS, TASK_WORDS } from "../../kernels/attend_partial/attend_plain_cuda.ts";
import { planSpread, type SpreadPlan } from "./cuda_spread.ts";
import { SEGMENT_TOKENS, type StepSequence } from "./device.ts";
import { sequenceNodes } from "./step_nodes.ts";

const TABLE_WIDTH = 1000;

/** What attends to [from, to) for a token and leaves it in a slot; a sequence by its table. */
interface Range {
  readonly token: number;
  readonly table: number;
  readonly from: number;
  readonly to: number;
}

function records(plan: SpreadPlan, at: number, { words, count }: { words: number; count: number }): number[][] {
  return Array.from({ length: count }, (_, i) => [...plan.words.subarray(at + words * i, at + words * (i + 1))]);
}

/** Ranges by slot, whichever kernel attends to them. */
function rangesBySlot(plan: SpreadPlan): Map<number, Range> {
  const ranges = new Map<number, Range>();
  const add = (slot: number, range: Range) => {
    assert(!ranges.has(slot) && slot >= plan.remoteSlots && slot < plan.slots, `slot ${slot}`);
    ranges.set(slot, range);
  };
  for (
    const [token, table, from, to, slot] of records(plan, plan.places.tasks, { words: TASK_WORDS, count: plan.tasks })
  ) {
    add(slot, { token, table: table / TABLE_WIDTH, from, to });
  }
  for (let job = 0; job < plan.jobs; job++) {
    const word = plan.words[plan.places.jobTables + job];
    const from = word % TABLE_WIDTH * 64;
    const to = from + plan.words[plan.places.jobLengths + job];
    const token = plan.words[plan.places.jobTokens + job];
    add(plan.remoteSlots + job, { token, table: Math.floor(word / TABLE_WIDTH), from, to });
  }
  for (const { queryRow, tokens, position, kvBegin = 0, kvEnd = Infinity, table, output } of plan.chunks) {
    if (output.kind === "final") continue;
    for (let i = 0; i < tokens; i++) {
      const to = Math.max(kvBegin, Math.min(kvEnd, position + i + 1));
      add(output.row + i, { token: queryRow + i, table: table / TABLE_WIDTH, from: kvBegin, to });
    }
  }
  return ranges;
}

const sequence = fc.record({
  segments: fc.integer({ min: 1, max: 9 }),
  tail: fc.integer({ min: 0, max: 300 }),
  tokens: fc.integer({ min: 1, max: 3 }),
  from: fc.integer({ min: 0, max: 8 }),
  count: fc.integer({ min: 0, max: 4 }),
});
const KERNELS = fc.record({ prefill: fc.boolean(), decode: fc.boolean() });

Deno.test("planSpread() covers what each token sees exactly once: here by some kernel, elsewhere by slots that come first", () => {
  fc.assert(fc.property(fc.array(sequence, { minLength: 1, maxLength: 4 }), KERNELS, (parts, kernels) => {
    const batch = parts.map(({ segments, tail, tokens, from, count }): StepSequence => {
      const to = Math.min(from + count, segments);
      return {
        tokens: Array.from({ length: tokens }, () => 1),
        position: segments * SEGMENT_TOKENS + tail,
        blocks: [],
        logits: "last",
        absent: from < to ? [{ from, to }] : [],
      };
    });
    const nodes = batch.map((one) => sequenceNodes(one));
    const plan = planSpread({ batch, nodes, tableWidth: TABLE_WIDTH, kernels });
    const ranges = rangesBySlot(plan);
    const lists = new Map(
      records(plan, plan.places.lists, { words: NODE_LIST_WORDS, count: plan.lists }).map((list) => [list[0], list]),
    );
    const finals = new Map(
      plan.chunks.filter(({ output }) => output.kind === "final").map((one) => [one.queryRow, one]),
    );
    const used = new Set<number>();
    let [token, row] = [0, 0];
    for (const [index, one] of batch.entries()) {
      const spread = nodes[index].length > 0;
      assertEquals(plan.firstRow[index], spread ? row : undefined);
      const final = finals.get(token);
      if (final !== undefined) {
        assertEquals([spread, final.tokens, final.position], [false, one.tokens.length, one.position]);
        assertEquals([final.table, final.output.row], [index * TABLE_WIDTH, token]);
      }
      for (let i = 0; i < one.tokens.length; i++, token++) {
        const table = plan.words[plan.places.wholeTables + token];
        const list = lists.get(token);
        // Every token has one way to its result.
        assertEquals([table >= 0, list !== undefined, final !== undefined].filter((way) => way).length, 1);
        if (table >= 0) assertEquals([table, spread], [index, false]);
        if (spread) assertEquals(plan.words[plan.places.tokens + row++], token);
        if (list === undefined) continue;
        const [, first, count] = list;
        let seen = 0;
        for (let number = 0; number < count; number++) {
          const at = plan.places.nodes + NODE_WORDS * (first + number);
          const [level, place, slot] = plan.words.subarray(at, at + NODE_WORDS);
          assert(!used.has(slot) && slot < plan.slots);
          used.add(slot);
          const node = nodes[index].at(number);
          if (node !== undefined) assertEquals([2 ** level, place * 2 ** level], [node.segments, node.first]);
          if (node?.local === false) {
            assertEquals(slot, plan.slotOf[index][number] + i);
            assert(slot < plan.remoteSlots);
            seen += node.segments * SEGMENT_TOKENS;
            continue;
          }
          const range = ranges.get(slot);
          assert(range !== undefined);
          assertEquals([range.token, range.table, range.from], [token, index, (node?.first ?? 0) * SEGMENT_TOKENS]);
          seen += range.to - range.from;
        }
        assertEquals(seen, one.position + i + 1);
      }
    }
    assertEquals([used.size, plan.tokens], [plan.slots, row]);
  }));
});
