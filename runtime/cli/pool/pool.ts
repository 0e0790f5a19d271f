/**
 * A cluster of child processes on this machine.
 *
 * @module
 */
import { type ChildSpec, PoolChild, type Spawn } from "./pool_child.ts";

/** What happens in a pool. */
export type PoolEvent =
  /** A child serves. */
  | { readonly kind: "ready"; readonly child: PoolChild }
  /** A child has ended. */
  | { readonly kind: "ended"; readonly child: PoolChild }
  /** A child wrote a line to standard error. */
  | { readonly kind: "line"; readonly child: PoolChild; readonly line: string };

/** Options of {@linkcode Pool}. */
export interface PoolOptions {
  /** Starts a child. */
  readonly spawn: Spawn;
  /** Told what happens. */
  readonly onEvent: (event: PoolEvent) => void;
}

/** Starts children, shows how they fare, starts none again. */
export class Pool {
  readonly #options: PoolOptions;
  readonly #children: PoolChild[] = [];

  /** Makes an empty pool. */
  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** Children in the order they were started. */
  get children(): readonly PoolChild[] {
    return this.#children;
  }

  /** Starts a child. */
  add(spec: ChildSpec): PoolChild {
    const { spawn, onEvent } = this.#options;
    const child: PoolChild = new PoolChild(spec, { spawn, onLine: (line) => onEvent({ kind: "line", child, line }) });
    this.#children.push(child);
    void child.ready.then((announcement) => {
      if (announcement !== undefined) onEvent({ kind: "ready", child });
    });
    void this.#watch(child);
    return child;
  }

  /** Resolves when no child is left. */
  async ended(): Promise<void> {
    await Promise.all(this.#children.map((child) => child.ended));
  }

  /**
   * Stops every child: first the public one, so that its clients' requests can use the whole pool to their end, then the
   * other full members, then the holders. A group that takes longer than `groupMs` is killed. Gives whether all ended
   * well.
   */
  async stop(groupMs: number): Promise<boolean> {
    const [first, ...others] = this.#children;
    const fulls = others.filter(({ spec }) => spec.role === "full");
    const holders = others.filter(({ spec }) => spec.role === "holder");
    let well = true;
    for (const group of [first === undefined ? [] : [first], fulls, holders]) {
      const ends = await this.#stopGroup(group.filter(({ state }) => state !== "ended"), groupMs);
      well &&= ends.every(({ success }) => success);
    }
    return well;
  }

  /** Ends every child now. */
  kill(): void {
    for (const child of this.#children) child.kill();
  }

  async #stopGroup(group: readonly PoolChild[], groupMs: number): Promise<readonly Deno.CommandStatus[]> {
    for (const child of group) child.stop();
    const timer = setTimeout(() => {
      for (const child of group) child.kill();
    }, groupMs);
    try {
      return await Promise.all(group.map((child) => child.ended));
    } finally {
      clearTimeout(timer);
    }
  }

  async #watch(child: PoolChild): Promise<void> {
    await child.ended;
    this.#options.onEvent({ kind: "ended", child });
  }
}
