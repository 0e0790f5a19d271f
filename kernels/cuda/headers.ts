/**
 * Device code that several kernels include, by name: the files of `include/`, one import and one entry each.
 *
 * @module
 */
import dependents from "./include/dependents.cuh" with { type: "text" };
import elements from "./include/elements.cuh" with { type: "text" };
import kvPool from "./include/kv_pool.cuh" with { type: "text" };
import top from "./include/top.cuh" with { type: "text" };

/** Header texts by the name in `#include "..."`. */
export const HEADERS: Readonly<Record<string, string>> = {
  "dependents.cuh": dependents,
  "elements.cuh": elements,
  "kv_pool.cuh": kvPool,
  "top.cuh": top,
};
