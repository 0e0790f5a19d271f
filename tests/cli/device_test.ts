import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { dirname } from "node:path";
import { CudaLibraries } from "../../ffi/cuda/cuda.ts";
import { FakeDriver } from "../../ffi/cuda/fake_driver.ts";
import { makeModelDirectory, runCli, RunningCli } from "./cli_process.ts";

const SMALL = ["--port", "0", "--threads", "1", "--kv-tokens", "64"];
/** Leaves the choice to the program. */
const AUTO = { INFINITE_LLM_DEVICE: "" };
const hasDriver = CudaLibraries.find().tryGet("driver") !== undefined;

Deno.test({
  name: "cli.ts serve computes with WASM where there is no GPU, and says why in one line",
  ignore: hasDriver,
  async fn() {
    await using directory = await makeModelDirectory();
    await using cli = new RunningCli(["serve", directory.model, ...SMALL, "--log-format", "json"], { env: AUTO });
    await cli.match(/\nReady in .* on wasm, 1 thread.*\n/);
    const lines = cli.errors.trimEnd().split("\n");
    assertEquals(lines.length, 1, cli.errors);
    assertStringIncludes(lines[0], "Computing with WASM, not on a GPU: there is no NVIDIA driver (libcuda.so.1)");
  },
});

Deno.test({
  name: "cli.ts serve computes with WASM where it may not load the driver, names the flag and asks nobody",
  ignore: !FakeDriver.available,
  async fn() {
    await using directory = await makeModelDirectory();
    using fake = FakeDriver.open();
    const folder = dirname(fake.libraries.get("driver").path);
    const env = { ...AUTO, INFINITE_LLM_CUDA_PATH: folder };
    // As the README starts it, without the libraries.
    const permissions = ["--allow-net", "--allow-read", "--allow-env"];
    await using cli = new RunningCli(["serve", directory.model, ...SMALL], { env, permissions });
    await cli.match(/\nReady in .* on wasm, 1 thread.*\n/);
    assertMatch(cli.errors, /the permission to load it is missing: --allow-ffi=\S+libcuda\.so\.1/);
    assertEquals(cli.errors.trimEnd().split("\n").length, 1, cli.errors);
  },
});

Deno.test("cli.ts serve ends with 1 where it is told to use a GPU that is not there, and says which", async () => {
  await using directory = await makeModelDirectory();
  const { status, errors } = await runCli(["serve", directory.model, ...SMALL, "--device", "cuda:99"]);
  assertEquals(status, 1);
  assertMatch(errors, /^infinite-llm: Cannot (find the NVIDIA driver|open GPU 99|start the NVIDIA driver).*\n$/);
});

Deno.test({
  name: "cli.ts run says in one line why it computes with WASM",
  ignore: hasDriver,
  async fn() {
    await using directory = await makeModelDirectory();
    const small = ["--threads", "1", "--kv-tokens", "512", "--max-tokens", "4", "--temperature", "0"];
    const { status, errors } = await runCli(["run", directory.model, ...small], { env: AUTO, input: "hello\n" });
    assertEquals(status, 0, errors);
    const line = "Computing with WASM, not on a GPU: there is no NVIDIA driver (libcuda.so.1)\n";
    assertEquals(errors.slice(0, line.length), line);
  },
});
