/**
 * Times an echo of 4 KB of queries and as much of a partial over the attention lane, between two threads on loopback:
 * idle, and beside a kv lane that always has more to send; without a key, with one and with certificates; and the same
 * bytes over a bare HTTP/2 stream.
 *
 * `deno run -A scheduler/links/links_bench.ts [--json FILE]`
 *
 * @module
 */
import { connect, createServer } from "node:http2";
import { parseArgs } from "node:util";
import { isMainThread, type MessagePort, parentPort, Worker } from "node:worker_threads";
import type { KvFormat, MemberCard } from "../protocol/member.ts";
import type { AttendRequest, WirePartial } from "../protocol/messages.ts";
import { PROTOCOL_VERSION } from "../protocol/messages.ts";
import type { LinkTls } from "./hello_context.ts";
import { openHttp2Network } from "./http2_network.ts";
import type { PeerLink } from "./link.ts";

const ROUNDS = 3000;
const WARM_UP = 500;
const QUERY_BYTES = 4096;
const KV_PIECE = 16384;
/** The kv lane is kept this full. */
const KV_AHEAD = 2 ** 20;
const KEY = new Uint8Array(32).fill(1);

const FORMAT: KvFormat = {
  modelDigest: "bench",
  kvType: "f16",
  layout: "bench",
  layers: 32,
  heads: 16,
  kvHeads: 16,
  headDim: 64,
  blockTokens: 16,
  segmentTokens: 256,
  blockBytes: 2 ** 20,
};

function card(name: string): MemberCard {
  return {
    name,
    incarnation: (name === "home" ? "1" : "2").repeat(32),
    role: "full",
    clusterUrl: "",
    publicUrl: "",
    pid: 0,
    protocol: PROTOCOL_VERSION,
    pluginApi: 1,
    format: FORMAT,
    kernelDigest: "",
  };
}

/** What secures a link. */
type Guard = "without a key" | "with a key" | "with certificates";

function secured(guard: Guard): { readonly key?: Uint8Array; readonly tls?: LinkTls } {
  switch (guard) {
    case "without a key":
      return {};
    case "with a key":
      return { key: KEY };
    case "with certificates": {
      const read = (part: string) => Deno.readTextFileSync(new URL(`testdata/cluster.${part}.pem`, import.meta.url));
      return { tls: { cert: read("cert"), key: read("key"), ca: read("ca") } };
    }
  }
}

/** What a holder thread is told. */
type Order = { readonly kind: "bare" } | { readonly kind: "link"; readonly guard: Guard };

/** Answers in a thread of its own. */
function runHolder(home: MessagePort): void {
  home.on("message", async (data: Order) => {
    if (data.kind === "bare") {
      const server = createServer({ settings: { initialWindowSize: 2 ** 24 } });
      server.on("stream", (stream) => {
        stream.respond({ ":status": 200 });
        stream.on("data", (chunk: Uint8Array) => stream.write(chunk));
        stream.on("error", () => {});
      });
      server.listen(0, "127.0.0.1", () => {
        const address = server.address();
        if (typeof address === "object" && address !== null) home.postMessage(`http://127.0.0.1:${address.port}`);
      });
    } else {
      const network = await openHttp2Network({
        card: card("holder"),
        host: "127.0.0.1",
        port: 0,
        ...secured(data.guard),
      });
      let received = 0;
      network.listen({
        opened() {},
        closed() {},
        failed() {},
        received(link, { message }) {
          if (message.kind === "attend") {
            const items = message.items.map(({ segment, queries }): WirePartial[] => [
              { first: segment, segments: 1, o: queries, lse: new Float32Array(FORMAT.heads) },
            ]);
            link.attention.send({ kind: "partials", call: message.call, layer: message.layer, items });
          } else if (message.kind === "piece") {
            received += message.bytes.length;
          } else if (message.kind === "ping") {
            link.control({ kind: "pong", call: received });
          } else if (message.kind === "recall") {
            sendKv(link, () => true);
          }
        },
      });
      home.postMessage(network.url);
    }
  });
}

/** Keeps the kv lane full while `wanted`. */
function sendKv(link: PeerLink, wanted: () => boolean): void {
  const bytes = new Uint8Array(KV_PIECE).fill(7);
  const run = { lease: 1, stamp: 1, from: 0, count: 1 };
  const fill = () => {
    if (!wanted()) return;
    try {
      while (link.kvBacklog < KV_AHEAD) link.kv({ kind: "piece", call: 1, run, offset: 0, bytes });
    } catch {
      return;
    }
    setTimeout(fill, 1);
  };
  fill();
}

