/**
 * No lending: what a fleet of separate servers does.
 *
 * @module
 */
import type { MemoryPlugin } from "../types.ts";

/** Places and moves nothing. */
export const localOnly: MemoryPlugin = {
  api: 1,
  kind: "memory",
  name: "local-only",
  version: "1.0.0",
  create: () => undefined,
  place() {},
  move() {},
};

export default localOnly;
