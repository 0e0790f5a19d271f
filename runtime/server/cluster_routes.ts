/**
 * Routes by which people see and steer a cluster.
 *
 * @module
 */
import type { ClusterCommand, CommandResult } from "../cluster/report.ts";
import { ApiError, fieldError } from "./api_error.ts";
import type { BodySchema } from "./body_schema.ts";
import { clusterReport, type OperatedBody, operatedBody, operationSchemas } from "./cluster_schema.ts";
import type { Exchange } from "./exchange.ts";
import type { InstanceState } from "./instance_state.ts";
import type { ServerLimits } from "./limits.ts";
import { parseJsonObject } from "./parse_json.ts";
import { checkJsonHeaders, readBody } from "./read_body.ts";
import type { Route } from "./routes.ts";

/** What the cluster routes are made of. */
export interface ClusterRoutesOptions {
  /** Where the cluster is found. */
  readonly state: InstanceState;
  /** Bounds. */
  readonly limits: ServerLimits;
  /** Whether commands are taken: keys are wanted, or only this machine reaches the server. */
  readonly operable: boolean;
}

const COMMAND_BYTES = 16 * 1024;

/** `GET /cluster` and the commands below it. */
export function clusterRoutes(options: ClusterRoutesOptions): Route[] {
  const { move, evacuate, pin, leave } = operationSchemas;
  return [
    {
      method: "GET",
      path: "/cluster",
      summary: "Members, sequences, leases and moves of the cluster",
      response: clusterReport,
      handle: async () =>
        Response.json(await options.state.requireCluster().report(), { headers: { "cache-control": "no-store" } }),
    },
    operation(options, {
      path: "/cluster/move",
      summary: "Moves segments of a sequence to a member",
      schema: move,
      command: (fields) => ({ kind: "move", ...fields }),
    }),
    operation(options, {
      path: "/cluster/evacuate",
      summary: "Takes what others have there off a member, or ends that",
      schema: evacuate,
      command: (fields) => ({ kind: "evacuate", ...fields }),
    }),
    operation(options, {
      path: "/cluster/pin",
      summary: "Keeps a sequence where it is, or lets it go",
      schema: pin,
      command: ({ sequence, pinned = true }) => ({ kind: "pin", sequence, pinned }),
    }),
    operation(options, {
      path: "/cluster/leave",
      summary: "Lets a member give back, hand over and end",
      schema: leave,
      command: (fields) => ({ kind: "leave", ...fields }),
    }),
  ];
}

interface Operation<T> {
  readonly path: string;
  readonly summary: string;
  readonly schema: BodySchema<T>;
  readonly command: (fields: T) => ClusterCommand;
}

function operation<T>(options: ClusterRoutesOptions, { path, summary, schema, command }: Operation<T>): Route {
  return {
    method: "POST",
    path,
    summary,
    request: schema,
    response: operatedBody,
    handle: async ({ exchange }) => {
      if (!options.operable) {
        throw new ApiError("Cannot steer the cluster: wanted API keys, because other machines reach this server", {
          status: 403,
          code: "operator_key_required",
        });
      }
      const cluster = options.state.requireCluster();
      const fields = await readOperation(exchange, { schema, limits: options.limits });
      const { ok, message, status = 409 }: CommandResult = await cluster.operate(command(fields));
      if (!ok) throw new ApiError(message, { status, code: REFUSAL_CODE[status] });
      return Response.json({ message } satisfies OperatedBody);
    },
  };
}

const REFUSAL_CODE: Readonly<Record<NonNullable<CommandResult["status"]>, string>> = {
  400: "invalid_value",
  404: "not_found",
  409: "cannot_now",
  503: "no_manager",
};

/** Reads a command; unlike a generation request it may hold nothing that is not known. */
async function readOperation<T>(
  exchange: Exchange,
  { schema, limits }: { readonly schema: BodySchema<T>; readonly limits: ServerLimits },
): Promise<T> {
  const { incoming, outgoing } = exchange;
  checkJsonHeaders(incoming);
  const bytes = await readBody(incoming, {
    limitBytes: Math.min(COMMAND_BYTES, limits.bodyBytes),
    onWanted: () => {
      if (exchange.wantsContinue) outgoing.writeContinue();
    },
  });
  const { value, ignored } = schema.read(parseJsonObject(bytes, { depth: limits.jsonDepth, keys: limits.jsonKeys }));
  if (ignored.length > 0) throw fieldError(ignored[0], "there is no such field");
  return value;
}
