import { assertEquals, assertRejects } from "@std/assert";
import type { RequestEvent } from "../engine/request.ts";
import { EventFeed } from "./event_feed.ts";
import { end, token } from "./fakes/engine.ts";

async function* list(...events: readonly RequestEvent[]): AsyncGenerator<RequestEvent> {
  yield* events;
}

/** Counts its pulls and whether it was ended early. */
class Source {
  pulls = 0;
  returned = false;

  next(): Promise<IteratorResult<RequestEvent>> {
    this.pulls++;
    return Promise.resolve({ done: false, value: token(0, [65]) });
  }

  return(): Promise<IteratorResult<RequestEvent>> {
    this.returned = true;
    return Promise.resolve({ done: true, value: undefined });
  }
}

Deno.test("EventFeed.next() yields every event of every source once, each source in order", async () => {
  const feed = new EventFeed([list(token(0, [1]), token(0, [2]), end()), list(end()), list()]);
  const seen: [number, string][] = [];
  for (let item = await feed.next(); item !== undefined && item !== "idle"; item = await feed.next()) {
    seen.push([item.source, item.event.kind]);
  }
  assertEquals(seen.filter(([source]) => source === 0).map(([, kind]) => kind), ["token", "token", "end"]);
  assertEquals(seen.filter(([source]) => source === 1).map(([, kind]) => kind), ["end"]);
  assertEquals(await feed.next(), undefined);
});

Deno.test("EventFeed.next() pulls one event of each source and no more until it is called again", async () => {
  const sources = [new Source(), new Source()];
  const feed = new EventFeed(sources);
  await feed.next();
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(sources.map((source) => source.pulls), [1, 1]);
  await feed.next();
  assertEquals(sources[0].pulls + sources[1].pulls, 3);
});

Deno.test("EventFeed.settle() waits for the first event without taking it", async () => {
  const feed = new EventFeed([list(token(0, [1]))]);
  const first = await feed.settle(1000);
  assertEquals(await feed.next(), first);
  assertEquals(await feed.next(), undefined);
});

Deno.test("EventFeed.settle() and next() throw what a source throws", async () => {
  // deno-lint-ignore require-yield
  async function* failing(): AsyncGenerator<RequestEvent> {
    throw new RangeError("broken");
  }
  await assertRejects(() => new EventFeed([failing()]).settle(1000), RangeError);
  await assertRejects(() => new EventFeed([failing()]).next(), RangeError);
});

Deno.test("EventFeed.next() answers idle after its time and loses nothing", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  async function* late(): AsyncGenerator<RequestEvent> {
    await promise;
    yield token(0, [1]);
  }
  const feed = new EventFeed([late()]);
  assertEquals(await feed.settle(1), undefined);
  assertEquals(await feed.next(1), "idle");
  resolve();
  assertEquals(await feed.next(), { source: 0, event: token(0, [1]) });
});

Deno.test("EventFeed.close() ends its sources", async () => {
  const source = new Source();
  const feed = new EventFeed([source]);
  await feed.next();
  feed.close();
  assertEquals([source.returned, await feed.next()], [true, undefined]);
});

Deno.test("EventFeed.close() wakes whoever waits for an event", async () => {
  const feed = new EventFeed([{ next: () => new Promise<never>(() => {}) }]);
  const waiting = feed.next(60_000);
  feed.close();
  assertEquals([await waiting, feed.closed], [undefined, true]);
});
