import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { RequestEvent, TokenLogprob } from "./request.ts";
import { MAX_UNREAD_MS, MAX_UNREAD_TOKENS, RequestStream, type StreamSource } from "./request_stream.ts";

const END: RequestEvent = {
  kind: "end",
  usage: { promptTokens: 3, cachedTokens: 0, completionTokens: 2 },
  timing: { queuedMs: 0, prefillMs: 0, decodeMs: 0 },
};

function token(id: number, index = 0, logprobs?: TokenLogprob[]): RequestEvent {
  return { kind: "token", index, ids: [id], text: `${id} `, ...(logprobs && { logprobs }) };
}

/** A stream whose source writes down what is asked of it. */
function open(options: Partial<StreamSource> & { readonly n?: number } = {}) {
  const asked: string[] = [];
  const clock = { nowMs: 0 };
  const stream = new RequestStream({ id: "a", prompt: [1, 2, 3], maxTokens: 9, n: options.n }, {
    start: () => asked.push("start"),
    cancel: () => asked.push("cancel"),
    close: () => asked.push("close"),
    now: () => clock.nowMs,
    ...options,
  });
  return { stream, asked, clock, events: stream[Symbol.asyncIterator]() };
}

async function rest(events: AsyncIterator<RequestEvent, undefined>): Promise<RequestEvent[]> {
  const list: RequestEvent[] = [];
  for (let next = await events.next(); !next.done; next = await events.next()) list.push(next.value);
  return list;
}

Deno.test("RequestStream starts with its iteration, which may happen once", () => {
  const { stream, asked } = open();
  assertEquals(asked, ["start"]);
  assertThrows(() => stream[Symbol.asyncIterator](), TypeError, "wanted once, got again");
});

Deno.test("RequestStream yields events in order and closes after the end", async () => {
  const { stream, asked, events } = open();
  const first = events.next();
  stream.push(token(1));
  stream.push({ kind: "choice-end", index: 0, reason: "stop", text: "" });
  stream.push(END);
  stream.push(token(9));
  assertEquals(await first, { done: false, value: token(1) });
  assertEquals((await rest(events)).map(({ kind }) => kind), ["choice-end", "end"]);
  assertEquals(await events.next(), { done: true, value: undefined });
  assertEquals(asked, ["start", "close"]);
});

Deno.test("RequestStream joins unread tokens of one choice without touching the engine's events", async () => {
  const { stream, events } = open({ n: 2 });
  const original = token(1, 0, [{ id: 1, logprob: -1, rank: 1, top: [] }]);
  const copy = structuredClone(original);
  stream.push(original);
  stream.push(token(2, 0, [{ id: 2, logprob: -2, rank: 1, top: [] }]));
  stream.push(token(3, 1));
  stream.push(token(4));
  stream.push(END);
  const [joined, ...others] = await rest(events);
  assertEquals(joined, {
    kind: "token",
    index: 0,
    ids: [1, 2],
    text: "1 2 ",
    logprobs: [{ id: 1, logprob: -1, rank: 1, top: [] }, { id: 2, logprob: -2, rank: 1, top: [] }],
  });
  assertEquals(others, [token(3, 1), token(4), END]);
  assertEquals(original, copy);
});

Deno.test("RequestStream.return() cancels at once, even while a reader waits", async () => {
  const { stream, asked, events } = open();
  const waiting = events.next();
  await stream.return();
  assertEquals(await waiting, { done: true, value: undefined });
  stream.push(token(1));
  assertEquals(await events.next(), { done: true, value: undefined });
  await stream.return();
  assertEquals(asked, ["start", "cancel", "close"]);
});

Deno.test("RequestStream cancels when its signal aborts, and goes on to the end", async () => {
  const controller = new AbortController();
  const { stream, asked, events } = open({ signal: controller.signal });
  controller.abort();
  assertEquals(asked, ["start", "cancel"]);
  stream.push({ kind: "choice-end", index: 0, reason: "cancelled", text: "" });
  stream.push(END);
  assertEquals((await rest(events)).map(({ kind }) => kind), ["choice-end", "end"]);
});

