/**
 * What a process does on a GPU whose memory another one holds. Runs when nothing else does: it takes all of the memory.
 *
 * @module
 */
import { assertEquals, assertMatch } from "@std/assert";
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
