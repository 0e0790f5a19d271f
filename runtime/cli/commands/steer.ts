/**
 * `infinite-llm move`, `evacuate`, `pin` and `leave`.
 *
 * @module
 */
import type { ClusterCommand } from "../../cluster/report.ts";
import type { Command, CommandInput } from "../main.ts";
import { openOperator } from "../open_operator.ts";
import { UsageError } from "../usage_error.ts";

/** The command that gives a member an order. It says what was done. */
export function steer(kind: ClusterCommand["kind"]): Command {
  return async (input) => {
    const command = clusterCommand(kind, input);
    console.log(await (await openOperator(input)).operate(command));
    return 0;
  };
}

/** The order that a command line gives. @throws {UsageError} when it leaves something out. */
export function clusterCommand(
  kind: ClusterCommand["kind"],
  { settings: { segments, from, to, undo }, words: [word] }: Pick<CommandInput, "settings" | "words">,
): ClusterCommand {
  switch (kind) {
    case "move":
      if (segments === undefined || to === undefined) {
        throw new UsageError(
          `Cannot run move: wanted --${segments === undefined ? "segments N" : "to MEMBER"}, got none`,
        );
      }
      return { kind, sequence: word, segments, to, ...from === undefined ? {} : { from } };
    case "evacuate":
      return { kind, member: word, ...undo ? { undo } : {} };
    case "pin":
      return { kind, sequence: word, pinned: !undo };
    case "leave":
      return { kind, member: word };
  }
}
