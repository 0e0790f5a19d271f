/**
 * A policy host for tests: accepts everything, ranks by arrival, has no plan, routes as the view lists, remembers what it saw.
 *
 * @module
 */
import type { Admission, ClusterView, EngineEvent, QueueView, RequestView, StepView } from "../plugins/types.ts";
import type { PolicyHost, PolicyPlan } from "./policy.ts";

/** First come, first served, with every answer replaceable. */
export class TestPolicy implements PolicyHost {
  readonly name = "test";
  readonly fallbacks: Readonly<Record<string, number>> = {};
  readonly events: EngineEvent[] = [];
  admission: Admission = { kind: "accept" };
  planner: (step: StepView) => PolicyPlan | null = () => null;
  ranker: (queue: QueueView) => Int32Array = (queue) =>
    Int32Array.from(queue.id.keys()).sort((a, b) => queue.id[a] - queue.id[b]);

  admit(): Admission {
    return this.admission;
  }

  rank(queue: QueueView): Int32Array {
    return this.ranker(queue);
  }

  plan(step: StepView): PolicyPlan | null {
    return this.planner(step);
  }

  route(_request: RequestView, _cluster: ClusterView, candidates: readonly number[]): readonly number[] {
    return candidates;
  }

  observe(events: readonly EngineEvent[]): void {
    this.events.push(...events);
  }
}
