/**
 * Device code that several kernels include, by name: the files of `include/`, one import and one entry each.
 *
 * @module
 */
import bulkCopy from "./include/bulk_copy.cuh" with { type: "text" };
import decodeKv from "./include/decode_kv.cuh" with { type: "text" };
import decodePage from "./include/decode_page.cuh" with { type: "text" };
import decodeSlots from "./include/decode_slots.cuh" with { type: "text" };
import decodeTree from "./include/decode_tree.cuh" with { type: "text" };
import cluster from "./include/cluster.cuh" with { type: "text" };
import dependents from "./include/dependents.cuh" with { type: "text" };
import elements from "./include/elements.cuh" with { type: "text" };
import fullDraw from "./include/full_draw.cuh" with { type: "text" };
import headDraw from "./include/head_draw.cuh" with { type: "text" };
import kvPool from "./include/kv_pool.cuh" with { type: "text" };
import mergePartials from "./include/merge_partials.cuh" with { type: "text" };
import prefillItems from "./include/prefill_items.cuh" with { type: "text" };
import prefillOutput from "./include/prefill_output.cuh" with { type: "text" };
import prefillSource from "./include/prefill_source.cuh" with { type: "text" };
import random from "./include/random.cuh" with { type: "text" };
import sampleRow from "./include/sample_row.cuh" with { type: "text" };
import tensorTile from "./include/tensor_tile.cuh" with { type: "text" };
import top from "./include/top.cuh" with { type: "text" };
import turn from "./include/turn.cuh" with { type: "text" };
import wgmma from "./include/wgmma.cuh" with { type: "text" };

/** Header texts by the name in `#include "..."`. */
export const HEADERS: Readonly<Record<string, string>> = {
  "bulk_copy.cuh": bulkCopy,
  "decode_kv.cuh": decodeKv,
  "decode_page.cuh": decodePage,
  "decode_slots.cuh": decodeSlots,
  "decode_tree.cuh": decodeTree,
  "cluster.cuh": cluster,
  "dependents.cuh": dependents,
  "elements.cuh": elements,
  "full_draw.cuh": fullDraw,
  "head_draw.cuh": headDraw,
  "kv_pool.cuh": kvPool,
  "merge_partials.cuh": mergePartials,
  "prefill_items.cuh": prefillItems,
  "prefill_output.cuh": prefillOutput,
  "prefill_source.cuh": prefillSource,
  "random.cuh": random,
  "sample_row.cuh": sampleRow,
  "tensor_tile.cuh": tensorTile,
  "top.cuh": top,
  "turn.cuh": turn,
  "wgmma.cuh": wgmma,
};
