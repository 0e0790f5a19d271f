/**
 * Runs an engine behind a port.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import { remoteThreads } from "../../kernels/wasm/threads.ts";
import type { Engine } from "./engine.ts";
import type { AssembledEngine, AssemblyContext } from "./assemble_engine.ts";
import {
  type EngineCommand,
  type EngineReply,
  type EngineText,
  type EngineWorkerStart,
  errorParts,
  type KeyedEvent,
  type OpenEngineOptions,
} from "./engine_protocol.ts";

/** Commands to an engine that is open. */
export type ServedCommand = Exclude<EngineCommand, { kind: "text" }>;

/** What a server talks through. */
export interface EngineServerLink {
  /** Sends a reply; works without a turn of the event loop. */
  readonly send: (reply: EngineReply) => void;
  /** Commands posted so far, see `EngineWorkerStart.posted`. */
  readonly posted: Int32Array;
  /** Commands taken in before the engine was open. */
  readonly taken: number;
}

/** What takes the commands of an engine's owner. */
export interface ServedEngine {
  /** Takes a command in. */
  take(command: ServedCommand): void;
  /** Serves until `close`. @throws {Error} when the engine is broken. */
  run(): Promise<void>;
}

/** Opens what a Worker serves. */
export type EngineAssembler = (options: OpenEngineOptions, context: AssemblyContext) => Promise<AssembledEngine>;

/**
 * Life of an engine Worker: opens an engine, says so, and serves it until `close`. What cannot be opened and what breaks
 * the engine goes to the owner as `failed`; nothing is served after that.
 */
export async function serveEngine(start: EngineWorkerStart, assemble: EngineAssembler): Promise<void> {
  const { options, port } = start;
  const send = (reply: EngineReply) => port.postMessage(reply);
  const text = Promise.withResolvers<EngineText>();
  let server: ServedEngine | undefined;
  // What a link, a timer or a turn of the event loop throws is nobody's call: it ends the engine as what a step throws does.
  const broken = Promise.withResolvers<never>();
  broken.promise.catch(() => {});
  const onError = (event: ErrorEvent) => {
    event.preventDefault();
    broken.reject(event.error);
  };
  const onRejection = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    broken.reject(event.reason);
  };
  globalThis.addEventListener("error", onError);
  globalThis.addEventListener("unhandledrejection", onRejection);
  port.onmessage = ({ data: command }: MessageEvent<EngineCommand>) => {
    if (command.kind === "text") text.resolve(command.text);
    else server?.take(command);
  };
  try {
    using assembled = await assemble(options, {
      text: text.promise,
      log: (message) => send({ kind: "log", message }),
      startThread: remoteThreads(start.threads),
    });
    // The one command before that is the text.
    const link: EngineServerLink = { send, posted: new Int32Array(start.posted), taken: 1 };
    server = assembled.serve?.(link) ?? new EngineServer(assembled.engine, link);
    send({ kind: "opened", info: assembled.engine.info });
    await Promise.race([server.run(), broken.promise]);
  } catch (error) {
    send({ kind: "failed", error: errorParts(error) });
    return;
  } finally {
    globalThis.removeEventListener("error", onError);
    globalThis.removeEventListener("unhandledrejection", onRejection);
  }
  send({ kind: "closed" });
}

/**
 * Runs steps back to back and sends the events of each step in one message. Commands are taken in when the event loop
 * turns: it does so while the engine is idle, while a step waits for others, and between two steps only when a command
 * waits. An engine that waits for memory runs again after a command or {@linkcode wake}.
 */
export class EngineServer {
  readonly #engine: Engine;
  readonly #link: EngineServerLink;
  readonly #ids = new Map<number, string>();
  #taken: number;
  #outbox: KeyedEvent[] = [];
  #wake: (() => void) | undefined;
  #failure: { readonly error: unknown } | undefined;
  #closed = false;

  /** Serves `engine`, which nobody else may step. */
  constructor(engine: Engine, link: EngineServerLink) {
    this.#engine = engine;
    this.#link = link;
    this.#taken = link.taken;
  }

  /** Takes a command in. */
  take(command: ServedCommand): void {
    this.#taken++;
    try {
      this.#handle(command);
      this.#flush();
    } catch (error) {
      // Thrown from here it would be noticed only when the engine is idle.
      this.#failure = { error };
    }
    this.#wake?.();
  }

  /**
   * Serves until `close`, which cancels what is live.
   *
   * @throws {Error} when the engine breaks one of its invariants: it can be used no more.
   */
  async run(): Promise<void> {
    while (!this.#closed) {
      if (this.#failure !== undefined) throw this.#failure.error;
      if (!this.#engine.busy) {
        this.#engine.checkIntegrity();
        await this.#park();
        continue;
      }
      let worked: boolean | undefined;
      let finish: (() => void) | undefined;
      this.#engine.run((found) => {
        worked = found;
        finish?.();
      });
      // Most steps are over by now; a promise for each would cost as much as the scheduler.
      if (worked === undefined) await new Promise<void>((resolve) => finish = resolve);
      this.#flush();
      if (worked) {
        // A turn takes in about one command.
        for (let turns = this.#waitingCommands; turns > 0; turns--) await turn();
      } else {
        if (!this.#engine.waitsForMemory) throw new Error("Engine is broken: requests are live, none can run");
        await this.#park();
      }
    }
  }

  /** Makes it look for work again: the engine's memory has changed. */
  wake(): void {
    this.#wake?.();
  }

  async #park(): Promise<void> {
    await new Promise<void>((resolve) => this.#wake = resolve);
    this.#wake = undefined;
  }

  /** Commands posted and not taken in; both counters wrap. */
  get #waitingCommands(): number {
    return (Atomics.load(this.#link.posted, 0) - this.#taken) | 0;
  }

  #handle(command: ServedCommand): void {
    switch (command.kind) {
      case "add":
        this.#add(command);
        break;
      case "cancel": {
        const id = this.#ids.get(command.key);
        if (id !== undefined) this.#engine.cancel(id);
        break;
      }
      case "stats":
        this.#link.send({ kind: "stats", call: command.call, stats: this.#engine.stats() });
        break;
      case "report":
      case "operate":
      case "leave":
        throw new TypeError(`Cannot ${command.kind}: this engine is in no cluster`);
      case "close":
        this.#closed = true;
        for (const id of [...this.#ids.values()]) this.#engine.cancel(id);
        break;
      default:
        command satisfies never;
    }
  }

  #add({ key, request }: Extract<EngineCommand, { kind: "add" }>): void {
    try {
      this.#engine.add(request, (event) => {
        if (event.kind === "end") this.#ids.delete(key);
        this.#outbox.push({ key, event });
      });
      this.#ids.set(key, request.id);
    } catch (error) {
      this.#link.send({ kind: "rejected", key, error: errorParts(error) });
    }
  }

  #flush(): void {
    if (this.#outbox.length === 0) return;
    const events = this.#outbox;
    this.#outbox = [];
    this.#link.send({ kind: "events", events });
  }
}

/** One turn of the event loop, in which a posted command is taken in. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