interface Row {
  readonly what: string;
  readonly medianMs: number;
  readonly p99Ms: number;
  /** Of the bare stream's median. */
  readonly ratio?: number;
  /** What the kv lane carried meanwhile, MB/s. */
  readonly kvMBs?: number;
}

function summary(what: string, times: number[]): Row {
  const sorted = times.slice(WARM_UP).sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor(sorted.length * share)];
  return { what, medianMs: at(0.5), p99Ms: at(0.99) };
}

function startHolder(order: Order): Promise<{ url: string; stop: () => void }> {
  const worker = new Worker(new URL(import.meta.url));
  return new Promise((resolve) => {
    worker.once("message", (url) => resolve({ url, stop: () => void worker.terminate() }));
    worker.postMessage(order);
  });
}

async function timeBare(): Promise<Row> {
  const holder = await startHolder({ kind: "bare" });
  const session = connect(holder.url, { settings: { initialWindowSize: 2 ** 24 } });
  const stream = session.request({ ":method": "POST", ":path": "/" });
  const bytes = new Uint8Array(QUERY_BYTES);
  const times: number[] = [];
  await new Promise<void>((resolve) => {
    let got = 0;
    let begun = performance.now();
    stream.on("data", (chunk: Uint8Array) => {
      got += chunk.length;
      if (got < QUERY_BYTES) return;
      got = 0;
      times.push(performance.now() - begun);
      if (times.length === ROUNDS) return resolve();
      begun = performance.now();
      stream.write(bytes);
    });
    stream.write(bytes);
  });
  stream.end();
  session.close();
  holder.stop();
  return summary("a bare HTTP/2 stream", times);
}

async function timeLink(guard: Guard, beside: "nothing" | "kv up" | "kv down"): Promise<Row> {
  const holder = await startHolder({ kind: "link", guard });
  const network = await openHttp2Network({
    card: card("home"),
    host: "127.0.0.1",
    port: 0,
    ...secured(guard),
  });
  const queries = new Float32Array(QUERY_BYTES / 4).fill(0.5);
  const items = [{ segment: 3, runs: [{ lease: 1, stamp: 2, from: 3, count: 1 }], position: 2048, tokens: 1, queries }];
  const times: number[] = [];
  let running = true;
  let begun = 0;
  let kvBytes = 0;
  let kvBegun = 0;
  const ask = (link: PeerLink) => {
    const request: AttendRequest = { kind: "attend", call: times.length, layer: 1, items };
    begun = performance.now();
    link.attention.send(request);
  };
  await new Promise<void>((resolve) => {
    network.listen({
      opened(link) {
        kvBegun = performance.now();
        if (beside === "kv up") sendKv(link, () => running);
        if (beside === "kv down") link.control({ kind: "recall", call: 1, segments: 1, withinMs: 1 });
        ask(link);
      },
      closed: () => resolve(),
      failed: (_, error) => {
        throw error;
      },
      received(link, { message }) {
        if (message.kind === "piece") kvBytes += message.bytes.length;
        if (message.kind === "pong") {
          kvBytes += message.call;
          resolve();
        }
        if (message.kind !== "partials") return;
        times.push(performance.now() - begun);
        if (times.length < ROUNDS) ask(link);
        else link.control({ kind: "ping", call: 0 });
      },
    });
    network.dial(holder.url);
  });
  running = false;
  const kvMBs = kvBytes / (performance.now() - kvBegun) / 1000;
  network[Symbol.dispose]();
  await network.finished;
  holder.stop();
  const row = summary(`attention lane ${guard}, beside ${beside}`, times);
  return beside === "nothing" ? row : { ...row, kvMBs };
}

if (isMainThread) {
  const { values } = parseArgs({ options: { json: { type: "string" } } });
  const bare = await timeBare();
  const rows: Row[] = [bare];
  for (const guard of ["without a key", "with a key", "with certificates"] as const) {
    for (const beside of ["nothing", "kv up", "kv down"] as const) rows.push(await timeLink(guard, beside));
  }
  const judged = rows.map((row) => ({ ...row, ratio: row.medianMs / bare.medianMs }));
  for (const { what, medianMs, p99Ms, ratio, kvMBs } of judged) {
    console.log(
      `${what.padEnd(54)} median ${medianMs.toFixed(3)} ms, p99 ${p99Ms.toFixed(3)} ms, ${ratio.toFixed(2)} of bare` +
        (kvMBs === undefined ? "" : `, kv ${kvMBs.toFixed(0)} MB/s`),
    );
  }
  if (values.json) Deno.writeTextFileSync(values.json, JSON.stringify({ rounds: ROUNDS, rows: judged }, undefined, 2));
  Deno.exit();
} else if (parentPort) {
  runHolder(parentPort);
}
