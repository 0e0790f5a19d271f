/**
 * How long a process takes from its start to an open device of the small shape: with no compiled kernels, and with them.
 *
 *     deno run -A bench/gpu/start_bench.ts [--model NAME] [--json FILE]
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { CudaDevice } from "../../runtime/device/cuda_device.ts";
import { findShape } from "./random_engine.ts";

/** One measurement. */
export interface StartRow {
  /** Shape. */
  readonly model: string;
  /** Whether kernels had to be compiled. */
  readonly first: boolean;
  /** Seconds from the start of the process. */
  readonly seconds: number;
}

/** Blocks of the pool: filling a large one is no part of starting. */
const BLOCKS = 1024;

/** Opens and steps once in this process, so that everything that is made at first use is made. Returns seconds since its start. */
function openOnce(model: string, kernelDirectory: string): number {
  const { config, tied } = findShape(model);
  using device = CudaDevice.random(config, { tied, blocks: BLOCKS, kernelDirectory });
  device.step([{ tokens: [1, 2, 3], position: 0, blocks: [0], logits: "last" }]).logSumExp(0);
  device.step([{ tokens: [4], position: 3, blocks: [0], logits: "last" }]).logSumExp(0);
  return performance.now() / 1000;
}

function measureInChild(model: string, kernelDirectory: string): number {
  const { success, stdout } = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--no-check",
      "-A",
      fileURLToPath(import.meta.url),
      "--open",
      kernelDirectory,
      "--model",
      model,
    ],
    stderr: "inherit",
  }).outputSync();
  if (!success) throw new Error(`Cannot open a device of shape ${model}: the process failed`);
  return Number(new TextDecoder().decode(stdout));
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      model: { type: "string", default: "smollm2-135m" },
      open: { type: "string" },
      json: { type: "string" },
    },
  });
  const { model } = values;
  if (values.open !== undefined) {
    console.log(openOnce(model, values.open));
  } else {
    const directory = await Deno.makeTempDir({ prefix: "kernels-" });
    try {
      const rows: StartRow[] = [true, false].map((first) => ({
        model,
        first,
        seconds: measureInChild(model, directory),
      }));
      for (const { first, seconds } of rows) {
        console.log(`${model}: ${first ? "first" : "later"} start ${seconds.toFixed(2)} s`);
      }
      if (values.json !== undefined) {
        await Deno.writeTextFile(values.json, JSON.stringify({ rows }, undefined, 2) + "\n");
      }
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  }
}
