import { assert, assertEquals, assertGreater } from "@std/assert";
import type { EngineRequest } from "../../runtime/engine/request.ts";
import type { ReportedSequence } from "../../runtime/cluster/report.ts";
import { openSynthetic } from "../conformance/open_synthetic.ts";
import { LocalCluster, type LocalMember, type LocalRequest } from "./local_cluster.ts";

const SPEC = {
  dtype: "Q4_1",
  embeddingDtype: "Q8_0",
  layers: 2,
  heads: 6,
  kvHeads: 2,
  intermediate: 160,
  contextLength: 4096,
} as const;

function ids(count: number, seed: number): number[] {
  return Array.from({ length: count }, (_, i) => (i * i * 7 + seed * 31 + i) % 250);
}

/** Fits none of the small members. */
const PROBE: EngineRequest = {
  id: "probe",
  prompt: ids(1300, 1),
  maxTokens: 48,
  sampling: { temperature: 1, seed: 5, logprobs: 20, ignoreEos: true },
};

const LARGE: readonly LocalMember[] = [{ name: "large", kvTokens: 4096 }];
const PAIR: readonly LocalMember[] = [{ name: "a", kvTokens: 512 }, { name: "b", kvTokens: 1280 }];
const THREE: readonly LocalMember[] = [
  { name: "a", kvTokens: 528 },
  { name: "b", kvTokens: 768 },
  { name: "c", kvTokens: 512 },
];
const FIVE: readonly LocalMember[] = [
  { name: "a", kvTokens: 512 },
  { name: "b", kvTokens: 272 },
  { name: "c", kvTokens: 640 },
  { name: "d", kvTokens: 256 },
  { name: "h", role: "holder", kvTokens: 512 },
];

/** Blocks of two sizes, at homes, at instances that lend and at holders. */
const UNLIKE: readonly LocalMember[] = [
  { name: "a", kvTokens: 576, blockTokens: 64 },
  { name: "b", kvTokens: 528 },
  { name: "c", kvTokens: 512, blockTokens: 64 },
  { name: "h", role: "holder", kvTokens: 256, blockTokens: 64 },
  { name: "i", role: "holder", kvTokens: 256 },
];

/** Ids and log-probabilities of a request that has ended well. */
interface Run {
  readonly ids: readonly number[];
  readonly logprobs: readonly number[];
  readonly cachedTokens: number;
}

function runOf({ events }: LocalRequest): Run {
  const tokens = events.filter((event) => event.kind === "token");
  const end = events.find((event) => event.kind === "end");
  assert(end !== undefined);
  assertEquals(end.error, undefined);
  return {
    ids: tokens.flatMap((event) => event.ids),
    logprobs: tokens.flatMap((event) => event.logprobs ?? [])
      .flatMap(({ logprob, top }) => [logprob, ...top.map((rival) => rival.logprob)]),
    cachedTokens: end.usage.cachedTokens,
  };
}

/** Runs the probe at the first member; `during` is called once when so many tokens have come. */
async function run(
  members: readonly LocalMember[],
  options: {
    readonly request?: EngineRequest;
    readonly memoryPolicy?: string;
    readonly after?: number;
    readonly during?: (cluster: LocalCluster) => void;
  } = {},
): Promise<Run & { readonly count: (counter: string) => number }> {
  const { request = PROBE, after = 0, during = () => {} } = options;
  using model = openSynthetic(SPEC);
  using cluster = await LocalCluster.open({
    members,
    model,
    maxModelLen: SPEC.contextLength,
    memoryPolicy: options.memoryPolicy,
  });
  const live = cluster.submit(members[0].name, request);
  if (after > 0) {
    cluster.wait(() => live.tokens >= after || live.ended);
    assert(!live.ended, "it has ended too soon");
    during(cluster);
  }
  cluster.wait(() => live.ended);
  cluster.rest();
  const counts = new Map<string, number>();
  for (const counter of ["moves_done", "remote_layers", "segments_lost", "attention_served", "requests_forwarded"]) {
    counts.set(counter, cluster.count(counter));
  }
  return { ...runOf(live), count: (counter) => counts.get(counter) ?? 0 };
}

function assertSameRun(actual: Run, expected: Run): void {
  assertEquals(actual.ids, expected.ids);
  assertEquals(actual.logprobs, expected.logprobs);
}

