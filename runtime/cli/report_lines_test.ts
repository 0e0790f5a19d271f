import { assertEquals } from "@std/assert";
import { SAMPLE_REPORT } from "../server/fakes/cluster.ts";
import { placementLines, statusLines } from "./report_lines.ts";

Deno.test("placementLines() shows members and sequences", () => {
  assertEquals(placementLines(SAMPLE_REPORT), [
    "MEMBER  ROLE            STATE         OWN  LENT  BORROWED  FREE  TOTAL  RUN  WAIT  TOKENS/S",
    "one     full, gManager  alive          14     0         8     2     16    1     2      12.3",
    "two     full            silent 2.5 s    0     0         0    16     16    0     0       0.0",
    "attic   holder          alive           0     8         0    20     32    0     0       0.0",
    "",
    "SEQUENCE  HOME  TOKENS        KV  PINNED  WHERE",
    "one/7     one     1400  10.9 KiB  yes     attic 0-512, one 512-1400",
  ]);
  assertEquals(placementLines({ ...SAMPLE_REPORT, sequences: [] }).at(-1), "no sequences");
});

Deno.test("statusLines() shows everything a report has", () => {
  const lines = statusLines(SAMPLE_REPORT);
  assertEquals(lines.slice(0, 4), [
    "one: gManager one, epoch 3",
    "memory policy infinite-llm; blocks of 64 tokens, segments of 256",
    "longest prompt plus output now: 4096 tokens",
    "",
  ]);
  assertEquals(lines.slice(12), [
    "LEASE    LENDER  BORROWER  SEGMENTS  EXPIRES",
    "attic/1  attic   one              2    8.0 s",
    "",
    "MOVE   FROM  TO     SEGMENTS  STATE  PREDICTED  MEASURED TOKENS/S",
    "one/7  one   attic         2  done         3.5                3.0",
    "",
    "MEMBER  PID  PUBLIC                 CLUSTER PORT           FIT ERROR",
    "one      11  http://127.0.0.1:8080  http://127.0.0.1:7600  7.0 % of 90",
    "two      12  http://127.0.0.1:8081  http://127.0.0.1:7601",
    "attic    13  none                   http://127.0.0.1:7602",
  ]);
});

Deno.test("statusLines() says so when no gManager is reached and nothing happens", () => {
  const lines = statusLines({ ...SAMPLE_REPORT, manager: undefined, leases: [], moves: [] });
  assertEquals(lines[0], "one: no gManager is reached, so only one is listed");
  assertEquals([lines.includes("no leases"), lines.includes("no moves")], [true, true]);
});
