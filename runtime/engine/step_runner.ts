/**
 * How an engine runs a step: on its device alone, or with the help of members that hold part of the KV.
 *
 * @module
 */
import type { BorrowedSlot } from "../../scheduler/lending/borrowed.ts";
import type { Device, StepHints, StepOutput, StepSequence } from "../device/device.ts";

/** A segment that lies at another member. */
export interface RunSlot {
  /** The segment. */
  readonly segment: number;
  /** Where it lies. */
  readonly slot: BorrowedSlot;
}

/** The part of one sequence that a step computes, with the whereabouts of what is absent. Unchanged while the step runs. */
export interface RunSequence extends StepSequence {
  /** One for each absent segment, ascending. */
  readonly slots: readonly RunSlot[];
}

/** How a step ended. */
export type StepOutcome =
  /** It is complete; `output` is valid until `done` returns. */
  | { readonly kind: "ran"; readonly output: StepOutput }
  /** The device failed: every request of the step ends with an error. */
  | { readonly kind: "failed"; readonly error: unknown }
  /** Something that it needed was lost. Nothing of it counts; the engine plans again. */
  | { readonly kind: "lost" };

/** Runs steps, one at a time. */
export interface StepRunner {
  /**
   * Runs one step and calls `done` exactly once, maybe before this returns. Until then the step's blocks and slots keep
   * what the step needs. Hints are for a device that computes all of it.
   */
  run(batch: readonly RunSequence[], done: (outcome: StepOutcome) => void, hints?: StepHints): void;
}

/** Runs every step on the device, at once. Steps with absent segments fail. */
export class DeviceRunner implements StepRunner {
  readonly #device: Device;

  /** Runs steps on `device`, which stays the caller's. */
  constructor(device: Device) {
    this.#device = device;
  }

  /** See {@linkcode StepRunner.run}. */
  run(batch: readonly RunSequence[], done: (outcome: StepOutcome) => void, hints?: StepHints): void {
    done(this.#outcome(batch, hints));
  }

  #outcome(batch: readonly RunSequence[], hints: StepHints | undefined): StepOutcome {
    try {
      return { kind: "ran", output: this.#device.step(batch, hints) };
    } catch (error) {
      return { kind: "failed", error };
    }
  }
}
