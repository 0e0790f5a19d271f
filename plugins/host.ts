/**
 * Runs a scheduler policy and never trusts it: every answer is checked, and an answer that is missing, late to load or
 * wrong costs one fallback to the built-in (accept, first come first served, the scheduler's own plan).
 *
 * The policy runs in the caller's thread: it can neither be interrupted nor kept from using the process's rights.
 *
 * @module
 */
import { checkAdmission, type CheckedStepPlan, checkRanks, PlanRecorder, PolicyFault, rankOrder } from "./answers.ts";
import { type BreakerOptions, CircuitBreaker } from "./breaker.ts";
import { PluginError, reasonOf } from "./error.ts";
import { readSchedulerPlugin } from "./handshake.ts";
import { type LoadOptions, loadSchedulerPlugin } from "./load.ts";
import { LogLimiter } from "./log_limiter.ts";
import { checkOptions } from "./options.ts";
import { checkPlanFairness, checkRankFairness, ProgressTracker } from "./progress.ts";
import { routeOrder, scoreOrder } from "./routing.ts";
import type {
  Admission,
  ClusterView,
  EngineEvent,
  InstanceView,
  PluginContext,
  QueueView,
  RequestView,
  SchedulerPlugin,
  StepView,
} from "./types.ts";
import { copyCluster, copyFlat, copyQueue, copyStep } from "./views.ts";

/** Services and limits of a host. */
export interface SchedulerHostOptions {
  /** Options of the policy. @default {an empty object} */
  readonly config?: unknown;
  /** Monotonic clock, ms; the policy's clock and the host's own. */
  readonly now: () => number;
  /** Uniform in [0, 1), for the policy alone. */
  readonly random: () => number;
  /** Takes one line. */
  readonly log: (message: string) => void;
  /** Time a call should take at most, ms; longer ones are counted and logged. @default {2} */
  readonly budgetMs?: number;
  /** Time without progress after which a sequence starves, ms. @default {120000} */
  readonly starvationMs?: number;
  /** When a failing policy is taken out of service. */
  readonly breaker?: BreakerOptions;
}

/** Hooks the host calls after `create`. */
export type SchedulerHook = "admit" | "rank" | "plan" | "score" | "observe";

/** A scheduler policy at work. Its methods throw nothing but ReferenceError after {@linkcode dispose}. */
export class SchedulerHost implements Disposable {
  readonly #plugin: SchedulerPlugin;
  readonly #options: SchedulerHostOptions;
  readonly #context: PluginContext;
  readonly #breaker: CircuitBreaker;
  readonly #progress: ProgressTracker;
  readonly #log: LogLimiter;
  readonly #fallbacks: Record<SchedulerHook, number> = { admit: 0, rank: 0, plan: 0, score: 0, observe: 0 };
  readonly #overruns: Record<SchedulerHook, number> = { admit: 0, rank: 0, plan: 0, score: 0, observe: 0 };
  #state: unknown;
  #disposed = false;

  /**
   * Loads a policy (see {@linkcode loadSchedulerPlugin}) and starts it.
   *
   * @throws {PluginError} when it cannot be loaded, configured or created.
   */
  static async load(specifier: string, options: SchedulerHostOptions & LoadOptions): Promise<SchedulerHost> {
    const plugin = await loadSchedulerPlugin(specifier, options);
    return new SchedulerHost(plugin, { ...options, config: await checkOptions(plugin, options.config) });
  }

  /**
   * Starts a policy that is already at hand.
   *
   * @throws {PluginError} when it is no policy, or cannot be configured or created.
   */
  static async open(plugin: SchedulerPlugin, options: SchedulerHostOptions): Promise<SchedulerHost> {
    const read = readSchedulerPlugin(plugin, "object");
    return new SchedulerHost(read, { ...options, config: await checkOptions(read, options.config) });
  }

