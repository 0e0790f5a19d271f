/**
 * Device code that several kernels include, by name: the files of `include/`, one import and one entry each.
 *
 * @module
 */
import bulkCopy from "./include/bulk_copy.cuh" with { type: "text" };
import decodeTree from "./include/decode_tree.cuh" with { type: "text" };
import cluster from "./include/cluster.cuh" with { type: "text" };
import dependents from "./include/dependents.cuh" with { type: "text" };
import elements from "./include/elements.cuh" with { type: "text" };
import fullDraw from "./include/full_draw.cuh" with { type: "text" };
import headDraw from "./include/head_draw.cuh" with { type: "text" };
import kvPool from "./include/kv_pool.cuh" with { type: "text" };
import random from "./include/random.cuh" with { type: "text" };
import sampleRow from "./include/sample_row.cuh" with { type: "text" };
import tensorTile from "./include/tensor_tile.cuh" with { type: "text" };
import top from "./include/top.cuh" with { type: "text" };
import wgmma from "./include/wgmma.cuh" with { type: "text" };

/** Header texts by the name in `#include "..."`. */
export const HEADERS: Readonly<Record<string, string>> = {
  "bulk_copy.cuh": bulkCopy,
  "decode_tree.cuh": decodeTree,
  "cluster.cuh": cluster,
  "dependents.cuh": dependents,
  "elements.cuh": elements,
  "full_draw.cuh": fullDraw,
  "head_draw.cuh": headDraw,
  "kv_pool.cuh": kvPool,
  "random.cuh": random,
  "sample_row.cuh": sampleRow,
  "tensor_tile.cuh": tensorTile,
  "top.cuh": top,
  "wgmma.cuh": wgmma,
};
