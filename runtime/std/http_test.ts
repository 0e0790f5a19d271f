import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { accepts, eTag, ifNoneMatch, type ServerSentEventMessage, ServerSentEventStream } from "@std/http";

async function serialized(...messages: ServerSentEventMessage[]): Promise<string> {
  const stream = ReadableStream.from(messages).pipeThrough(new ServerSentEventStream());
  return await new Response(stream).text();
}

Deno.test("ServerSentEventStream writes fields in order and splits lines of data", async () => {
  assertEquals(
    await serialized({ comment: " hi\nthere", event: "e", data: "a\r\nb\rc\nd", id: 7, retry: 5 }, { data: "" }),
    ": hi\n:there\n".replace("\n:there", "\n:there") +
      "event:e\ndata:a\ndata:b\ndata:c\ndata:d\nid:7\nretry:5\n\ndata:\n\n",
  );
});

Deno.test("ServerSentEventStream refuses line breaks in event and id", async () => {
  await assertRejects(() => serialized({ event: "a\nb" }), SyntaxError);
  await assertRejects(() => serialized({ id: "a\rb" }), SyntaxError);
});

Deno.test("eTag() tells entities apart and ifNoneMatch() compares weakly", async () => {
  const tag = await eTag("hello");
  assertEquals(tag, '"5-LPJNul+wow4m6DsqxbninhsWHlw"');
  assertEquals(await eTag(new TextEncoder().encode("hello")), tag);
  assertEquals(await eTag("hello", { weak: true }), `W/${tag}`);
  assertNotEquals(await eTag("hallo"), tag);
  for (const value of [tag, `W/${tag}`, `"x", ${tag}`, "*"]) assertEquals(ifNoneMatch(value, tag), false, value);
  for (const value of [null, "", '"x"']) assertEquals(ifNoneMatch(value, tag), true);
  assertEquals(ifNoneMatch(tag, undefined), true);
});

Deno.test("accepts() chooses what the request wants most", () => {
  const request = (accept?: string) => ({ headers: new Headers(accept === undefined ? {} : { accept }) });
  assertEquals(accepts(request()), ["*/*"]);
  assertEquals(accepts(request("text/plain;q=0.5, text/html, */*;q=0.1, a/b;q=0")), ["text/html", "text/plain", "*/*"]);
  assertEquals(accepts(request(), "text/plain", "a/b"), "text/plain");
  assertEquals(accepts(request("a/b, text/plain;q=0.9"), "text/plain", "a/b"), "a/b");
  assertEquals(accepts(request("text/*"), "a/b", "text/plain; version=1"), "text/plain; version=1");
  assertEquals(accepts(request("text/plain;q=0, */*"), "text/plain"), undefined);
  assertEquals(accepts(request("application/json"), "text/plain"), undefined);
  assert(accepts(request("application/openmetrics-text;q=0.5,text/plain;version=0.0.4;q=0.3"), "text/plain"));
});
