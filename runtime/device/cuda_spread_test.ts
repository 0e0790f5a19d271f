import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { NODE_LIST_WORDS, NODE_WORDS, TASK_WORDS } from "../../kernels/attend_partial/attend_plain_cuda.ts";
import { planSpread, type SpreadPlan } from "./cuda_spread.ts";
import { SEGMENT_TOKENS, type StepSequence } from "./device.ts";
import { sequenceNodes } from "./step_nodes.ts";

function records(plan: SpreadPlan, at: number, { words, count }: { words: number; count: number }): number[][] {
  return Array.from({ length: count }, (_, i) => [...plan.words.subarray(at + words * i, at + words * (i + 1))]);
}

Deno.test("planSpread() covers what each token sees exactly once: here by tasks, elsewhere by slots that come first", () => {
  const sequence = fc.record({
    segments: fc.integer({ min: 1, max: 9 }),
    tail: fc.integer({ min: 0, max: 300 }),
    tokens: fc.integer({ min: 1, max: 3 }),
    from: fc.integer({ min: 0, max: 8 }),
    count: fc.integer({ min: 0, max: 4 }),
  });
  fc.assert(fc.property(fc.array(sequence, { minLength: 1, maxLength: 4 }), (parts) => {
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
    const tableWidth = 1000;
    const plan = planSpread({ batch, nodes, tableWidth, kernels: { prefill: false, decode: false } });
    const tasks = records(plan, plan.places.tasks, { words: TASK_WORDS, count: plan.tasks });
    const lists = records(plan, plan.places.lists, { words: NODE_LIST_WORDS, count: plan.tokens });
    const used = new Set<number>();
    let [token, row] = [0, 0];
    for (const [index, one] of batch.entries()) {
      const spread = nodes[index].length > 0;
      assertEquals(plan.firstRow[index], spread ? row : undefined);
      for (let i = 0; i < one.tokens.length; i++, token++) {
        assertEquals(plan.words[plan.places.wholeTables + token], spread ? -1 : index);
        if (!spread) continue;
        assertEquals(plan.words[plan.places.tokens + row], token);
        const [listed, first, count] = lists[row++];
        assertEquals([listed, count], [token, nodes[index].length]);
        let seen = 0;
        for (const [number, node] of nodes[index].entries()) {
          const at = plan.places.nodes + NODE_WORDS * (first + number);
          const [level, place, slot] = plan.words.subarray(at, at + NODE_WORDS);
          assertEquals([2 ** level, place * 2 ** level], [node.segments, node.first]);
          assertEquals(slot, plan.slotOf[index][number] + i);
          assert(slot < plan.slots && !used.has(slot));
          used.add(slot);
          assertEquals(slot < plan.remoteSlots, !node.local);
          const begin = node.first * SEGMENT_TOKENS;
          if (node.local) {
            const [query, table, from, to] = tasks.find((task) => task[4] === slot) ?? [];
            assertEquals([query, table, from], [token, index * tableWidth, begin]);
            assertEquals(to, Math.max(begin, Math.min(begin + node.segments * SEGMENT_TOKENS, one.position + i + 1)));
            seen += to - from;
          } else {
            seen += node.segments * SEGMENT_TOKENS;
          }
        }
        assertEquals(seen, one.position + i + 1);
      }
    }
    assertEquals(used.size, plan.slots);
  }));
});
