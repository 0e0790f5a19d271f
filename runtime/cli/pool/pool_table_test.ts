import { assertEquals } from "@std/assert";
import { SAMPLE_REPORT } from "../../server/fakes/cluster.ts";
import { poolTable, type ShownChild } from "./pool_table.ts";

function child(name: string, changes: Partial<ShownChild> = {}): ShownChild {
  return { spec: { name, role: "full", args: [] }, state: "ready", ending: "", ...changes };
}

Deno.test("poolTable() shows children with what the cluster knows of them, and members that are none", () => {
  const children = [
    child("one"),
    child("two"),
    child("three", { state: "starting" }),
    child("four", { state: "ended", ending: "SIGKILL" }),
  ];
  assertEquals(poolTable(children, SAMPLE_REPORT), [
    "INSTANCE  ROLE    STATE           OWN  LENT  BORROWED  TOTAL  SEQUENCES  TOKENS/S",
    "one       full    ready            14     0         8     16          3      12.3",
    "two       full    suspect           0     0         0     16          0       0.0",
    "three     full    starting          -     -         -      -          -         -",
    "four      full    ended: SIGKILL    -     -         -      -          -         -",
    "attic     holder  alive             0     8         0     32          0       0.0",
  ]);
});

Deno.test("poolTable() shows the processes alone while no member answers", () => {
  assertEquals(poolTable([child("one", { state: "stopping" })], undefined).at(1)?.split(/ +/), [
    "one",
    "full",
    "stopping",
    ...Array.from({ length: 6 }, () => "-"),
  ]);
});
