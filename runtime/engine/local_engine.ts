/**
 * An engine on the calling thread.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import type { Engine } from "./engine.ts";
import type { EngineHandle, EngineInfo, EngineRequest, EngineStats, RequestEvent } from "./request.ts";
import { RequestStream } from "./request_stream.ts";

/**
 * Drives an {@linkcode Engine} while requests are live, one step per turn of the event loop: a step blocks the thread,
 * readers run in between. An engine that waits for memory runs again after {@linkcode wake}, a new request or a cancellation.
 * For servers there is `openEngine`, which has a thread of its own. The engine's device stays
 * the caller's.
 *
 * @example
 * ```ts ignore
 * await using handle = new LocalEngine(engine);
 * for await (const event of handle.generate({ id: "1", prompt: [1, 2, 3], maxTokens: 16 })) console.log(event);
 * ```
 */
export class LocalEngine implements EngineHandle {
  /** Facts fixed at start. */
  readonly info: EngineInfo;
  readonly #engine: Engine;
  readonly #streams = new Map<string, RequestStream>();
  #running: Promise<void> | undefined;
  #wake: (() => void) | undefined;
  #ended: Error | undefined;

  /** Takes `engine` over: nobody else may step it. */
  constructor(engine: Engine) {
    this.#engine = engine;
    this.info = engine.info;
  }

  /** See {@linkcode EngineHandle.generate}. */
  generate(request: EngineRequest, options: { readonly signal?: AbortSignal } = {}): AsyncIterable<RequestEvent> {
    const stream: RequestStream = new RequestStream(request, {
      start: () => this.#start(request, stream),
      cancel: () => this.#cancel(request.id),
      close: () => {
        if (this.#streams.get(request.id) === stream) this.#streams.delete(request.id);
      },
      now: () => performance.now(),
      signal: options.signal,
    });
    return stream;
  }

  /** See {@linkcode EngineHandle.stats}. */
  stats(): Promise<EngineStats> {
    return this.#ended === undefined ? Promise.resolve(this.#engine.stats()) : Promise.reject(this.#ended);
  }

  /** Cancels what is live. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended ??= new ReferenceError("Cannot use the engine: it is disposed");
    for (const id of [...this.#streams.keys()]) this.#cancel(id);
    await this.#running;
  }

  /** Makes it look for work again: the engine's memory has changed. */
  wake(): void {
    this.#wake?.();
  }

  #cancel(id: string): void {
    this.#engine.cancel(id);
    this.wake();
  }

  #start(request: EngineRequest, stream: RequestStream): void {
    if (this.#ended !== undefined) throw this.#ended;
    this.#engine.add(request, (event) => stream.push(event));
    this.#streams.set(request.id, stream);
    this.#running ??= this.#run();
    this.wake();
  }

  async #run(): Promise<void> {
    try {
      while (this.#engine.busy) {
        await new Promise<void>((resolve) => setImmediate(resolve));
        let worked: boolean | undefined;
        let finish: (() => void) | undefined;
        this.#engine.run((found) => {
          worked = found;
          finish?.();
        });
        if (worked === undefined) await new Promise<void>((resolve) => finish = resolve);
        if (worked || !this.#engine.busy) continue;
        if (!this.#engine.waitsForMemory) throw new Error("Engine is broken: requests are live, none can run");
        await new Promise<void>((resolve) => this.#wake = resolve);
        this.#wake = undefined;
      }
      this.#engine.checkIntegrity();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#running = undefined;
    }
  }

  #fail(error: unknown): void {
    const message = `Cannot use the engine: it failed: ${error instanceof Error ? error.message : error}`;
    this.#ended = new Error(message, { cause: error });
    for (const stream of [...this.#streams.values()]) stream.abort({ message, code: "engine_failed", status: 500 });
  }
}
