/**
 * The OpenAPI 3.1 document of the server's routes.
 *
 * @module
 */
import { z } from "zod";
import type { JsonSchema } from "./body_schema.ts";
import type { Route } from "./routes.ts";

/** Document of `routes`; with `secured`, every route but liveness wants a key. */
export function openApiDocument(
  routes: readonly Route[],
  options: { readonly version: string; readonly secured: boolean },
): JsonSchema {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    const path = route.path.replace(/:(\w+)(\{[^}]*\})?/g, "{$1}");
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operation(route) };
  }
  return {
    openapi: "3.1.0",
    info: { title: "infinite-llm", version: options.version },
    paths,
    components: {
      schemas: { Error: ERROR_SCHEMA },
      ...(options.secured ? { securitySchemes: { key: { type: "http", scheme: "bearer" } } } : {}),
    },
    ...(options.secured ? { security: [{ key: [] }] } : {}),
  };
}

const ERROR_SCHEMA: JsonSchema = {
  type: "object",
  properties: {
    error: {
      type: "object",
      properties: {
        message: { type: "string" },
        type: { type: "string" },
        param: { type: ["string", "null"] },
        code: { type: ["string", "null"] },
      },
      required: ["message", "type", "param", "code"],
    },
  },
  required: ["error"],
};

function operation(route: Route): JsonSchema {
  const parameters = [...route.path.matchAll(/:(\w+)/g)].map(([, name]) => {
    return { name, in: "path", required: true, schema: { type: "string" } };
  });
  const content: Record<string, unknown> = {
    [route.contentType ?? "application/json"]: route.response === undefined
      ? {}
      : { schema: z.toJSONSchema(route.response) },
  };
  if (route.streams === true) content["text/event-stream"] = { schema: { type: "string" } };
  return {
    summary: route.summary,
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(route.request === undefined
      ? {}
      : { requestBody: { required: true, content: { "application/json": { schema: route.request.toJsonSchema() } } } }),
    ...(route.open === true ? { security: [] } : {}),
    responses: {
      200: { description: "Success", content },
      default: {
        description: "Error",
        content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
      },
    },
  };
}
