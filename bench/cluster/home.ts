/**
 * An instance on the calling thread, with everything a member has: device, engine, links; and with hooks that say when
 * tokens came, where segments lie and how long steps and remote layers took.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import { MemoryHost } from "../../plugins/memory_host.ts";
import { SchedulerHost } from "../../plugins/host.ts";
import { PLUGIN_API } from "../../plugins/types.ts";
import type { StepTiming } from "../../runtime/cluster/attention_client.ts";
import { Member } from "../../runtime/cluster/member.ts";
import { kvFormat } from "../../runtime/cluster/open_member.ts";
import { newIdentity, openPorts } from "../../runtime/cluster/open_ports.ts";
import type { MemberPorts } from "../../runtime/cluster/ports.ts";
import { CLUSTER_TIMINGS } from "../../runtime/cluster/options.ts";
import { SEGMENT_TOKENS } from "../../runtime/device/device.ts";
import { kernelDigest } from "../../runtime/device/kernel_digest.ts";
import { kvBlocks } from "../../runtime/device/kv_size.ts";
import { openDevice } from "../../runtime/device/open_device.ts";
import { Engine, type EngineOptions } from "../../runtime/engine/engine.ts";
import type { CommandResult } from "../../runtime/cluster/report.ts";
import type { EngineRequest, RequestEvent } from "../../runtime/engine/request.ts";
import type { OpenModel } from "../../runtime/model/model.ts";
import { buildTokenTable } from "../../runtime/text/token_table.ts";
import { readTokenizerJson } from "../../runtime/text/tokenizer_json.ts";
import { PROTOCOL_VERSION } from "../../scheduler/protocol/messages.ts";
import { eventually, within } from "../../tests/cluster/deadline.ts";
import { drawPrompt } from "./bench_context.ts";
import { HoldingPolicy } from "./holding_policy.ts";
import { type LayerTimes, WatchedDevice } from "./watched_device.ts";

/** How to open a {@linkcode Home}. */
export interface HomeOptions {
  /** The model, open; stays the caller's. */
  readonly model: OpenModel;
  /** Name in the cluster; without one the instance is in no cluster. */
  readonly name?: string;
  /** KV cache, tokens. */
  readonly kvTokens: number;
  /** Members to join. */
  readonly join?: readonly string[];
  /** Most of its blocks that it lends, 0 to 1. */
  readonly lendShare?: number;
  /** Multiply-accumulates between two turns while others have memory here. */
  readonly sliceWork?: number;
  /** Most bytes a second that leave while steps run. */
  readonly moveBytesPerSecond?: number;
  /** How turns are passed on: as members do it, or with `setImmediate`. @default {"member"} */
  readonly turns?: "member" | "immediate";
}

/** A step that ran. */
export interface TimedStep extends StepTiming {
  /** When it ended, ms. */
  readonly endMs: number;
}

/** A line that a member logged. */
export interface LogLine {
  /** When, on the clock of `performance.now()`. */
  readonly atMs: number;
  /** The line. */
  readonly message: string;
}

/** Tokens a request may generate; samples end long before. */
export const MOST_TOKENS = 2000;

/** Most running sequences: eight and a few beside them. */
const MAX_BATCH = 16;
/** A change of placement, a token or a line of the log must come in this time, ms. */
const CHANGE_MS = 120_000;

/** A request that runs on a {@linkcode Home}. */
export class Stream {
  /** Times at which its tokens came, ms. */
  readonly tokenMs: number[] = [];
  /** Its handle in the scheduler, known once its first token has come. */
  handle = -1;
  /** Why it ended; undefined while it runs. */
  ended: string | undefined;
  /** Id of its request. */
  readonly id: string;
  #waiting: { readonly count: number; readonly done: () => void } | undefined;

  /** Of a request. */
  constructor(id: string) {
    this.id = id;
  }

