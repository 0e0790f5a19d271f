/**
 * What clients were promised and what they got: every accepted request ends exactly once, and its tokens are those of the
 * model run alone, each once and in order.
 *
 * @module
 */
import type { EngineRequest, RequestEvent } from "../../runtime/engine/request.ts";
import { toyGreedy, toyVocabulary } from "./toy_model.ts";
import { Violation } from "./violation.ts";

/** A request and what is known of it. */
export interface LedgerEntry {
  /** The request. */
  readonly request: EngineRequest;
  /** Member that took it. */
  readonly front: string;
  /** When, ms. */
  readonly atMs: number;
  /** Whether nothing may keep it from its end: no error, no refusal. */
  readonly mustFinish: boolean;
  /** Whether the client has left. */
  cancelled: boolean;
  /** How it ended; undefined while it lives. */
  end: "finished" | "cancelled" | "error" | "rejected" | "front-lost" | undefined;
  /** Code of the error or refusal. */
  code: string | undefined;
  /** Tokens that came, by choice. */
  readonly tokens: number[][];
}

interface Choice {
  text: string;
  ended: boolean;
}

/** Every request of a run. */
export class Ledger {
  readonly #entries: LedgerEntry[] = [];
  readonly #choices = new Map<LedgerEntry, Choice[]>();
  readonly #expected = new Map<LedgerEntry, readonly number[]>();
  readonly #texts: readonly string[];

