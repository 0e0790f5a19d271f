import { assertEquals, assertThrows } from "@std/assert";
import { type BorrowedSlot, slotKey } from "./borrowed.ts";
import { BorrowedSegments } from "./borrowed_segments.ts";

function slot(index: number, { lease = 1, incarnation = "0" } = {}): BorrowedSlot {
  return { creditor: { name: "holder", incarnation }, lease, stamp: lease, slot: index };
}

/** The books, and what was given back. */
function open() {
  const released: string[][] = [];
  return { books: new BorrowedSegments((slots) => released.push(slots.map(slotKey))), released };
}

Deno.test("BorrowedSegments gives a slot back with its last reference, once", () => {
  const { books, released } = open();
  books.hold(slot(0));
  books.use(slot(0), "a");
  books.use(slot(0), "a");
  assertEquals([books.used, books.size, books.uses(slot(0))], [1, 1, 2]);
  books.drop([slot(0)]);
  books.dropUses([slot(0)]);
  assertEquals([released.length, books.find("a")], [0, slot(0)]);
  books.dropUses([slot(0)]);
  assertEquals([released, books.size, books.find("a")], [[["holder/0/1/0"]], 0, undefined]);
  books.drop([slot(0)]);
  assertEquals(released.length, 1);
});

Deno.test("BorrowedSegments finds content only while a live sequence uses it", () => {
  const { books, released } = open();
  books.hold(slot(0));
  books.use(slot(0), "a");
  books.retire([slot(0)]);
  assertEquals([books.find("a"), books.used, released.length], [undefined, 0, 0]);
  books.checkIntegrity({ tables: [], others: [slot(0), slot(0)] });
  books.drop([slot(0), slot(0)]);
  assertEquals(released.length, 1);
});

Deno.test("BorrowedSegments.lose() forgets slots without giving them back", () => {
  const { books, released } = open();
  const others = slot(0, { incarnation: "1" });
  for (const one of [slot(0), slot(1), slot(0, { lease: 2 }), others]) books.hold(one);
  books.use(slot(0), "a");
  assertEquals(books.lose("0", new Set([1])), [slot(0), slot(1)]);
  assertEquals([books.has(slot(0)), books.has(slot(0, { lease: 2 })), books.find("a")], [false, true, undefined]);
  assertEquals(books.lose("0"), [slot(0, { lease: 2 })]);
  books.dropUses([slot(0)]);
  assertEquals([released.length, [...books.byIncarnation().keys()]], [0, ["1"]]);
  assertThrows(() => books.use(slot(0), undefined), RangeError, "wanted one that was granted");
});

Deno.test("BorrowedSegments.checkIntegrity() names what does not add up", () => {
  const { books } = open();
  books.hold(slot(0));
  books.checkIntegrity({ tables: [], others: [slot(0)] });
  assertThrows(() => books.checkIntegrity({ tables: [], others: [] }), Error, "counted 0 uses and 1 references");
  assertThrows(() => books.checkIntegrity({ tables: [], others: [slot(1)] }), Error, "referred to, not known");
});
