/**
 * Times a bare echo between two processes: what the same bytes cost without frames, checks and attention.
 *
 * @module
 */
import { connect } from "node:http2";
import { connect as connectTcp } from "node:net";
import { fileURLToPath } from "node:url";
import { within } from "../../tests/cluster/deadline.ts";

/** Round trips of an echo. */
export interface EchoTimes {
  /** From before the write to the last byte that came back, ms. */
  readonly roundTripMs: readonly number[];
  /** Of which in the call that writes, ms. */
  readonly writeMs: readonly number[];
}

interface ClientStream {
  on(event: "data", take: (chunk: Uint8Array) => void): unknown;
  on(event: "error", take: (error: Error) => void): unknown;
  write(bytes: Uint8Array): unknown;
}

const WARM_UP = 300;
const ECHO_MS = 60_000;
const SCRIPT = fileURLToPath(new URL("./echo_process.ts", import.meta.url));

/** Sends `goBytes` and waits for `comeBytes`, `rounds` times. @throws {Error} when the other process does not answer. */
export async function timeEcho(
  kind: "http2" | "tcp",
  options: { readonly goBytes: number; readonly comeBytes: number; readonly rounds: number },
): Promise<EchoTimes> {
  const { goBytes, comeBytes, rounds } = options;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--allow-net=127.0.0.1", SCRIPT, kind, String(goBytes), String(comeBytes)],
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  try {
    const port = await within(ECHO_MS, "the echo to listen", readPort(child.stdout));
    if (kind === "tcp") {
      const socket = connectTcp({ port, host: "127.0.0.1", noDelay: true });
      try {
        return await within(ECHO_MS, "the echo", timeStream(socket, { goBytes, comeBytes, rounds }));
      } finally {
        socket.destroy();
      }
    }
    const session = connect(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 2 ** 24 } });
    try {
      const stream = session.request({ ":method": "POST", ":path": "/" });
      return await within(ECHO_MS, "the echo", timeStream(stream, { goBytes, comeBytes, rounds }));
    } finally {
      session.close();
    }
  } finally {
    await child.stdin.close();
    child.kill("SIGKILL");
    await child.status;
  }
}

async function readPort(stdout: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<number> {
  let text = "";
  for await (const part of stdout.pipeThrough(new TextDecoderStream())) {
    text += part;
    const port = /^port (\d+)$/m.exec(text)?.[1];
    if (port !== undefined) return Number(port);
  }
  throw new Error("Cannot time an echo: the other process ended");
}

function timeStream(
  stream: ClientStream,
  { goBytes, comeBytes, rounds }: { readonly goBytes: number; readonly comeBytes: number; readonly rounds: number },
): Promise<EchoTimes> {
  const bytes = new Uint8Array(goBytes).fill(3);
  const roundTripMs: number[] = [];
  const writeMs: number[] = [];
  let got = 0;
  let begunMs = 0;
  let round = 0;
  return new Promise((resolve, reject) => {
    const send = () => {
      begunMs = performance.now();
      stream.write(bytes);
      if (round >= WARM_UP) writeMs.push(performance.now() - begunMs);
    };
    stream.on("error", reject);
    stream.on("data", (chunk) => {
      got += chunk.length;
      if (got < comeBytes) return;
      got -= comeBytes;
      if (round >= WARM_UP) roundTripMs.push(performance.now() - begunMs);
      if (++round === WARM_UP + rounds) resolve({ roundTripMs, writeMs });
      else send();
    });
    send();
  });
}
