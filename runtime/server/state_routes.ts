/**
 * Routes that tell how an instance fares.
 *
 * @module
 */
import { accepts } from "@std/http";
import type { Registry } from "prom-client";
import { ApiError } from "./api_error.ts";
import type { InstanceState } from "./instance_state.ts";
import type { Route } from "./routes.ts";

/** What the state routes are made of. */
export interface StateRoutesOptions {
  /** The instance. */
  readonly state: InstanceState;
  /** Metrics to show. */
  readonly registry: Registry;
}

/** Liveness, readiness and metrics. */
export function stateRoutes({ state, registry }: StateRoutesOptions): Route[] {
  return [
    {
      method: "GET",
      path: "/health",
      summary: "Whether the process is alive",
      open: true,
      // The listener answers it before any route is looked up; only a path with a query comes here.
      handle: () => Response.json({ status: "ok" }),
    },
    {
      method: "GET",
      path: "/health/ready",
      summary: "Whether requests are served and make progress",
      handle: async () => {
        await state.checkReady();
        return Response.json({ status: "ready" });
      },
    },
    {
      method: "GET",
      path: "/metrics",
      summary: "Prometheus metrics",
      contentType: "text/plain",
      handle: async ({ request }) => {
        if (accepts(request, "text/plain") === undefined) {
          throw new ApiError("Cannot show metrics: they are text/plain only", { status: 406, code: "not_acceptable" });
        }
        await state.refreshMetrics();
        return new Response(await registry.metrics(), { headers: { "content-type": registry.contentType } });
      },
    },
  ];
}
