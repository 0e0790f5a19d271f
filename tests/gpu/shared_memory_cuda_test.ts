/**
 * What processes take of a GPU by themselves, alone and several of them.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { makeModelDirectory, RunningCli } from "../cli/cli_process.ts";

const ignore = TestGpu.missing() !== undefined;
/** Leaves the choice of the device to the program. */
const AUTO = { INFINITE_LLM_DEVICE: "" };

async function answered(url: string): Promise<void> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "a", max_tokens: 4, temperature: 0, ignore_eos: true }),
  });
  assertEquals([response.status, (await response.json()).usage.completion_tokens], [200, 4]);
}

Deno.test({
  name: "cli.ts serve takes the GPU where no device is named, within its share of the memory, and answers",
  ignore,
  async fn() {
    await using directory = await makeModelDirectory();
    const args = ["serve", directory.model, "--port", "0", "--gpu-memory-utilization", "0.05"];
    await using cli = new RunningCli(args, { env: AUTO });
    const [, url] = await cli.match(/^Listening on (\S+)\n/);
    await cli.match(/\nReady in .* on cuda:0/);
    await answered(url);
    cli.signal("SIGTERM");
    assertEquals((await cli.end()).status, 0);
  },
});

Deno.test({
  name: "cli.ts cluster starts three instances that share one GPU, and the public one answers",
  ignore,
  async fn() {
    await using directory = await makeModelDirectory();
    const args = ["cluster", "--model", directory.model, "--instances", "3", "--port", "0"]
      // Others may be using the GPU.
      .concat("--gpu-memory-utilization", "0.1");
    await using cli = new RunningCli(args, { env: AUTO });
    const [, url] = await cli.match(/\nListening on (http:\S+), the public address of the cluster\n/);
    for (const name of ["instance-2", "instance-3"]) await cli.match(new RegExp(`\\n${name} is ready: full`));
    assert(!cli.output.includes("Computing with WASM"), cli.output);
    await answered(url);
    cli.signal("SIGTERM");
    assertEquals((await cli.end()).status, 0);
  },
});
