/**
 * Copies of what plugins see: a plugin that writes into its input spoils only its own copy.
 *
 * @module
 */
import type {
  ClusterView,
  EngineEvent,
  EvictionView,
  InstanceView,
  PlacementView,
  QueueView,
  RequestView,
  StepView,
} from "./types.ts";

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
export function copyFlat<T extends RequestView | InstanceView | PlacementView | EngineEvent>(view: T): T {
  return { ...view };
}

/** A copy of the cluster whose arrays have exactly the lengths that the view states. */
export function copyCluster({ members, sequences, self, segmentTokens }: ClusterView): ClusterView {
  const { length } = members;
  return {
    members: {
      length,
      name: members.name.slice(0, length),
      full: members.full.slice(0, length),
      usable: members.usable.slice(0, length),
      totalSegments: members.totalSegments.slice(0, length),
      lendableSegments: members.lendableSegments.slice(0, length),
      lentSegments: members.lentSegments.slice(0, length),
      ownSegments: members.ownSegments.slice(0, length),
      borrowedSegments: members.borrowedSegments.slice(0, length),
      running: members.running.slice(0, length),
      waiting: members.waiting.slice(0, length),
      maxBatch: members.maxBatch.slice(0, length),
      stepMs: members.stepMs.slice(0, length),
      sequenceMs: members.sequenceMs.slice(0, length),
      attentionMs: members.attentionMs.slice(0, length),
    },
    sequences: {
      length: sequences.length,
      home: sequences.home.slice(0, sequences.length),
      tokens: sequences.tokens.slice(0, sequences.length),
      localSegments: sequences.localSegments.slice(0, sequences.length),
      pinned: sequences.pinned.slice(0, sequences.length),
      segmentsOn: sequences.segmentsOn.slice(0, sequences.length * length),
    },
    self,
    segmentTokens,
  };
}

/** A copy of the candidates whose arrays have exactly `length` elements. */
export function copyEviction({ segments, length, tokens, segment, shared, ageMs }: EvictionView): EvictionView {
  return {
    segments,
    length,
    tokens: tokens.slice(0, length),
    segment: segment.slice(0, length),
    shared: shared.slice(0, length),
    ageMs: ageMs.slice(0, length),
  };
}
