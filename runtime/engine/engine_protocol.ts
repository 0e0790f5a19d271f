/**
 * What an engine Worker and its owner say to each other.
 *
 * @module
 */
import type { ClusterOptions } from "../cluster/options.ts";
import type { ClusterCommand, ClusterReport, CommandResult } from "../cluster/report.ts";
import type { OpenDeviceOptions } from "../device/open_device.ts";
import type { TokenTable } from "../text/codec.ts";
import { CapacityError, type EngineInfo, type EngineRequest, type EngineStats, type RequestEvent } from "./request.ts";

/** How to open an engine. Everything in it can be copied between threads. */
export interface OpenEngineOptions {
  /** GGUF file or Hugging Face directory. */
  readonly modelPath: string;
  /** Name shown to users. @default {the model's own} */
  readonly modelName?: string;
  /** Device, threads, element types and step sizes. */
  readonly device?: Omit<
    OpenDeviceOptions,
    "blocks" | "kvBytes" | "kvTokens" | "onProgress" | "startThread" | "libraries" | "onKernel" | "onPassedOver"
  >;
  /** Size of the KV pool in bytes. @default {see kvBlocks} */
  readonly kvBytes?: number;
  /** Size of the KV pool in tokens, instead of `kvBytes`. */
  readonly kvTokens?: number;
  /** Longest prompt plus output, tokens. @default {the model's context, or the KV pool where that is smaller} */
  readonly maxModelLen?: number;
  /** Most running sequences. @default {32} */
  readonly maxBatch?: number;
  /** Most tokens of a step in which a sequence decodes: its next token waits for all of them. @default {128} */
  readonly mixedStepTokens?: number;
  /** Most waiting requests. @default {512} */
  readonly maxQueue?: number;
  /** Whether the KV of equal prefixes is shared. @default {true} */
  readonly prefixCache?: boolean;
  /** Scheduler policy: `builtin:NAME`, a path or a URL. @default {"builtin:fcfs"} */
  readonly scheduler?: string;
  /** Options of the policy. */
  readonly schedulerOptions?: unknown;
  /** Place in a cluster. @default {in none} */
  readonly cluster?: ClusterOptions;
}

/** What an engine needs of the tokenizer. */
export interface EngineText {
  /** Bytes of every token. */
  readonly vocabulary: TokenTable;
  /** Ids that end generation. */
  readonly eos: readonly number[];
}

/** First message to the Worker; everything else goes through the port. */
export interface EngineWorkerStart {
  /** How to open the engine. */
  readonly options: OpenEngineOptions;
  /** Takes {@linkcode EngineCommand}, gives {@linkcode EngineReply}. */
  readonly port: MessagePort;
  /**
   * One shared Int32: how many commands were posted, counted up after each. A busy engine compares it with the commands
   * it has taken in and turns to its event loop only when they differ.
   */
  readonly posted: SharedArrayBuffer;
  /** Asks the owner for compute threads, see `remoteThreads`. */
  readonly threads: MessagePort;
}

/** What the owner asks for. */
export type EngineCommand =
  | { readonly kind: "text"; readonly text: EngineText }
  | { readonly kind: "add"; readonly key: number; readonly request: EngineRequest }
  | { readonly kind: "cancel"; readonly key: number }
  | { readonly kind: "stats"; readonly call: number }
  | { readonly kind: "report"; readonly call: number }
  | { readonly kind: "operate"; readonly call: number; readonly command: ClusterCommand }
  | { readonly kind: "leave"; readonly call: number; readonly timeoutMs: number }
  | { readonly kind: "close" };

/** What the Worker answers. */
export type EngineReply =
  | { readonly kind: "opened"; readonly info: EngineInfo }
  | { readonly kind: "failed"; readonly error: ErrorParts }
  | { readonly kind: "rejected"; readonly key: number; readonly error: ErrorParts }
  | { readonly kind: "events"; readonly events: readonly KeyedEvent[] }
  | { readonly kind: "stats"; readonly call: number; readonly stats: EngineStats }
  | { readonly kind: "report"; readonly call: number; readonly report: ClusterReport }
  | { readonly kind: "operated"; readonly call: number; readonly result: CommandResult }
  | { readonly kind: "left"; readonly call: number }
  | { readonly kind: "leave-asked" }
  | { readonly kind: "log"; readonly message: string }
  | { readonly kind: "closed" };

/** An event and the request it belongs to. */
export interface KeyedEvent {
  /** Key of the request. */
  readonly key: number;
  /** The event. */
  readonly event: RequestEvent;
}

/** An error as it crosses between threads. */
export interface ErrorParts {
  /** Class name. */
  readonly name: string;
  /** Message. */
  readonly message: string;
  /** Fields of a {@linkcode CapacityError}. */
  readonly capacity?: {
    readonly status: CapacityError["status"];
    readonly code: string;
    readonly retryAfterSeconds?: number;
  };
}

/** The parts of anything that was thrown. */
export function errorParts(thrown: unknown): ErrorParts {
  if (!(thrown instanceof Error)) return { name: "Error", message: String(thrown) };
  const { name, message } = thrown;
  if (!(thrown instanceof CapacityError)) return { name, message };
  const { status, code, retryAfterSeconds } = thrown;
  return { name, message, capacity: { status, code, retryAfterSeconds } };
}

/** The error with the same class where callers tell classes apart, else an `Error` of that name. */
export function errorFromParts({ name, message, capacity }: ErrorParts): Error {
  if (capacity !== undefined) return new CapacityError(message, capacity);
  switch (name) {
    case "RangeError":
      return new RangeError(message);
    case "TypeError":
      return new TypeError(message);
    default: {
      const error = new Error(message);
      error.name = name;
      return error;
    }
  }
}
