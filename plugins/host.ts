/**
 * Runs a scheduler policy and never trusts it: every answer is checked, and an answer that is missing, late to load or
 * wrong costs one fallback to the built-in (accept, first come first served, the scheduler's own plan, the member with
 * room and the least load).
 *
 * @module
 */
import { checkAdmission, type CheckedStepPlan, checkRanks, PlanRecorder, rankOrder } from "./answers.ts";
import { readSchedulerPlugin } from "./handshake.ts";
import { type LoadOptions, loadSchedulerPlugin } from "./load.ts";
import { checkOptions } from "./options.ts";
import { type CheckedHostOptions, PolicyGuard, type PolicyHostOptions, refusePromise } from "./policy_guard.ts";
import { checkPlanFairness, checkRankFairness, ProgressTracker } from "./progress.ts";
import { routeOrder, scoreOrder } from "./routing.ts";
import type {
  Admission,
  ClusterView,
  EngineEvent,
  InstanceView,
  QueueView,
  RequestView,
  SchedulerPlugin,
  StepView,
} from "./types.ts";
import { copyCluster, copyFlat, copyQueue, copyStep } from "./views.ts";

/** Services and limits of a host. */
export interface SchedulerHostOptions extends PolicyHostOptions {
  /** Time without progress after which a sequence starves, ms. @default {120000} */
  readonly starvationMs?: number;
}

/** Hooks the host calls after `create`. */
export type SchedulerHook = "admit" | "rank" | "plan" | "score" | "observe";

/** A scheduler policy at work. Its methods throw nothing but ReferenceError after it is disposed. */
export class SchedulerHost implements Disposable {
  readonly #plugin: SchedulerPlugin;
  readonly #now: () => number;
  readonly #guard: PolicyGuard<SchedulerHook>;
  readonly #progress: ProgressTracker;

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
  constructor(plugin: SchedulerPlugin, options: CheckedHostOptions<SchedulerHostOptions>) {
    this.#plugin = plugin;
    this.#now = options.now;
    this.#progress = new ProgressTracker(options.starvationMs ?? 120_000);
    this.#guard = new PolicyGuard(plugin, { ...options, hooks: ["admit", "rank", "plan", "score", "observe"] });
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
    return this.#guard.fallbacks;
  }

  /** Calls that took longer than their budget, by hook. */
  get overruns(): Readonly<Record<string, number>> {
    return this.#guard.overruns;
  }

  /** Accepts or rejects a request. */
  admit(request: RequestView, instance: InstanceView): Admission {
    const { admit } = this.#plugin;
    const accept: Admission = { kind: "accept" };
    if (admit === undefined) return this.#guard.live(accept);
    const answer = this.#guard.ask("admit", (state) => {
      const admission = admit(state, copyFlat(request), copyFlat(instance));
      refusePromise(admission);
      return checkAdmission(admission);
    });
    return answer ?? accept;
  }

  /** Indices of the queue in rank order, ties by arrival and then id. */
  rank(queue: QueueView): Int32Array {
    const { rank } = this.#plugin;
    const starving = this.#progress.observe(queue, this.#now());
    if (queue.length === 0 || rank === undefined) return this.#guard.live(rankOrder(queue));
    const answer = this.#guard.ask("rank", (state) => {
      // What the policy leaves unwritten stays NaN and is noticed.
      const ranks = new Float64Array(queue.length).fill(NaN);
      refusePromise(rank(state, copyQueue(queue), ranks));
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
    if (step.queue.length === 0 || plan === undefined) return this.#guard.live(null);
    const starving = this.#progress.observe(step.queue, this.#now());
    const answer = this.#guard.ask("plan", (state) => {
      const recorder = new PlanRecorder(step);
      refusePromise(plan(state, copyStep(step), recorder.out));
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
    if (order.length === 0 || score === undefined) return this.#guard.live(order);
    const answer = this.#guard.ask("score", (state) => {
      // What the policy leaves unwritten stays NaN and is noticed.
      const scores = new Float64Array(cluster.members.length).fill(NaN);
      refusePromise(score(state, copyFlat(request), copyCluster(cluster), scores));
      return scoreOrder(scores, { cluster, order });
    });
    return answer ?? order;
  }

  /** Hands on what happened since the last call. */
  observe(events: readonly EngineEvent[]): void {
    const { observe } = this.#plugin;
    for (const event of events) if (event.kind === "ended") this.#progress.forget(event.id);
    if (events.length === 0 || observe === undefined) return this.#guard.live(undefined);
    this.#guard.ask("observe", (state) => refusePromise(observe(state, events.map(copyFlat))));
  }

  /** Disposes of the policy. */
  [Symbol.dispose](): void {
    this.#guard[Symbol.dispose]();
  }
}
