/**
 * One process of a simulated world: a member over a toy device, from its start to its death.
 *
 * @module
 */
import { fcfs } from "../../plugins/builtin/fcfs.ts";
import { SchedulerHost } from "../../plugins/host.ts";
import { PLUGIN_API } from "../../plugins/types.ts";
import type { FullParts } from "../../runtime/cluster/instance.ts";
import type { HolderParts } from "../../runtime/cluster/lent_memory.ts";
import { Member } from "../../runtime/cluster/member.ts";
import { Engine } from "../../runtime/engine/engine.ts";
import { BlockPool } from "../../scheduler/block_pool.ts";
import { PerformanceModel } from "../../scheduler/performance/performance_model.ts";
import type { KvFormat, MemberCard } from "../../scheduler/protocol/member.ts";
import { PROTOCOL_VERSION } from "../../scheduler/protocol/messages.ts";
import { NodeClock } from "./node_clock.ts";
import { openPolicy } from "./policies.ts";
import { poisonFreed } from "./poison.ts";
import type { Random } from "./random.ts";
import type { NodeSpec, Scenario } from "./scenario.ts";
import type { SimEndpoint, SimNetwork } from "./sim_network.ts";
import { ToyDevice } from "./toy_device.ts";
import { TOY_HEAD_DIM, TOY_HEADS, TOY_LAYERS, TOY_MAX_TOKENS, TOY_WORDS, toyVocabulary } from "./toy_model.ts";
import { ToyStore } from "./toy_store.ts";
import type { VirtualTime } from "./virtual_time.ts";

/** What a process stands on. */
export interface SimProcessOptions {
  /** Who it is. */
  readonly spec: NodeSpec;
  /** The run. */
  readonly scenario: Scenario;
  /** Addresses of gManagers. */
  readonly managers: readonly string[];
  /** Time. */
  readonly time: VirtualTime;
  /** Wires. */
  readonly network: SimNetwork;
  /** Draws of this start of this process. */
  readonly random: Random;
  /** Whether bad policies behave. */
  readonly healed: () => boolean;
  /** Runs what the process does, and checks what it left. */
  readonly turn: (process: SimProcess, run: () => void) => void;
  /** Told what must never happen. */
  readonly onFault: (message: string) => void;
  /** An operator wants it to leave. */
  readonly onLeaveAsked: (process: SimProcess) => void;
}

/** Address of a name's cluster port. */
export function urlOf(name: string): string {
  return `http://${name}:1`;
}

/** Format of the KV of a run. */
export function toyFormat({ blockTokens, segmentTokens }: Scenario): KvFormat {
  return {
    modelDigest: "70".repeat(32),
    kvType: "f32",
    layout: "toy/1",
    layers: TOY_LAYERS,
    heads: TOY_HEADS,
    kvHeads: 1,
    headDim: TOY_HEAD_DIM,
    blockTokens,
    segmentTokens,
    blockBytes: 4 * TOY_LAYERS * blockTokens * TOY_WORDS,
  };
}

/** A running process. */
export class SimProcess {
  /** Who it is. */
  readonly spec: NodeSpec;
  /** Its clock. */
  readonly clock: NodeClock;
  /** Its links. */
  readonly endpoint: SimEndpoint;
  /** What runs in it. */
  readonly member: Member;
  /** Its device, where it has a model. */
  readonly device: ToyDevice | undefined;
  /** Highest epoch it was seen with. */
  epoch = 0;
  /** Steps it had begun when it was last checked. */
  checkedSteps = 0;
  readonly #options: SimProcessOptions;

