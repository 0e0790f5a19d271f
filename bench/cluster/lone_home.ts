/**
 * The attention half of a home without an engine: links, a lease at one holder with known bytes in it, and the client that
 * instances use.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import { PLUGIN_API } from "../../plugins/types.ts";
import { AttentionClient } from "../../runtime/cluster/attention_client.ts";
import { Counters } from "../../runtime/cluster/counters.ts";
import { newIdentity } from "../../runtime/cluster/open_ports.ts";
import { CLUSTER_TIMINGS } from "../../runtime/cluster/options.ts";
import { type Answer, type NoAnswer, Peers } from "../../runtime/cluster/peers.ts";
import type { MemberPorts } from "../../runtime/cluster/ports.ts";
import { SegmentReader } from "../../runtime/cluster/segment_bytes.ts";
import type { KvStore } from "../../runtime/device/device.ts";
import { kernelDigest } from "../../runtime/device/kernel_digest.ts";
import type { RunSequence } from "../../runtime/engine/step_runner.ts";
import type { BorrowedSlot } from "../../scheduler/lending/borrowed.ts";
import { type Http2Network, openHttp2Network } from "../../scheduler/links/http2_network.ts";
import type { KvFormat } from "../../scheduler/protocol/member.ts";
import { type ControlMessage, PROTOCOL_VERSION, type SlotRun } from "../../scheduler/protocol/messages.ts";
import { eventually, within } from "../../tests/cluster/deadline.ts";
import type { QueryDevice } from "./query_device.ts";

/** How to open a {@linkcode LoneHome}. */
export interface LoneHomeOptions {
  /** Asks. */
  readonly device: QueryDevice;
  /** Its bytes go to the holder, block by block from the first on; stays the caller's. */
  readonly store: KvStore;
  /** Format of the KV. */
  readonly format: KvFormat;
  /** Cluster port of the holder. */
  readonly holder: string;
  /** Segments to borrow. */
  readonly segments: number;
}

const CALL_MS = 5000;
const OPEN_MS = 20_000;

/** A home that only asks. Disposing of it closes its links. */
export class LoneHome implements AsyncDisposable {
  /** Sends queries and takes partials as instances do. */
  readonly client: AttentionClient;
  readonly #options: LoneHomeOptions;
  readonly #network: Http2Network;
  readonly #ports: MemberPorts;
  readonly #peers: Peers;
  readonly #slots: BorrowedSlot[] = [];

