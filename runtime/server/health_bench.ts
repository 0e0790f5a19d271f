/**
 * How much of a bare `node:http` handler's rate does `GET /health` reach? Both servers run in Workers of this process and
 * are asked in turn by the same keep-alive load loop; rounds alternate, the medians are compared.
 *
 * Run: `deno run -A runtime/server/health_bench.ts [--seconds 2] [--connections 32] [--rounds 5]`. Prints one JSON object.
 *
 * @module
 */
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { FakeEngine } from "./fakes/engine.ts";
import { FakeText } from "./fakes/text.ts";
import { createLogger } from "./logger.ts";
import { startServer } from "./server.ts";

type Subject = "bare" | "ours";

const REQUEST = new TextEncoder().encode("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
const BODY = '{"status":"ok"}';

if (isMainThread) await measure();
else parentPort?.postMessage(await listen(workerData));

/** Starts one of the two servers and returns its port. */
async function listen(subject: Subject): Promise<number> {
  if (subject === "ours") {
    const logger = createLogger({ level: "silent" });
    return (await startServer({ engine: new FakeEngine(), text: new FakeText(), port: 0, logger })).port;
  }
  const server = createServer((_request, response) => {
    response.writeHead(200, { "content-type": "application/json", "content-length": BODY.length });
    response.end(BODY);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("Cannot find the port of the bare server");
  return address.port;
}

async function measure(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seconds: { type: "string", default: "2" },
      connections: { type: "string", default: "32" },
      rounds: { type: "string", default: "5" },
    },
  });
  const connections = Number(values.connections);
  const seconds = Number(values.seconds);
  const bare = await startWorker("bare");
  const ours = await startWorker("ours");
  for (const { port } of [bare, ours]) await load(port, connections, 0.5);
  const rates: Record<Subject, number[]> = { bare: [], ours: [] };
  for (let round = 0; round < Number(values.rounds); round++) {
    rates.bare.push(await load(bare.port, connections, seconds));
    rates.ours.push(await load(ours.port, connections, seconds));
  }
  for (const { worker } of [bare, ours]) await worker.terminate();
  const ratios = rates.ours.map((rate, round) => rate / rates.bare[round]);
  console.log(JSON.stringify({
    bench: "health",
    connections,
    seconds,
    barePerSecond: Math.round(median(rates.bare)),
    oursPerSecond: Math.round(median(rates.ours)),
    ratio: Number(median(ratios).toFixed(3)),
    ratios: ratios.map((ratio) => Number(ratio.toFixed(3))),
  }));
}

async function startWorker(subject: Subject): Promise<{ readonly worker: Worker; readonly port: number }> {
  const worker = new Worker(new URL(import.meta.url), { workerData: subject });
  return { worker, port: await new Promise<number>((resolve) => worker.once("message", resolve)) };
}

/** Requests answered a second over `connections` keep-alive connections, one request at a time on each. */
async function load(port: number, connections: number, seconds: number): Promise<number> {
  const endMs = performance.now() + seconds * 1000;
  const counts = await Promise.all(Array.from({ length: connections }, async () => {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port });
    const buffer = new Uint8Array(4096);
    let count = 0;
    while (performance.now() < endMs) {
      await connection.write(REQUEST);
      let got = 0;
      // The body is the last thing that comes, and every answer is far smaller than the buffer.
      do got += await connection.read(buffer.subarray(got)) ?? 0; while (
        buffer[got - 1] !== BODY.charCodeAt(BODY.length - 1)
      );
      count++;
    }
    return count;
  }));
  return counts.reduce((sum, count) => sum + count, 0) / seconds;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