  /** Puts it together; {@linkcode start} runs it. */
  constructor(options: SimProcessOptions) {
    this.#options = options;
    const { spec, scenario, time, network, random, healed, turn, onFault } = options;
    const { name } = spec;
    const digits = random.stream("incarnation");
    const incarnation = Array.from({ length: 4 }, () => digits.bits().toString(16).padStart(8, "0")).join("");
    this.spec = spec;
    this.clock = new NodeClock(time, { name, skew: spec.skew, turn: (run) => turn(this, run) });
    const now = () => this.clock.nowMs;
    const turns = random.stream("turns");
    const own = random.stream("member");
    const card: Omit<MemberCard, "clusterUrl" | "format"> = {
      name,
      incarnation,
      role: spec.role,
      publicUrl: "",
      pid: 1,
      protocol: PROTOCOL_VERSION,
      pluginApi: PLUGIN_API,
      kernelDigest: "toy",
    };
    this.endpoint = network.join({
      card: () => this.member?.card ?? { ...card, clusterUrl: urlOf(name) },
      epoch: () => this.member.epoch,
      clock: this.clock,
    });
    this.device = spec.role === "holder" ? undefined : new ToyDevice({
      blocks: spec.blocks,
      blockTokens: scenario.blockTokens,
      segmentTokens: scenario.segmentTokens,
      maxStepTokens: spec.maxStepTokens,
      maxLogitRows: 16,
      onFault: (message) => onFault(`${name}: ${message}`),
    });
    this.member = new Member({
      card,
      parts: this.device === undefined ? this.#holder() : this.#full(this.device),
      join: spec.manager ? [] : options.managers,
      memoryPolicy: openPolicy(spec.policy, { now, random: random.stream("policy"), healed }),
      timings: scenario.timings,
      lendShare: spec.lendShare,
      sliceWork: scenario.sliceWork,
      segmentTokens: scenario.segmentTokens,
      onLeaveAsked: () => options.onLeaveAsked(this),
      moveBytesPerSecond: 2e6,
    }, {
      now,
      random: () => own.unit(),
      timer: (ms, fire) => this.clock.timer(ms, "timer", fire),
      defer: (work) => void this.clock.timer(turns.real(0, scenario.turnMs), "turn", work),
      network: this.endpoint,
      log: (message) => time.note(`${name}: ${message}`),
    });
  }

  /** Name. */
  get name(): string {
    return this.spec.name;
  }

  /** Brings it to life. */
  start(): void {
    this.clock.run(() => this.member.start());
  }

  /** Kills it, as SIGKILL does; when its host goes down with it, others notice after `noticeMs` only. */
  kill(noticeMs: number): void {
    this.clock.kill();
    this.#options.network.remove(this.endpoint, noticeMs);
  }

  #full(device: ToyDevice): FullParts {
    const { spec, scenario, random } = this.#options;
    const now = () => this.clock.nowMs;
    const format = toyFormat(scenario);
    const draws = random.stream("engine");
    const policy = new SchedulerHost(fcfs, { config: {}, now, random: () => draws.unit(), log: () => {} });
    return {
      kind: "full",
      device,
      format,
      scheduler: policy,
      maxBatch: Math.min(spec.maxBatch, spec.maxStepTokens),
      model: new PerformanceModel(),
      engine: (hooks) => {
        const engine = new Engine({
          device,
          policy,
          vocabulary: toyVocabulary(),
          eos: [],
          maxModelLen: TOY_MAX_TOKENS,
          maxBatch: Math.min(spec.maxBatch, spec.maxStepTokens),
          modelName: "toy",
          modelDigest: format.modelDigest,
          now,
          random: () => draws.unit(),
          prefixCache: scenario.prefixCache,
          segmentTokens: scenario.segmentTokens,
          ...hooks,
        });
        poisonFreed(engine.pool, device);
        // Without a request nothing but probes runs.
        device.isProbe = () => !engine.busy;
        return engine;
      },
    };
  }

  #holder(): HolderParts {
    const { spec, onFault } = this.#options;
    return {
      kind: "holder",
      emptyPool: new BlockPool(1),
      bind: (format, done) => {
        // As slow as a real one, which compiles its kernel.
        this.clock.timer(5, "binds its memory", () => {
          const store = new ToyStore({
            blocks: spec.blocks,
            blockTokens: format.blockTokens,
            onFault: (message) => onFault(`${spec.name}: ${message}`),
          });
          const pool = new BlockPool(spec.blocks);
          poisonFreed(pool, store);
          done({ store, pool });
        });
      },
    };
  }
}