  /** Takes a network that is open; {@linkcode LoneHome.open} does the rest. */
  constructor(options: LoneHomeOptions, network: Http2Network) {
    this.#options = options;
    this.#network = network;
    const ports: MemberPorts = {
      now: () => performance.now(),
      random: Math.random,
      timer: (ms, fire) => {
        const id = setTimeout(fire, ms);
        return { cancel: () => clearTimeout(id) };
      },
      defer: (work) => void setImmediate(work),
      network,
      log: () => {},
    };
    this.#ports = ports;
    this.#peers = new Peers({
      ports,
      listener: { reached: () => {}, lost: () => {} },
      reconnectMs: CLUSTER_TIMINGS.partialMs,
      redialMs: CLUSTER_TIMINGS.heartbeatMs,
      suspectMs: CLUSTER_TIMINGS.suspectMs,
    });
    this.client = new AttentionClient({
      device: options.device,
      ports,
      peers: this.#peers,
      counters: new Counters(),
      partialMs: CLUSTER_TIMINGS.partialMs,
      slice: () => Infinity,
      onStep: () => {},
      onHolderLost: () => {},
      onSlotsRefused: () => {},
    });
  }

  /** Links with the holder, borrows and fills. @throws {Error} when that does not work out. */
  static async open(options: LoneHomeOptions): Promise<LoneHome> {
    const network = await openHttp2Network({
      card: {
        ...newIdentity("lone-home"),
        role: "full",
        clusterUrl: "",
        publicUrl: "",
        pid: Deno.pid,
        protocol: PROTOCOL_VERSION,
        pluginApi: PLUGIN_API,
        format: options.format,
        kernelDigest: kernelDigest(options.store),
      },
      host: "127.0.0.1",
      port: 0,
    });
    const home = new LoneHome(options, network);
    try {
      await home.#start();
      return home;
    } catch (error) {
      await home[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Runs one step: a round trip for each layer. @throws {Error} when it is lost. */
  async ask(): Promise<void> {
    const { segments, format: { segmentTokens } } = this.#options;
    const sequence: RunSequence = {
      tokens: [0],
      position: segments * segmentTokens,
      blocks: [],
      logits: "last",
      slots: this.#slots.map((slot, segment) => ({ segment, slot })),
    };
    const outcome = await within(
      CALL_MS,
      "the partials of a step",
      new Promise<string>((resolve) => this.client.run([sequence], ({ kind }) => resolve(kind))),
    );
    if (outcome !== "ran") throw new Error(`Cannot ask the holder: the step is ${outcome}`);
  }

  /** Keeps the lease. */
  async renew(): Promise<void> {
    const [{ lease, creditor: { incarnation } }] = this.#slots;
    await this.#call(incarnation, { kind: "renew", call: this.#peers.nextCall(), leases: [lease] });
  }

  /** Closes the links. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#peers.stop();
    this.#network[Symbol.dispose]();
    await this.#network.finished;
  }

  async #start(): Promise<void> {
    const peers = this.#peers;
    this.#network.listen({
      opened: (link) => peers.opened(link),
      closed: (link, reason) => peers.closed(link, reason),
      failed: (url, error) => peers.failed(url, error),
      received: ({ peer }, { message }) => {
        peers.heard(peer.incarnation);
        switch (message.kind) {
          case "partials":
            this.client.take(peer.incarnation, message);
            break;
          case "refused":
            if (!this.client.take(peer.incarnation, message)) peers.answer(peer, message);
            break;
          case "granted":
          case "renewed":
          case "written":
            peers.answer(peer, message);
            break;
          case "ping":
            peers.tell(peer.incarnation, { kind: "pong", call: message.call });
            break;
        }
      },
    });
    peers.want(this.#options.holder);
    const holder = await eventually(() => Promise.resolve(peers.cards.at(0)), {
      what: "the holder",
      ms: OPEN_MS,
      everyMs: 10,
    });
    const run = await eventually(() => this.#borrow(holder.incarnation), { what: "a lease", ms: OPEN_MS });
    for (let i = 0; i < run.count; i++) {
      const slot = { creditor: holder, lease: run.lease, stamp: run.stamp, slot: run.from + i };
      await this.#fill(holder.incarnation, { ...run, from: slot.slot, count: 1 }, i);
      this.#slots.push(slot);
    }
  }

  async #borrow(incarnation: string): Promise<SlotRun | undefined> {
    const { segments, format } = this.#options;
    const call = this.#peers.nextCall();
    const answer = await this.#call(incarnation, {
      kind: "try-move-kvcache",
      call,
      sequence: "lone-home/1",
      segments,
      format,
    });
    return answer.kind === "granted" ? answer.run : undefined;
  }

  async #fill(incarnation: string, run: SlotRun, segment: number): Promise<void> {
    const { store, format } = this.#options;
    const blocksPerSegment = format.segmentTokens / format.blockTokens;
    const blocks = Array.from({ length: blocksPerSegment }, (_, i) => segment * blocksPerSegment + i);
    const reader = new SegmentReader(store, blocks);
    const call = this.#peers.nextCall();
    for (let piece = reader.next(); piece !== undefined; piece = reader.next()) {
      this.#peers.tellKv(incarnation, { kind: "piece", call, run, ...piece });
    }
    const written = this.#expect(incarnation, call);
    this.#peers.tellKv(incarnation, { kind: "commit", call, run, digest: reader.digest });
    const answer = await written;
    if (answer.kind !== "written") throw new Error(`Cannot fill a segment: got ${JSON.stringify(answer)}`);
  }

  #call(
    incarnation: string,
    message: Extract<ControlMessage, { readonly call: number }>,
  ): Promise<Answer | NoAnswer> {
    const answer = this.#expect(incarnation, message.call);
    this.#peers.tell(incarnation, message);
    return answer;
  }

  #expect(incarnation: string, call: number): Promise<Answer | NoAnswer> {
    return new Promise((done) => this.#peers.expect(incarnation, call, { timeoutMs: CALL_MS, done }));
  }
}
