/**
 * Routes of an instance that lends memory and runs no model.
 *
 * @module
 */
import { ApiError } from "./api_error.ts";
import { clusterRoutes, type ClusterRoutesOptions } from "./cluster_routes.ts";
import { type ModelList, modelList } from "./response_types.ts";
import { type DocumentOptions, type Route, withDocument } from "./routes.ts";
import { stateRoutes, type StateRoutesOptions } from "./state_routes.ts";

const MODEL_PATHS = [
  "/v1/chat/completions",
  "/v1/completions",
  "/tokenize",
  "/detokenize",
  "/apply-template",
] as const;

/** The routes of a holder: state and cluster; whatever needs a model says that there is none. */
export function createHolderRoutes(
  options: ClusterRoutesOptions & StateRoutesOptions & DocumentOptions,
): readonly Route[] {
  const models: Route = {
    method: "GET",
    path: "/v1/models",
    summary: "Served models: none",
    response: modelList,
    handle: () => Response.json({ object: "list", data: [] } satisfies ModelList),
  };
  const refusals = MODEL_PATHS.map((path): Route => ({
    method: "POST",
    path,
    summary: "Not served: a holder has no model",
    handle: () => {
      throw new ApiError("Cannot serve the request: this instance is a holder and has no model, ask a full member", {
        status: 501,
        code: "holder_has_no_model",
      });
    },
  }));
  return withDocument([models, ...refusals, ...stateRoutes(options), ...clusterRoutes(options)], options);
}
