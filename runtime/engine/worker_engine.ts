/**
 * An engine on a thread of its own.
 *
 * @module
 */
import { MessagePort as NodeMessagePort, receiveMessageOnPort } from "node:worker_threads";
import { serveThreads } from "../../kernels/wasm/threads.ts";
import {
  type EngineCommand,
  type EngineReply,
  type EngineText,
  type EngineWorkerStart,
  errorFromParts,
  type OpenEngineOptions,
} from "./engine_protocol.ts";
import type { ClusterControl } from "../cluster/report.ts";
import type { DeviceLostError } from "../device/device_lost_error.ts";
import type { EngineHandle, EngineInfo, EngineRequest, EngineStats, RequestEvent } from "./request.ts";
import { RequestStream } from "./request_stream.ts";

/** Name of the error of a device that can do nothing more. */
const DEVICE_LOST: DeviceLostError["name"] = "DeviceLostError";

/** How long the Worker may take to end its requests and its device before it is stopped without, ms. */
const CLOSE_MS = 5_000;

/** What {@linkcode openEngine} needs besides the options. */
export interface OpenEngineContext {
  /** What the engine needs of the tokenizer; may come later than the weights. */
  readonly text: EngineText | Promise<EngineText>;
  /** Takes a line of the log of the engine: of its device, its scheduler policy, the cluster. @default {drops it} */
  readonly log?: (message: string) => void;
}

/**
 * Starts a Worker, opens model, device and policy in it and runs an engine there. Model and tokenizer load at the same
 * time when `text` is a promise.
 *
 * When the Worker dies, every live request ends with the error `engine_failed`, and later calls reject.
 *
 * @throws {Error} what the Worker could not open, by its class name: `ModelFileError`, `PluginError`, `RangeError`, …
 */
export async function openEngine(options: OpenEngineOptions, context: OpenEngineContext): Promise<EngineHandle> {
  const worker = new Worker(new URL("./engine_worker.ts", import.meta.url), { type: "module", name: "engine" });
  return await connectEngine(worker, { ...context, options });
}

/**
 * Opens an engine in a Worker that runs `serveEngine`. The handle ends the Worker.
 *
 * @throws {Error} what the Worker could not open.
 */
export async function connectEngine(
  worker: Worker,
  context: OpenEngineContext & { readonly options: OpenEngineOptions },
): Promise<EngineHandle> {
  const { options, text, log = () => {} } = context;
  const { port1: port, port2 } = new MessageChannel();
  const { port1: threadPort, port2: threads } = new MessageChannel();
  const servedThreads = serveThreads(threadPort);
  const posted = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
  const failed = Promise.withResolvers<never>();
  worker.onerror = (event) => {
    event.preventDefault();
    failed.reject(new Error(`Cannot open the engine: its worker failed: ${event.message}`));
  };
  const opened = new Promise<EngineInfo>((resolve, reject) => {
    port.onmessage = ({ data: reply }: MessageEvent<EngineReply>) => {
      if (reply.kind === "opened") resolve(reply.info);
      else if (reply.kind === "failed") reject(errorFromParts(reply.error));
      else if (reply.kind === "log") log(reply.message);
    };
  });
  try {
    worker.postMessage({ options, port: port2, posted, threads } satisfies EngineWorkerStart, [port2, threads]);
    const link = { worker, port, posted: new Int32Array(posted), log, threads: servedThreads };
    const sent = Promise.resolve(text).then(({ vocabulary, eos }) =>
      post(link, { kind: "text", text: { vocabulary, eos } })
    );
    const [info] = await Promise.race([Promise.all([opened, sent]), failed.promise]);
    return new WorkerEngine(info, { ...link, clustered: options.cluster !== undefined });
  } catch (error) {
    port.close();
    worker.terminate();
    servedThreads[Symbol.dispose]();
    throw error;
  }
}

/** The owner's end of an engine Worker. */
interface WorkerLink {
  readonly worker: Worker;
  readonly port: MessagePort;
  readonly posted: Int32Array;
  readonly log: (message: string) => void;
  /** Its compute threads. */
  readonly threads: Disposable;
}

/** Sends a command and counts it, so that a busy Worker looks for it. */
function post({ port, posted }: WorkerLink, command: EngineCommand): void {
  port.postMessage(command);
  Atomics.add(posted, 0, 1);
}

/** Somebody who waits for a reply. */
interface PendingCall {
  readonly answer: (reply: EngineReply) => void;
  readonly reject: (error: Error) => void;
}

class WorkerEngine implements EngineHandle {
  readonly info: EngineInfo;
  readonly cluster: ClusterControl | undefined;
  readonly #link: WorkerLink;
  readonly #streams = new Map<number, RequestStream>();
  readonly #calls = new Map<number, PendingCall>();
  readonly #leaveAsked = Promise.withResolvers<void>();
  readonly #deviceLost = Promise.withResolvers<Error>();
  readonly #closed = Promise.withResolvers<void>();
  #lastKey = 0;
  #closing: Promise<void> | undefined;
  /** Why no more is asked of the Worker. */
  #ended: Error | undefined;