  /** Tokens have come. */
  take(count: number): void {
    const now = performance.now();
    for (let i = 0; i < count; i++) this.tokenMs.push(now);
    if (this.#waiting !== undefined && this.tokenMs.length >= this.#waiting.count) this.#waiting.done();
  }

  /** It has ended. */
  end(reason: string): void {
    this.ended = reason;
    this.#waiting?.done();
  }

  /** Resolves with the event that brings token number `count`, without a look in between. @throws {Error} when it ends before. */
  async reaches(count: number): Promise<void> {
    if (this.tokenMs.length < count && this.ended === undefined) {
      await within(
        CHANGE_MS,
        `token ${count} of ${this.id}`,
        new Promise<void>((done) => this.#waiting = { count, done }),
      );
      this.#waiting = undefined;
    }
    if (this.tokenMs.length < count) throw new Error(`Cannot measure: request ${this.id} ended: ${this.ended}`);
  }
}

/** What passes turns on where it is not the member's own way. */
function turnsOf({ turns }: HomeOptions): Partial<MemberPorts> {
  return turns === "immediate" ? { defer: (work) => void setImmediate(work) } : {};
}

/** One instance. Disposing of it ends it. */
export class Home implements Disposable {
  /** Its member; an instance in no cluster has none. */
  readonly member: Member | undefined;
  /** Its engine. */
  readonly engine: Engine;
  /** Sequences that stand still. */
  readonly held: Set<number>;
  /** Steps that ran, oldest first; of a member only. Emptied by whoever reads it. */
  readonly steps: TimedStep[];
  /** Times of remote layers. */
  readonly layers: LayerTimes;
  /** What the member logged. */
  readonly lines: readonly LogLine[];
  readonly #name: string;
  readonly #stack: DisposableStack;
  #requests = 0;
  #stepping = false;

  /** Takes what {@linkcode Home.open} opened. */
  constructor(
    parts: Pick<Home, "member" | "engine" | "held" | "steps" | "layers" | "lines"> & {
      readonly name: string;
      readonly stack: DisposableStack;
    },
  ) {
    this.member = parts.member;
    this.engine = parts.engine;
    this.held = parts.held;
    this.steps = parts.steps;
    this.layers = parts.layers;
    this.lines = parts.lines;
    this.#name = parts.name;
    this.#stack = parts.stack;
  }

  /** Opens device, engine and, with a name, a member. */
  static async open(options: HomeOptions): Promise<Home> {
    const { model, name, kvTokens } = options;
    const steps: TimedStep[] = [];
    const lines: LogLine[] = [];
    const now = () => performance.now();
    const log = (message: string) => void lines.push({ atMs: now(), message });
    const host = { now, random: Math.random, log };
    using opened = new DisposableStack();
    const blocks = kvBlocks(model.config, { kvTokens, kvType: "f16", blockTokens: 16 });
    const plain = opened.use(await openDevice(model, { kind: "wasm", threads: 1, blocks, kvType: "f16" }));
    const device = new WatchedDevice(plain);
    const scheduler = new HoldingPolicy(opened.use(await SchedulerHost.load("builtin:fcfs", host)));
    const engineOptions: EngineOptions = {
      device,
      policy: scheduler,
      vocabulary: buildTokenTable(readTokenizerJson(model.text)),
      eos: model.text.eos,
      maxModelLen: model.config.contextLength,
      maxBatch: MAX_BATCH,
      modelName: model.name,
      modelDigest: model.digest,
      now,
    };
    const parts = { held: scheduler.held, steps, layers: device.times, lines };
    if (name === undefined) {
      const stack = opened.move();
      return new Home({ ...parts, member: undefined, engine: new Engine(engineOptions), name: "", stack });
    }
    const late: { member?: Member } = {};
    const memberPorts = opened.use(
      await openPorts({
        cluster: {},
        card: () => {
          if (late.member === undefined) throw new ReferenceError("Cannot show a card: the member is being opened");
          return late.member.card;
        },
        epoch: () => late.member?.epoch ?? 0,
        log,
      }),
    );
    const ports = { ...memberPorts, ...turnsOf(options) };
    const member = new Member({
      card: {
        ...newIdentity(name),
        role: "full",
        publicUrl: "",
        pid: Deno.pid,
        protocol: PROTOCOL_VERSION,
        pluginApi: PLUGIN_API,
        kernelDigest: kernelDigest(device),
      },
      parts: {
        kind: "full",
        device,
        format: kvFormat(device, model.digest),
        engine: (hooks) => new Engine({ ...engineOptions, ...hooks }),
        scheduler,
        maxBatch: MAX_BATCH,
        model: {
          observe: (step) => void steps.push({ ...step, endMs: now() }),
          report: () => undefined,
        },
      },
      join: options.join ?? [],
      // Nothing moves but what the bench orders.
      memoryPolicy: opened.use(await MemoryHost.load("builtin:local-only", host)),
      timings: { ...CLUSTER_TIMINGS, newcomerMs: 0 },
      lendShare: options.lendShare,
      sliceWork: options.sliceWork,
      moveBytesPerSecond: options.moveBytesPerSecond,
      segmentTokens: SEGMENT_TOKENS,
      onLeaveAsked: () => {},
    }, ports);
    late.member = member;
    opened.adopt(member, (started) => started.stop());
    member.start();
    const { engine } = member;
    if (engine === undefined) throw new TypeError("Cannot open a home: wanted a member with an engine");
    return new Home({ ...parts, member, engine, name, stack: opened.move() });
  }

  /** Where its cluster port is reached. @throws {ReferenceError} for an instance in no cluster. */
  get clusterUrl(): string {
    if (this.member === undefined) throw new ReferenceError("Cannot join this instance: it is in no cluster");
    return this.member.card.clusterUrl;
  }

  /** Waits until it sees so many members, itself included, all alive. */
  async sees(count: number): Promise<void> {
    const { member } = this;
    await eventually(async () => {
      if (member === undefined) return undefined;
      const { members } = await new Promise<{ readonly members: readonly { readonly state: string }[] }>((resolve) =>
        member.report(resolve)
      );
      return members.length === count && members.every(({ state }) => state === "alive") ? true : undefined;
    }, { what: `${this.#name} to see ${count} members`, ms: CHANGE_MS, everyMs: 50 });
  }

  /** Runs a greedy request and resolves with its first token. */
  async start(prompt: ArrayLike<number>, options: { readonly maxTokens: number }): Promise<Stream> {
    const stream = new Stream(`${this.#name}-${this.#requests++}`);
    const known = new Set(this.engine.memory.placements().map(({ sequence }) => sequence));
    const request: EngineRequest = {
      id: stream.id,
      prompt,
      maxTokens: options.maxTokens,
      sampling: { temperature: 0, ignoreEos: true },
    };
    const event = (event: RequestEvent) => {
      if (event.kind === "token") {
        if (stream.handle < 0) {
          const placed = this.engine.memory.placements().filter(({ sequence }) => !known.has(sequence));
          stream.handle = placed.at(-1)?.sequence ?? -1;
        }
        stream.take(event.ids.length);
      } else if (event.kind === "end") {
        stream.end(event.error?.message ?? event.kind);
      }
    };
    if (this.member === undefined) {
      this.engine.add(request, event);
      this.#drive();
    } else {
      this.member.submit(request, {
        event,
        rejected: (error) => stream.end(error.message),
      });
    }
    await stream.reaches(1);
    return stream;
  }

  /** Computes for so long, so that the kernels reach their final tier. */
  async warm(ms: number): Promise<void> {
    if (ms === 0) return;
    const untilMs = performance.now() + ms;
    const stream = await this.start(drawPrompt(256, 0), { maxTokens: MOST_TOKENS });
    while (performance.now() < untilMs) await stream.reaches(stream.tokenMs.length + 1);
    this.cancel(stream);
  }

  /** Ends a request. */
  cancel(stream: Stream): void {
    this.held.delete(stream.handle);
    if (this.member === undefined) this.engine.cancel(stream.id);
    else this.member.cancel(stream.id);
  }

  /**
   * Waits until `count` more tokens of `first` have come. @returns tokens a second of all of `streams` meanwhile.
   *
   * @throws {Error} when it ends before.
   */
  async rate(streams: readonly Stream[], count: number): Promise<number> {
    const [first] = streams;
    const { tokenMs } = first;
    const begun = tokenMs.length;
    await first.reaches(begun + count);
    const from = tokenMs[begun - 1];
    const to = tokenMs[begun + count - 1];
    const tokens = streams.reduce((sum, { tokenMs }) => sum + tokenMs.filter((ms) => ms > from && ms <= to).length, 0);
    return tokens / (to - from) * 1000;
  }

  /** Tokens a second, and tokens, of a stream while something holds after each of them, at least one. */
  async rateWhile(
    stream: Stream,
    holds: () => boolean,
  ): Promise<{ readonly perSecond: number; readonly tokens: number }> {
    const { tokenMs } = stream;
    const begun = tokenMs.length;
    do await stream.reaches(tokenMs.length + 1); while (holds());
    const tokens = tokenMs.length - begun;
    return { perSecond: tokens / (tokenMs[tokenMs.length - 1] - tokenMs[begun - 1]) * 1000, tokens };
  }

  /** Orders the lowest segments of a sequence that lie on `from` to another member; returns once the order is taken. */
  async order(
    stream: Stream,
    options: { readonly segments: number; readonly to: string; readonly from?: string },
  ): Promise<void> {
    const { member } = this;
    if (member === undefined) throw new ReferenceError("Cannot move: the instance is in no cluster");
    const sequence = `${this.#name}/${stream.handle}`;
    let said = "";
    // A newcomer lends gently at first, and a holder binds its memory when it is first asked.
    await eventually(async () => {
      const { ok, message } = await new Promise<CommandResult>((resolve) =>
        member.operate({ kind: "move", sequence, ...options }, resolve)
      );
      said = message;
      return ok ? true : undefined;
    }, { what: `${sequence} to be moved`, ms: CHANGE_MS, seen: () => said });
  }

  /** Segments of a sequence that lie on another member, ascending. */
  away(stream: Stream): readonly number[] {
    const placed = this.engine.memory.placements().find(({ sequence }) => sequence === stream.handle);
    return (placed?.ranges ?? []).flatMap(({ from, to, creditor }) =>
      creditor === undefined ? [] : Array.from({ length: to - from }, (_, i) => from + i)
    );
  }

  /** {@linkcode order}, and waits until so many segments lie elsewhere. */
  async place(
    stream: Stream,
    options: { readonly segments: number; readonly to: string; readonly from?: string; readonly away: number },
  ): Promise<void> {
    const { away, ...order } = options;
    await this.order(stream, order);
    await this.until(() => this.away(stream).length === away || stream.ended !== undefined, `${away} segments away`);
    if (stream.ended !== undefined) throw new Error(`Cannot move: request ${stream.id} ended: ${stream.ended}`);
  }

  /** Waits until something holds, looking every few milliseconds. @throws {Error} naming `what` when it does not. */
  async until(holds: () => boolean, what: string): Promise<void> {
    await eventually(() => Promise.resolve(holds() ? true : undefined), { what, ms: CHANGE_MS, everyMs: 3 });
  }

  /** Ends it. */
  [Symbol.dispose](): void {
    this.#stack.dispose();
  }

  /** Steps an engine in no cluster, one step a turn of the event loop as members do. */
  #drive(): void {
    if (this.#stepping) return;
    this.#stepping = true;
    const turn = () => {
      if (this.engine.busy && !this.#stack.disposed && this.engine.step()) return void setImmediate(turn);
      this.#stepping = false;
    };
    setImmediate(turn);
  }
}