  /**
   * Starts a policy whose handshake and options are already checked, which {@linkcode load} and {@linkcode open} do.
   *
   * @throws {PluginError} when `create` fails.
   */
  constructor(
    plugin: SchedulerPlugin,
    options: SchedulerHostOptions & { readonly config: Readonly<Record<string, unknown>> },
  ) {
    const { now, random } = options;
    this.#plugin = plugin;
    this.#options = options;
    this.#breaker = new CircuitBreaker(options.breaker);
    this.#progress = new ProgressTracker(options.starvationMs ?? 120_000);
    this.#log = new LogLimiter(options.log, { now });
    this.#context = Object.freeze({
      config: options.config,
      now: () => now(),
      random: () => random(),
      log: (message: string) => this.#log.write(`${plugin.name}: ${message}`, { topic: "policy", lines: 20 }),
    });
    this.#state = this.#create();
  }

  /** Name of the policy. */
  get name(): string {
    return this.#plugin.name;
  }

  /** Version of the policy. */
  get version(): string {
    return this.#plugin.version;
  }

  /** Calls of the policy's hooks that the built-in answered instead, by hook: faults and calls while out of service. */
  get fallbacks(): Readonly<Record<string, number>> {
    return { ...this.#fallbacks };
  }

  /** Calls that took longer than their budget, by hook. */
  get overruns(): Readonly<Record<string, number>> {
    return { ...this.#overruns };
  }

  /** Accepts or rejects a request. */
  admit(request: RequestView, instance: InstanceView): Admission {
    const { admit } = this.#plugin;
    const accept: Admission = { kind: "accept" };
    if (admit === undefined) return this.#live(accept);
    const answer = this.#ask("admit", () => {
      const admission = admit(this.#state, copyFlat(request), copyFlat(instance));
      refusePromise(admission);
      return checkAdmission(admission);
    });
    return answer ?? accept;
  }

  /** Indices of the queue in rank order, ties by arrival and then id. */
  rank(queue: QueueView): Int32Array {
    const { rank } = this.#plugin;
    const starving = this.#progress.observe(queue, this.#options.now());
    if (queue.length === 0 || rank === undefined) return this.#live(rankOrder(queue));
    const answer = this.#ask("rank", () => {
      // What the policy leaves unwritten stays NaN and is noticed.
      const ranks = new Float64Array(queue.length).fill(NaN);
      refusePromise(rank(this.#state, copyQueue(queue), ranks));
      checkRanks(ranks, queue);
      const order = rankOrder(queue, ranks);
      if (starving !== undefined) checkRankFairness(order, queue, starving);
      return order;
    });
    return answer ?? rankOrder(queue);
  }

  /** The policy's checked plan of the step; null when it has none, or its answer is refused: plan it yourself. */
  plan(step: StepView): CheckedStepPlan | null {
    const { plan } = this.#plugin;
    if (step.queue.length === 0 || plan === undefined) return this.#live(null);
    const starving = this.#progress.observe(step.queue, this.#options.now());
    const answer = this.#ask("plan", () => {
      const recorder = new PlanRecorder(step);
      refusePromise(plan(this.#state, copyStep(step), recorder.out));
      const checked = recorder.finish();
      if (starving !== undefined) checkPlanFairness(checked, step.queue, starving);
      return checked;
    });
    return answer ?? null;
  }

  /**
   * Members that may run a request, best first: the candidates by score; without one, those with free memory first, then
   * by load, the asked member first among equals (see {@linkcode routeOrder}).
   */
  route(request: RequestView, cluster: ClusterView, candidates: readonly number[]): readonly number[] {
    const { score } = this.#plugin;
    const order = routeOrder(request, cluster, candidates);
    if (order.length === 0 || score === undefined) return this.#live(order);
    const answer = this.#ask("score", () => {
      // What the policy leaves unwritten stays NaN and is noticed.
      const scores = new Float64Array(cluster.members.length).fill(NaN);
      refusePromise(score(this.#state, copyFlat(request), copyCluster(cluster), scores));
      return scoreOrder(scores, { cluster, order });
    });
    return answer ?? order;
  }

  /** Hands on what happened since the last call. */
  observe(events: readonly EngineEvent[]): void {
    const { observe } = this.#plugin;
    for (const event of events) if (event.kind === "ended") this.#progress.forget(event.id);
    if (events.length === 0 || observe === undefined) return this.#live(undefined);
    this.#ask("observe", () => refusePromise(observe(this.#state, events.map(copyFlat))));
  }

  /** Disposes of the policy. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#disposeState();
  }

  #live<T>(value: T): T {
    if (this.#disposed) throw new ReferenceError(`Cannot use the host of policy ${this.name}: it is disposed`);
    return value;
  }

  /** Runs a call of the policy; undefined when the built-in has to answer. */
  #ask<T>(hook: SchedulerHook, call: () => T): T | undefined {
    this.#live(undefined);
    const startMs = this.#options.now();
    if (!this.#inService(startMs)) {
      this.#fallbacks[hook]++;
      return undefined;
    }
    try {
      return call();
    } catch (error) {
      this.#fallbacks[hook]++;
      this.#bookFault(hook, error);
      return undefined;
    } finally {
      this.#bookTime(hook, this.#options.now() - startMs);
    }
  }

  #inService(nowMs: number): boolean {
    switch (this.#breaker.check(nowMs)) {
      case "use":
        return true;
      case "skip":
        return false;
      case "restart":
        this.#disposeState();
        try {
          this.#state = this.#create();
        } catch (error) {
          this.#bookFault("create", error);
          return false;
        }
        this.#log.write(`policy ${this.name} is back in service`, { topic: "service" });
        return true;
    }
  }

  #create(): unknown {
    const { name } = this.#plugin;
    try {
      const state = this.#plugin.create(this.#context);
      refusePromise(state);
      return state;
    } catch (error) {
      throw new PluginError(`Cannot create policy ${name}: ${reasonOf(error)}`, {
        plugin: name,
        hook: "create",
        cause: error,
      });
    }
  }

  #disposeState(): void {
    const { dispose } = this.#plugin;
    if (dispose === undefined) return;
    try {
      refusePromise(dispose(this.#state));
    } catch (error) {
      this.#log.write(`policy ${this.name} failed in dispose: ${reasonOf(error)}`, { topic: "dispose" });
    }
  }

  #bookFault(hook: string, error: unknown): void {
    const reason = error instanceof PolicyFault ? error.message : reasonOf(error);
    this.#log.write(`policy ${this.name} failed in ${hook}, the built-in stands in: ${reason}`, { topic: hook });
    // A policy that starves somebody is sound otherwise, and the built-in's answer already helps.
    if (error instanceof PolicyFault && error.cause === "starvation") return;
    const backOffMs = this.#breaker.fault(this.#options.now());
    if (backOffMs === undefined) return;
    this.#log.write(`policy ${this.name} is out of service for ${backOffMs} ms`, { topic: "service", lines: 2 });
  }

  #bookTime(hook: SchedulerHook, elapsedMs: number): void {
    const budgetMs = this.#options.budgetMs ?? 2;
    if (elapsedMs <= budgetMs) return;
    this.#overruns[hook]++;
    this.#log.write(`policy ${this.name} took ${elapsedMs.toFixed(1)} ms in ${hook}, its budget is ${budgetMs} ms`, {
      topic: `${hook} time`,
    });
  }
}

/**
 * Promises come too late. The rejection of a real one is taken care of.
 *
 * @throws {PolicyFault} when the value is one.
 */
function refusePromise(value: unknown): void {
  if (value instanceof Promise) value.catch(() => {});
  else if (typeof value !== "object" || value === null || typeof Reflect.get(value, "then") !== "function") return;
  throw new PolicyFault("Cannot use a promise: hooks answer at once");
}
