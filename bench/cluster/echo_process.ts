/**
 * Answers on a bare stream, in a process of its own: for so many bytes that come, so many go back. It says on standard
 * output where it listens, and ends when standard input does.
 *
 *     deno run --allow-net echo_process.ts http2|tcp COME GO
 *
 * @module
 */
import { createServer } from "node:http2";
import { createServer as createTcpServer } from "node:net";

/** Something that bytes come from and go to. */
interface EchoStream {
  on(event: "data", take: (chunk: Uint8Array) => void): unknown;
  on(event: "error", take: () => void): unknown;
  write(bytes: Uint8Array): unknown;
}

function serve(stream: EchoStream, come: number, answer: Uint8Array): void {
  let got = 0;
  stream.on("error", () => {});
  stream.on("data", (chunk) => {
    got += chunk.length;
    if (got < come) return;
    got -= come;
    stream.write(answer);
  });
}

if (import.meta.main) {
  const [kind, come, go] = Deno.args;
  const answer = new Uint8Array(Number(go)).fill(7);
  const listen = (server: { address(): unknown }) => () => {
    const address = server.address();
    if (typeof address === "object" && address !== null && "port" in address) console.log(`port ${address.port}`);
  };
  if (kind === "http2") {
    const server = createServer({ settings: { initialWindowSize: 2 ** 24 } });
    server.on("stream", (stream) => {
      stream.respond({ ":status": 200 });
      serve(stream, Number(come), answer);
    });
    server.listen(0, "127.0.0.1", listen(server));
  } else {
    const server = createTcpServer({ noDelay: true }, (socket) => serve(socket, Number(come), answer));
    server.listen(0, "127.0.0.1", listen(server));
  }
  await Deno.stdin.readable.pipeTo(new WritableStream()).catch(() => {});
  Deno.exit();
}
