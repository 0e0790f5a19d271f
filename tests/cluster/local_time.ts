/**
 * Time for members of one thread: tasks in the order in which they were given, timers on a clock that goes on with every
 * task. Nothing waits really, and a run is the same each time.
 *
 * @module
 */
import type { Timer } from "../../runtime/cluster/ports.ts";

/** How much the clock goes on with a task, ms. */
const TASK_MS = 0.05;

interface PendingTimer {
  readonly dueMs: number;
  readonly fire: () => void;
}

/** A clock, tasks and timers. */
export class LocalTime {
  readonly #tasks: (() => void)[] = [];
  readonly #timers = new Set<PendingTimer>();
  #nowMs = 0;

  /** Time, ms. */
  get nowMs(): number {
    return this.#nowMs;
  }

  /** Runs a task after those that wait. */
  defer(task: () => void): void {
    this.#tasks.push(task);
  }

  /** Sets a timer. */
  timer(ms: number, fire: () => void): Timer {
    const timer = { dueMs: this.#nowMs + ms, fire };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  /**
   * Lets time go on until `done`.
   *
   * @throws {Error} when `ms` have passed before.
   */
  run(done: () => boolean, { ms }: { readonly ms: number }): void {
    const untilMs = this.#nowMs + ms;
    while (!done()) {
      if (this.#nowMs > untilMs) throw new Error(`Cannot go on: ${ms} ms have passed and it is not done`);
      this.#step();
    }
  }

  #step(): void {
    const next = this.#nextTimer();
    if (next !== undefined && (next.dueMs <= this.#nowMs || this.#tasks.length === 0)) {
      this.#nowMs = Math.max(this.#nowMs, next.dueMs);
      this.#timers.delete(next);
      next.fire();
      return;
    }
    const task = this.#tasks.shift();
    if (task === undefined) throw new Error("Cannot go on: there are no tasks and no timers");
    this.#nowMs += TASK_MS;
    task();
  }

  #nextTimer(): PendingTimer | undefined {
    let next: PendingTimer | undefined;
    for (const timer of this.#timers) if (next === undefined || timer.dueMs < next.dueMs) next = timer;
    return next;
  }
}
