/** Writers and a gManager's state over a network that loses, repeats and reorders, with restarts on both sides. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import type { MemberIdentity } from "../protocol/member.ts";
import type { Heartbeat, HeartbeatAck, PlacementEntry } from "../protocol/messages.ts";
import { GManagerState } from "./gmanager_state.ts";
import { HeartbeatWriter } from "./heartbeat_writer.ts";
import { entry, identity, snapshot } from "./test_snapshots.ts";

const NAMES = ["anna", "bert"] as const;

interface Sender {
  self: MemberIdentity;
  writer: HeartbeatWriter;
  readonly entries: Map<string, PlacementEntry>;
  /** What each version of each incarnation said in all. */
  readonly said: Map<string, readonly PlacementEntry[]>;
}

type Packet =
  | { readonly kind: "heartbeat"; readonly from: MemberIdentity; readonly to: MemberIdentity; readonly body: Heartbeat }
  | { readonly kind: "ack"; readonly from: MemberIdentity; readonly to: MemberIdentity; readonly body: HeartbeatAck };

const EPOCH = 1;

class World {
  nowMs = 0;
  #runs = 10;
  manager: MemberIdentity = identity("g", 1);
  state: GManagerState = this.#state();
  readonly senders: Sender[] = NAMES.map((name) => ({
    self: identity(name, ++this.#runs),
    writer: new HeartbeatWriter({ maxUnacknowledged: 5 }),
    entries: new Map(),
    said: new Map(),
  }));
  readonly wire: Packet[] = [];

  #state(): GManagerState {
    return new GManagerState({ now: () => this.nowMs });
  }

  change(who: number, { handle, blocks }: { readonly handle: number; readonly blocks: number }): void {
    const { self, entries } = this.senders[who];
    const member = NAMES[handle % 2];
    const changed = entry(self.name, { handle, member, blocks });
    const key = `${changed.sequence} ${member}`;
    if (blocks === 0) entries.delete(key);
    else entries.set(key, changed);
  }

  beat(who: number): void {
    const { self, writer, entries, said } = this.senders[who];
    const all = [...entries.values()];
    const body = writer.write(snapshot(self, { entries: all }), { manager: this.manager, epoch: EPOCH });
    said.set(`${self.incarnation} ${body.version}`, all);
    this.wire.push({ kind: "heartbeat", from: self, to: this.manager, body });
  }

  deliver(index: number, again: boolean): void {
    if (this.wire.length === 0) return;
    const place = index % this.wire.length;
    const packet = this.wire[place];
    if (!again) this.wire.splice(place, 1);
    const { from, to } = packet;
    if (packet.kind === "ack") {
      const sender = this.senders.find(({ self }) => self.incarnation === to.incarnation);
      sender?.writer.acknowledge(packet.body, { manager: from, epoch: EPOCH });
      return;
    }
    if (to.incarnation !== this.manager.incarnation) return;
    const outcome = this.state.accept(from, packet.body);
    this.state.checkIntegrity();
    if (outcome.kind === "pending") this.wire.push({ kind: "ack", from: to, to: from, body: outcome.ack });
    if (outcome.kind !== "accepted") return;
    assertEquals(
      this.state.directory().find(({ card }) => card.name === from.name)?.card.incarnation,
      from.incarnation,
    );
    this.wire.push({ kind: "ack", from: to, to: from, body: outcome.ack });
    if (outcome.ack.wantFull) return;
    const said = this.senders.find(({ self }) => self.name === from.name)?.said;
    assertEquals(this.placements(from.name), sorted(said?.get(`${from.incarnation} ${packet.body.version}`) ?? []));
  }

  placements(name: string): PlacementEntry[] {
    return sorted(this.state.placements().filter(({ sequence }) => sequence.startsWith(`${name}/`)));
  }

  restart(who: number): void {
    const sender = this.senders[who];
    sender.self = identity(sender.self.name, ++this.#runs);
    sender.writer = new HeartbeatWriter({ maxUnacknowledged: 5 });
    sender.entries.clear();
  }

  restartManager(): void {
    this.manager = identity("g", ++this.#runs);
    this.state = this.#state();
  }

  /** A network without faults: after five heartbeats everything is known. */
  heal(): void {
    this.wire.length = 0;
    for (let round = 0; round < 5; round++) {
      this.nowMs += 1_000;
      for (const who of this.senders.keys()) this.beat(who);
      while (this.wire.length > 0) this.deliver(0, false);
    }
    assert(this.state.whole);
    assertEquals(this.state.directory().length, this.senders.length);
    for (const { self, entries } of this.senders) {
      assertEquals(this.placements(self.name), sorted([...entries.values()]));
    }
  }
}

function sorted(entries: readonly PlacementEntry[]): PlacementEntry[] {
  const key = ({ sequence, member }: PlacementEntry) => `${sequence} ${member}`;
  return entries.toSorted((a, b) => key(a) < key(b) ? -1 : 1);
}

Deno.test("HeartbeatWriter and GManagerState agree on the placement map over a faulty network", () => {
  const who = fc.nat(1);
  const index = fc.nat(30);
  const step: fc.Arbitrary<(world: World) => void> = fc.oneof(
    { weight: 4, arbitrary: who.map((i) => (world: World) => world.beat(i)) },
    {
      weight: 4,
      arbitrary: fc.tuple(who, fc.nat(5), fc.nat(3)).map(([i, handle, blocks]) => (world: World) =>
        world.change(i, { handle, blocks })
      ),
    },
    {
      weight: 8,
      arbitrary: fc.tuple(index, fc.boolean()).map(([i, again]) => (world: World) => world.deliver(i, again)),
    },
    { weight: 1, arbitrary: index.map((i) => (world: World) => void world.wire.splice(i, 1)) },
    {
      weight: 1,
      arbitrary: fc.nat(6_000).map((ms) => (world: World) => {
        world.nowMs += ms;
      }),
    },
    { weight: 1, arbitrary: who.map((i) => (world: World) => world.restart(i)) },
    { weight: 1, arbitrary: fc.constant((world: World) => world.restartManager()) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 150, size: "max" }), (steps) => {
      const world = new World();
      for (const run of steps) run(world);
      world.heal();
    }),
    { numRuns: 300 },
  );
});
