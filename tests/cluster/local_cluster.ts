/**
 * A cluster in one thread: real members over WASM devices, linked in process, on a clock of their own.
 *
 * @module
 */
import { SchedulerHost } from "../../plugins/host.ts";
import { MemoryHost } from "../../plugins/memory_host.ts";
import { PLUGIN_API } from "../../plugins/types.ts";
import type { FullParts } from "../../runtime/cluster/instance.ts";
import type { HolderParts } from "../../runtime/cluster/lent_memory.ts";
import { Member } from "../../runtime/cluster/member.ts";
import { kvFormat } from "../../runtime/cluster/open_member.ts";
import { CLUSTER_TIMINGS } from "../../runtime/cluster/options.ts";
import type { ClusterCommand, ClusterReport, CommandResult } from "../../runtime/cluster/report.ts";
import { SEGMENT_TOKENS } from "../../runtime/device/device.ts";
import { kernelDigest } from "../../runtime/device/kernel_digest.ts";
import { WasmDevice } from "../../runtime/device/wasm_device.ts";
import { openKvStore } from "../../runtime/device/wasm_kv_store.ts";
import { Engine } from "../../runtime/engine/engine.ts";
import type { EngineRequest, RequestEvent } from "../../runtime/engine/request.ts";
import type { OpenModel } from "../../runtime/model/model.ts";
import { Tokenizer } from "../../runtime/text/tokenizer.ts";
import { BlockPool } from "../../scheduler/block_pool.ts";
import { InProcessHub } from "../../scheduler/links/in_process_network.ts";
import { PerformanceModel } from "../../scheduler/performance/performance_model.ts";
import { PROTOCOL_VERSION } from "../../scheduler/protocol/messages.ts";
import { GroupedDevice, GroupedStore } from "./grouped_blocks.ts";
import { LocalTime } from "./local_time.ts";

/** A member. */
export interface LocalMember {
  /** Name. */
  readonly name: string;
  /** What it does. @default {"full"} */
  readonly role?: "full" | "holder";
  /** KV tokens it holds. */
  readonly kvTokens: number;
  /** Called before each of its steps; what it throws is the step's. */
  readonly beforeStep?: () => void;
  /** Tokens of its blocks, a multiple of 16: a member on a GPU has larger ones. @default {16} */
  readonly blockTokens?: number;
}

/** A request and what has come of it. */
export interface LocalRequest {
  /** Events so far. */
  readonly events: readonly RequestEvent[];
  /** Whether it has ended. */
  readonly ended: boolean;
  /** Tokens so far. */
  readonly tokens: number;
}

/** Makes a {@linkcode LocalCluster}. */
export interface LocalClusterOptions {
  /** Members; the first one carries the gManager. */
  readonly members: readonly LocalMember[];
  /** Model of all. */
  readonly model: OpenModel;
  /** Longest prompt plus output. */
  readonly maxModelLen: number;
  /** Memory policy. @default {"builtin:infinite-llm"} */
  readonly memoryPolicy?: string;
}

const BLOCK_TOKENS = 16;
/** A step takes little of the cluster's own time, and reports are to keep up. */
const HEARTBEAT_MS = 2;
/** Most of the cluster's own time that anything may take, ms. */
const PATIENCE_MS = 120_000;

/** Members that talk to each other; disposing of it stops them. */
export class LocalCluster implements Disposable {
  readonly #time = new LocalTime();
  readonly #hub = new InProcessHub({ defer: (task) => this.#time.defer(task) });
  readonly #opened = new DisposableStack();
  readonly #members = new Map<string, { readonly member: Member; readonly kill: () => void }>();

  /** Opens the members and waits until each of them knows all others. */
  static async open(options: LocalClusterOptions): Promise<LocalCluster> {
    const cluster = new LocalCluster();
    try {
      for (const member of options.members) await cluster.#add(member, options);
      const whole = ({ kvTokens }: LocalMember) => Math.floor(kvTokens / SEGMENT_TOKENS) * SEGMENT_TOKENS;
      const all = options.members.reduce((sum, member) => sum + whole(member), 0);
      cluster.wait(() =>
        options.members.every((spec) => {
          const { engine } = cluster.#member(spec.name);
          const reached = Math.min(options.maxModelLen, all - whole(spec) + spec.kvTokens);
          return engine === undefined || engine.reachableModelLen >= reached;
        })
      );
      return cluster;
    } catch (error) {
      cluster[Symbol.dispose]();
      throw error;
    }
  }

