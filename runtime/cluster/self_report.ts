/**
 * What a member says about itself: memory, load and where its sequences lie.
 *
 * @module
 */
import type { Creditor } from "../../scheduler/lending/creditor.ts";
import type { BlockPool } from "../../scheduler/block_pool.ts";
import type { BlockReport, LoadReport, PerformanceReport, PlacementEntry } from "../../scheduler/protocol/messages.ts";
import type { Engine } from "../engine/engine.ts";

/** Memory of an instance or holder; `pool` is undefined while a holder has no format yet. */
export function blockReport(
  parts: { readonly pool?: BlockPool; readonly creditor: Creditor; readonly engine?: Engine },
): BlockReport {
  const { pool, creditor, engine } = parts;
  if (pool === undefined) return { total: 0, free: 0, own: 0, lent: 0, quarantined: 0, borrowed: 0, lendable: 0 };
  const { total, free, owned, cached, lent, quarantined } = pool.counts;
  return {
    total,
    free: free + cached,
    own: owned,
    lent,
    quarantined,
    borrowed: engine?.memory.borrowedBlocks ?? 0,
    lendable: creditor.lendable,
  };
}

/** Load of an instance; a holder has none. */
export function loadReport(
  parts: {
    readonly engine?: Engine;
    readonly maxBatch: number;
    readonly tokensPerSecond: number;
    readonly counters: Readonly<Record<string, number>>;
    readonly performance?: PerformanceReport;
  },
): LoadReport {
  const { engine, maxBatch, tokensPerSecond, performance } = parts;
  const counters = { ...parts.counters };
  if (engine === undefined) return { running: 0, waiting: 0, maxBatch: 0, tokensPerSecond: 0, counters };
  const { running, waiting, repairs, repairedTokens, lostSteps } = engine.stats();
  counters.repairs = repairs;
  counters.repaired_tokens = repairedTokens;
  counters.lost_steps = lostSteps;
  return { running, waiting, maxBatch, tokensPerSecond, counters, performance };
}

/** Entries of the request placement map for the sequences of a home. */
export function placementEntries(engine: Engine, self: string): PlacementEntry[] {
  return engine.memory.placements().flatMap(({ sequence, length, ranges, pinned }) => {
    const byMember = Map.groupBy(ranges, ({ creditor }) => creditor ?? self);
    return [...byMember].map(([member, held]) => ({
      sequence: `${self}/${sequence}`,
      member,
      blocks: held.reduce((sum, { blocks }) => sum + blocks, 0),
      local: member === self,
      length,
      ranges: held.map(({ from, to, sinceMs }) => ({ from, to, sinceMs })),
      pinned,
    }));
  });
}
