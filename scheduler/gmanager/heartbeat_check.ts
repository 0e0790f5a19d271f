/**
 * Whether a heartbeat can be true. A member that counts wrong would mislead every plan.
 *
 * @module
 */
import type { Heartbeat, PlacementEntry } from "../protocol/messages.ts";

/** Bounds of a heartbeat. */
export interface HeartbeatLimits {
  /** Most blocks that a member can have. */
  readonly maxBlocks: number;
  /** Most placement entries, leases or moves of one member. */
  readonly maxEntries: number;
}

/** Says what cannot be true, wanted and got; undefined when it all can. */
export function heartbeatProblem(heartbeat: Heartbeat, limits: HeartbeatLimits): string | undefined {
  const { version, base, entries, leases, moves } = heartbeat;
  if (!whole(version) || version < 1) return `wanted version a positive whole number, got ${version}`;
  if (base !== undefined && (!whole(base) || base < 1 || base >= version)) {
    return `wanted base from 1 to ${version - 1}, got ${base}`;
  }
  for (const [name, list] of [["entries", entries], ["leases", leases], ["moves", moves]] as const) {
    if (list.length > limits.maxEntries) return `wanted at most ${limits.maxEntries} ${name}, got ${list.length}`;
  }
  return blocksProblem(heartbeat, limits) ?? loadProblem(heartbeat) ?? entriesProblem(heartbeat, limits) ??
    movesProblem(heartbeat);
}

function blocksProblem({ blocks, leases }: Heartbeat, { maxBlocks }: HeartbeatLimits): string | undefined {
  for (const field of ["total", "free", "own", "lent", "quarantined", "borrowed", "lendable"] as const) {
    const count = blocks[field];
    if (!whole(count) || count > maxBlocks) return `wanted blocks.${field} from 0 to ${maxBlocks}, got ${count}`;
  }
  const { total, free, own, lent, quarantined, lendable, filling = 0 } = blocks;
  if (free + own + lent + quarantined !== total) {
    return `wanted free ${free} + own ${own} + lent ${lent} + quarantined ${quarantined} = total ${total}`;
  }
  if (lendable > free) return `wanted blocks.lendable at most free ${free}, got ${lendable}`;
  if (!whole(filling) || lendable + filling > free) {
    return `wanted blocks.filling at most free ${free} less lendable ${lendable}, got ${filling}`;
  }
  for (const { lease, segments, expiresMs } of leases) {
    if (!whole(segments) || !(expiresMs >= 0) || expiresMs === Infinity) {
      return `wanted lease ${lease} with segments and an expiry, got ${segments} and ${expiresMs}`;
    }
  }
  const segments = leases.reduce((sum, lease) => sum + lease.segments, 0);
  if (segments > lent) return `wanted leases of at most the ${lent} lent blocks, got ${segments} segments`;
  return undefined;
}

function loadProblem({ load }: Heartbeat): string | undefined {
  for (const field of ["running", "waiting", "maxBatch"] as const) {
    if (!whole(load[field])) return `wanted load.${field} a whole number, got ${load[field]}`;
  }
  const { performance } = load;
  const measured: readonly (readonly [string, readonly number[]])[] = [
    ["load.tokensPerSecond", [load.tokensPerSecond]],
    ...Object.entries(load.counters).map(([name, value]) => [`load.counters.${name}`, [value]] as const),
    ["load.performance.batch", performance?.batch ?? []],
    ["load.performance.batchMs", performance?.batchMs ?? []],
    ["load.performance", performance ? [performance.attentionMs, performance.error, performance.steps] : []],
  ];
  for (const [name, values] of measured) {
    const wrong = values.find((value) => !(value >= 0) || value === Infinity);
    if (wrong !== undefined) return `wanted ${name} finite and not negative, got ${wrong}`;
  }
  if (performance && performance.batch.length !== performance.batchMs.length) {
    return `wanted a time for each of ${performance.batch.length} batches, got ${performance.batchMs.length}`;
  }
  return undefined;
}

function entriesProblem({ card, blocks, entries }: Heartbeat, limits: HeartbeatLimits): string | undefined {
  const seen = new Set<string>();
  for (const entry of entries) {
    const name = `entry ${entry.sequence} on ${entry.member}`;
    if (!entry.sequence.startsWith(`${card.name}/`)) return `wanted a sequence of ${card.name}, got ${name}`;
    if (entry.local !== (entry.member === card.name)) return `wanted local only at the home, got ${name}`;
    const key = `${entry.sequence}\n${entry.member}`;
    if (seen.has(key)) return `wanted ${name} once`;
    seen.add(key);
    const most = entry.local ? blocks.total : limits.maxBlocks;
    if (!whole(entry.blocks) || entry.blocks > most) return `wanted ${name} from 0 to ${most}, got ${entry.blocks}`;
    if (!whole(entry.length)) return `wanted ${name} with a length, got ${entry.length}`;
    const ranges = rangesProblem(entry);
    if (ranges !== undefined) return `wanted ${name} with ascending ranges, got ${ranges}`;
  }
  return undefined;
}

function rangesProblem({ ranges }: PlacementEntry): string | undefined {
  let end = 0;
  for (const { from, to, sinceMs } of ranges) {
    if (!whole(from) || !whole(to) || from < end || to <= from || !Number.isFinite(sinceMs)) {
      return `${from} to ${to} since ${sinceMs} after ${end}`;
    }
    end = to;
  }
  return undefined;
}

function movesProblem({ moves }: Heartbeat): string | undefined {
  const wrong = moves.find(({ segments }) => !whole(segments));
  return wrong && `wanted the move of ${wrong.sequence} with whole segments, got ${wrong.segments}`;
}

function whole(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
