import { assertEquals, assertRejects } from "@std/assert";
import { setImmediate } from "node:timers";
import type { EngineReply } from "./engine_protocol.ts";
import { EngineServer } from "./engine_server.ts";
import { LocalEngine } from "./local_engine.ts";
import type { RequestEvent } from "./request.ts";
import { DeviceRunner, type StepOutcome, type StepRunner } from "./step_runner.ts";
import { TestCluster } from "./test_cluster.ts";
import { testGreedy } from "./test_device.ts";
import { TestEngine } from "./test_engine.ts";

const PROMPT = Array.from({ length: 60 }, (_, i) => i);

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A server, and what it says. */
function serve(engine: TestEngine["engine"]) {
  const replies: EngineReply[] = [];
  const server = new EngineServer(engine, {
    send: (reply) => replies.push(reply),
    posted: new Int32Array(new SharedArrayBuffer(4)),
    taken: 0,
  });
  const events = () => replies.flatMap((reply) => reply.kind === "events" ? reply.events : []);
  return { server, replies, events };
}

/** Runs steps on the device, a turn of the event loop later. */
class LateRunner implements StepRunner {
  runner?: StepRunner;

  run(...[batch, done]: Parameters<StepRunner["run"]>): void {
    this.runner?.run(batch, (outcome: StepOutcome) => setImmediate(() => done(outcome)));
  }
}

Deno.test("EngineServer serves an engine whose steps end later, and takes commands in meanwhile", async () => {
  const late = new LateRunner();
  const test = new TestEngine({ blocks: 32, runner: late });
  late.runner = new DeviceRunner(test.device);
  const { server, events } = serve(test.engine);
  const running = server.run();
  server.take({ kind: "add", key: 1, request: { id: "a", prompt: [1], maxTokens: 9, sampling: { temperature: 0 } } });
  server.take({ kind: "add", key: 2, request: { id: "b", prompt: [2], maxTokens: 90 } });
  await turn();
  server.take({ kind: "cancel", key: 2 });
  while (test.engine.busy) await turn();
  await turn();
  server.take({ kind: "close" });
  await running;
  const ids = events().flatMap(({ key, event }) => key === 1 && event.kind === "token" ? event.ids : []);
  assertEquals(ids, testGreedy([1], 9));
  assertEquals(events().filter(({ event }) => event.kind === "end").map(({ key }) => key), [2, 1]);
  assertEquals(test.engine.stats().blocks.owned, 0);
});

Deno.test("EngineServer parks while nothing can run, and goes on when it is woken", async () => {
  const cluster = new TestCluster({ blocks: 10, holders: [12] });
  const { engine } = cluster.test;
  const { server, events } = serve(engine);
  const running = server.run();
  const request = { id: "a", prompt: PROMPT, maxTokens: 9, sampling: { temperature: 0 } };
  server.take({ kind: "add", key: 1, request });
  for (let i = 0; i < 5; i++) await turn();
  assertEquals([engine.stats().steps, engine.memory.demands().length], [0, 1]);
  for (let turns = 0; engine.busy && turns < 500; turns++) {
    cluster.serve();
    server.wake();
    await turn();
  }
  server.take({ kind: "close" });
  await running;
  const ids = events().flatMap(({ event }) => event.kind === "token" ? event.ids : []);
  assertEquals(ids, testGreedy(PROMPT, 9));
  cluster.checkEmpty();
});

Deno.test("EngineServer fails when requests are live, none can run, and nobody else can help", async () => {
  const test = new TestEngine({ blocks: 10 });
  test.engine.run = (done) => done(false);
  const { server } = serve(test.engine);
  const running = server.run();
  server.take({ kind: "add", key: 1, request: { id: "a", prompt: [1], maxTokens: 9 } });
  await assertRejects(() => running, Error, "requests are live, none can run");
});

Deno.test("EngineServer fails when a step that ends later breaks the engine", async () => {
  const late = new LateRunner();
  const test = new TestEngine({ blocks: 32, runner: late });
  late.runner = new DeviceRunner(test.device);
  test.policy.observe = (events) => {
    if (events.some(({ kind }) => kind === "first-token")) throw new Error("Test policy breaks");
  };
  const { server } = serve(test.engine);
  const running = server.run();
  server.take({ kind: "add", key: 1, request: { id: "a", prompt: [1], maxTokens: 9 } });
  await assertRejects(() => running, Error, "Test policy breaks");
});

Deno.test("LocalEngine parks while nothing can run, and goes on when it is woken", async () => {
  const cluster = new TestCluster({ blocks: 10, holders: [12] });
  await using local = new LocalEngine(cluster.test.engine);
  const request = { id: "a", prompt: PROMPT, maxTokens: 9, sampling: { temperature: 0 } };
  const events: RequestEvent[] = [];
  const reading = (async () => {
    for await (const event of local.generate(request)) events.push(event);
  })();
  for (let turns = 0; turns < 5; turns++) await turn();
  assertEquals(cluster.test.engine.stats().steps, 0);
  for (let turns = 0; cluster.test.engine.busy && turns < 500; turns++) {
    cluster.serve();
    local.wake();
    await turn();
  }
  await reading;
  assertEquals(events.flatMap((event) => event.kind === "token" ? event.ids : []), testGreedy(PROMPT, 9));
});

Deno.test("LocalEngine ends a request that waits for memory when it is disposed", async () => {
  const cluster = new TestCluster({ blocks: 10, holders: [12] });
  const local = new LocalEngine(cluster.test.engine);
  const events: RequestEvent[] = [];
  const reading = (async () => {
    for await (const event of local.generate({ id: "a", prompt: PROMPT, maxTokens: 9 })) events.push(event);
  })();
  for (let turns = 0; turns < 5; turns++) await turn();
  await local[Symbol.asyncDispose]();
  await reading;
  assertEquals(events.map(({ kind }) => kind), ["choice-end", "end"]);
  cluster.checkEmpty();
});
