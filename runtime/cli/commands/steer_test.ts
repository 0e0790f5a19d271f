import { assert, assertEquals, assertThrows } from "@std/assert";
import type { ClusterCommand } from "../../cluster/report.ts";
import { readCommandLine } from "../command_line.ts";
import { resolveSettings } from "../settings.ts";
import { UsageError } from "../usage_error.ts";
import { clusterCommand } from "./steer.ts";

async function read(kind: ClusterCommand["kind"], ...args: string[]): Promise<() => ClusterCommand> {
  const line = readCommandLine([kind, ...args]);
  assert(line.kind === "run");
  const settings = await resolveSettings({ ...line, env: () => undefined });
  return () => clusterCommand(kind, { settings, words: line.words });
}

Deno.test("clusterCommand() makes orders of command lines", async () => {
  const cases: [ClusterCommand["kind"], string[], ClusterCommand][] = [
    ["move", ["a/1", "--segments", "2", "--to", "b"], { kind: "move", sequence: "a/1", segments: 2, to: "b" }],
    ["move", ["a/1", "--segments", "2", "--to", "b", "--from", "c"], {
      kind: "move",
      sequence: "a/1",
      segments: 2,
      to: "b",
      from: "c",
    }],
    ["evacuate", ["b"], { kind: "evacuate", member: "b" }],
    ["evacuate", ["b", "--undo"], { kind: "evacuate", member: "b", undo: true }],
    ["pin", ["a/1"], { kind: "pin", sequence: "a/1", pinned: true }],
    ["pin", ["a/1", "--undo"], { kind: "pin", sequence: "a/1", pinned: false }],
    ["leave", ["b"], { kind: "leave", member: "b" }],
  ];
  for (const [kind, args, command] of cases) assertEquals((await read(kind, ...args))(), command);
});

Deno.test("clusterCommand() names the flag that a move lacks", async () => {
  const aimless = await read("move", "a/1", "--segments", "2");
  assertThrows(aimless, UsageError, "Cannot run move: wanted --to MEMBER, got none");
  const empty = await read("move", "a/1", "--to", "b");
  assertThrows(empty, UsageError, "Cannot run move: wanted --segments N, got none");
});
