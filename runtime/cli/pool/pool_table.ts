/**
 * A pool as a table: its processes and what the cluster says about them.
 *
 * @module
 */
import type { ClusterReport } from "../../cluster/report.ts";
import { aligned } from "../aligned.ts";
import { tokenRate } from "../report_lines.ts";
import type { PoolChild } from "./pool_child.ts";

const HEAD = ["INSTANCE", "ROLE", "STATE", "OWN", "LENT", "BORROWED", "TOTAL", "SEQUENCES", "TOKENS/S"];
const NUMBERS = [3, 4, 5, 6, 7, 8];
const UNKNOWN = ["-", "-", "-", "-", "-", "-"];

/** What the table shows of a child. */
export type ShownChild = Pick<PoolChild, "spec" | "state" | "ending">;

/** Lines of the table; members that are not the pool's children are shown below them. */
export function poolTable(children: readonly ShownChild[], report: ClusterReport | undefined): string[] {
  const numbers = new Map(
    report?.members.map((member) => {
      const { blocks, load, id } = member;
      const counts = [blocks.own, blocks.lent, blocks.borrowed, blocks.total, load.running + load.waiting];
      return [id, { member, cells: [...counts.map(String), tokenRate(member)] }];
    }),
  );
  const rows = children.map(({ spec: { name, role }, state, ending }) => {
    const known = numbers.get(name);
    numbers.delete(name);
    const shown = state === "ready" && known !== undefined && known.member.state !== "alive"
      ? known.member.state
      : state;
    return [
      name,
      role,
      ending === "" ? shown : `${shown}: ${ending}`,
      ...state === "ended" ? UNKNOWN : known?.cells ?? UNKNOWN,
    ];
  });
  const guests = [...numbers.values()].map(({ member, cells }) => [member.id, member.role, member.state, ...cells]);
  return aligned([HEAD, ...rows, ...guests], { right: NUMBERS });
}
