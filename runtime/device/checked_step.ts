/**
 * The order of calls on a begun step, the same for every device.
 *
 * @module
 */
import type { AttentionPartial, SegmentNode } from "../../kernels/merge_partials/spec.ts";
import type { DeviceStep, StepOutput, StepSequence, StepStop } from "./device.ts";
import type { SequenceNode } from "./step_nodes.ts";

/** What a device computes of a step. */
export interface StepRunner {
  /** Computes on to the next stop; partials are complete where it needs them. */
  advance(budget: number): StepStop;
  /** Queries of sequence `index` in the current layer, a view. */
  queries(index: number): Float32Array;
  /** Copies the partial of the sequence's node number `node`, whose lengths are right. */
  store(index: number, node: number, partial: AttentionPartial): void;
}

/** What a {@linkcode CheckedStep} stands on. */
export interface CheckedStepParts {
  /** Computes. */
  readonly runner: StepRunner;
  /** The checked batch. */
  readonly batch: readonly StepSequence[];
  /** For each sequence, its nodes as the runner numbers them. */
  readonly nodes: readonly (readonly SequenceNode[])[];
  /** Query heads and the width of one. */
  readonly sizes: { readonly heads: number; readonly headDim: number };
}

function nameOf({ first, segments }: SegmentNode): string {
  return segments === 1 ? `segment ${first}` : `segments ${first} to ${first + segments - 1}`;
}

/** A step that refuses calls out of order and partials that do not fit. */
export class CheckedStep implements DeviceStep {
  readonly #parts: CheckedStepParts;
  readonly #missing: readonly Set<number>[];
  #state: "running" | "complete" | "abandoned" = "running";
  /** Layer whose partials are accepted. */
  #layer: number | undefined;
  #awaiting = false;

  /** Takes over a step of which nothing has been computed. */
  constructor(parts: CheckedStepParts) {
    this.#parts = parts;
    this.#missing = parts.nodes.map(() => new Set());
  }

  /** Whether it is neither complete nor abandoned. */
  get running(): boolean {
    return this.#state === "running";
  }

  /** See {@linkcode DeviceStep.next}. @throws {Error} also when the step is complete or abandoned. */
  next(budget: number = Infinity): StepStop {
    this.#checkRunning("go on with the step");
    if (this.#awaiting) {
      this.#checkComplete();
      this.#awaiting = false;
      this.#layer = undefined;
    }
    const stop = this.#parts.runner.advance(budget);
    switch (stop.kind) {
      case "queries":
        this.#layer = stop.layer;
        this.#parts.nodes.forEach((nodes, index) => {
          nodes.forEach(({ local }, node) => {
            if (!local) this.#missing[index].add(node);
          });
        });
        break;
      case "partials":
        this.#awaiting = true;
        break;
      case "done":
        this.#state = "complete";
        break;
      case "slice":
        break;
      default:
        stop satisfies never;
    }
    return stop;
  }

  /**
   * See {@linkcode DeviceStep.queries}.
   *
   * @throws {RangeError} when the batch has no such sequence.
   * @throws {Error} outside of the time from a `queries` stop to the end of the layer's attention.
   */
  queries(index: number): Float32Array {
    this.#checkIndex(index);
    this.#checkLayer("read queries");
    return this.#parts.runner.queries(index);
  }

  /** See {@linkcode DeviceStep.put}. @throws {Error} outside of the time that {@linkcode queries} states. */
  put(index: number, node: SegmentNode, partial: AttentionPartial): void {
    this.#checkIndex(index);
    this.#checkLayer("put a partial");
    const { batch, nodes, sizes: { heads, headDim }, runner } = this.#parts;
    const number = nodes[index].findIndex(({ first, segments, local }) =>
      !local && first === node.first && segments === node.segments
    );
    const what = `put the partial of ${nameOf(node)} of sequence ${index}`;
    if (number < 0) {
      const wanted = nodes[index].filter(({ local }) => !local).map(nameOf).join(", ") || "none, no segment is absent";
      throw new RangeError(`Cannot ${what}: wanted a node of its absent ranges (${wanted}), got ${nameOf(node)}`);
    }
    const rows = batch[index].tokens.length * heads;
    if (partial.lse.length !== rows || partial.o.length !== rows * headDim) {
      throw new RangeError(
        `Cannot ${what}: wanted ${rows} values of lse and ${rows * headDim} of o, got ${partial.lse.length} and ` +
          `${partial.o.length}`,
      );
    }
    runner.store(index, number, partial);
    this.#missing[index].delete(number);
  }

  /** See {@linkcode DeviceStep.abandon}. */
  abandon(): void {
    if (this.#state === "running") this.#state = "abandoned";
  }

  #checkRunning(what: string): void {
    if (this.#state !== "running") throw new Error(`Cannot ${what}: it is ${this.#state}`);
  }

  #checkIndex(index: number): void {
    const { length } = this.#parts.batch;
    if (!Number.isInteger(index) || index < 0 || index >= length) {
      throw new RangeError(`Cannot access a sequence of the step: wanted one of ${length}, got ${index}`);
    }
  }

  #checkLayer(what: string): void {
    this.#checkRunning(`${what} of the step`);
    if (this.#layer === undefined) {
      throw new Error(`Cannot ${what}: wanted a layer between its queries and its attention, got none`);
    }
  }

  #checkComplete(): void {
    for (const [index, missing] of this.#missing.entries()) {
      for (const number of missing) {
        throw new Error(
          `Cannot go on with layer ${this.#layer}: wanted the partial of ${nameOf(this.#parts.nodes[index][number])} ` +
            `of sequence ${index}, got none`,
        );
      }
    }
  }
}

/** Runs a step without absent segments to its end. */
export function complete(step: DeviceStep): StepOutput {
  try {
    const stop = step.next();
    if (stop.kind !== "done") throw new Error(`Cannot run the batch: wanted it done, got a stop for ${stop.kind}`);
    return stop.output;
  } finally {
    step.abandon();
  }
}
