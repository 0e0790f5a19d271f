/**
 * What a check of a policy is, and what checks of every kind of policy share.
 *
 * @module
 */
import { SeededRandom } from "./fuzz.ts";
import { type PluginKind, unknownKeys } from "./handshake.ts";
import type { PolicyHostOptions } from "./policy_guard.ts";

/** A policy under test. */
export interface InvariantSubject<Plugin> {
  /** The plugin object. */
  readonly plugin: Plugin;
  /** Options to test it with. */
  readonly config?: unknown;
  /** Seed of views, clock and random source. */
  readonly seed: number;
  /** Views per check. */
  readonly rounds: number;
}

/** One check. */
export interface PolicyInvariant<Plugin> {
  /** Short name, used to skip it. */
  readonly name: string;
  /** What it says. */
  readonly says: string;
  /** Runs it. @throws {Error} when the policy breaks it. */
  check(subject: InvariantSubject<Plugin>): Promise<void>;
}

/** A host that reports faults instead of getting over them. */
export interface StrictHost<Host> {
  /** The host. */
  readonly host: Host;
  /** @throws {Error} when an answer was refused. */
  throwFault(): void;
}

/** Opens a host that never takes the policy out of service and reports every refused answer. */
export async function openStrict<Plugin, Host extends { readonly fallbacks: Readonly<Record<string, number>> }>(
  subject: InvariantSubject<Plugin>,
  { clock, open }: {
    readonly clock: { readonly ms: number };
    readonly open: (plugin: Plugin, options: PolicyHostOptions) => Promise<Host>;
  },
): Promise<StrictHost<Host>> {
  const lines: string[] = [];
  const random = new SeededRandom(subject.seed);
  const host = await open(subject.plugin, {
    config: subject.config,
    now: () => clock.ms,
    random: () => random.next(),
    log: (line) => lines.push(line),
    breaker: { faults: Infinity },
  });
  const throwFault = () => {
    if (Object.values(host.fallbacks).every((count) => count === 0)) return;
    throw new Error(`Cannot use the answer: ${lines.find((line) => line.includes(" failed in ")) ?? "not logged"}`);
  };
  return { host, throwFault };
}

/** The check that a plugin is one and states nothing the interface does not know. */
export function handshakeInvariant<Plugin>(
  kind: PluginKind,
  read: (value: unknown, specifier: string) => Plugin,
): PolicyInvariant<Plugin> {
  return {
    name: "handshake",
    says: "states API version, kind, name and version, and nothing the interface does not know",
    check({ plugin }) {
      read(plugin, "under test");
      const unknown = unknownKeys(plugin, kind);
      if (unknown.length > 0) {
        throw new TypeError(`Cannot know every property: the interface has no ${unknown.join(", ")}`);
      }
      return Promise.resolve();
    },
  };
}

/** @throws {Error} when the lists of decisions differ. */
export function requireEqual(actual: readonly string[], expected: readonly string[], claim: string): void {
  const at = actual.findIndex((decision, i) => decision !== expected[i]);
  if (at < 0 && actual.length === expected.length) return;
  throw new Error(`${claim}: decision ${at} was "${expected[at]}", then "${actual[at]}"`);
}

/** Notices hooks that write into what they read. */
export class InputWatch {
  readonly #written = new Set<string>();

  /** Runs a call of a hook and compares what it was given before and after. */
  run<T>(hook: string, { view, call }: { readonly view: object; readonly call: () => T }): T {
    const before = JSON.stringify(view);
    const answer = call();
    if (JSON.stringify(view) !== before) this.#written.add(hook);
    return answer;
  }

  /** @throws {Error} when a hook has written into a view. */
  throwWritten(): void {
    if (this.#written.size === 0) return;
    throw new Error(
      `Cannot share views with the policy: it writes into what it reads in ${[...this.#written].join(", ")}`,
    );
  }
}
