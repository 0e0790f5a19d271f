/**
 * `POST /v1/chat/completions`.
 *
 * @module
 */
import type { ChatMessage } from "../text/codec.ts";
import { fieldError } from "./api_error.ts";
import type { Backend } from "./backend.ts";
import { type ChatFields, readMessages, readTemplateVariables } from "./chat_fields.ts";
import { chatAnswer, ChatChunks, type ChatFormat } from "./chat_format.ts";
import type { Exchange } from "./exchange.ts";
import { answerHead, checkTextFits, engineRequest, outputBudget } from "./generation.ts";
import { readSampling } from "./sampling_fields.ts";
import type { RouteParts } from "./service.ts";

/** Answers a chat completion request. */
export async function answerChat(exchange: Exchange, { service, schema }: RouteParts<ChatFields>): Promise<Response> {
  const { backend, maxModelLen, fields } = await service.read(exchange, schema);
  const head = answerHead(fields, { prefix: "chatcmpl", backend });
  const messages = readMessages(fields.messages);
  const sampling = readSampling(fields, {
    vocab: backend.engine.info.vocab,
    limits: service.limits,
    logprobs: readLogprobs(fields),
  });
  checkTextFits(messages.map((message) => message.content).join(""), { backend, maxModelLen, param: "messages" });
  return await service.queued(1, async (places) => {
    const prompt = await encodeMessages(messages, { fields, backend });
    const maxTokens = outputBudget(prompt.length, { wanted: readMaxTokens(fields), maxModelLen, param: "messages" });
    const request = engineRequest(fields, { id: head.id, prompt, maxTokens, sampling, tenant: exchange.tenant });
    const format: ChatFormat = {
      head,
      style: {
        texts: backend.texts,
        asIds: fields.return_tokens_as_token_ids === true,
        skipSpecial: fields.skip_special_tokens !== false,
      },
      n: fields.n ?? 1,
      logprobs: fields.logprobs === true,
      promptIds: fields.return_token_ids === true ? Array.from(prompt) : undefined,
      continuousUsage: fields.stream_options?.continuous_usage_stats === true,
      promptTokens: prompt.length,
    };
    return await service.answer(exchange, {
      backend,
      fields,
      requests: [request],
      places,
      chunks: () => new ChatChunks(format),
      whole: ([outcome]) => chatAnswer(format, outcome),
    });
  });
}

function readLogprobs(fields: ChatFields): number | undefined {
  if (fields.logprobs === true) return fields.top_logprobs ?? 0;
  if (fields.top_logprobs !== undefined && fields.top_logprobs > 0) {
    throw fieldError("top_logprobs", "expected logprobs to be true");
  }
  return undefined;
}

/** The newer name goes before the older one, as in vLLM. */
function readMaxTokens(fields: ChatFields): number | undefined {
  const [name, value] = fields.max_completion_tokens === undefined
    ? ["max_tokens", fields.max_tokens]
    : ["max_completion_tokens", fields.max_completion_tokens];
  if (value === 0) throw fieldError(name, "expected at least 1");
  return value;
}

/**
 * Ids of the rendered chat. To continue the last message, the chat before it is rendered with the assistant's turn
 * opened, and its text follows as plain text: so it cannot close the turn, and whatever the template puts after a message
 * stays away.
 */
async function encodeMessages(
  messages: readonly ChatMessage[],
  { fields, backend }: { readonly fields: ChatFields; readonly backend: Backend },
): Promise<Int32Array> {
  const variables = readTemplateVariables(fields.chat_template_kwargs);
  if (fields.continue_final_message !== true) {
    return await backend.text.encodeChat(messages, {
      addGenerationPrompt: fields.add_generation_prompt ?? true,
      variables,
    });
  }
  if (fields.add_generation_prompt === true) {
    throw fieldError("continue_final_message", "expected add_generation_prompt not to be true as well");
  }
  const last = messages[messages.length - 1];
  if (last.role !== "assistant") {
    throw fieldError(`messages[${messages.length - 1}].role`, 'expected "assistant" to be continued');
  }
  const opened = await backend.text.encodeChat(messages.slice(0, -1), { addGenerationPrompt: true, variables });
  const continued = await backend.text.encode(last.content);
  return Int32Array.from([...opened, ...continued]);
}
