/**
 * Tokenizer and template without generation.
 *
 * @module
 */
import { fieldError } from "./api_error.ts";
import { readMessages, readTemplateVariables } from "./chat_fields.ts";
import type { Exchange } from "./exchange.ts";
import { checkTextFits } from "./generation.ts";
import type { PromptBody, TokenizeBody } from "./response_types.ts";
import { checkTokenId } from "./sampling_fields.ts";
import type { RouteParts } from "./service.ts";
import type { DetokenizeFields, TemplateFields, TokenizeFields } from "./text_fields.ts";

/** Answers `POST /tokenize`. */
export async function answerTokenize(
  exchange: Exchange,
  { service, schema }: RouteParts<TokenizeFields>,
): Promise<Response> {
  const { backend, maxModelLen, fields } = await service.read(exchange, schema);
  checkTextFits(fields.prompt, { backend, maxModelLen, param: "prompt" });
  return await service.briefly(async () => {
    const ids = await backend.text.encode(fields.prompt, { parseSpecial: fields.parse_special === true });
    return Response.json(
      { tokens: Array.from(ids), count: ids.length, max_model_len: maxModelLen } satisfies TokenizeBody,
    );
  });
}

/** Answers `POST /detokenize`. */
export async function answerDetokenize(
  exchange: Exchange,
  { service, schema }: RouteParts<DetokenizeFields>,
): Promise<Response> {
  const { backend, maxModelLen, fields } = await service.read(exchange, schema);
  if (fields.tokens.length > maxModelLen) {
    throw fieldError("tokens", `expected at most ${maxModelLen} ids, got ${fields.tokens.length}`);
  }
  for (const [place, id] of fields.tokens.entries()) {
    checkTokenId(id, { param: `tokens[${place}]`, vocab: backend.text.vocabulary.size });
  }
  return await service.briefly(async () => {
    return Response.json({ prompt: await backend.text.decode(fields.tokens) } satisfies PromptBody);
  });
}

/** Answers `POST /apply-template`. */
export async function answerTemplate(
  exchange: Exchange,
  { service, schema }: RouteParts<TemplateFields>,
): Promise<Response> {
  const { backend, maxModelLen, fields } = await service.read(exchange, schema);
  const messages = readMessages(fields.messages);
  const variables = readTemplateVariables(fields.chat_template_kwargs);
  checkTextFits(messages.map((message) => message.content).join(""), { backend, maxModelLen, param: "messages" });
  return await service.briefly(async () => {
    const addGenerationPrompt = fields.add_generation_prompt ?? true;
    const prompt = await backend.text.renderChat(messages, { addGenerationPrompt, variables });
    return Response.json({ prompt } satisfies PromptBody);
  });
}
