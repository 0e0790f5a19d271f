/**
 * What a server does when its GPU fails for good.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { fileURLToPath } from "node:url";
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { DEVICE_LOST_STATUS } from "../../runtime/cli/main.ts";
import { lines } from "../../runtime/text/line_stream.ts";
import { makeModelDirectory, type ModelDirectory, RunningCli } from "../cli/cli_process.ts";
import { ClusterProcesses } from "../cluster/cluster_processes.ts";
import { eventually } from "../cluster/deadline.ts";
import { buildSyntheticGguf } from "../synthetic/synthetic_gguf.ts";

const ignore = TestGpu.missing() !== undefined;
const PROGRAM = fileURLToPath(new URL("./testdata/serve_and_lose.ts", import.meta.url));
/** Most time for an answer. */
const ANSWER_MS = 60_000;
/** More tokens than come before the GPU is lost. */
const ENDLESS = { max_tokens: 100_000, temperature: 0, ignore_eos: true, stream: true } as const;

async function makeModel(): Promise<ModelDirectory> {
  const directory = await makeModelDirectory();
  const shape = { layers: 2, hidden: 256, heads: 4, kvHeads: 2, headDim: 64, intermediate: 384, tied: false };
  await Deno.writeFile(directory.model, buildSyntheticGguf({ ...shape, contextLength: 131072 }));
  return directory;
}