  constructor(info: EngineInfo, { clustered, ...link }: WorkerLink & { readonly clustered: boolean }) {
    this.info = info;
    this.#link = link;
    if (clustered) {
      this.cluster = {
        report: () =>
          this.#call((call) => ({ kind: "report", call }), (reply) => reply.kind === "report" && reply.report),
        operate: (command) =>
          this.#call(
            (call) => ({ kind: "operate", call, command }),
            (reply) => reply.kind === "operated" && reply.result,
          ),
        leave: async (timeoutMs) => {
          await this.#call((call) => ({ kind: "leave", call, timeoutMs }), (reply) => reply.kind === "left");
        },
        leaveAsked: this.#leaveAsked.promise,
      };
    }
    link.port.onmessage = ({ data }: MessageEvent<EngineReply>) => this.#takeAll(data);
    link.worker.onerror = (event) => {
      event.preventDefault();
      this.#end(brokenEngine(event.message));
    };
  }

  /** See {@linkcode EngineHandle.deviceLost}. */
  get deviceLost(): Promise<Error> {
    return this.#deviceLost.promise;
  }

  generate(request: EngineRequest, options: { readonly signal?: AbortSignal } = {}): AsyncIterable<RequestEvent> {
    const key = ++this.#lastKey;
    const stream: RequestStream = new RequestStream(request, {
      start: () => {
        this.#post({ kind: "add", key, request });
        this.#streams.set(key, stream);
      },
      cancel: () => {
        if (this.#ended === undefined) this.#post({ kind: "cancel", key });
      },
      close: () => this.#streams.delete(key),
      now: () => performance.now(),
      signal: options.signal,
    });
    return stream;
  }

  stats(): Promise<EngineStats> {
    return this.#call((call) => ({ kind: "stats", call }), (reply) => reply.kind === "stats" && reply.stats);
  }

  /** Asks the Worker; `read` takes the answer out of its reply, or gives false for a reply of another kind. */
  #call<T>(ask: (call: number) => EngineCommand, read: (reply: EngineReply) => T | false): Promise<T> {
    return new Promise((resolve, reject) => {
      const call = ++this.#lastKey;
      this.#post(ask(call));
      this.#calls.set(call, {
        answer: (reply) => {
          const value = read(reply);
          if (value === false) reject(new TypeError(`Cannot read a reply of kind ${reply.kind}`));
          else resolve(value);
        },
        reject,
      });
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#ended === undefined) {
      this.#post({ kind: "close" });
      this.#ended = new ReferenceError("Cannot use the engine: it is disposed");
      const timer = setTimeout(() => this.#closed.resolve(), CLOSE_MS);
      await this.#closed.promise;
      clearTimeout(timer);
      this.#end(this.#ended);
    }
    this.#link.port.close();
    this.#link.worker.terminate();
    this.#link.threads[Symbol.dispose]();
  }

  #post(command: EngineCommand): void {
    if (this.#ended !== undefined) throw this.#ended;
    post(this.#link, command);
  }

  /**
   * Takes a reply and those that came behind it. Where this thread cannot keep up with every step, a request's tokens of
   * several steps become one event.
   */
  #takeAll(first: EngineReply): void {
    const events = new Map<number, RequestEvent[]>();
    const deliver = () => {
      for (const [key, batch] of events) this.#streams.get(key)?.push(...batch);
      events.clear();
    };
    for (let reply: EngineReply | undefined = first; reply !== undefined; reply = this.#nextReply()) {
      if (reply.kind !== "events") {
        deliver();
        this.#take(reply);
        continue;
      }
      for (const { key, event } of reply.events) {
        const batch = events.get(key);
        if (batch === undefined) events.set(key, [event]);
        else batch.push(event);
      }
    }
    deliver();
  }

  /** A reply that waits. */
  #nextReply(): EngineReply | undefined {
    const { port } = this.#link;
    return port instanceof NodeMessagePort ? receiveMessageOnPort(port)?.message : undefined;
  }

  #take(reply: Exclude<EngineReply, { kind: "events" }>): void {
    switch (reply.kind) {
      case "rejected":
        this.#streams.get(reply.key)?.fail(errorFromParts(reply.error));
        break;
      case "stats":
      case "report":
      case "operated":
      case "left":
        this.#calls.get(reply.call)?.answer(reply);
        this.#calls.delete(reply.call);
        break;
      case "leave-asked":
        this.#leaveAsked.resolve();
        break;
      case "log":
        this.#link.log(reply.message);
        break;
      case "closed":
        this.#closed.resolve();
        break;
      case "failed":
        this.#end(brokenEngine(reply.error.message));
        if (reply.error.name === DEVICE_LOST) this.#deviceLost.resolve(errorFromParts(reply.error));
        break;
      case "opened":
        break;
      default:
        reply satisfies never;
    }
  }

  /** Ends everything that waits for the Worker. */
  #end(error: Error): void {
    this.#ended = error;
    this.#closed.resolve();
    const { message } = error;
    for (const stream of [...this.#streams.values()]) stream.abort({ message, code: "engine_failed", status: 500 });
    for (const call of this.#calls.values()) call.reject(error);
    this.#calls.clear();
  }
}

function brokenEngine(reason: string): Error {
  return new Error(`Cannot use the engine: its worker failed: ${reason}`);
}
