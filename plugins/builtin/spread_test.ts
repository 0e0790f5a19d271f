import { assert, assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { memoryConformance } from "../conformance.ts";
import { SeededRandom, ViewFuzzer } from "../fuzz.ts";
import { MoveRecorder, PlacementRecorder } from "../memory_answers.ts";
import { clusterOf } from "../test_cluster_view.ts";
import type { ClusterView, PlacementView } from "../types.ts";
import { spread } from "./spread.ts";

memoryConformance({ plugin: spread });

function placed(cluster: ClusterView, request: PlacementView): readonly (readonly [number, number])[] {
  const recorder = new PlacementRecorder(request, cluster);
  spread.place?.(undefined, request, cluster, recorder.out);
  return recorder.finish().map(({ member, segments }) => [member, segments]);
}

const wanted = (segments: number): PlacementView => ({ segments, tokens: 9, maxTokens: 10, localSegments: 1 });

Deno.test("spread.place() borrows the same from everybody, more from others where one lends less", () => {
  const cluster = clusterOf([{}, { total: 3 }, { holder: true }, { usable: false }, {}]);
  assertEquals(placed(cluster, wanted(9)), [[1, 3], [2, 3], [4, 3]]);
  assertEquals(placed(cluster, wanted(14)), [[1, 3], [2, 5], [4, 6]]);
  assertEquals(placed(cluster, wanted(1)), [[4, 1]]);
  assertEquals(placed(cluster, wanted(204)), []);
});

Deno.test("spread.place() differs by at most one between members that lend enough", () => {
  fc.assert(fc.property(fc.integer(), (seed) => {
    const fuzzer = new ViewFuzzer(new SeededRandom(seed));
    const cluster = fuzzer.cluster();
    const request = fuzzer.placement(cluster);
    const shares = new Map(placed(cluster, request));
    const largest = Math.max(0, ...shares.values());
    if (shares.size === 0) return;
    for (let i = 0; i < cluster.members.length; i++) {
      if (i === cluster.self || cluster.members.usable[i] === 0) continue;
      assert((shares.get(i) ?? 0) >= Math.min(largest - 1, cluster.members.lendableSegments[i]));
    }
  }));
});

Deno.test("spread.move() evens a sequence out over home and lenders, and no further", () => {
  const members = [{}, {}, { lendable: 1 }, { usable: false }];
  const recorder = new MoveRecorder(
    clusterOf(members, { sequences: [{ home: 0, on: [8, 1] }, { home: 1, on: [0, 9], pinned: true }], self: -1 }),
  );
  spread.move?.(undefined, clusterOf(members, { sequences: [{ home: 0, on: [8, 1] }], self: -1 }), recorder.out);
  assertEquals(recorder.finish(), [
    { sequence: 0, from: 0, to: 1, segments: 2 },
    { sequence: 0, from: 0, to: 2, segments: 1 },
  ]);
});
