import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { SEGMENT_TOKENS } from "./device.ts";
import { sequenceNodes } from "./step_nodes.ts";

Deno.test("sequenceNodes() gives no nodes when no segment is absent", () => {
  assertEquals(sequenceNodes({ tokens: [1], position: 700, blocks: [], logits: "none" }), []);
  assertEquals(sequenceNodes({ tokens: [1], position: 700, blocks: [], absent: [], logits: "none" }), []);
});

Deno.test("sequenceNodes() covers every segment once, in order, with whole nodes of the tree", () => {
  const size = fc.integer({ min: 1, max: 9 });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 0, max: 9 }), size), { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 0, max: 1000 }),
      fc.constantFrom(1, 2, 4, undefined),
      (gaps, extra, mostSegments) => {
        let end = 0;
        const absent = gaps.map(([gap, length]) => ({ from: end + gap, to: end += gap + length }));
        const position = end * SEGMENT_TOKENS + extra;
        const nodes = sequenceNodes({ tokens: [1, 2], position, blocks: [], absent, logits: "none" }, { mostSegments });
        let next = 0;
        for (const { first, segments, local } of nodes) {
          assertEquals(first, next);
          assert(Number.isInteger(Math.log2(segments)) && first % segments === 0);
          assert(!local || segments <= (mostSegments ?? Infinity));
          const inside = absent.some(({ from, to }) => first >= from && first + segments <= to);
          const apart = absent.every(({ from, to }) => first + segments <= from || first >= to);
          assert(local ? apart : inside);
          next += segments;
        }
        assertEquals(next, Math.ceil((position + 2) / SEGMENT_TOKENS));
      },
    ),
    { seed: 3 },
  );
});
