import { assertEquals, assertThrows } from "@std/assert";
import { openMember, suiteCard, testNetwork } from "../../tests/conformance/link_suite.ts";
import { SeededRandom } from "../../tests/synthetic/random.ts";
import type { MemberCard } from "../protocol/member.ts";
import { InProcessHub } from "./in_process_network.ts";

testNetwork("in process", () => {
  const hub = new InProcessHub({ defer: (task) => setTimeout(task, 0) });
  return {
    open: (card, options) => Promise.resolve(hub.join({ card, ...options })),
    [Symbol.asyncDispose]: () => new Promise((resolve) => setTimeout(resolve, 5)),
  };
});

Deno.test("InProcessHub keeps the order of a lane whatever the order of tasks", async () => {
  for (let seed = 0; seed < 20; seed++) {
    const random = new SeededRandom(seed);
    const tasks: (() => void)[] = [];
    const hub = new InProcessHub({ defer: (task) => tasks.push(task) });
    const runAll = () => {
      while (tasks.length > 0) tasks.splice(random.integer(tasks.length), 1)[0]();
    };
    const harness = {
      open: (card: MemberCard) => Promise.resolve(hub.join({ card })),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
    using a = await openMember(harness, suiteCard(1));
    using b = await openMember(harness, suiteCard(2));
    a.network.dial(b.network.url);
    runAll();
    for (let call = 0; call < 10; call++) a.recorder.link.control({ kind: "ping", call });
    runAll();
    assertEquals(b.recorder.messages, Array.from({ length: 10 }, (_, call) => ({ kind: "ping", call })));
  }
});

Deno.test("InProcessHub.join() refuses a second member at one url", () => {
  const hub = new InProcessHub({ defer: (task) => task() });
  using _network = hub.join({ card: suiteCard(1) });
  assertThrows(() => hub.join({ card: suiteCard(1) }), RangeError, "wanted a url of its own");
});
