/**
 * A conversation with a model.
 *
 * @module
 */
import type { EngineHandle, Usage } from "../engine/request.ts";
import type { ChatMessage, TextCodec } from "../text/codec.ts";

/** What a conversation stands on. */
export interface ChatOptions {
  /** Engine; stays the caller's. */
  readonly engine: EngineHandle;
  /** Tokenizer and template of the same model; stays the caller's. */
  readonly text: TextCodec;
  /** System message. */
  readonly system?: string;
  /** Most tokens of an answer. */
  readonly maxTokens: number;
  /** Randomness, 0 is none. */
  readonly temperature: number;
  /** Seed of the random choices. */
  readonly seed?: number;
}

/** How an answer ended. */
export interface AnswerEnd {
  /** Why: `length` when it reached the token limit, `cancelled` when it was stopped. */
  readonly reason: "stop" | "length" | "cancelled";
  /** Tokens used. */
  readonly usage: Usage;
}

/** Holds what was said and asks for what comes next. */
export class Chat {
  /** System message of later answers; undefined leaves it to the template. */
  system: string | undefined;
  readonly #options: ChatOptions;
  readonly #messages: ChatMessage[] = [];
  #answers = 0;

  /** Begins a conversation. */
  constructor(options: ChatOptions) {
    this.#options = options;
    this.system = options.system;
  }

  /** Forgets what was said. */
  clear(): void {
    this.#messages.length = 0;
  }

  /**
   * Says `content` and gives the answer to `onText` piece by piece. What was said until a stop counts as the answer; a
   * message whose answer fails is forgotten.
   *
   * @throws {RangeError} when the conversation is longer than the model's context.
   * @throws {Error} when the template or the engine fails.
   */
  async answer(
    content: string,
    { onText, signal }: { readonly onText: (text: string) => void; readonly signal?: AbortSignal },
  ): Promise<AnswerEnd> {
    const { engine, text, temperature, seed } = this.#options;
    const messages = [...this.#messages, { role: "user", content }];
    const system = this.system === undefined ? [] : [{ role: "system", content: this.system }];
    const prompt = await text.encodeChat([...system, ...messages]);
    const room = engine.info.maxModelLen - prompt.length;
    if (room < 1) {
      throw new RangeError(
        `Cannot answer: the conversation has ${prompt.length} tokens, the context ${engine.info.maxModelLen}`,
      );
    }
    let said = "";
    let reason: AnswerEnd["reason"] = "stop";
    const say = (piece: string) => {
      if (piece === "") return;
      said += piece;
      onText(piece);
    };
    const request = {
      id: `chat-${++this.#answers}`,
      prompt,
      maxTokens: Math.min(this.#options.maxTokens, room),
      sampling: { temperature, seed },
    };
    for await (const event of engine.generate(request, { signal })) {
      if (event.kind === "token") say(event.text);
      else if (event.kind === "choice-end") {
        say(event.text);
        reason = event.reason === "error" ? reason : event.reason;
      } else if (event.kind === "end") {
        if (event.error !== undefined) throw new Error(event.error.message);
        this.#messages.push({ role: "user", content }, { role: "assistant", content: said });
        return { reason, usage: event.usage };
      }
    }
    throw new Error("Cannot answer: the engine ended the request without saying so");
  }
}
