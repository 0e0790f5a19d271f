/**
 * A simulated world: processes, wires, clients and operators of one seed, from its start over the time in which things go
 * wrong to its rest.
 *
 * @module
 */
import { DeviceLostError } from "../../runtime/device/device_lost_error.ts";
import type { EngineRequest } from "../../runtime/engine/request.ts";
import { Faults, type FaultWorld } from "./faults.ts";
import { checkProcess, checkRest, checkSlots, checkViews, type Unrest } from "./invariants.ts";
import { Ledger, type LedgerEntry } from "./ledger.ts";
import { Random } from "./random.ts";
import { drawScenario, type NodeSpec, type Scenario } from "./scenario.ts";
import { SimNetwork } from "./sim_network.ts";
import { SimProcess, urlOf } from "./sim_process.ts";
import { type Invariant, Violation } from "./violation.ts";
import { VirtualTime } from "./virtual_time.ts";
import { CALM } from "./weather.ts";
import { Workload } from "./workload.ts";

/** A run of one seed. */
export interface RunOptions {
  /** Seed. */
  readonly seed: number;
  /** Events after which the world is healed, if it is not yet. @default {20_000} */
  readonly events?: number;
  /** Takes a line for each event. */
  readonly trace?: (line: string) => void;
}

/** What became of a run. */
export interface RunResult {
  /** Seed. */
  readonly seed: number;
  /** Hash of all that happened. */
  readonly hash: number;
  /** Events that happened. */
  readonly events: number;
  /** Virtual time that passed, ms. */
  readonly virtualMs: number;
  /** What was exercised. */
  readonly counts: Readonly<Record<string, number>>;
  /** The first broken promise. */
  readonly failure?: {
    /** Which promise. */
    readonly invariant: Invariant;
    /** What was wanted and what was. */
    readonly message: string;
    /** Where it was thrown, when a member threw. */
    readonly stack?: string;
    /** The last events, oldest first. */
    readonly history: readonly string[];
  };
}

/** Runs one seed. */
export function runSeed(options: RunOptions): RunResult {
  const world = new World(options);
  let violation: Violation | undefined;
  try {
    world.run();
  } catch (error) {
    if (!(error instanceof Violation)) throw error;
    violation = error;
  }
  const { time, counts } = world;
  const { cause } = violation ?? {};
  return {
    seed: options.seed,
    hash: time.hash,
    events: time.events,
    virtualMs: time.nowMs,
    counts: counts(),
    failure: violation && {
      invariant: violation.invariant,
      message: violation.message,
      stack: cause instanceof Error ? cause.stack : undefined,
      history: time.history,
    },
  };
}

/** Full checks of a process: after each of its steps, and after one turn in so many. */
const TURNS_PER_CHECK = 16;

/** Between looks at a healed world, ms. */
const LOOK_MS = 50;

/** A world of one seed. */
export class World implements FaultWorld {
  readonly time = new VirtualTime();
  readonly scenario: Scenario;
  readonly network: SimNetwork;
  readonly counts = () => this.#collect();
  readonly #random: Random;
  readonly #ledger = new Ledger();
  readonly #workload: Workload;
  readonly #faults: Faults;
  readonly #processes = new Map<string, SimProcess>();
  readonly #leaving = new Set<SimProcess>();
  readonly #counts: Record<string, number> = {};
  readonly #client: Random;
  readonly #maxEvents: number;
  #starts = 0;
  #turns = 0;
  #healed = false;
  #violation: Violation | undefined;

