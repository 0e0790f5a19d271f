/**
 * Every route of the server.
 *
 * @module
 */
import type { z } from "zod";
import { eTag, ifNoneMatch } from "@std/http";
import type { Registry } from "prom-client";
import { ApiError } from "./api_error.ts";
import type { BodySchema } from "./body_schema.ts";
import { chatSchema } from "./chat_fields.ts";
import { answerChat } from "./chat_route.ts";
import { clusterRoutes } from "./cluster_routes.ts";
import { completionSchema } from "./completion_fields.ts";
import { answerCompletion } from "./completion_route.ts";
import type { Exchange } from "./exchange.ts";
import { openApiDocument } from "./openapi.ts";
import {
  chatCompletion,
  model,
  type ModelBody,
  type ModelList,
  modelList,
  promptBody,
  textCompletion,
  tokenizeBody,
} from "./response_types.ts";
import type { Service } from "./service.ts";
import { stateRoutes } from "./state_routes.ts";
import { detokenizeSchema, templateSchema, tokenizeSchema } from "./text_fields.ts";
import { answerDetokenize, answerTemplate, answerTokenize } from "./text_routes.ts";

/** A request as a route sees it. */
export interface RouteCall {
  /** The exchange. */
  readonly exchange: Exchange;
  /** The request without its body. */
  readonly request: Request;
  /** Value of the path's parameter. */
  readonly id?: string;
}

/** One method of one path. */
export interface Route {
  /** HTTP method; GET also answers HEAD. */
  readonly method: "GET" | "POST";
  /** Path with hono's parameters. */
  readonly path: string;
  /** One line for the API document. */
  readonly summary: string;
  /** Whether it needs no key. */
  readonly open?: boolean;
  /** Body it reads. */
  readonly request?: BodySchema<unknown>;
  /** Body of a success. */
  readonly response?: z.ZodType;
  /** Content type of a success. @default {"application/json"} */
  readonly contentType?: string;
  /** Whether a success may be an event stream. */
  readonly streams?: boolean;
  /** Answers a request. */
  readonly handle: (call: RouteCall) => Response | Promise<Response>;
}

/** What the API document says beside its routes. */
export interface DocumentOptions {
  /** Version of the API document. */
  readonly version: string;
  /** Whether keys are wanted. */
  readonly secured: boolean;
}

/** What the routes are made of. */
export interface RoutesOptions extends DocumentOptions {
  /** Shared parts. */
  readonly service: Service;
  /** Metrics to show. */
  readonly registry: Registry;
  /** Whether commands to the cluster are taken. */
  readonly operable: boolean;
}

/** The routes of a server. */
export function createRoutes(options: RoutesOptions): readonly Route[] {
  const { service, registry, operable } = options;
  const { gate: state, limits } = service;
  return withDocument([
    ...generationRoutes(service),
    ...textRoutes(service),
    ...stateRoutes({ state, registry }),
    ...clusterRoutes({ state, limits, operable }),
  ], options);
}

/** Routes and the one that describes them. */
export function withDocument(routes: readonly Route[], options: DocumentOptions): readonly Route[] {
  const document = JSON.stringify(openApiDocument([...routes, DOCUMENT], options));
  return [...routes, {
    ...DOCUMENT,
    handle: ({ request }) => cached(request, document),
  }];
}

const DOCUMENT: Route = {
  method: "GET",
  path: "/openapi.json",
  summary: "This document",
  handle: () => new Response(null, { status: 404 }),
};

function generationRoutes(service: Service): Route[] {
  const chat = chatSchema(service.limits);
  const completion = completionSchema(service.limits);
  const created = Math.floor(Date.now() / 1000);
  return [
    {
      method: "POST",
      path: "/v1/chat/completions",
      summary: "Answers a chat",
      request: chat,
      response: chatCompletion,
      streams: true,
      handle: ({ exchange }) => answerChat(exchange, { service, schema: chat }),
    },
    {
      method: "POST",
      path: "/v1/completions",
      summary: "Continues prompts",
      request: completion,
      response: textCompletion,
      streams: true,
      handle: ({ exchange }) => answerCompletion(exchange, { service, schema: completion }),
    },
    {
      method: "GET",
      path: "/v1/models",
      summary: "Served models",
      response: modelList,
      handle: async ({ request }) => {
        const backend = service.gate.require();
        const maxModelLen = await backend.length.current();
        const data = backend.models.map((id) => modelBody(id, { created, maxModelLen }));
        return await cached(request, JSON.stringify({ object: "list", data } satisfies ModelList));
      },
    },
    {
      method: "GET",
      // A name may be a hub repository, which has a slash.
      path: "/v1/models/:id{.+}",
      summary: "One served model",
      response: model,
      handle: async ({ request, id = "" }) => {
        const backend = service.gate.require();
        if (!backend.models.includes(id)) {
          throw new ApiError("Cannot find the model: it is not served here", {
            status: 404,
            code: "model_not_found",
            param: "model",
          });
        }
        return await cached(
          request,
          JSON.stringify(modelBody(id, { created, maxModelLen: await backend.length.current() })),
        );
      },
    },
  ];
}

function modelBody(
  id: string,
  { created, maxModelLen }: { readonly created: number; readonly maxModelLen: number },
): ModelBody {
  return { id, object: "model", created, owned_by: "infinite-llm", max_model_len: maxModelLen };
}

function textRoutes(service: Service): Route[] {
  const tokenize = tokenizeSchema();
  const detokenize = detokenizeSchema();
  const template = templateSchema(service.limits);
  return [
    {
      method: "POST",
      path: "/tokenize",
      summary: "Token ids of a text",
      request: tokenize,
      response: tokenizeBody,
      handle: ({ exchange }) => answerTokenize(exchange, { service, schema: tokenize }),
    },
    {
      method: "POST",
      path: "/detokenize",
      summary: "Text of token ids",
      request: detokenize,
      response: promptBody,
      handle: ({ exchange }) => answerDetokenize(exchange, { service, schema: detokenize }),
    },
    {
      method: "POST",
      path: "/apply-template",
      summary: "A chat as the model's prompt",
      request: template,
      response: promptBody,
      handle: ({ exchange }) => answerTemplate(exchange, { service, schema: template }),
    },
  ];
}

/** A JSON answer that a client may keep and ask again about. */
async function cached(request: Request, body: string): Promise<Response> {
  const etag = await eTag(body);
  if (!ifNoneMatch(request.headers.get("if-none-match"), etag)) {
    return new Response(null, { status: 304, headers: { etag } });
  }
  return new Response(body, { headers: { "content-type": "application/json", "cache-control": "no-cache", etag } });
}
