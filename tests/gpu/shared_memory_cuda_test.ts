/**
 * What a process does on a GPU whose memory others hold, and what it takes by itself.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { CudaContext } from "../../ffi/cuda/cuda.ts";
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { makeModelDirectory, runCli, RunningCli } from "../cli/cli_process.ts";

const ignore = TestGpu.missing() !== undefined;
/** Leaves the choice of the device to the program. */
const AUTO = { INFINITE_LLM_DEVICE: "" };
const GIB = 2 ** 30;

/** Holds all memory of the GPU but `leftBytes`. */
function fill(context: CudaContext, leftBytes: number): void {
  for (;;) {
    const bytes = Math.min(8 * GIB, context.memory().freeBytes - leftBytes);
    if (bytes < GIB / 64) return;
    context.alloc(bytes);
  }
}

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
  name: "cli.ts serve says which memory is missing where another process holds the GPU's; by itself it takes WASM",
  ignore,
  async fn() {
    await using directory = await makeModelDirectory();
    using context = CudaContext.open();
    fill(context, 2 * GIB);
    const small = ["serve", directory.model, "--port", "0", "--threads", "1"];
    const { status, errors } = await runCli([...small, "--device", "cuda"]);
    assertEquals(status, 1);
    assertMatch(errors, /^infinite-llm: Cannot size the KV pool: \d+ MiB of \d+ MiB are free, and 0.9 of the whole/m);
    await using cli = new RunningCli([...small, "--kv-tokens", "512", "--device", "cuda"]);
    await cli.match(/\nReady in .* on cuda:0.* KV cache of 512 tokens/);
    fill(context, GIB / 16);
    const full = await runCli([...small, "--device", "cuda", "--kv-tokens", "512"]);
    assertEquals(full.status, 1);
    assertMatch(full.errors, /^infinite-llm: Cannot .*CUDA_ERROR_OUT_OF_MEMORY/m);
    assertEquals(full.errors.match(/^infinite-llm: /gm)?.length, 1, full.errors);
    await using auto = new RunningCli([...small, "--kv-tokens", "512"], { env: AUTO });
    const [, url] = await auto.match(/^Listening on (\S+)\n/);
    await auto.match(/\nReady in .* on wasm/);
    assertMatch(auto.errors, /Computing with WASM, not on a GPU: Cannot .*CUDA_ERROR_OUT_OF_MEMORY/);
    await answered(url);
  },
});

Deno.test({
  name: "cli.ts cluster starts three instances that share one GPU, and the public one answers",
  ignore,
  async fn() {
    await using directory = await makeModelDirectory();
    const args = ["cluster", "--model", directory.model, "--instances", "3", "--port", "0"];
    await using cli = new RunningCli(args, { env: AUTO });
    const [, url] = await cli.match(/\nListening on (http:\S+), the public address of the cluster\n/);
    for (const name of ["instance-2", "instance-3"]) await cli.match(new RegExp(`\\n${name} is ready: full`));
    assert(!cli.output.includes("Computing with WASM"), cli.output);
    await answered(url);
    cli.signal("SIGTERM");
    assertEquals((await cli.end()).status, 0);
  },
});
