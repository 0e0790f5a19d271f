/**
 * Time as one process sees it.
 *
 * @module
 */
import type { Scheduled, VirtualTime } from "./virtual_time.ts";

/** What a clock does wrong. */
export interface ClockSkew {
  /** Reading at the world's time 0, ms. */
  readonly offsetMs: number;
  /** How much faster than the world's it runs: 1.01 gains a hundredth. */
  readonly rate: number;
}

/**
 * The monotonic clock, the timers and the turns of one process. A stopped process (SIGSTOP) does nothing; whatever came
 * meanwhile happens when it goes on, in order. A dead one never does anything again.
 */
export class NodeClock {
  readonly #time: VirtualTime;
  readonly #name: string;
  readonly #skew: ClockSkew;
  #held: (() => void)[] = [];
  /** Held things that have yet to happen after the process went on; what comes later must not overtake them. */
  #behind = 0;
  #jumpedMs = 0;
  #state: "running" | "paused" | "dead" = "running";
  /** Called around everything the process does: reports what it throws and checks what it left. */
  readonly #turn: (run: () => void) => void;

  /** Makes the clock of a process called `name`; `turn` runs what the process does. */
  constructor(
    time: VirtualTime,
    options: { readonly name: string; readonly skew: ClockSkew; readonly turn: (run: () => void) => void },
  ) {
    this.#time = time;
    this.#name = options.name;
    this.#skew = options.skew;
    this.#turn = options.turn;
  }

  /** Monotonic reading, ms. */
  get nowMs(): number {
    return this.#skew.offsetMs + this.#jumpedMs + this.#time.nowMs * this.#skew.rate;
  }

  /** Whether the process is stopped, gone, or neither. */
  get state(): "running" | "paused" | "dead" {
    return this.#state;
  }

  /** A timer by this clock's rate. Jumps do not touch timers that run. */
  timer(delayMs: number, label: string, run: () => void): Scheduled {
    let cancelled = false;
    const scheduled = this.#time.after(delayMs / this.#skew.rate, `${this.#name} ${label}`, () => {
      this.run(() => {
        if (!cancelled) run();
      });
    });
    return {
      cancel: () => {
        cancelled = true;
        scheduled.cancel();
      },
    };
  }

  /** Does something now as this process, or later when it is stopped, or never when it is dead. */
  run(run: () => void): void {
    switch (this.#state) {
      case "running":
        if (this.#behind > 0) this.#catchUp(run);
        else this.#turn(run);
        break;
      case "paused":
        this.#held.push(run);
        break;
      case "dead":
        break;
      default:
        this.#state satisfies never;
    }
  }

  /** Moves the reading forward. */
  jump(ms: number): void {
    this.#jumpedMs += Math.max(0, ms);
  }

  /** Stops the process. */
  pause(): void {
    if (this.#state === "running") this.#state = "paused";
  }

  /** Lets a stopped process go on: everything held happens now, in order, each as an event of its own. */
  resume(): void {
    if (this.#state !== "paused") return;
    this.#state = "running";
    const held = this.#held;
    this.#held = [];
    for (const run of held) this.#catchUp(run);
  }

  /** Kills the process. */
  kill(): void {
    this.#state = "dead";
    this.#held = [];
  }

  #catchUp(run: () => void): void {
    this.#behind++;
    this.#time.after(0, `${this.#name} catches up`, () => {
      this.#behind--;
      switch (this.#state) {
        case "running":
          this.#turn(run);
          break;
        case "paused":
          this.#held.push(run);
          break;
        case "dead":
          break;
        default:
          this.#state satisfies never;
      }
    });
  }
}
