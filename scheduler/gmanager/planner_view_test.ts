import { assert, assertEquals } from "@std/assert";
import { clusterView, homeOf } from "./planner_view.ts";
import { entryOf, FORMAT, statusOf } from "./test_members.ts";

const known = { segmentTokens: 64, format: FORMAT };

Deno.test("clusterView() counts memory in whole segments, rounded to the safe side", () => {
  const { members, self, segmentTokens, fillingSegments } = clusterView({
    ...known,
    members: [
      statusOf("a", {
        blocks: { total: 43, free: 23, own: 9, lent: 8, quarantined: 3, borrowed: 5, lendable: 11, filling: 7 },
        load: { running: 3, waiting: 2, maxBatch: 6 },
      }),
      statusOf("b", { role: "holder" }),
    ],
    self: "b",
  });
  assertEquals([self, segmentTokens], [1, 64]);
  assertEquals(members.name, ["a", "b"]);
  const numbers = [
    members.totalSegments,
    members.lendableSegments,
    members.lentSegments,
    members.ownSegments,
    members.borrowedSegments,
    members.running,
    members.waiting,
    members.maxBatch,
  ];
  assertEquals(numbers.map((column) => column[0]), [10, 2, 3, 3, 2, 3, 2, 6]);
  assertEquals([...members.full], [1, 0]);
  assertEquals([...fillingSegments], [1, 0]);
});

Deno.test("clusterView() finds only live members usable whose format fits or is still open", () => {
  const { members, self } = clusterView({
    ...known,
    members: [
      statusOf("alive"),
      statusOf("suspect", { state: "suspect" }),
      statusOf("leaving", { state: "leaving" }),
      statusOf("other", { format: { ...FORMAT, kvType: "f32" } }),
      statusOf("open", { role: "holder", format: "none" }),
      statusOf("head", { role: "manager" }),
    ],
  });
  assertEquals(members.name, ["alive", "suspect", "leaving", "other", "open"]);
  assertEquals([...members.usable], [1, 0, 0, 0, 1]);
  assertEquals(self, -1);
});

Deno.test("clusterView() takes the format of the first member that has one, and no memory without any", () => {
  const holder = statusOf("h", { role: "holder", format: "none" });
  const sizes = (view: ReturnType<typeof clusterView>) => [...view.members.totalSegments];
  assertEquals(sizes(clusterView({ segmentTokens: 64, members: [holder, statusOf("a")] })), [10, 10]);
  assertEquals(sizes(clusterView({ segmentTokens: 64, members: [holder] })), [0]);
});

Deno.test("clusterView() shows the fit of each member as a line, and NaN where there is none", () => {
  const performance = { batch: [1, 3], batchMs: [10, 14], attentionMs: 3, error: 0.02, steps: 99 };
  const { members } = clusterView({ ...known, members: [statusOf("a", { load: { performance } }), statusOf("b")] });
  assertEquals([members.stepMs[0], members.sequenceMs[0], members.attentionMs[0]], [10, 2, 3]);
  assertEquals([members.stepMs[1], members.sequenceMs[1], members.attentionMs[1]], [NaN, NaN, NaN]);
});

Deno.test("clusterView() gathers the entries of each sequence", () => {
  const view = clusterView({
    ...known,
    members: [statusOf("a"), statusOf("b")],
    placements: [
      entryOf("a/1", "b", { from: 0, to: 3, length: 300 }),
      entryOf("b/7", "b", { from: 0, to: 2 }),
      entryOf("gone/4", "b", { from: 0, to: 1 }),
      entryOf("a/1", "a", { from: 3, to: 5, length: 301, pinned: true }),
      entryOf("a/1", "gone", { from: 5, to: 6 }),
    ],
  });
  assertEquals(view.sequenceNames, ["a/1", "b/7"]);
  const { sequences } = view;
  assertEquals(sequences.length, 2);
  assertEquals([...sequences.home], [0, 1]);
  assertEquals([...sequences.tokens], [384, 128]);
  assertEquals([...sequences.localSegments], [2, 2]);
  assertEquals([...sequences.pinned], [1, 0]);
  assertEquals([...sequences.segmentsOn], [2, 3, 0, 2]);
  assert(view.sequenceNames.every((name) => view.members.name.includes(homeOf(name))));
});
