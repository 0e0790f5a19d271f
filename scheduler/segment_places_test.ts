import { assertEquals } from "@std/assert";
import type { BorrowedSlot } from "./lending/borrowed.ts";
import { SegmentPlaces } from "./segment_places.ts";

function slot(lease: number): BorrowedSlot {
  return { creditor: { name: "holder", incarnation: "0" }, lease, stamp: lease, slot: 0 };
}

Deno.test("SegmentPlaces.remoteBelow() joins neighbours and leaves out what is not below", () => {
  const places = new SegmentPlaces(8);
  for (const segment of [5, 1, 2, 4, 0]) places.borrow(segment, slot(segment), 1);
  assertEquals(places.remoteBelow(Infinity).absent, [{ from: 0, to: 3 }, { from: 4, to: 6 }]);
  assertEquals(places.remoteBelow(5).absent, [{ from: 0, to: 3 }, { from: 4, to: 5 }]);
  assertEquals(places.remoteBelow(5).slots.map(({ segment, slot: { lease } }) => [segment, lease]), [
    [0, 0],
    [1, 1],
    [2, 2],
    [4, 4],
  ]);
  assertEquals(places.remoteBelow(0).slots, []);
});

Deno.test("SegmentPlaces.nextRepair() goes through lost segments in order, as far as they have blocks", () => {
  const places = new SegmentPlaces(8);
  for (const segment of [0, 1, 2, 3]) places.borrow(segment, slot(segment), 1);
  assertEquals(places.nextRepair(), undefined);
  for (const segment of [1, 2, 3]) places.lose(segment);
  assertEquals([places.lost, places.lostTokens, places.borrowed, places.withoutBlocks], [[1, 2, 3], 24, 1, 4]);
  assertEquals(places.nextRepair(), { position: 8, tokens: 0 }, "it has no blocks");
  places.mend(1, 0, 2);
  places.mend(2, 4, 2);
  assertEquals(places.nextRepair(), { position: 8, tokens: 8 }, "the next segment goes on where it was left");
  places.settle(8, 5, 3);
  assertEquals([places.nextRepair(), places.lostTokens], [{ position: 13, tokens: 3 }, 15]);
  places.settle(13, 3, 4);
  assertEquals([places.nextRepair(), places.at(1)], [{ position: 20, tokens: 4 }, undefined]);
  places.mend(3, 0, 4);
  assertEquals(places.nextRepair(), { position: 20, tokens: 12 });
  places.settle(20, 12, 5);
  assertEquals([places.nextRepair(), places.lostTokens, places.size], [undefined, 0, 1]);
  assertEquals([0, 1, 2, 7].map((segment) => places.sinceMs(segment)), [1, 4, 5, 0]);
});

Deno.test("SegmentPlaces.nextRepair() turns back to a segment that is lost later and lies before", () => {
  const places = new SegmentPlaces(8);
  places.borrow(0, slot(0), 1);
  places.borrow(1, slot(1), 1);
  places.lose(1);
  places.mend(1, 6, 2);
  places.lose(0);
  assertEquals(places.nextRepair(), { position: 0, tokens: 0 });
  places.mend(0, 0, 3);
  assertEquals(places.nextRepair(), { position: 0, tokens: 8 });
  assertEquals([places.brokenCount, places.firstBroken], [2, 0]);
  places.clear(9);
  assertEquals([places.size, places.lostTokens, places.sinceMs(0)], [0, 0, 9]);
});
