/**
 * What a server tells about its instance, whether it runs a model or only holds memory.
 *
 * @module
 */
import type { ClusterControl } from "../cluster/report.ts";
import { ApiError } from "./api_error.ts";

/** Readiness, metrics and cluster of an instance. */
export interface InstanceState {
  /** Where it stands in a cluster. @throws {ApiError} 503 while it loads, 404 when it is in none. */
  requireCluster(): ClusterControl;
  /** Checks that it serves. @throws {ApiError} 503 when it does not. */
  checkReady(): Promise<void>;
  /** Brings metrics up to date as far as whoever counts answers in time. */
  refreshMetrics(): Promise<void>;
  /** Refuses new work from now on. */
  stop(): void;
}

const ANSWER_MS = 2000;

/** What `answer` resolves to; undefined when it fails or takes longer than two seconds. */
export async function inTime<T>(answer: Promise<T> | undefined): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<undefined>((resolve) => timer = setTimeout(() => resolve(undefined), ANSWER_MS));
  try {
    return await Promise.race([answer, late]);
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

/** The 503 of an instance that does not serve, with `Retry-After`. */
export function unready(code: string, problem: string): ApiError {
  return new ApiError(`Cannot serve the request: ${problem}`, { status: 503, code, headers: { "retry-after": "5" } });
}
