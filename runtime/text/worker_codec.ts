/**
 * Tokenizer and chat template off the calling thread.
 *
 * @module
 */
import type { TextAssets } from "../model/model.ts";
import type { ChatMessage, RenderOptions, TextCodec, TokenTable } from "./codec.ts";
import {
  type CodecFacts,
  errorFromParts,
  type ModelText,
  type TextReply,
  type TextRequest,
  type TextWorkerStart,
} from "./text_protocol.ts";
import { decodeIds } from "./tokenizer.ts";

/** How long the Worker may take to end its template process before it is stopped without, milliseconds. */
const CLOSE_MS = 5_000;

/** A request as callers write it: the id is added on sending. */
type Unnumbered<R> = R extends unknown ? Omit<R, "id"> : never;

interface Pending {
  readonly resolve: (result: Int32Array | string | undefined) => void;
  readonly reject: (error: Error) => void;
}

/**
 * Starts a Worker that runs the tokenizer and the chat template of a model, so that long prompts do not block the calling
 * thread. Assets are copied to it; given a path, the Worker reads them itself, which saves the caller's time and memory.
 *
 * @throws {Error} named ModelFileError when the model cannot be read.
 * @throws {TypeError} when the tokenizer file has the wrong shape or needs something that is not supported.
 * @throws {RangeError} when its contents contradict each other or are over a limit.
 */
export async function openTextCodec(source: TextAssets | ModelText): Promise<TextCodec> {
  const worker = new Worker(new URL("./text_worker.ts", import.meta.url), { type: "module", name: "text" });
  const { port1: port, port2 } = new MessageChannel();
  try {
    const started = new Promise<TextReply>((resolve, reject) => {
      port.onmessage = ({ data }: MessageEvent<TextReply>) => resolve(data);
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(`Cannot start text worker: ${event.message}`));
      };
    });
    worker.postMessage({ source, port: port2 } satisfies TextWorkerStart, [port2]);
    const reply = await started;
    if (reply.kind === "start-failed") throw errorFromParts(reply.error);
    if (reply.kind !== "ready") throw new Error(`Cannot start text worker: it answered ${reply.kind}`);
    return new WorkerTextCodec({ worker, port, ...reply });
  } catch (error) {
    port.close();
    worker.terminate();
    throw error;
  }
}

class WorkerTextCodec implements TextCodec {
  readonly vocabulary: TokenTable;
  readonly bos?: number;
  readonly eos: readonly number[];
  readonly #dropLeadingSpace: boolean;
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;
  #closed: Promise<void> | undefined;
  /** Why no more requests are taken. */
  #ended: Error | undefined;

  constructor(
    { worker, port, vocabulary, bos, eos, dropsLeadingSpace }: CodecFacts & {
      readonly worker: Worker;
      readonly port: MessagePort;
    },
  ) {
    this.vocabulary = vocabulary;
    this.bos = bos;
    this.eos = eos;
    this.#dropLeadingSpace = dropsLeadingSpace;
    this.#worker = worker;
    this.#port = port;
    port.onmessage = ({ data }: MessageEvent<TextReply>) => this.#settle(data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#end(new Error(`Cannot use text codec: its worker failed: ${event.message}`));
    };
  }

  async encode(text: string, options: { readonly parseSpecial?: boolean } = {}): Promise<Int32Array> {
    return ids(await this.#send({ kind: "encode", text, parseSpecial: options.parseSpecial ?? false }));
  }

  decode(list: ArrayLike<number>, options: { readonly skipSpecial?: boolean } = {}): Promise<string> {
    // The table is here already, and a look-up costs less than a message.
    return Promise.try(() =>
      decodeIds(this.vocabulary, list, { ...options, dropLeadingSpace: this.#dropLeadingSpace })
    );
  }

  async renderChat(messages: readonly ChatMessage[], options: RenderOptions = {}): Promise<string> {
    return String(await this.#send({ kind: "render-chat", messages, options }));
  }

  async encodeChat(messages: readonly ChatMessage[], options: RenderOptions = {}): Promise<Int32Array> {
    return ids(await this.#send({ kind: "encode-chat", messages, options }));
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, CLOSE_MS);
    await Promise.race([this.#post({ kind: "close" }).catch(() => {}), late]);
    clearTimeout(timer);
    this.#port.close();
    this.#worker.terminate();
    this.#end(new ReferenceError("Cannot use text codec: it is disposed"));
  }

  #send(request: Unnumbered<TextRequest>): Promise<Int32Array | string | undefined> {
    if (this.#closed !== undefined) return Promise.reject(new ReferenceError("Cannot use text codec: it is disposed"));
    return this.#post(request);
  }

  #post(request: Unnumbered<TextRequest>): Promise<Int32Array | string | undefined> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      // A request that cannot be copied to the Worker throws here and leaves nothing behind.
      this.#port.postMessage({ ...request, id });
      this.#pending.set(id, { resolve, reject });
    });
  }

  #settle(reply: TextReply): void {
    if (reply.kind !== "done" && reply.kind !== "failed") return;
    const pending = this.#pending.get(reply.id);
    this.#pending.delete(reply.id);
    if (reply.kind === "done") pending?.resolve(reply.result);
    else pending?.reject(errorFromParts(reply.error));
  }

  #end(error: Error): void {
    this.#ended = error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}

function ids(result: Int32Array | string | undefined): Int32Array {
  if (!(result instanceof Int32Array)) throw new TypeError("Cannot read text worker's answer: wanted ids");
  return result;
}