Deno.test("A cluster gives a sequence the same bits wherever its KV lies", async (t) => {
  const alone = await run(LARGE);
  assertEquals(alone.ids.length, PROBE.maxTokens);
  assertEquals(alone.logprobs.length, 21 * PROBE.maxTokens);
  assertEquals(alone.count("remote_layers"), 0);

  for (const [name, members] of Object.entries({ "2": PAIR, "3": THREE, "5": FIVE })) {
    for (const memoryPolicy of ["builtin:infinite-llm", "builtin:spread"]) {
      await t.step(`on ${name} members, a prefill larger than its home, ${memoryPolicy}`, async () => {
        const spread = await run(members, { memoryPolicy });
        assertSameRun(spread, alone);
        assertGreater(spread.count("remote_layers"), PROBE.maxTokens);
      });
    }
  }

  await t.step("on members whose blocks differ in size", async () => {
    for (const members of [UNLIKE, [UNLIKE[1], UNLIKE[0], ...UNLIKE.slice(2)]]) {
      const spread = await run(members, { memoryPolicy: "builtin:spread" });
      assertSameRun(spread, alone);
      assertGreater(spread.count("remote_layers"), PROBE.maxTokens);
    }
  });

  await t.step("when it moves between members whose blocks differ in size", async () => {
    let held: readonly string[] = [];
    const members = [...UNLIKE, { name: "d", kvTokens: 1024, blockTokens: 64 }, { name: "e", kvTokens: 1024 }];
    const moved = await run(members, {
      after: 6,
      during(cluster) {
        const { id, ranges } = sequenceOf(cluster);
        held = ranges.map(({ instance }) => instance);
        for (const from of new Set(held)) {
          if (from === "d" || from === "e") continue;
          for (const to of ["d", "e"]) cluster.operate("b", { kind: "move", sequence: id, segments: 1, from, to });
        }
      },
    });
    assert(held.length > 1, `it lies on ${held}`);
    assertSameRun(moved, alone);
    assertGreater(moved.count("moves_done"), 1);
  });

  await t.step("before, during and after moves that an operator orders", async () => {
    const members = [...THREE, { name: "d", kvTokens: 1024 }];
    let held: readonly string[] = [];
    const moved = await run(members, {
      after: 6,
      during(cluster) {
        const { id, ranges } = sequenceOf(cluster);
        held = ranges.map(({ instance }) => instance);
        for (const from of new Set(held)) {
          if (from === "d") continue;
          cluster.operate("b", { kind: "move", sequence: id, segments: 1, from, to: "d" });
        }
      },
    });
    assert(held.length > 1, `it lies on ${held}`);
    assertSameRun(moved, alone);
    assertGreater(moved.count("moves_done"), 1);
  });

  await t.step("when a member is evacuated", async () => {
    const moved = await run([...THREE, { name: "h", role: "holder", kvTokens: 1024 }], {
      after: 6,
      during(cluster) {
        const lender = lenderOf(cluster);
        assert(cluster.operate("a", { kind: "evacuate", member: lender }).ok);
        cluster.wait(() => {
          const member = cluster.report("a").members.find(({ id }) => id === lender);
          return member?.blocks.lent === 0;
        });
      },
    });
    assertSameRun(moved, alone);
  });

  await t.step("when a member that holds a part of it is lost, and the part is computed again", async () => {
    const mended = await run([...THREE, { name: "d", kvTokens: 1024 }], {
      after: 6,
      during: (cluster) => cluster.kill(lenderOf(cluster)),
    });
    assertSameRun(mended, alone);
    assertGreater(mended.count("segments_lost"), 0);
  });

  await t.step("with a prefix from the cache, part of it on borrowed blocks", async () => {
    using model = openSynthetic(SPEC);
    const members: readonly LocalMember[] = [
      { name: "a", kvTokens: 1024 },
      { name: "h", role: "holder", kvTokens: 1024 },
      { name: "i", role: "holder", kvTokens: 1024 },
    ];
    using cluster = await LocalCluster.open({ members, model, maxModelLen: SPEC.contextLength });
    const before = cluster.submit("a", {
      ...PROBE,
      id: "before",
      prompt: ids(1250, 1),
      maxTokens: 200,
    });
    cluster.wait(() => before.tokens > 0);
    assert(sequenceOf(cluster).ranges.some(({ instance, start }) => instance !== "a" && start === 0));
    const live = cluster.submit("a", PROBE);
    cluster.wait(() => live.ended);
    assert(!before.ended, "what they share must be in use");
    const cached = runOf(live);
    assertSameRun(cached, alone);
    assertEquals(cached.cachedTokens, 1024, "whole segments are shared");
    cluster.wait(() => before.ended);
    cluster.rest();
  });
});

/** The only sequence, as soon as the gManager knows of it and of segments elsewhere. */
function sequenceOf(cluster: LocalCluster): ReportedSequence {
  let found: ReportedSequence | undefined;
  cluster.wait(() => {
    const [sequence] = cluster.report("a").sequences;
    if (sequence?.ranges.some(({ instance }) => instance !== sequence.home)) found = sequence;
    return found !== undefined;
  });
  if (found === undefined) throw new Error("Cannot find the sequence: nobody reports it");
  return found;
}

/** A member that holds a part of the only sequence and neither is its home nor carries the gManager. */
function lenderOf(cluster: LocalCluster): string {
  const { home, ranges } = sequenceOf(cluster);
  const lender = ranges.find(({ instance }) => instance !== home && instance !== "a");
  if (lender === undefined) throw new Error(`Cannot name a lender: all of it is at ${home} and a`);
  return lender.instance;
}
