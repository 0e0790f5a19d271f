import { assert, assertEquals, assertRejects } from "@std/assert";
import { startTcpProxy } from "./tcp_proxy.ts";

/** A server on 127.0.0.1 that sends back what it gets. */
function startEcho(): { readonly port: number } & AsyncDisposable {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const served: Promise<unknown>[] = [];
  const accepting = (async () => {
    for await (const connection of listener) {
      served.push(connection.readable.pipeTo(connection.writable).catch(() => {}));
    }
  })();
  return {
    port: listener.addr.port,
    async [Symbol.asyncDispose]() {
      listener.close();
      await accepting;
      await Promise.all(served);
    },
  };
}

async function readExactly(connection: Deno.Conn, count: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(count);
  for (let at = 0; at < count;) {
    const read = await connection.read(bytes.subarray(at));
    if (read === null) throw new Deno.errors.UnexpectedEof(`got ${at} of ${count} bytes`);
    at += read;
  }
  return bytes;
}

const HELLO = Uint8Array.from({ length: 1000 }, (_, i) => i % 251);

async function send(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
}

async function connectTo(port: number): Promise<Deno.TcpConn> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  connection.setNoDelay(true);
  return connection;
}

Deno.test("startTcpProxy() passes bytes both ways and counts them", async () => {
  await using echo = startEcho();
  await using proxy = await startTcpProxy({ target: echo.port });
  using connection = await connectTo(proxy.port);
  await send(connection, HELLO);
  assertEquals(await readExactly(connection, HELLO.length), HELLO);
  assertEquals([proxy.connections, proxy.passed], [1, { up: 1000, down: 1000 }]);
  await connection.closeWrite();
  assertEquals(await connection.read(new Uint8Array(1)), null);
});

Deno.test("TcpProxy delays what passes, in order, and narrows it", async () => {
  await using echo = startEcho();
  await using proxy = await startTcpProxy({ target: echo.port, rules: { latencyMs: 20, jitterMs: 20 }, seed: 3 });
  using connection = await connectTo(proxy.port);
  let begun = performance.now();
  for (let at = 0; at < 1000; at += 100) {
    await send(connection, HELLO.subarray(at, at + 100));
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  assertEquals(await readExactly(connection, HELLO.length), HELLO);
  assert(performance.now() - begun >= 40, "two delays of 20 ms");
  proxy.set({ latencyMs: 0, jitterMs: 0, bytesPerSecond: 10_000 });
  begun = performance.now();
  await send(connection, HELLO);
  await readExactly(connection, 1000);
  await send(connection, HELLO);
  await readExactly(connection, 1000);
  assert(performance.now() - begun >= 100, "the second thousand waits for the first at 10,000 bytes a second");
});

Deno.test("TcpProxy swallows one direction while the connection stays open", async () => {
  await using echo = startEcho();
  await using proxy = await startTcpProxy({ target: echo.port });
  using connection = await connectTo(proxy.port);
  await send(connection, HELLO);
  await readExactly(connection, 1000);
  proxy.set({ swallow: ["down"] });
  await send(connection, HELLO);
  while (proxy.passed.up < 2000) await new Promise((resolve) => setTimeout(resolve, 1));
  await new Promise((resolve) => setTimeout(resolve, 20));
  proxy.set({ swallow: [] });
  await send(connection, new Uint8Array([255]));
  assertEquals(await readExactly(connection, 1), new Uint8Array([255]));
  assertEquals(proxy.passed, { up: 2001, down: 1001 });
});

Deno.test("TcpProxy.flip() inverts one byte, once", async () => {
  await using echo = startEcho();
  await using proxy = await startTcpProxy({ target: echo.port });
  using connection = await connectTo(proxy.port);
  await send(connection, HELLO);
  await readExactly(connection, 1000);
  proxy.flip({ direction: "up", after: 1500 });
  const expected = HELLO.slice();
  expected[500] ^= 0xff;
  await send(connection, HELLO);
  assertEquals(await readExactly(connection, 1000), HELLO);
  await send(connection, HELLO);
  assertEquals(await readExactly(connection, 1000), expected);
  await send(connection, HELLO);
  assertEquals(await readExactly(connection, 1000), HELLO);
});

Deno.test("TcpProxy.truncate() closes after some bytes", async () => {
  await using echo = startEcho();
  await using proxy = await startTcpProxy({ target: echo.port });
  using connection = await connectTo(proxy.port);
  await send(connection, HELLO);
  await readExactly(connection, 1000);
  proxy.truncate({ direction: "down", after: 300 });
  await send(connection, HELLO);
  assertEquals(await readExactly(connection, 300), HELLO.subarray(0, 300));
  assertEquals(await connection.read(new Uint8Array(1)).catch(() => null), null);
  while (proxy.connections > 0) await new Promise((resolve) => setTimeout(resolve, 1));
});

Deno.test("TcpProxy.cut() ends connections, reset() resets them, and new ones may be refused", async () => {
  await using echo = startEcho();
  await using proxy = await startTcpProxy({ target: echo.port });
  {
    using connection = await connectTo(proxy.port);
    await send(connection, HELLO);
    await readExactly(connection, 1000);
    proxy.cut();
    assertEquals(await connection.read(new Uint8Array(1)), null);
  }
  {
    using connection = await connectTo(proxy.port);
    await send(connection, HELLO);
    await readExactly(connection, 1000);
    proxy.reset();
    await assertRejects(() => connection.read(new Uint8Array(1)), Deno.errors.ConnectionReset);
  }
  proxy.set({ accept: "reset" });
  await assertRejects(async () => {
    using connection = await connectTo(proxy.port);
    await readExactly(connection, 1);
  });
  assertEquals(proxy.connections, 0);
});
