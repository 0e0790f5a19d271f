/**
 * What the default memory policy and the host's checks cost in clusters of some sizes.
 *
 *     deno bench plugins/memory_host_bench.ts
 */
import { INFINITE_LLM_DEFAULTS, infiniteLlm } from "./builtin/infinite_llm.ts";
import { MemoryHost } from "./memory_host.ts";
import { clusterOf, type SequenceRow } from "./test_cluster_view.ts";
import type { ClusterView } from "./types.ts";

/** Half of the members are crowded by one long sequence each, half lend. */
function crowded(members: number, sequencesEach: number): ClusterView {
  const rows = Array.from(
    { length: members },
    (_, i) =>
      i % 2 === 0
        ? { total: 1000, own: 900 + i, running: sequencesEach, waiting: 20, maxBatch: 64 }
        : { total: 1000, own: 10 * i, running: 1, maxBatch: 64 },
  );
  const sequences = rows.flatMap((_, home): SequenceRow[] =>
    home % 2 === 1 ? [] : Array.from({ length: sequencesEach }, (_, s) => ({
      home,
      on: rows.map((_, m) => m === home ? (s === 0 ? 800 : 10) : 0),
    }))
  );
  return clusterOf(rows, { sequences });
}

const host = await MemoryHost.open(infiniteLlm, { now: () => performance.now(), random: Math.random, log: () => {} });

for (const [members, sequences] of [[4, 8], [16, 16], [64, 16]]) {
  const cluster = crowded(members, sequences);
  const request = { segments: 300, tokens: 40_000, maxTokens: 80_000, localSegments: 10 };
  const group = `${members} members, ${cluster.sequences.length} sequences`;
  Deno.bench("place, host", { group }, () => {
    host.place(request, cluster);
  });
  Deno.bench("move, bare", { group }, () => {
    infiniteLlm.move?.(INFINITE_LLM_DEFAULTS, cluster, { move: () => {} });
  });
  Deno.bench("move, host", { group }, () => {
    host.move({ ...cluster, self: -1 });
  });
}
