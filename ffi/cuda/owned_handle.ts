/**
 * What the driver made for us and we must give back.
 *
 * @module
 */
import type { CudaDriver } from "./driver.ts";
import { CudaError } from "./error.ts";

/** What everything made in one context shares: the driver, the context, and the list of what is still open. */
export class ContextScope {
  /** The driver. */
  readonly driver: CudaDriver;
  /** The driver's handle of the context. */
  readonly context: bigint;
  readonly #open = new Set<Disposable>();

  /** Takes a retained context. */
  constructor(driver: CudaDriver, context: bigint) {
    this.driver = driver;
    this.context = context;
  }

  /** Makes the context current on this thread: calls that name no stream or module go to the current one. */
  enter(): void {
    const { driver } = this;
    driver.check(driver.symbols.cuCtxSetCurrent(this.context), {
      call: "cuCtxSetCurrent",
      context: "switch to a context",
    });
  }

  /** Remembers something to be given back before the context is. */
  adopt(child: Disposable): void {
    this.#open.add(child);
  }

  /** Forgets what was given back. */
  release(child: Disposable): void {
    this.#open.delete(child);
  }

  /** Gives everything back, newest first. */
  disposeAll(): void {
    for (const child of [...this.#open].reverse()) child[Symbol.dispose]();
  }
}

/** A handle of the driver that is given back on dispose, or with its context. */
export abstract class OwnedHandle<Handle extends bigint> implements Disposable {
  /** What it shares with the rest of its context. */
  protected readonly scope: ContextScope;
  readonly #what: string;
  #handle: Handle | undefined;

  /**
   * Takes a handle.
   *
   * @param what What it is, for messages.
   */
  constructor(scope: ContextScope, what: string, handle: Handle) {
    this.scope = scope;
    this.#what = what;
    this.#handle = handle;
    scope.adopt(this);
  }

  /** The driver's handle. @throws {ReferenceError} after dispose. */
  get handle(): Handle {
    if (this.#handle === undefined) throw new ReferenceError(`Cannot use a ${this.#what}: it is disposed`);
    return this.#handle;
  }

  /** Does nothing but throw. @throws {ReferenceError} after dispose. */
  protected requireOpen(): void {
    if (this.#handle === undefined) throw new ReferenceError(`Cannot use a ${this.#what}: it is disposed`);
  }

  /**
   * Gives it back. Idempotent.
   *
   * @throws {CudaError} when the driver refuses; not when the context is dead, for then nothing is left to give back.
   */
  [Symbol.dispose](): void {
    if (this.#handle === undefined) return;
    const handle = this.#handle;
    this.#handle = undefined;
    this.scope.release(this);
    try {
      this.scope.enter();
      this.free(handle);
    } catch (error) {
      if (!(error instanceof CudaError && error.lost)) throw error;
    }
  }

  /** Gives `handle` back. */
  protected abstract free(handle: Handle): void;
}