  /** Starts empty. */
  constructor() {
    const { bytes, offsets, special, size } = toyVocabulary();
    const decoder = new TextDecoder();
    this.#texts = Array.from(
      { length: size },
      (_, id) => special[id] === 1 ? "" : decoder.decode(bytes.subarray(offsets[id], offsets[id + 1])),
    );
  }

  /** All requests so far. */
  get entries(): readonly LedgerEntry[] {
    return this.#entries;
  }

  /** Requests that have not ended. */
  get live(): readonly LedgerEntry[] {
    return this.#entries.filter(({ end }) => end === undefined);
  }

  /** Opens an account. */
  open(of: Pick<LedgerEntry, "request" | "front" | "atMs" | "mustFinish">): LedgerEntry {
    const n = of.request.n ?? 1;
    const entry: LedgerEntry = {
      ...of,
      cancelled: false,
      end: undefined,
      code: undefined,
      tokens: Array.from({ length: n }, () => []),
    };
    this.#entries.push(entry);
    this.#choices.set(entry, Array.from({ length: n }, () => ({ text: "", ended: false })));
    return entry;
  }

  /** The tokens that every choice of a greedy request must get. */
  expected(entry: LedgerEntry): readonly number[] {
    let tokens = this.#expected.get(entry);
    if (tokens === undefined) {
      tokens = toyGreedy(entry.request.prompt, entry.request.maxTokens);
      this.#expected.set(entry, tokens);
    }
    return tokens;
  }

  /** Nobody runs it. @throws {Violation} */
  rejected(entry: LedgerEntry, error: Error): void {
    const { id } = entry.request;
    if (entry.end !== undefined) throw new Violation("I3", `request ${id} is rejected after its end (${entry.end})`);
    if (entry.tokens.some((tokens) => tokens.length > 0)) {
      throw new Violation("I3", `request ${id} is rejected after ${entry.tokens.map((t) => t.length)} tokens`);
    }
    if (entry.mustFinish) throw new Violation("Liveness", `request ${id} must run, it is rejected: ${error.message}`);
    entry.end = "rejected";
    entry.code = "code" in error && typeof error.code === "string" ? error.code : error.name;
  }

  /** The process that took it is gone, and the client's connection with it. */
  frontLost(front: string): void {
    for (const entry of this.live) if (entry.front === front) entry.end = "front-lost";
  }

  /** Takes an event. @throws {Violation} */
  take(entry: LedgerEntry, event: RequestEvent): void {
    const { id } = entry.request;
    // Whoever took it is dead and cannot tell anybody.
    if (entry.end === "front-lost") throw new Violation("I3", `request ${id} tells ${event.kind} from a dead front`);
    if (entry.end !== undefined) throw new Violation("I3", `request ${id} tells ${event.kind} after its ${entry.end}`);
    switch (event.kind) {
      case "prompt":
        break;
      case "token":
        this.#token(entry, event);
        break;
      case "choice-end":
        this.#choiceEnd(entry, event);
        break;
      case "end":
        this.#end(entry, event);
        break;
      default:
        event satisfies never;
    }
  }

  #choice(entry: LedgerEntry, index: number, what: string): Choice {
    const choice = this.#choices.get(entry)?.[index];
    if (choice === undefined) {
      throw new Violation("I4", `request ${entry.request.id} has no choice ${index}, yet gets a ${what}`);
    }
    if (choice.ended) {
      throw new Violation("I3", `request ${entry.request.id} gets a ${what} after the end of choice ${index}`);
    }
    return choice;
  }

  #token(entry: LedgerEntry, event: Extract<RequestEvent, { kind: "token" }>): void {
    const choice = this.#choice(entry, event.index, "token");
    const expected = this.expected(entry);
    const tokens = entry.tokens[event.index];
    for (const token of event.ids) {
      if (token !== expected[tokens.length]) {
        const where = `token ${tokens.length} of choice ${event.index} of request ${entry.request.id}`;
        const before = tokens.length > 0 && token === tokens[tokens.length - 1] ? " (the one before it)" : "";
        throw new Violation(
          "I5",
          `${where} is ${token}${before}, wanted ${
            expected[tokens.length] ?? "none"
          }; prompt ${entry.request.prompt.length}`,
        );
      }
      tokens.push(token);
    }
    choice.text += event.text;
  }

  #choiceEnd(entry: LedgerEntry, event: Extract<RequestEvent, { kind: "choice-end" }>): void {
    const choice = this.#choice(entry, event.index, "choice-end");
    choice.ended = true;
    choice.text += event.text;
    const { id, maxTokens } = entry.request;
    const tokens = entry.tokens[event.index];
    if (event.reason === "length" || event.reason === "stop") {
      if (tokens.length !== maxTokens) {
        throw new Violation("I4", `choice ${event.index} of ${id} ends with ${tokens.length} tokens of ${maxTokens}`);
      }
      const text = tokens.map((token) => this.#texts[token]).join("");
      if (choice.text !== text) {
        throw new Violation("I4", `choice ${event.index} of ${id} has text "${choice.text}", its tokens say "${text}"`);
      }
    } else if (event.reason === "cancelled" && !entry.cancelled) {
      throw new Violation("I3", `choice ${event.index} of ${id} is cancelled, its client is there`);
    }
  }

  #end(entry: LedgerEntry, { usage, error }: Extract<RequestEvent, { kind: "end" }>): void {
    const { id, prompt } = entry.request;
    const open = this.#choices.get(entry)?.findIndex(({ ended }) => !ended) ?? -1;
    if (open >= 0) throw new Violation("I3", `request ${id} ends, its choice ${open} has not`);
    const tokens = entry.tokens.reduce((sum, ids) => sum + ids.length, 0);
    if (usage.completionTokens !== tokens || usage.promptTokens !== prompt.length) {
      throw new Violation(
        "I4",
        `request ${id} states ${usage.promptTokens} + ${usage.completionTokens} tokens, it had ${prompt.length} + ${tokens}`,
      );
    }
    if (error !== undefined && entry.mustFinish) {
      throw new Violation("Liveness", `request ${id} must run, it ends with ${error.code}: ${error.message}`);
    }
    const complete = entry.tokens.every((ids) => ids.length === entry.request.maxTokens);
    entry.end = error !== undefined ? "error" : complete ? "finished" : "cancelled";
    entry.code = error?.code;
    this.#expected.delete(entry);
    this.#choices.delete(entry);
  }
}