  /** Sends a request to a member. */
  submit(name: string, request: EngineRequest): LocalRequest {
    const state = { events: [] as RequestEvent[], ended: false, tokens: 0 };
    this.#member(name).submit(request, {
      event(event) {
        state.events.push(event);
        if (event.kind === "token") state.tokens += event.ids.length;
        if (event.kind === "end") state.ended = true;
      },
      rejected(error) {
        throw error;
      },
    });
    return state;
  }

  /** Lets the members run until `done`. @throws {Error} when it takes too long. */
  wait(done: () => boolean): void {
    this.#time.run(done, { ms: PATIENCE_MS });
  }

  /** A member's report. */
  report(name: string): ClusterReport {
    let report: ClusterReport | undefined;
    this.#member(name).report((made) => report = made);
    this.wait(() => report !== undefined);
    if (report === undefined) throw new Error(`Cannot report: ${name} did not`);
    return report;
  }

  /** Asks a member to steer the cluster. */
  operate(name: string, command: ClusterCommand): CommandResult {
    let result: CommandResult | undefined;
    this.#member(name).operate(command, (made) => result = made);
    this.wait(() => result !== undefined);
    if (result === undefined) throw new Error(`Cannot ${command.kind}: ${name} did not answer`);
    return result;
  }

  /** What the members count, summed up. */
  count(counter: string): number {
    let sum = 0;
    for (const { member } of this.#members.values()) sum += member.counters.values[counter] ?? 0;
    return sum;
  }

  /** A member is gone from one moment to the next. */
  kill(name: string): void {
    this.#member(name);
    this.#members.get(name)?.kill();
    this.#members.delete(name);
  }

  /** Waits until nobody has anything of a sequence, and checks every book. @throws {Error} when that does not come. */
  rest(): void {
    const members = [...this.#members.values()].map(({ member }) => member);
    const [first] = this.#members.keys();
    this.wait(() => {
      const { members, leases, sequences } = this.report(first);
      return leases.length === 0 && sequences.length === 0 &&
        members.every(({ blocks }) => blocks.own + blocks.lent + blocks.borrowed + blocks.quarantined === 0);
    });
    for (const member of members) member.checkIntegrity();
  }

  /** Stops every member. */
  [Symbol.dispose](): void {
    for (const { kill } of this.#members.values()) kill();
    this.#members.clear();
    this.#opened.dispose();
  }

  #member(name: string): Member {
    const found = this.#members.get(name);
    if (found === undefined) throw new RangeError(`Cannot reach ${name}: there is no such member`);
    return found.member;
  }

  async #add(
    member: LocalMember,
    options: LocalClusterOptions,
  ): Promise<void> {
    const { name, role = "full" } = member;
    const now = () => this.#time.nowMs;
    const log = () => {};
    const memoryPolicy = this.#opened.use(
      await MemoryHost.load(options.memoryPolicy ?? "builtin:infinite-llm", { now, random: () => 0.5, log }),
    );
    const { parts, digest } = role === "full" ? await this.#full(member, options) : await this.#holder(member, options);
    const late: { member?: Member } = {};
    const clusterUrl = `http://${name}:1`;
    const [first] = options.members;
    const identity = {
      name,
      incarnation: String(options.members.indexOf(member)).padStart(32, "0"),
      role,
      publicUrl: "",
      pid: 1,
      protocol: PROTOCOL_VERSION,
      pluginApi: PLUGIN_API,
      kernelDigest: digest,
    };
    const network = this.#hub.join({
      card: () => late.member?.card ?? { ...identity, clusterUrl },
      epoch: () => late.member?.epoch ?? 0,
    });
    const made = new Member({
      card: identity,
      parts,
      join: first.name === name ? [] : [`http://${first.name}:1`],
      memoryPolicy,
      timings: { ...CLUSTER_TIMINGS, heartbeatMs: HEARTBEAT_MS },
      lendShare: role === "full" ? 1 : undefined,
      segmentTokens: SEGMENT_TOKENS,
      onLeaveAsked: () => {},
    }, {
      now,
      random: () => 0.5,
      timer: (ms, fire) => this.#time.timer(ms, fire),
      defer: (work) => this.#time.defer(work),
      network,
      log,
    });
    late.member = made;
    const kill = () => {
      made.stop();
      network[Symbol.dispose]();
    };
    this.#members.set(name, { member: made, kill });
    made.start();
  }

  async #full(
    { kvTokens, blockTokens = BLOCK_TOKENS, beforeStep = () => {} }: LocalMember,
    { model, maxModelLen }: LocalClusterOptions,
  ): Promise<{ readonly parts: FullParts; readonly digest: string }> {
    const now = () => this.#time.nowMs;
    const inner = await WasmDevice.open(model, { threads: 1, blocks: kvTokens / BLOCK_TOKENS });
    const device = this.#opened.use(
      blockTokens === BLOCK_TOKENS ? inner : new GroupedDevice(inner, blockTokens / BLOCK_TOKENS),
    );
    const begin = device.begin.bind(device);
    device.begin = (...batch) => {
      beforeStep();
      return begin(...batch);
    };
    const policy = this.#opened.use(
      await SchedulerHost.load("builtin:fcfs", { now, random: () => 0.5, log: () => {} }),
    );
    const maxBatch = 8;
    const parts: FullParts = {
      kind: "full",
      device,
      format: kvFormat(device, model.digest),
      scheduler: policy,
      maxBatch,
      model: new PerformanceModel(),
      engine: (hooks) =>
        new Engine({
          device,
          policy,
          vocabulary: new Tokenizer(model.text).vocabulary,
          eos: [],
          maxModelLen,
          maxBatch,
          modelName: "synthetic",
          modelDigest: model.digest,
          now,
          random: () => 0.5,
          ...hooks,
        }),
    };
    return { parts, digest: kernelDigest(device) };
  }

  async #holder(
    { kvTokens, blockTokens = BLOCK_TOKENS }: LocalMember,
    { model }: LocalClusterOptions,
  ): Promise<{ readonly parts: HolderParts; readonly digest: string }> {
    // Its layout is known here, so that nothing has to be opened while the cluster's clock runs.
    using probe = await WasmDevice.open(model, { threads: 1, blocks: SEGMENT_TOKENS / BLOCK_TOKENS });
    const blocks = kvTokens / BLOCK_TOKENS;
    const inner = await openKvStore({ layout: probe.layout, blocks, threads: 1 });
    const store = this.#opened.use(
      blockTokens === BLOCK_TOKENS ? inner : new GroupedStore(inner, blockTokens / BLOCK_TOKENS),
    );
    const parts: HolderParts = {
      kind: "holder",
      emptyPool: new BlockPool(1),
      bind: (_format, done) => this.#time.defer(() => done({ store, pool: new BlockPool(store.blocks) })),
    };
    return { parts, digest: kernelDigest(store) };
  }
}
