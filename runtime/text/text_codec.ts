/**
 * Tokenizer and chat template on the calling thread.
 *
 * @module
 */
import type { TextAssets } from "../model/model.ts";
import { type ChatMessage, type RenderOptions, TemplateError, type TextCodec, type TokenTable } from "./codec.ts";
import { ControlTextGuard } from "./control_text.ts";
import { TemplateRenderer } from "./template_renderer.ts";
import { Tokenizer, withBos } from "./tokenizer.ts";

/**
 * Makes the text codec of a model on the calling thread: encoding blocks it. Templates run in a process of their own,
 * started by the first chat; that needs `--allow-run` for the running `deno`.
 *
 * @throws {TypeError} when the tokenizer file has the wrong shape or needs something that is not supported.
 * @throws {RangeError} when its contents contradict each other or are over a limit.
 */
export function createTextCodec(assets: TextAssets): TextCodec {
  return new LocalTextCodec(assets);
}

/** Text codec that works on the calling thread. */
export class LocalTextCodec implements TextCodec {
  /** Bytes of every token. */
  readonly vocabulary: TokenTable;
  /** See {@linkcode TextCodec}. */
  readonly bos?: number;
  /** See {@linkcode TextCodec}. */
  readonly eos: readonly number[];
  /** Whether decoding drops one space at the start. */
  readonly dropsLeadingSpace: boolean;
  readonly #assets: TextAssets;
  readonly #tokenizer: Tokenizer;
  readonly #guard: ControlTextGuard;
  readonly #renderer = new TemplateRenderer();
  /** Text of the control tokens that templates name. */
  readonly #tokenVariables: Readonly<Record<string, string>>;

  /** See {@linkcode createTextCodec}. */
  constructor(assets: TextAssets) {
    this.#assets = assets;
    this.bos = assets.addBos ? assets.bos : undefined;
    this.eos = assets.eos;
    this.#tokenizer = new Tokenizer(assets);
    this.#guard = new ControlTextGuard(this.#tokenizer.controlTokens);
    this.vocabulary = this.#tokenizer.vocabulary;
    this.dropsLeadingSpace = this.#tokenizer.dropsLeadingSpace;
    const textOf = (id: number | undefined) =>
      this.#tokenizer.controlTokens.find((token) => token.id === id)?.content ?? "";
    this.#tokenVariables = { bos_token: textOf(assets.bos), eos_token: textOf(assets.eos[0]) };
  }

  /** See {@linkcode TextCodec}. */
  encode(text: string, options: { readonly parseSpecial?: boolean } = {}): Promise<Int32Array> {
    return Promise.try(() => this.#tokenizer.encode(text, { parseSpecial: options.parseSpecial }));
  }

  /** See {@linkcode TextCodec}. */
  decode(ids: ArrayLike<number>, options: { readonly skipSpecial?: boolean } = {}): Promise<string> {
    return Promise.try(() => this.#tokenizer.decode(ids, options));
  }

  /** See {@linkcode TextCodec}. */
  async renderChat(messages: readonly ChatMessage[], options: RenderOptions = {}): Promise<string> {
    const text = await this.#render({ messages, variables: options.variables }, options);
    return text.toWellFormed();
  }

  /** See {@linkcode TextCodec}. Begins with BOS where the model wants it, also when the template leaves it out. */
  async encodeChat(messages: readonly ChatMessage[], options: RenderOptions = {}): Promise<Int32Array> {
    const { values, marker } = this.#guard.guard({ messages, variables: options.variables });
    const text = await this.#render(values, options);
    return withBos(this.#tokenizer.encode(text, { parseSpecial: true, marker }), this.#assets);
  }

  /** Ends the template process. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#renderer[Symbol.asyncDispose]();
  }

  async #render(
    { messages, variables }: Pick<RenderOptions, "variables"> & { readonly messages: readonly ChatMessage[] },
    { addGenerationPrompt = true }: RenderOptions,
  ): Promise<string> {
    const template = this.#assets.chatTemplate;
    if (template === undefined) {
      throw new TemplateError("Cannot render chat: the model has no chat template, pass one with --chat-template");
    }
    return await this.#renderer.render({
      template,
      // Templates expect `tools` and `documents` to exist, as in the reference implementation.
      variables: {
        tools: null,
        documents: null,
        ...variables,
        ...this.#tokenVariables,
        messages,
        add_generation_prompt: addGenerationPrompt,
      },
    });
  }
}
