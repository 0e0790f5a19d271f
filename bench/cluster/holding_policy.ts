/**
 * A policy that lets chosen sequences stand still, so that their memory can be moved while others decode.
 *
 * @module
 */
import type {
  Admission,
  ClusterView,
  EngineEvent,
  InstanceView,
  QueueView,
  RequestView,
  StepView,
} from "../../plugins/types.ts";
import type { PolicyHost, PolicyPlan } from "../../scheduler/policy.ts";

/** Another policy, which has no say over what is held. */
export class HoldingPolicy implements PolicyHost {
  /** Handles of sequences that are not computed. The scheduler overrules it after some 30 s. */
  readonly held = new Set<number>();
  readonly #policy: PolicyHost;

  /** Asks `policy` for everything else. */
  constructor(policy: PolicyHost) {
    this.#policy = policy;
  }

  /** See {@linkcode PolicyHost.name}. */
  get name(): string {
    return this.#policy.name;
  }

  /** See {@linkcode PolicyHost.fallbacks}. */
  get fallbacks(): Readonly<Record<string, number>> {
    return this.#policy.fallbacks;
  }

  /** See {@linkcode PolicyHost.admit}. */
  admit(request: RequestView, instance: InstanceView): Admission {
    return this.#policy.admit(request, instance);
  }

  /** See {@linkcode PolicyHost.rank}. */
  rank(queue: QueueView): Int32Array {
    return this.#policy.rank(queue);
  }

  /** While something is held: the next token of every other sequence that decodes. */
  plan(step: StepView): PolicyPlan | null {
    const { length, id, running, pendingTokens } = step.queue;
    const tokens = new Map<number, number>();
    let holding = false;
    for (let i = 0; i < length; i++) {
      if (this.held.has(id[i])) holding = true;
      else if (running[i] === 1 && pendingTokens[i] === 0) tokens.set(id[i], 1);
    }
    return holding && tokens.size > 0 ? { tokens, preempt: [] } : this.#policy.plan(step);
  }

  /** See {@linkcode PolicyHost.route}. */
  route(request: RequestView, cluster: ClusterView, candidates: readonly number[]): readonly number[] {
    return this.#policy.route(request, cluster, candidates);
  }

  /** See {@linkcode PolicyHost.observe}. */
  observe(events: readonly EngineEvent[]): void {
    this.#policy.observe(events);
  }
}