  constructor({ seed, events = 20_000, trace }: RunOptions) {
    this.#random = new Random(seed);
    this.scenario = drawScenario(this.#random);
    this.network = new SimNetwork(this.time, this.#random);
    this.#workload = new Workload(this.#random, this.scenario);
    this.#faults = new Faults(this, this.#random);
    this.#client = this.#random.stream("clients");
    this.#maxEvents = events;
    this.time.trace = trace;
  }

  get alive(): readonly SimProcess[] {
    return [...this.#processes.values()];
  }

  run(): void {
    const { scenario, time } = this;
    for (const spec of scenario.nodes) {
      time.after(this.#client.real(0, 20), `start ${spec.name}`, () => this.#start(spec));
    }
    time.after(30, "things go wrong", () => {
      this.network.weather = scenario.weather;
      this.#faults.start();
    });
    this.#request(scenario.requests);
    const firstMs = scenario.healMs;
    while (time.events < this.#maxEvents && time.step(firstMs)) this.#raise();
    this.#heal();
    this.#rest();
  }

  kill(process: SimProcess, { noticeMs, backMs }: { readonly noticeMs: number; readonly backMs: number }): void {
    if (this.#processes.get(process.name) !== process) return;
    process.kill(noticeMs);
    this.#bury(process);
    this.time.after(backMs, `restart ${process.name}`, () => this.#restart(process.spec));
  }

  leave(process: SimProcess): void {
    if (this.#leaving.has(process)) return;
    this.#leaving.add(process);
    const timeoutMs = this.scenario.timings.leaseMs;
    process.clock.run(() =>
      process.member.leave({
        timeoutMs,
        done: () => {
          this.count("fault.left");
          // Whoever holds it stops it in a turn of its own.
          this.time.after(0, `${process.name} has left`, () => {
            if (this.#processes.get(process.name) !== process) return;
            process.clock.run(() => process.member.stop());
            process.kill(0);
            this.#bury(process);
            this.time.after(timeoutMs, `restart ${process.name}`, () => this.#restart(process.spec));
          });
        },
      })
    );
  }

  count(name: string): void {
    this.#counts[name] = (this.#counts[name] ?? 0) + 1;
  }

  #start(spec: NodeSpec): void {
    const { scenario, time, network } = this;
    const process = new SimProcess({
      spec,
      scenario,
      managers: scenario.nodes.filter(({ manager }) => manager).map(({ name }) => urlOf(name)),
      time,
      network,
      random: this.#random.stream(`start ${this.#starts++}`),
      healed: () => this.#healed,
      turn: (of, run) => this.#turn(of, run),
      onFault: (message) => this.#fault(message),
      onLeaveAsked: (of) => this.leave(of),
    });
    this.#processes.set(spec.name, process);
    process.start();
  }

  #restart(spec: NodeSpec): void {
    if (this.#processes.has(spec.name)) return;
    this.count("fault.restarted");
    this.#start(spec);
  }

  #bury(process: SimProcess): void {
    this.#processes.delete(process.name);
    this.#leaving.delete(process);
    this.#ledger.frontLost(process.member.card.incarnation);
    this.#tally(process);
  }

  /** Runs what a process does, and checks what it left. */
  #turn(process: SimProcess, run: () => void): void {
    try {
      run();
    } catch (error) {
      if (error instanceof DeviceLostError) return this.#endLost(process);
      const message = error instanceof Error ? error.message : String(error);
      throw error instanceof Violation
        ? error
        : new Violation("Throw", `${process.name} threw: ${message}`, { cause: error });
    }
    this.#raise();
    const thorough = this.#turns++ % TURNS_PER_CHECK === 0;
    checkProcess(process, { thorough });
    if (thorough) checkSlots(this.alive);
  }

  /** A process whose device is lost ends, and is started anew. */
  #endLost(process: SimProcess): void {
    this.count("fault.device-lost");
    this.time.after(0, `${process.name} ends without its device`, () => {
      this.kill(process, { noticeMs: 0, backMs: this.scenario.timings.leaseMs });
    });
  }

  /** Keeps the first of the violations that came where nothing may throw. */
  #note(violation: Violation): void {
    this.#violation ??= violation;
  }

  #raise(): void {
    if (this.#violation !== undefined) throw this.#violation;
  }

  #fault(message: string): void {
    const invariant = message.includes(" I10: ") ? "I10" : "I2";
    this.#note(new Violation(invariant, message));
  }

  /** Lets the next of `left` requests come. */
  #request(left: number): void {
    if (left === 0) return;
    const client = this.#client;
    this.time.after(client.exponential(this.scenario.requestMs), "request", () => {
      if (this.#healed) return;
      this.#request(left - 1);
      const homes = this.alive.filter(({ spec, clock }) => spec.role === "full" && clock.state === "running");
      const request = this.#workload.next();
      if (homes.length === 0) return;
      const entry = this.#submit(client.pick(homes), request, false);
      if (client.chance(this.scenario.abort)) this.#abortLater(entry);
    });
  }

  #submit(process: SimProcess, request: EngineRequest, mustFinish: boolean): LedgerEntry {
    const { member, clock, name } = process;
    const entry = this.#ledger.open({ request, front: member.card.incarnation, atMs: this.time.nowMs, mustFinish });
    this.time.note(`${request.id} at ${name}: ${request.prompt.length} + ${request.maxTokens} x ${request.n ?? 1}`);
    const guard = (act: () => void) => {
      try {
        act();
      } catch (error) {
        if (!(error instanceof Violation)) throw error;
        this.#note(error);
      }
    };
    clock.run(() =>
      member.submit(request, {
        event: (event) => {
          this.time.note(`${request.id} ${event.kind}${event.kind === "token" ? ` ${event.index} ${event.ids}` : ""}`);
          guard(() => this.#ledger.take(entry, event));
        },
        rejected: (error) => {
          this.time.note(`${request.id} rejected: ${error.message}`);
          guard(() => this.#ledger.rejected(entry, error));
        },
      })
    );
    return entry;
  }

  #abortLater(entry: LedgerEntry): void {
    this.time.after(this.#client.exponential(this.scenario.requestMs), `abort ${entry.request.id}`, () => {
      const process = this.alive.find(({ member }) => member.card.incarnation === entry.front);
      if (process === undefined || entry.end !== undefined) return;
      entry.cancelled = true;
      this.count("client.aborts");
      process.clock.run(() => process.member.cancel(entry.request.id));
    });
  }

  /** Everything that went wrong is over; who is dead comes back. */
  #heal(): void {
    this.time.note("healed");
    this.#healed = true;
    this.#faults.stop();
    this.network.weather = CALM;
    this.network.unclogAll();
    for (const process of this.alive) {
      process.clock.resume();
      if (process.device !== undefined) process.device.beforeStep = () => {};
      const { member, clock, name } = process;
      clock.run(() => member.operate({ kind: "evacuate", member: name, undo: true }, () => {}));
    }
    for (const spec of this.scenario.nodes) this.#restart(spec);
  }

  /** Waits until all has come to rest, with requests that must run on the way. */
  #rest(): void {
    const { timings, nodes, blockTokens } = this.scenario;
    const { time } = this;
    const settleMs = 4 * timings.suspectMs + 2 * timings.leaseMs + 10 * timings.heartbeatMs;
    const healedMs = time.nowMs;
    time.after(settleMs, "probes", () => {
      for (const { name, role, blocks } of nodes) {
        const process = this.#processes.get(name);
        if (role !== "full" || process === undefined || this.#leaving.has(process)) continue;
        this.#submit(process, this.#workload.probe(Math.max(1, blocks * blockTokens >> 1)), true);
      }
    });
    const deadlineMs = healedMs + 2 * settleMs + 60_000;
    let restingMs: number | undefined;
    for (;;) {
      const untilMs = time.nowMs + LOOK_MS;
      time.after(LOOK_MS, "look", () => {});
      while (time.nowMs < untilMs && time.step()) this.#raise();
      if (time.nowMs < healedMs + settleMs + LOOK_MS) continue;
      const unrest = checkRest(this.alive, this.#ledger.live);
      if (unrest === undefined) restingMs ??= time.nowMs;
      else restingMs = undefined;
      if (restingMs !== undefined && time.nowMs > restingMs + 6 * timings.heartbeatMs) break;
      if (time.nowMs > deadlineMs) throw restless(unrest, time.nowMs - healedMs);
    }
    for (const process of this.alive) checkProcess(process, { thorough: true });
    checkViews(this.alive);
  }

  #tally(process: SimProcess): void {
    const { member } = process;
    const add = (group: string, counts: object) => {
      for (const [name, count] of Object.entries(counts)) {
        if (typeof count !== "number") continue;
        const key = `${group}.${name}`;
        this.#counts[key] = (this.#counts[key] ?? 0) + count;
      }
    };
    add("member", member.counters.values);
    add("creditor", member.creditor.counters);
    const stats = member.engine?.stats();
    if (stats !== undefined) {
      const { steps, promptTokens, generatedTokens, prefixHits, preemptions, repairs, repairedTokens, lostSteps } =
        stats;
      add("engine", {
        steps,
        promptTokens,
        generatedTokens,
        prefixHits,
        preemptions,
        repairs,
        repairedTokens,
        lostSteps,
      });
    }
  }

  #collect(): Readonly<Record<string, number>> {
    for (const process of this.alive) this.#tally(process);
    for (const { end, code } of this.#ledger.entries) {
      this.count(`request.${end ?? "live"}${code === undefined ? "" : ` ${code}`}`);
    }
    return this.#counts;
  }
}

function restless(unrest: Unrest | undefined, ms: number): Violation {
  return new Violation(
    unrest?.invariant ?? "Liveness",
    `${(ms / 1000).toFixed(1)} s after the world was healed: ${unrest?.message ?? "it comes to rest and not to stay"}`,
  );
}
