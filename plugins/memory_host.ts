/**
 * Runs a memory policy and never trusts it: every answer is checked, and an answer that is missing or wrong costs one
 * fallback to the built-in policy `infinite-llm` with its default options.
 *
 * @module
 */
import { INFINITE_LLM_DEFAULTS, infiniteLlm } from "./builtin/infinite_llm.ts";
import { readMemoryPlugin } from "./handshake.ts";
import { loadMemoryPlugin, type LoadOptions } from "./load.ts";
import {
  type CheckedMove,
  type CheckedPlacement,
  evictionOrder,
  MoveRecorder,
  PlacementRecorder,
} from "./memory_answers.ts";
import { checkOptions } from "./options.ts";
import { type CheckedHostOptions, PolicyGuard, type PolicyHostOptions, refusePromise } from "./policy_guard.ts";
import type { ClusterView, EvictionView, MemoryPlugin, PlacementView } from "./types.ts";
import { copyCluster, copyEviction, copyFlat } from "./views.ts";

/** Hooks the host calls after `create`. */
export type MemoryHook = "place" | "move" | "evict";

/** A policy and its state, ready to be asked. */
interface Asked {
  readonly plugin: MemoryPlugin;
  readonly state: unknown;
}

const STAND_IN: Asked = { plugin: infiniteLlm, state: INFINITE_LLM_DEFAULTS };

/** A memory policy at work. Its methods throw nothing but ReferenceError after it is disposed. */
export class MemoryHost implements Disposable {
  readonly #plugin: MemoryPlugin;
  readonly #guard: PolicyGuard<MemoryHook>;

  /**
   * Loads a policy (see {@linkcode loadMemoryPlugin}) and starts it.
   *
   * @throws {PluginError} when it cannot be loaded, configured or created.
   */
  static async load(specifier: string, options: PolicyHostOptions & LoadOptions): Promise<MemoryHost> {
    const plugin = await loadMemoryPlugin(specifier, options);
    return new MemoryHost(plugin, { ...options, config: await checkOptions(plugin, options.config) });
  }

  /**
   * Starts a policy that is already at hand.
   *
   * @throws {PluginError} when it is no policy, or cannot be configured or created.
   */
  static async open(plugin: MemoryPlugin, options: PolicyHostOptions): Promise<MemoryHost> {
    const read = readMemoryPlugin(plugin, "object");
    return new MemoryHost(read, { ...options, config: await checkOptions(read, options.config) });
  }

  /**
   * Starts a policy whose handshake and options are already checked, which {@linkcode load} and {@linkcode open} do.
   *
   * @throws {PluginError} when `create` fails.
   */
  constructor(plugin: MemoryPlugin, options: CheckedHostOptions) {
    this.#plugin = plugin;
    this.#guard = new PolicyGuard(plugin, { ...options, hooks: ["place", "move", "evict"] });
  }

  /** Name of the policy. */
  get name(): string {
    return this.#plugin.name;
  }

  /** Version of the policy. */
  get version(): string {
    return this.#plugin.version;
  }

  /** Calls of the policy's hooks that the built-in answered instead, by hook: faults and calls while out of service. */
  get fallbacks(): Readonly<Record<string, number>> {
    return this.#guard.fallbacks;
  }

  /** Calls that took longer than their budget, by hook. */
  get overruns(): Readonly<Record<string, number>> {
    return this.#guard.overruns;
  }

  /**
   * Where the segments go that a sequence wants to borrow, in the order in which its segments fill them; the sum is
   * `request.segments`. Empty: nowhere now.
   */
  place(request: PlacementView, cluster: ClusterView): readonly CheckedPlacement[] {
    if (request.segments <= 0) return this.#guard.live([]);
    const ask = ({ plugin, state }: Asked) => {
      const recorder = new PlacementRecorder(request, cluster);
      refusePromise(plugin.place?.(state, copyFlat(request), copyCluster(cluster), recorder.out));
      return recorder.finish();
    };
    return this.#answer("place", { ask, nothing: () => [] });
  }

  /** Moves worth making now. */
  move(cluster: ClusterView): readonly CheckedMove[] {
    const ask = ({ plugin, state }: Asked) => {
      const recorder = new MoveRecorder(cluster);
      refusePromise(plugin.move?.(state, copyCluster(cluster), recorder.out));
      return recorder.finish();
    };
    return this.#answer("move", { ask, nothing: () => [] });
  }

  /**
   * Which of the candidates are given back or moved home first when `view.segments` are called back: as many indices as
   * are called back, or all there are, without repetition.
   */
  evict(view: EvictionView): readonly number[] {
    if (view.length === 0 || view.segments <= 0) return this.#guard.live([]);
    const ask = ({ plugin, state }: Asked) => {
      // What the policy leaves unwritten stays NaN and is noticed.
      const ranks = new Float64Array(view.length).fill(NaN);
      refusePromise(plugin.evict?.(state, copyEviction(view), ranks));
      return evictionOrder(ranks, view);
    };
    const { length, segments } = view;
    return this.#answer("evict", { ask, nothing: () => [...new Array(Math.min(length, segments)).keys()] });
  }

  /** Disposes of the policy. */
  [Symbol.dispose](): void {
    this.#guard[Symbol.dispose]();
  }

  /**
   * The policy's answer, or the built-in's where the policy lacks the hook or its answer is refused, or `nothing` where the
   * view is so odd that the built-in's is refused too.
   */
  #answer<T>(hook: MemoryHook, { ask, nothing }: { readonly ask: (asked: Asked) => T; readonly nothing: () => T }): T {
    const plugin = this.#plugin;
    const answer = plugin[hook] === undefined
      ? this.#guard.live(undefined)
      : this.#guard.ask(hook, (state) => ask({ plugin, state }));
    if (answer !== undefined) return answer;
    try {
      return ask(STAND_IN);
    } catch {
      return nothing();
    }
  }
}
