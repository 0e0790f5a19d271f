/**
 * Calls a policy's hooks and survives whatever they do: what every kind of policy host has in common.
 *
 * The policy runs in the caller's thread: it can neither be interrupted nor kept from using the process's rights.
 *
 * @module
 */
import { type BreakerOptions, CircuitBreaker } from "./breaker.ts";
import { PluginError, PolicyFault, reasonOf } from "./error.ts";
import { LogLimiter } from "./log_limiter.ts";
import type { PluginBase, PluginContext } from "./types.ts";

/** Services and limits of a host. */
export interface PolicyHostOptions {
  /** Options of the policy. @default {an empty object} */
  readonly config?: unknown;
  /** Monotonic clock, ms; the policy's clock and the host's own. */
  readonly now: () => number;
  /** Uniform in [0, 1), for the policy alone. */
  readonly random: () => number;
  /** Takes one line. */
  readonly log: (message: string) => void;
  /** Time a call should take at most, ms; longer ones are counted and logged. @default {2} */
  readonly budgetMs?: number;
  /** When a failing policy is taken out of service. */
  readonly breaker?: BreakerOptions;
}

/** Options whose `config` has been checked, as {@linkcode checkOptions} does. */
export type CheckedHostOptions<Options extends PolicyHostOptions = PolicyHostOptions> = Options & {
  /** Checked options of the policy. */
  readonly config: Readonly<Record<string, unknown>>;
};

/** What the guard needs of a policy of any kind. */
export interface GuardedPlugin extends PluginBase {
  /** Makes the state that every hook receives. */
  create(context: PluginContext): unknown;
  /** Frees what `create` acquired. */
  dispose?(state: unknown): void;
}

/** A policy at work behind a circuit breaker. */
export class PolicyGuard<Hook extends string> implements Disposable {
  readonly #plugin: GuardedPlugin;
  readonly #options: PolicyHostOptions;
  readonly #context: PluginContext;
  readonly #breaker: CircuitBreaker;
  readonly #log: LogLimiter;
  readonly #fallbacks: Map<Hook, number>;
  readonly #overruns: Map<Hook, number>;
  #state: unknown;
  #disposed = false;

  /**
   * Creates the policy's state.
   *
   * @param options Hooks to count by, besides services and limits.
   * @throws {PluginError} when `create` fails.
   */
  constructor(plugin: GuardedPlugin, options: CheckedHostOptions & { readonly hooks: readonly Hook[] }) {
    const { now, random } = options;
    this.#plugin = plugin;
    this.#options = options;
    this.#fallbacks = new Map(options.hooks.map((hook) => [hook, 0]));
    this.#overruns = new Map(options.hooks.map((hook) => [hook, 0]));
    this.#breaker = new CircuitBreaker(options.breaker);
    this.#log = new LogLimiter(options.log, { now });
    this.#context = Object.freeze({
      config: options.config,
      now: () => now(),
      random: () => random(),
      log: (message: string) => this.#log.write(`${plugin.name}: ${message}`, { topic: "policy", lines: 20 }),
    });
    this.#state = this.#create();
  }

  /** Calls that the built-in had to answer, by hook: faults and calls while out of service. */
  get fallbacks(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#fallbacks);
  }

  /** Calls that took longer than their budget, by hook. */
  get overruns(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#overruns);
  }

  /** Hands the value back. @throws {ReferenceError} when the guard is disposed. */
  live<T>(value: T): T {
    if (this.#disposed) throw new ReferenceError(`Cannot use the host of policy ${this.#plugin.name}: it is disposed`);
    return value;
  }

  /**
   * Runs a call of the policy with its state; the call checks the answer and throws a {@linkcode PolicyFault} when it is
   * not accepted.
   *
   * @returns undefined when the built-in has to answer.
   * @throws {ReferenceError} when the guard is disposed.
   */
  ask<T>(hook: Hook, call: (state: unknown) => T): T | undefined {
    const startMs = this.live(this.#options).now();
    if (!this.#inService(startMs)) {
      count(this.#fallbacks, hook);
      return undefined;
    }
    try {
      return call(this.#state);
    } catch (error) {
      count(this.#fallbacks, hook);
      this.#bookFault(hook, error);
      return undefined;
    } finally {
      this.#bookTime(hook, this.#options.now() - startMs);
    }
  }

  /** Disposes of the policy. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#disposeState();
  }

  #inService(nowMs: number): boolean {
    switch (this.#breaker.check(nowMs)) {
      case "use":
        return true;
      case "skip":
        return false;
      case "restart":
        this.#disposeState();
        try {
          this.#state = this.#create();
        } catch (error) {
          this.#bookFault("create", error);
          return false;
        }
        this.#log.write(`policy ${this.#plugin.name} is back in service`, { topic: "service" });
        return true;
    }
  }

  #create(): unknown {
    const { name } = this.#plugin;
    try {
      const state = this.#plugin.create(this.#context);
      refusePromise(state);
      return state;
    } catch (error) {
      throw new PluginError(`Cannot create policy ${name}: ${reasonOf(error)}`, {
        plugin: name,
        hook: "create",
        cause: error,
      });
    }
  }

  #disposeState(): void {
    const { dispose, name } = this.#plugin;
    if (dispose === undefined) return;
    try {
      refusePromise(dispose(this.#state));
    } catch (error) {
      this.#log.write(`policy ${name} failed in dispose: ${reasonOf(error)}`, { topic: "dispose" });
    }
  }

  #bookFault(hook: string, error: unknown): void {
    const { name } = this.#plugin;
    const reason = error instanceof PolicyFault ? error.message : reasonOf(error);
    this.#log.write(`policy ${name} failed in ${hook}, the built-in stands in: ${reason}`, { topic: hook });
    // A policy that starves somebody is sound otherwise, and the built-in's answer already helps.
    if (error instanceof PolicyFault && error.cause === "starvation") return;
    const backOffMs = this.#breaker.fault(this.#options.now());
    if (backOffMs === undefined) return;
    this.#log.write(`policy ${name} is out of service for ${backOffMs} ms`, { topic: "service", lines: 2 });
  }

  #bookTime(hook: Hook, elapsedMs: number): void {
    const { budgetMs = 2 } = this.#options;
    if (elapsedMs <= budgetMs) return;
    count(this.#overruns, hook);
    this.#log.write(
      `policy ${this.#plugin.name} took ${elapsedMs.toFixed(1)} ms in ${hook}, its budget is ${budgetMs} ms`,
      { topic: `${hook} time` },
    );
  }
}

/**
 * Promises come too late. The rejection of a real one is taken care of.
 *
 * @throws {PolicyFault} when the value is one.
 */
export function refusePromise(value: unknown): void {
  if (value instanceof Promise) value.catch(() => {});
  else if (typeof value !== "object" || value === null || typeof Reflect.get(value, "then") !== "function") return;
  throw new PolicyFault("Cannot use a promise: hooks answer at once");
}

function count<Hook>(counts: Map<Hook, number>, hook: Hook): void {
  counts.set(hook, (counts.get(hook) ?? 0) + 1);
}
