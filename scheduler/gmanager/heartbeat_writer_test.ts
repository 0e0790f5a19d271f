import { assertEquals, assertThrows } from "@std/assert";
import { HeartbeatWriter } from "./heartbeat_writer.ts";
import { entry, identity, snapshot } from "./test_snapshots.ts";

const ANNA = identity("anna", 1);
const TO = { manager: identity("g", 9), epoch: 1 };

Deno.test("HeartbeatWriter.write() says everything until the gManager has it, then what changed", () => {
  const writer = new HeartbeatWriter();
  const entries = [entry("anna"), entry("anna", { member: "bert" })];
  const first = writer.write(snapshot(ANNA, { entries }), TO);
  assertEquals([first.version, first.base, first.entries], [1, undefined, entries]);
  assertEquals(writer.write(snapshot(ANNA, { entries }), TO).base, undefined, "nothing is acknowledged yet");
  writer.acknowledge({ version: 2, wantFull: false }, TO);
  const same = writer.write(snapshot(ANNA, { entries }), TO);
  assertEquals([same.version, same.base, same.entries], [3, 2, []]);
  const grown = entry("anna", { length: 65 });
  const changed = writer.write(snapshot(ANNA, { entries: [grown] }), TO);
  assertEquals(changed.base, 2);
  assertEquals(changed.entries, [grown, { ...entries[1], blocks: 0, ranges: [] }]);
});

Deno.test("HeartbeatWriter.write() repeats a change until it is acknowledged, also one that was taken back", () => {
  const writer = new HeartbeatWriter();
  const entries = [entry("anna")];
  writer.write(snapshot(ANNA, { entries }), TO);
  writer.acknowledge({ version: 1, wantFull: false }, TO);
  const grown = [entry("anna", { length: 65 })];
  assertEquals(writer.write(snapshot(ANNA, { entries: grown }), TO).entries, grown);
  assertEquals(writer.write(snapshot(ANNA, { entries }), TO).entries, entries);
  writer.acknowledge({ version: 3, wantFull: false }, TO);
  assertEquals(writer.write(snapshot(ANNA, { entries }), TO).entries, []);
});

Deno.test("HeartbeatWriter.write() repeats that an entry is gone until that is acknowledged", () => {
  const writer = new HeartbeatWriter();
  const entries = [entry("anna")];
  writer.write(snapshot(ANNA, { entries }), TO);
  writer.acknowledge({ version: 1, wantFull: false }, TO);
  writer.write(snapshot(ANNA, { entries }), TO);
  const gone = [{ ...entries[0], blocks: 0, ranges: [] }];
  assertEquals(writer.write(snapshot(ANNA), TO).entries, gone);
  writer.acknowledge({ version: 2, wantFull: false }, TO);
  assertEquals(writer.write(snapshot(ANNA), TO).entries, gone);
  writer.acknowledge({ version: 4, wantFull: false }, TO);
  assertEquals(writer.write(snapshot(ANNA), TO).entries, []);
});

Deno.test("HeartbeatWriter.write() is complete for a new gManager, a new epoch, and when asked", () => {
  const writer = new HeartbeatWriter();
  const settle = (to: typeof TO) => writer.acknowledge({ version: writer.version, wantFull: false }, to);
  const base = (to: typeof TO) => writer.write(snapshot(ANNA), to).base;
  assertEquals(base(TO), undefined);
  settle(TO);
  assertEquals(base(TO), 1);
  const restarted = { manager: identity("g", 10), epoch: 1 };
  assertEquals(base(restarted), undefined);
  settle(TO);
  assertEquals(base(restarted), undefined, "the answer was another gManager's");
  settle(restarted);
  assertEquals(base(restarted), 4);
  assertEquals(base({ ...restarted, epoch: 2 }), undefined);
  settle({ ...restarted, epoch: 2 });
  writer.acknowledge({ version: 6, wantFull: true }, { ...restarted, epoch: 2 });
  assertEquals(base({ ...restarted, epoch: 2 }), undefined);
});

Deno.test("HeartbeatWriter.acknowledge() never builds on a version before the latest complete one", () => {
  const writer = new HeartbeatWriter();
  writer.write(snapshot(ANNA, { entries: [entry("anna")] }), TO);
  // The entry is gone, and this heartbeat, which does not mention it, may be lost.
  writer.write(snapshot(ANNA), TO);
  writer.acknowledge({ version: 1, wantFull: false }, TO);
  assertEquals(writer.write(snapshot(ANNA), TO).base, undefined);
});

Deno.test("HeartbeatWriter.write() is complete again after too many heartbeats without an answer", () => {
  const writer = new HeartbeatWriter({ maxUnacknowledged: 2 });
  writer.write(snapshot(ANNA), TO);
  writer.acknowledge({ version: 1, wantFull: false }, TO);
  const bases = Array.from({ length: 3 }, () => writer.write(snapshot(ANNA), TO).base);
  assertEquals(bases, [1, 1, undefined]);
  assertThrows(() => new HeartbeatWriter({ maxUnacknowledged: 0 }), RangeError, "got 0");
});

Deno.test("HeartbeatWriter.write() refuses two entries about the same thing and leaves out empty ones", () => {
  const writer = new HeartbeatWriter();
  assertEquals(writer.write(snapshot(ANNA, { entries: [entry("anna", { blocks: 0 })] }), TO).entries, []);
  assertThrows(
    () => writer.write(snapshot(ANNA, { entries: [entry("anna"), entry("anna")] }), TO),
    RangeError,
    "wanted one entry for anna/1 on anna",
  );
});