async function ask(url: string, body: unknown): Promise<Response> {
  return await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

/** Data of a stream to its end; `onEvent` is told of each. */
async function events(response: Response, onEvent: () => void): Promise<string[]> {
  const all: string[] = [];
  if (response.body === null) throw new Error("Cannot read a stream: the response has no body");
  for await (const line of lines(response.body)) {
    if (!line.startsWith("data: ")) continue;
    all.push(line.slice("data: ".length).trim());
    onEvent();
  }
  return all;
}

Deno.test({
  name: "cli.ts serve fails every running request once when its GPU is lost, and ends with the status that says so",
  ignore,
  async fn() {
    await using directory = await makeModel();
    const args = ["serve", directory.model, "--port", "0", "--device", "cuda", "--kv-tokens", "400000"];
    await using cli = new RunningCli(args, { program: PROGRAM });
    const [, url] = await cli.match(/^Listening on (\S+)\n/);
    await cli.match(/\nReady in .* on cuda:0/);
    let flowing = 0;
    const begun = Promise.withResolvers<void>();
    const streams = ["a", "b b", "c c c"].map(async (prompt) => {
      const response = await ask(url, { ...ENDLESS, prompt });
      assertEquals(response.status, 200);
      let first = true;
      return await events(response, () => {
        if (first && ++flowing === 3) begun.resolve();
        first = false;
      });
    });
    await begun.promise;
    cli.signal("SIGUSR1");
    for (const stream of await Promise.all(streams)) {
      const errors = stream.filter((event) => event.includes('"error"'));
      assertEquals(errors.length, 1, errors.join("\n"));
      assertMatch(errors[0], /Cannot use the device any more: .*CUDA_ERROR_ILLEGAL_ADDRESS/);
      assertEquals(stream.slice(stream.indexOf(errors[0]) + 1).filter((event) => event !== "[DONE]"), []);
      // Tokens had come before.
      assert(stream.length > 1);
    }
    const { status, errors } = await cli.end();
    assertEquals(status, DEVICE_LOST_STATUS, errors);
    assertMatch(errors, /^infinite-llm: Cannot use the device any more: .*CUDA_ERROR_ILLEGAL_ADDRESS/m);
  },
});

Deno.test({
  name: "cli.ts serve fails the first request after its GPU was lost while nothing ran, and ends",
  ignore,
  async fn() {
    await using directory = await makeModel();
    const args = ["serve", directory.model, "--port", "0", "--device", "cuda", "--kv-tokens", "4096"];
    await using cli = new RunningCli(args, { program: PROGRAM });
    const [, url] = await cli.match(/^Listening on (\S+)\n/);
    await cli.match(/\nReady in /);
    const body = { prompt: "a", max_tokens: 4, temperature: 0, ignore_eos: true };
    const before = await ask(url, body);
    assertEquals([before.status, (await before.json()).usage.completion_tokens], [200, 4]);
    cli.signal("SIGUSR1");
    // The signal and the request take different ways.
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const after = await ask(url, body);
    assertEquals(after.status, 500);
    assertMatch((await after.json()).error.message, /CUDA_ERROR_ILLEGAL_ADDRESS/);
    const { status, errors } = await cli.end();
    assertEquals(status, DEVICE_LOST_STATUS, errors);
  },
});

Deno.test({
  name: "cli.ts run says that its GPU is lost, and ends with the status that says so",
  ignore,
  async fn() {
    await using directory = await makeModel();
    const args = ["run", directory.model, "--device", "cuda", "--kv-tokens", "4096", "--max-tokens", "4"];
    await using cli = new RunningCli(args, { program: PROGRAM, input: "" });
    await cli.write("hello\n");
    await cli.matchErrors(/the answer is cut off/);
    cli.signal("SIGUSR1");
    // The signal and the message take different ways.
    await new Promise((resolve) => setTimeout(resolve, 1000));
    await cli.write("again\n");
    const { status, errors } = await cli.end();
    assertEquals(status, DEVICE_LOST_STATUS, errors);
    assertMatch(errors, /infinite-llm: .*CUDA_ERROR_ILLEGAL_ADDRESS/);
  },
});

Deno.test({
  name:
    "A holder whose GPU is lost ends with the status that says so, and the answer that lay on it comes all the same",
  ignore,
  async fn() {
    await using directory = await makeModel();
    await using processes = new ClusterProcesses(directory.model);
    const flags = ["--device", "cuda", "--deterministic"];
    const front = await processes.start({ name: "front", kvTokens: 512, flags });
    const [large, holder] = await Promise.all([
      processes.start({ name: "large", kvTokens: 4096, flags }),
      processes.start({ name: "holder", role: "holder", join: [front], flags, program: PROGRAM, kvMemory: "8MiB" }),
    ]);
    // Where the rest is computed again.
    const spare = await processes.start({ name: "spare", role: "holder", join: [front], flags, kvMemory: "8MiB" });
    await processes.settled(15_000, [front, holder, spare]);
    const prompt = Array.from({ length: 1200 }, (_, i) => 5 + (i * 7919 + (i >> 5)) % 250);
    await processes.reaches(front, { tokens: 1700, ms: ANSWER_MS });
    const question = { prompt, maxTokens: 300, stream: true };
    const expected = await large.ask(question, { timeoutMs: ANSWER_MS });
    let come = 0;
    const asked = front.ask(question, { timeoutMs: ANSWER_MS, onTokens: (count) => come = count });
    await eventually(async () => {
      const { sequences } = await front.report();
      return come > 3 && sequences.some(({ ranges }) => ranges.some(({ instance }) => instance === "holder"));
    }, { what: "a sequence to lie on the holder and decode", ms: ANSWER_MS, everyMs: 10 });
    holder.signal("SIGUSR1");
    const [{ status, errors }, answer] = await Promise.all([holder.end(), asked]);
    assertEquals(status, DEVICE_LOST_STATUS, errors);
    assertMatch(errors, /infinite-llm: Cannot use the device any more: .*CUDA_ERROR_ILLEGAL_ADDRESS/);
    assertEquals(answer, expected);
    await processes.empty(ANSWER_MS, [front, spare]);
  },
});

Deno.test({
  name: "An instance of a cluster whose GPU is lost fails its own requests once, ends, and is mourned by the others",
  ignore,
  async fn() {
    await using directory = await makeModel();
    await using processes = new ClusterProcesses(directory.model);
    const flags = ["--device", "cuda"];
    const front = await processes.start({ name: "front", kvTokens: 400_000, flags, program: PROGRAM });
    const other = await processes.start({ name: "other", role: "holder", join: [front], flags });
    await processes.settled(15_000, [front, other]);
    const response = await ask(front.where.url, { ...ENDLESS, prompt: "a" });
    let count = 0;
    const stream = await events(response, () => {
      if (++count === 4) front.signal("SIGUSR1");
    });
    assertEquals(stream.filter((event) => event.includes('"error"')).length, 1, stream.slice(-3).join("\n"));
    const { status, errors } = await front.end();
    assertEquals(status, DEVICE_LOST_STATUS, errors);
    await other.logged(/lost front/);
  },
});
