/**
 * Guards and routes behind one function.
 *
 * @module
 */
import { Hono } from "hono";
import type { KeyDigest } from "./api_keys.ts";
import { ApiError, errorResponse, toApiError } from "./api_error.ts";
import type { Exchange } from "./exchange.ts";
import { authenticate, checkLoopbackHost, CorsPolicy } from "./guards.ts";
import { describeFailure, type Logger } from "./logger.ts";
import type { Route } from "./routes.ts";

/** Options of {@linkcode createApp}. */
export interface AppOptions {
  /** Routes. */
  readonly routes: readonly Route[];
  /** Digests of the keys that may ask; everybody may when empty. */
  readonly keys: readonly KeyDigest[];
  /** Origins whose pages may read answers. */
  readonly corsOrigins: readonly string[];
  /** Whether only names of this machine are served. */
  readonly loopback: boolean;
  /** Log. */
  readonly logger: Logger;
}

const METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);

/** Makes the function that answers every request but liveness. It throws nothing but what `Request` refuses. */
export function createApp(options: AppOptions): (exchange: Exchange) => Promise<Response> {
  const { routes, keys, loopback, logger } = options;
  const cors = new CorsPolicy(options.corsOrigins);
  const app = new Hono<{ Bindings: Exchange }>();

  app.onError((error, context) => {
    const answer = toApiError(error);
    if (answer.status === 500) logger.error("request failed", { id: context.env.id, ...describeFailure(error) });
    context.env.notes.code = answer.code;
    if (answer.param !== null) context.env.notes.param = answer.param;
    return errorResponse(answer);
  });
  app.use(async (context, next) => {
    await next();
    const headers = cors.headers(context.env.incoming.headers.origin);
    for (const [name, value] of Object.entries(headers)) context.res.headers.set(name, value);
  });
  app.use(async (context, next) => {
    const { headers, method } = context.env.incoming;
    if (loopback) checkLoopbackHost(headers.host);
    if (method === "OPTIONS" && headers.origin !== undefined && "access-control-request-method" in headers) {
      return cors.preflight(headers.origin);
    }
    const open = routes.some((route) => route.open === true && route.path === context.req.path);
    if (keys.length > 0 && !open) context.env.tenant = authenticate(keys, headers.authorization);
    return await next();
  });
  for (const route of routes) {
    app.on(route.method, route.path, (context) => {
      context.env.route = route.path;
      return route.handle({ exchange: context.env, request: context.req.raw, id: context.req.param("id") });
    });
  }
  for (const path of new Set(routes.map((route) => route.path))) {
    const methods = routes.filter((route) => route.path === path).map((route) => route.method);
    app.all(path, () => refuseMethod(methods));
  }
  app.notFound(() => {
    throw new ApiError("Cannot find the path: no route has it", { status: 404, code: "not_found" });
  });

  return async (exchange) => {
    const { incoming } = exchange;
    const { url = "", method = "" } = incoming;
    if (!METHODS.has(method)) return errorResponse(methodError(["GET", "POST"]));
    if (!url.startsWith("/")) {
      return errorResponse(
        new ApiError("Cannot read the request: wanted a path as its target", { status: 400, code: "invalid_http" }),
      );
    }
    const headers = new Headers();
    for (const [name, value] of Object.entries(incoming.headers)) {
      if (value !== undefined) headers.set(name, Array.isArray(value) ? value.join(", ") : value);
    }
    return await app.fetch(new Request(`http://localhost${url}`, { method, headers }), exchange);
  };
}

function refuseMethod(methods: readonly string[]): never {
  throw methodError(methods);
}

function methodError(methods: readonly string[]): ApiError {
  const allow = methods.flatMap((method) => method === "GET" ? ["GET", "HEAD"] : [method]).join(", ");
  return new ApiError(`Cannot use this method: allowed are ${allow}`, {
    status: 405,
    code: "method_not_allowed",
    headers: { allow },
  });
}
