import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Network } from "../../scheduler/links/link.ts";
import type { MemberCard } from "../../scheduler/protocol/member.ts";
import { Recorder, suiteCard, testNetwork } from "../conformance/link_suite.ts";
import { NodeClock } from "./node_clock.ts";
import { Random } from "./random.ts";
import { SimNetwork } from "./sim_network.ts";
import { VirtualTime } from "./virtual_time.ts";
import { CALM, type Weather } from "./weather.ts";

function turn(run: () => void): void {
  run();
}

testNetwork("simulated wires", () => {
  const time = new VirtualTime();
  const wires = new SimNetwork(time, new Random(1));
  const driver = setInterval(() => {
    for (let steps = 0; steps < 200 && time.step(); steps++);
  }, 0);
  return {
    open: (card, { epoch = () => 0 } = {}) =>
      Promise.resolve(
        wires.join({
          card: () => card,
          epoch,
          clock: new NodeClock(time, { name: card.name, skew: { offsetMs: 0, rate: 1 }, turn }),
        }),
      ),
    [Symbol.asyncDispose]: () => {
      clearInterval(driver);
      return Promise.resolve();
    },
  };
});

/** Two processes on wires of their own. */
class Pair {
  readonly time = new VirtualTime();
  readonly wires: SimNetwork;
  readonly a: Recorder;
  readonly b: Recorder;
  readonly networkA: Network;
  readonly clocks = new Map<string, NodeClock>();

  constructor(seed: number, weather: Partial<Weather> = {}) {
    this.wires = new SimNetwork(this.time, new Random(seed));
    [this.a, this.networkA] = this.start(suiteCard(1));
    [this.b] = this.start(suiteCard(2));
    this.networkA.dial("http://member-2:1");
    this.run();
    this.wires.weather = { ...CALM, ...weather };
  }

  start(card: MemberCard): [Recorder, Network] {
    const clock = new NodeClock(this.time, { name: card.name, skew: { offsetMs: 0, rate: 1 }, turn });
    this.clocks.set(card.name, clock);
    const network = this.wires.join({ card: () => card, epoch: () => 0, clock });
    const recorder = new Recorder();
    network.listen(recorder);
    return [recorder, network];
  }

  run(ms = 1000): void {
    let over = false;
    this.time.after(ms, "over", () => over = true);
    while (!over) this.time.step();
  }

  ping(count: number): void {
    for (let call = 0; call < count; call++) this.a.link.control({ kind: "ping", call });
  }

  get calls(): number[] {
    return this.b.messages.map((message) => "call" in message ? message.call : -1);
  }
}

Deno.test("SimNetwork keeps the order of streams and nothing of that of datagrams", () => {
  const stream = new Pair(3, { jitterMs: 5 });
  stream.ping(20);
  stream.run();
  assertEquals(stream.calls, Array.from({ length: 20 }, (_, i) => i));
  const datagram = new Pair(3, { jitterMs: 5, mode: "datagram", duplicate: 0.3 });
  datagram.ping(50);
  datagram.run();
  const seen = new Set(datagram.calls);
  assertEquals(seen.size, 50);
  assert(datagram.calls.length > seen.size, "some come twice");
  assert(datagram.calls.some((call, i) => i > 0 && call < datagram.calls[i - 1]), "some are overtaken");
});

Deno.test("SimNetwork closes a link on both ends after it has lost a datagram", () => {
  const pair = new Pair(3, { mode: "datagram", loss: 1 });
  pair.ping(1);
  pair.run();
  assertEquals([pair.calls, pair.a.open.length, pair.b.open.length], [[], 0, 0]);
});

Deno.test("SimNetwork.clog() holds one direction back until unclog()", () => {
  const pair = new Pair(4);
  pair.wires.clog("member-1", "member-2");
  pair.ping(3);
  pair.b.link.control({ kind: "ping", call: 9 });
  pair.run();
  assertEquals([pair.calls, pair.a.messages.length], [[], 1]);
  pair.wires.unclog("member-1", "member-2");
  pair.run();
  assertEquals(pair.calls, [0, 1, 2]);
});

Deno.test("SimNetwork.cut() leaves the far end open until it notices, and refuses a new link until then", () => {
  const pair = new Pair(5);
  const link = pair.wires.endpoints[0].table.links()[0];
  pair.wires.cut(link, 500);
  pair.run(100);
  assertEquals([pair.a.open.length, pair.b.open.length], [0, 1]);
  pair.networkA.dial("http://member-2:1");
  pair.run(100);
  assertEquals(pair.a.failures.length, 1);
  pair.run(400);
  assertEquals(pair.b.open.length, 0);
  pair.networkA.dial("http://member-2:1");
  pair.run(100);
  assertEquals([pair.a.open.length, pair.b.open.length], [1, 1]);
});

Deno.test("SimNetwork brings late datagrams to whoever is there now, with their old address", () => {
  const pair = new Pair(6, { mode: "datagram", late: 1, lateMs: 3000 });
  pair.ping(10);
  const [before] = pair.wires.endpoints.filter(({ card }) => card.name === "member-2");
  pair.clocks.get("member-2")?.kill();
  pair.wires.remove(before, 0);
  pair.run(50);
  const card = { ...suiteCard(2), incarnation: "f".repeat(32) };
  const [again] = pair.start(card);
  pair.networkA.dial(card.clusterUrl);
  pair.run(5000);
  assert(again.envelopes.length > 0);
  assert(again.envelopes.every(({ to }) => to.incarnation === suiteCard(2).incarnation));
});

Deno.test("SimNetwork overwrites what a received message showed once the call is over", () => {
  const pair = new Pair(7);
  let kept: Uint8Array = new Uint8Array();
  pair.b.onMessage = (_link, message) => {
    if (message.kind === "piece") kept = message.bytes;
  };
  const bytes = new Uint8Array([1, 2, 3]);
  pair.a.link.kv({ kind: "piece", call: 1, run: { lease: 1, stamp: 2, from: 0, count: 1 }, offset: 0, bytes });
  bytes.fill(9);
  pair.run();
  const [message] = pair.b.messages;
  assertEquals(message.kind === "piece" && [...message.bytes], [1, 2, 3]);
  assertEquals([...kept], [0xa5, 0xa5, 0xa5]);
});

Deno.test("SimNetwork refuses to send on a link whose end has seen it closed", () => {
  const pair = new Pair(8);
  const { link } = pair.a;
  link[Symbol.dispose]();
  assertThrows(() => link.control({ kind: "ping", call: 1 }), Error, "the link is closed");
});
