/**
 * What goes wrong in a simulated world, and when it is over.
 *
 * @module
 */
import { DeviceLostError } from "../../runtime/device/device_lost_error.ts";
import type { Random } from "./random.ts";
import type { FaultKind, Scenario } from "./scenario.ts";
import type { SimNetwork } from "./sim_network.ts";
import type { SimProcess } from "./sim_process.ts";
import type { VirtualTime } from "./virtual_time.ts";

/** What faults are done to. */
export interface FaultWorld {
  /** Time. */
  readonly time: VirtualTime;
  /** Wires. */
  readonly network: SimNetwork;
  /** The run. */
  readonly scenario: Scenario;
  /** Processes that live. */
  readonly alive: readonly SimProcess[];
  /** Kills a process; it comes back after `backMs`, or when the world is healed. */
  kill(process: SimProcess, options: { readonly noticeMs: number; readonly backMs: number }): void;
  /** Lets a process leave. */
  leave(process: SimProcess): void;
  /** Counts something. */
  count(name: string): void;
}

/** Lets things go wrong at random until it is stopped. */
export class Faults {
  readonly #world: FaultWorld;
  readonly #random: Random;
  readonly #lost: Random;
  #stopped = false;

  /** Draws from a stream of its own. */
  constructor(world: FaultWorld, random: Random) {
    this.#world = world;
    this.#random = random.stream("faults");
    this.#lost = random.stream("lost devices");
  }

  /** Begins. */
  start(): void {
    const { scenario: { faults, faultMs }, time } = this.#world;
    if (faults.length === 0) return;
    time.after(this.#random.exponential(faultMs), "fault", () => {
      if (this.#stopped) return;
      this.#do(this.#random.pick(faults));
      this.start();
    });
  }

  /** Nothing goes wrong any more. */
  stop(): void {
    this.#stopped = true;
  }

  #do(kind: FaultKind): void {
    const world = this.#world;
    const { time, network, scenario: { timings } } = world;
    const random = this.#random;
    // Moves and pins need something to move and pin.
    const able = kind === "move" || kind === "pin"
      ? world.alive.filter(({ member, clock }) =>
        clock.state === "running" && (member.engine?.memory.placements().length ?? 0) > 0
      )
      : world.alive;
    if (able.length === 0) return;
    const process = random.pick(able);
    const { name } = process;
    const others = world.alive.filter((other) => other !== process);
    const durationMs = random.pick([0.05, 0.3, 1, 2]) * timings.leaseMs * random.real(0.5, 1.5);
    const note = (detail: string) => {
      time.note(`fault ${kind}: ${detail}`);
      world.count(`fault.${kind}`);
    };
    switch (kind) {
      case "crash":
        note(name);
        world.kill(process, { noticeMs: random.real(0, 5), backMs: durationMs });
        break;
      case "host-down":
        note(name);
        world.kill(process, { noticeMs: random.real(0, 2 * timings.leaseMs), backMs: durationMs });
        break;
      case "pause":
        note(`${name} for ${durationMs.toFixed(0)} ms`);
        process.clock.pause();
        time.after(durationMs, `resume ${name}`, () => process.clock.resume());
        break;
      case "one-way": {
        if (others.length === 0) return;
        const to = random.pick(others).name;
        note(`${name}>${to} for ${durationMs.toFixed(0)} ms`);
        network.clog(name, to);
        time.after(durationMs, `unclog ${name}>${to}`, () => network.unclog(name, to));
        break;
      }
      case "isolate":
        note(`${name} for ${durationMs.toFixed(0)} ms`);
        for (const other of others) this.#clogBoth(name, other.name, durationMs);
        break;
      case "swizzle": {
        const pairs = random.shuffle(others).slice(0, random.integer(1, 3));
        note(`${name} and ${pairs.map((other) => other.name).join(", ")}`);
        for (const other of pairs) {
          time.after(random.real(0, durationMs), `clog ${name}`, () => {
            if (!this.#stopped) this.#clogBoth(name, other.name, random.real(0, durationMs));
          });
        }
        break;
      }
      case "cut":
      case "half-open": {
        const { links } = network;
        if (links.length === 0) return;
        const link = random.pick(links);
        note(`${link.endpoint.card.name} and ${link.peer.name}`);
        network.cut(link, kind === "cut" ? random.real(0, 2) : durationMs);
        break;
      }
      case "jump":
        note(`${name} by ${durationMs.toFixed(0)} ms`);
        process.clock.jump(durationMs);
        break;
      case "device": {
        if (process.device === undefined) return;
        note(name);
        // A draw of its own, so that others stay what they are.
        const lost = this.#lost.chance(0.3);
        process.device.beforeStep = () => {
          if (process.device !== undefined) process.device.beforeStep = () => {};
          const error = new Error("Cannot run a step: out of memory, as injected");
          throw lost ? new DeviceLostError(error) : error;
        };
        break;
      }
      case "move":
        this.#move(process, note);
        break;
      case "evacuate":
        note(name);
        process.clock.run(() => process.member.operate({ kind: "evacuate", member: name }, () => {}));
        time.after(durationMs, `undo evacuate ${name}`, () => {
          process.clock.run(() => process.member.operate({ kind: "evacuate", member: name, undo: true }, () => {}));
        });
        break;
      case "pin":
        process.clock.run(() => {
          const placed = process.member.engine?.memory.placements() ?? [];
          if (placed.length === 0) return;
          const { sequence } = random.pick(placed);
          const pinned = random.chance(0.6);
          note(`${name}/${sequence} ${pinned}`);
          process.member.operate({ kind: "pin", sequence: `${name}/${sequence}`, pinned }, () => {});
        });
        break;
      case "leave":
        note(name);
        world.leave(process);
        break;
      default:
        kind satisfies never;
    }
  }

  /** An operator moves segments of a sequence of one home to wherever. */
  #move(process: SimProcess, note: (detail: string) => void): void {
    const random = this.#random;
    process.clock.run(() => {
      const { member, name } = process;
      const placed = member.engine?.memory.placements() ?? [];
      if (placed.length === 0) return;
      const { sequence, ranges } = random.pick(placed);
      const from = ranges.length === 0 ? undefined : random.pick(ranges).creditor;
      const to = random.pick(this.#world.alive).name;
      const segments = random.integer(1, 3);
      note(`${segments} of ${name}/${sequence} from ${from ?? name} to ${to}`);
      member.operate({ kind: "move", sequence: `${name}/${sequence}`, segments, from, to }, ({ ok }) => {
        this.#world.count(ok ? "operator.moved" : "operator.move-refused");
      });
    });
  }

  #clogBoth(a: string, b: string, durationMs: number): void {
    const { network, time } = this.#world;
    network.clog(a, b);
    network.clog(b, a);
    // The two directions open at different times.
    const first = this.#random.real(0, durationMs);
    time.after(first, `unclog ${a}>${b}`, () => network.unclog(a, b));
    time.after(durationMs, `unclog ${b}>${a}`, () => network.unclog(b, a));
  }
}
