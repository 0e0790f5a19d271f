/**
 * What must hold in every process after each of its turns, and everywhere once a healed world has come to rest.
 *
 * I2, I4, I5 and I10 are noticed where they break: by the toy device, which knows what each block must hold, and by the
 * ledger, which knows every answer.
 *
 * @module
 */
import type { ClusterReport } from "../../runtime/cluster/report.ts";
import type { BlockCounts } from "../../scheduler/block_pool.ts";
import { slotKey } from "../../scheduler/lending/borrowed.ts";
import type { LedgerEntry } from "./ledger.ts";
import type { SimProcess } from "./sim_process.ts";
import { type Invariant, Violation } from "./violation.ts";

/** What keeps a world from rest. */
export interface Unrest {
  /** Which promise it breaks when it lasts. */
  readonly invariant: Invariant;
  /** The arithmetic. */
  readonly message: string;
}

/** Most timers, calls and the like that one process may have open; far more than it ever needs. */
const MOST_LEASES = 4_096;

/**
 * Checks a process after a turn; a thorough check reads every block, lease and table.
 *
 * @throws {Violation}
 */
export function checkProcess(process: SimProcess, { thorough }: { readonly thorough: boolean }): void {
  const { member, name, device } = process;
  const { epoch } = member;
  if (epoch < process.epoch) throw new Violation("I9", `${name} has seen epoch ${process.epoch}, now says ${epoch}`);
  process.epoch = epoch;
  const { pool } = member.engine ?? {};
  if (pool !== undefined) checkCounts(name, pool.counts);
  const { leases, lentBlocks, quarantinedBlocks } = member.creditor.counts;
  const cap = Math.floor((process.spec.lendShare ?? 1) * process.spec.blocks);
  if (lentBlocks + quarantinedBlocks > cap) {
    throw new Violation(
      "I1",
      `${name} lends ${lentBlocks} blocks and has ${quarantinedBlocks} in quarantine, its cap is ${cap}`,
    );
  }
  if (leases > MOST_LEASES) throw new Violation("I8", `${name} has ${leases} leases, wanted at most ${MOST_LEASES}`);
  const stepped = device !== undefined && device.steps !== process.checkedSteps;
  if (!thorough && !stepped) return;
  process.checkedSteps = device?.steps ?? 0;
  try {
    member.checkIntegrity();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new Violation("I1", `${name}: ${message}`, { cause: error });
  }
}

function checkCounts(name: string, { total, free, owned, cached, lent, quarantined }: BlockCounts): void {
  const sum = free + owned + cached + lent + quarantined;
  if (sum === total) return;
  throw new Violation(
    "I1",
    `${name}: free ${free} + owned ${owned} + cached ${cached} + lent ${lent} + quarantined ${quarantined} = ${sum} != total ${total}`,
  );
}

/**
 * Checks that no slot has two debtors.
 *
 * @throws {Violation}
 */
export function checkSlots(processes: readonly SimProcess[]): void {
  const debtors = new Map<string, string>();
  for (const { name, member } of processes) {
    for (const slots of member.engine?.memory.borrowed().values() ?? []) {
      for (const slot of slots) {
        const key = slotKey(slot);
        const other = debtors.get(key);
        if (other !== undefined) throw new Violation("I1", `slot ${key} is ${other}'s and ${name}'s`);
        debtors.set(key, name);
      }
    }
  }
}

/** The first thing that keeps the world from rest. */
export function checkRest(processes: readonly SimProcess[], live: readonly LedgerEntry[]): Unrest | undefined {
  if (live.length > 0) {
    const list = live.map(({ request, tokens, cancelled }) => {
      const got = tokens.map((ids) => ids.length).join("+");
      return `${request.id} (${got} of ${request.maxTokens} tokens${cancelled ? ", cancelled" : ""})`;
    });
    return { invariant: "I3", message: `${live.length} requests have not ended: ${list.join(", ")}` };
  }
  for (const { name, member } of processes) {
    const { leases, lentBlocks, quarantinedBlocks, holds } = member.creditor.counts;
    const engine = member.engine;
    const owned = engine?.pool.counts.owned ?? 0;
    const counts = {
      fronted: member.fronted,
      busy: engine?.busy === true ? 1 : 0,
      leases,
      lent: lentBlocks,
      quarantined: quarantinedBlocks,
      holds,
      owned,
      borrowed: engine?.memory.borrowedBlocks ?? 0,
      slots: [...engine?.memory.borrowed().values() ?? []].reduce((sum, slots) => sum + slots.length, 0),
    };
    const wrong = Object.entries(counts).filter(([, count]) => count !== 0);
    if (wrong.length > 0) {
      const list = wrong.map(([what, count]) => `${what} ${count} != 0`).join(", ");
      return { invariant: "I6", message: `${name} keeps ${list}` };
    }
  }
  return undefined;
}

/**
 * Checks that the gManager's view of a world at rest is what is. Where there are two gManagers each knows a part: then
 * nobody is listed who is not there.
 *
 * @throws {Violation}
 */
export function checkViews(processes: readonly SimProcess[]): void {
  const managers = processes.filter(({ spec }) => spec.manager);
  for (const manager of managers) {
    let report: ClusterReport | undefined;
    manager.member.report((told) => report = told);
    // It asks another gManager, whose report is checked in its turn.
    if (report === undefined && managers.length > 1) continue;
    if (report === undefined) throw new Violation("Liveness", `${manager.name} carries a gManager and reports nothing`);
    const listed = report.members.map(({ id }) => id).sort();
    const there = processes.map(({ name }) => name).sort();
    if (managers.length === 1 && listed.join() !== there.join()) {
      throw new Violation("Liveness", `${manager.name} lists ${listed.join(", ")}, there are ${there.join(", ")}`);
    }
    for (const { id, blocks } of report.members) {
      const process = processes.find(({ name }) => name === id);
      if (process === undefined) throw new Violation("Liveness", `${manager.name} lists ${id}, which is gone`);
      const { own, lent, quarantined, borrowed } = blocks;
      if (own + lent + quarantined + borrowed > 0) {
        throw new Violation(
          "I6",
          `${manager.name} believes of ${id} own ${own}, lent ${lent}, quarantined ${quarantined}, borrowed ${borrowed}; all are 0`,
        );
      }
    }
    if (report.sequences.length + report.leases.length > 0) {
      throw new Violation(
        "I6",
        `${manager.name} lists ${report.sequences.length} sequences and ${report.leases.length} leases, there are none`,
      );
    }
  }
}