Deno.test("RequestStream does not start when its signal has aborted", async () => {
  const { asked, events } = open({ signal: AbortSignal.abort(new Error("too late")) });
  await assertRejects(() => events.next(), Error, "too late");
  assertEquals(await events.next(), { done: true, value: undefined });
  assertEquals(asked, ["close"]);
});

Deno.test("RequestStream.fail() throws in the iteration, now or later", async () => {
  const early = open();
  early.stream.fail(new RangeError("refused"));
  await assertRejects(() => early.events.next(), RangeError, "refused");
  assertEquals((await early.events.next()).done, true);
  const late = open();
  const waiting = late.events.next();
  late.stream.fail(new RangeError("refused"));
  await assertRejects(() => waiting, RangeError, "refused");
  assertEquals((await late.events.next()).done, true);
});

Deno.test("RequestStream throws in the iteration what its start throws", async () => {
  const { events } = open({
    start: () => {
      throw new RangeError("no such model");
    },
  });
  await assertRejects(() => events.next(), RangeError, "no such model");
});

Deno.test("RequestStream ends a request whose reader leaves too many tokens", async () => {
  const { stream, asked, events } = open();
  for (let i = 0; i <= MAX_UNREAD_TOKENS; i++) stream.push(token(i));
  assertEquals(asked, ["start", "close", "cancel"]);
  const told = await rest(events);
  assertEquals(told.map(({ kind }) => kind), ["token", "choice-end", "end"]);
  const end = told.at(-1);
  assertEquals(end?.kind === "end" && end.error?.code, "slow_reader");
});

Deno.test("RequestStream ends a request whose reader stays away too long", async () => {
  const { stream, asked, clock, events } = open();
  stream.push(token(1));
  clock.nowMs = MAX_UNREAD_MS;
  stream.push(token(2));
  assertEquals(asked, ["start"]);
  await events.next();
  clock.nowMs += MAX_UNREAD_MS;
  stream.push(token(3));
  assertEquals(asked, ["start"], "the time counts from the last read");
  clock.nowMs += 1;
  stream.push(token(4));
  assertEquals(asked, ["start", "close", "cancel"]);
});

Deno.test("RequestStream waits as long as its engine for a reader that waits itself", async () => {
  const { stream, asked, clock, events } = open();
  const waiting = events.next();
  clock.nowMs = 10 * MAX_UNREAD_MS;
  stream.push(token(1));
  assertEquals((await waiting).done, false);
  stream.push(token(2));
  assertEquals(asked, ["start"]);
});

Deno.test("RequestStream.abort() ends open choices and the request once", async () => {
  const { stream, clock, events } = open({ n: 3 });
  stream.push({ kind: "choice-end", index: 1, reason: "stop", text: "" });
  clock.nowMs = 5;
  stream.push(token(1));
  clock.nowMs = 7;
  const error = { message: "the engine is gone", code: "engine_failed", status: 500 };
  stream.abort(error);
  stream.abort(error);
  const told = await rest(events);
  assertEquals(told.slice(2), [
    { kind: "choice-end", index: 0, reason: "error", text: "" },
    { kind: "choice-end", index: 2, reason: "error", text: "" },
    {
      kind: "end",
      usage: { promptTokens: 3, cachedTokens: 0, completionTokens: 1 },
      error,
      timing: { queuedMs: 0, prefillMs: 5, decodeMs: 2 },
    },
  ]);
});

Deno.test("RequestStream joins tokens that come together also for a reader that waits", async () => {
  const { stream, events } = open({ n: 2 });
  const first = events.next();
  stream.push(token(1), token(2), token(3, 1), token(4, 1), { kind: "choice-end", index: 1, reason: "stop", text: "" });
  assertEquals((await first).value, { kind: "token", index: 0, ids: [1, 2], text: "1 2 " });
  const [second, third] = [await events.next(), await events.next()];
  assertEquals(second.value, { kind: "token", index: 1, ids: [3, 4], text: "3 4 " });
  assertEquals(third.value?.kind, "choice-end");
  stream.push(token(5), END);
  assertEquals((await rest(events)).map(({ kind }) => kind), ["token", "end"]);
});
