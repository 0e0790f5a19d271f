/**
 * Copies of what plugins see: a plugin that writes into its input spoils only its own copy.
 *
 * @module
 */
import type { EngineEvent, InstanceView, QueueView, RequestView, StepView } from "./types.ts";

/** A copy of the queue whose arrays have exactly `length` elements. */
export function copyQueue(queue: QueueView): QueueView {
  const { length } = queue;
  return {
    length,
    id: queue.id.slice(0, length),
    promptTokens: queue.promptTokens.slice(0, length),
    pendingTokens: queue.pendingTokens.slice(0, length),
    generatedTokens: queue.generatedTokens.slice(0, length),
    maxTokens: queue.maxTokens.slice(0, length),
    priority: queue.priority.slice(0, length),
    arrivedMs: queue.arrivedMs.slice(0, length),
    blocks: queue.blocks.slice(0, length),
    preemptions: queue.preemptions.slice(0, length),
    running: queue.running.slice(0, length),
  };
}

/** A copy of the step. */
export function copyStep(step: StepView): StepView {
  return { ...step, queue: copyQueue(step.queue), instance: { ...step.instance } };
}

/** A copy of a flat view or event. */
export function copyFlat<T extends RequestView | InstanceView | EngineEvent>(view: T): T {
  return { ...view };
}
