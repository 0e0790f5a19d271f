/**
 * `POST /v1/completions`.
 *
 * @module
 */
import type { TextCodec } from "../text/codec.ts";
import { fieldError } from "./api_error.ts";
import { type CompletionFields, type Prompt, readPrompts } from "./completion_fields.ts";
import { completionAnswer, CompletionChunks, type CompletionFormat, type ShownPrompt } from "./completion_format.ts";
import type { Exchange } from "./exchange.ts";
import { answerHead, checkTextFits, engineRequest, outputBudget, type PromptCheck } from "./generation.ts";
import { shownCharacters, type TokenStyle } from "./logprob_format.ts";
import { readSampling } from "./sampling_fields.ts";
import type { RouteParts } from "./service.ts";

/** What OpenAI generates where a completion request names no `max_tokens`. */
const DEFAULT_MAX_TOKENS = 16;

/** Answers a completion request. */
export async function answerCompletion(
  exchange: Exchange,
  { service, schema }: RouteParts<CompletionFields>,
): Promise<Response> {
  const { backend, maxModelLen, fields } = await service.read(exchange, schema);
  const { vocab } = backend.engine.info;
  const head = answerHead(fields, { prefix: "cmpl", backend });
  const echo = fields.echo === true;
  const n = fields.n ?? 1;
  if (fields.best_of !== undefined && fields.best_of !== n) throw fieldError("best_of", `expected n, ${n}`);
  const sampling = readSampling(fields, { vocab, limits: service.limits, logprobs: fields.logprobs });
  const prompts = readPrompts(fields.prompt, { vocab, mostPrompts: service.limits.prompts });
  for (const [place, prompt] of prompts.entries()) {
    checkPrompt(prompt, { backend, maxModelLen, param: nameOf(place, prompts) });
  }
  const scoresPrompt = (echo && fields.logprobs !== undefined) || fields.prompt_logprobs !== undefined;
  if (fields.max_tokens === 0 && !echo && !scoresPrompt) throw fieldError("max_tokens", "expected at least 1");

  const style: TokenStyle = {
    texts: backend.texts,
    asIds: fields.return_tokens_as_token_ids === true,
    skipSpecial: fields.skip_special_tokens !== false,
  };
  return await service.queued(prompts.length, async (places) => {
    const shown = await Promise.all(prompts.map((prompt) => showPrompt(prompt, { text: backend.text, style, echo })));
    const requests = shown.map(({ ids }, place) => {
      const param = nameOf(place, prompts);
      const wanted = fields.max_tokens ?? Math.max(1, Math.min(DEFAULT_MAX_TOKENS, maxModelLen - ids.length));
      return engineRequest(fields, {
        id: `${head.id}-${place}`,
        prompt: ids,
        maxTokens: outputBudget(ids.length, { wanted, maxModelLen, param }),
        sampling: scoresPrompt
          ? { ...sampling, promptLogprobs: Math.max(fields.prompt_logprobs ?? 0, (echo && fields.logprobs) || 0) }
          : sampling,
        tenant: exchange.tenant,
      });
    });
    const format: CompletionFormat = {
      head,
      style,
      n,
      prompts: shown,
      echo,
      logprobs: fields.logprobs !== undefined,
      promptLogprobs: fields.prompt_logprobs !== undefined,
      tokenIds: fields.return_token_ids === true,
      continuousUsage: fields.stream_options?.continuous_usage_stats === true,
    };
    return await service.answer(exchange, {
      backend,
      fields,
      requests,
      places,
      chunks: () => new CompletionChunks(format),
      whole: (outcomes) => completionAnswer(format, outcomes),
    });
  });
}

function nameOf(place: number, prompts: readonly Prompt[]): string {
  return prompts.length === 1 ? "prompt" : `prompt[${place}]`;
}

function checkPrompt(prompt: Prompt, check: PromptCheck): void {
  if (typeof prompt === "string") checkTextFits(prompt, check);
  else outputBudget(prompt.length, { ...check, wanted: 0 });
}

interface PromptOptions {
  readonly text: TextCodec;
  readonly style: TokenStyle;
  readonly echo: boolean;
}

/** Texts are tokenized with control tokens recognised: whoever sends plain prompts writes the template himself. */
async function showPrompt(prompt: Prompt, { text, style, echo }: PromptOptions): Promise<ShownPrompt> {
  if (typeof prompt !== "string") {
    return {
      ids: prompt,
      echo: echo ? await text.decode(prompt, { skipSpecial: style.skipSpecial }) : "",
      lengths: prompt.map((id) => shownCharacters(id, style)),
    };
  }
  const ids = Array.from(await text.encode(prompt, { parseSpecial: true }));
  const lengths = ids.map((id) => style.texts.characters(id));
  if (text.bos !== undefined && ids[0] !== text.bos) {
    ids.unshift(text.bos);
    lengths.unshift(0);
  }
  return { ids, echo: echo ? prompt : "", lengths };
}
