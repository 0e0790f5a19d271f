import { assertEquals, assertGreater, assertRejects, assertThrows } from "@std/assert";
import { createServer, type Server } from "node:http";
import { firstTokenMs, postStream } from "./completion_client.ts";
import { answerLength, requestsPerSecond } from "./http_load.ts";

async function listen(server: Server): Promise<{ url: string } & AsyncDisposable> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      await new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      });
    },
  };
}

Deno.test("answerLength() waits for the whole head", () => {
  assertEquals(answerLength("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"), undefined);
  const head = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n";
  assertEquals(answerLength(`${head}{`), head.length + 12);
});

Deno.test("answerLength() refuses other statuses and answers without a length", () => {
  assertThrows(() => answerLength("HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n"), Error, "503 Busy");
  assertThrows(() => answerLength("HTTP/1.1 200 OK\r\n\r\n"), Error, "content-length");
});

Deno.test("requestsPerSecond() counts no more answers than the server gave", async () => {
  let answered = 0;
  await using server = await listen(createServer((_request, response) => {
    answered++;
    response.writeHead(200, { "content-length": 2 }).end("{}");
  }));
  const start = performance.now();
  const rate = await requestsPerSecond(server.url, { path: "/health", connections: 3, ms: 100 });
  const most = answered / 100 * 1e3;
  assertGreater(performance.now() - start, 99);
  assertGreater(rate, 0);
  assertEquals(rate <= most, true);
});

Deno.test("firstTokenMs() asks for tokens that are not cached and times the first event", async () => {
  const bodies: string[] = [];
  await using server = await listen(createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    bodies.push(body);
    response.writeHead(200, { "content-type": "text/event-stream" });
    await new Promise((resolve) => setTimeout(resolve, 30));
    response.write(': ping\n\ndata: {"choices":[{"text":"a"}]}\n\n');
    response.end('data: {"choices":[]}\n\ndata: [DONE]\n\n');
  }));
  assertGreater(await firstTokenMs(server.url, [5, 6]), 25);
  assertEquals(JSON.parse(bodies[0]).prompt, [5, 6]);
  const { events } = await postStream(`${server.url}/completion`, {});
  assertEquals(events.map(({ data }) => data), ['{"choices":[{"text":"a"}]}', '{"choices":[]}']);
});

Deno.test("postStream() names status and body of a refusal", async () => {
  await using server = await listen(createServer((request, response) => {
    request.resume();
    response.writeHead(400).end("no such field");
  }));
  await assertRejects(() => postStream(`${server.url}/v1/completions`, {}), Error, "400 no such field");
});
