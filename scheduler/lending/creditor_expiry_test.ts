import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { ExpiryHeap } from "./creditor_expiry.ts";

Deno.test("ExpiryHeap.first is the lease that runs out first, renewals included", () => {
  const heap = new ExpiryHeap();
  heap.set(1, 100);
  heap.set(2, 200);
  heap.set(3, 300);
  heap.set(1, 400);
  assertEquals(heap.first?.lease, 2);
  heap.set(3, 50);
  assertEquals([heap.first?.lease, heap.first?.atMs], [3, 50]);
  assertEquals([heap.delete(3), heap.delete(3), heap.at(3)], [true, false, undefined]);
  assertEquals([heap.first?.lease, heap.size], [2, 2]);
});

Deno.test("ExpiryHeap agrees with a sorted map over random settings and deletions", () => {
  const step = fc.record({ lease: fc.nat(30), atMs: fc.option(fc.nat(1_000), { nil: undefined }) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200, size: "max" }), (steps) => {
      const heap = new ExpiryHeap();
      const model = new Map<number, number>();
      for (const { lease, atMs } of steps) {
        if (atMs === undefined) {
          assertEquals(heap.delete(lease), model.delete(lease));
        } else {
          heap.set(lease, atMs);
          model.set(lease, atMs);
        }
        heap.checkIntegrity();
        assertEquals(heap.size, model.size);
        assertEquals(heap.first?.atMs, model.size === 0 ? undefined : Math.min(...model.values()));
        if (heap.first !== undefined) assertEquals(model.get(heap.first.lease), heap.first.atMs);
      }
    }),
    { numRuns: 200 },
  );
});
