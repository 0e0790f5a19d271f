// @wllama/wllama (llama.cpp in WebAssembly) in headless Chromium, as a child that answers lines of JSON.
// Arguments: model file, threads, path of Chromium.
import { createReadStream, mkdtempSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

// Not a literal: the package is installed beside the copy of this file that is run, and nowhere else.
const PACKAGE = "playwright-core";
const { chromium } = await import(PACKAGE);
const [modelPath, threadCount, executablePath] = process.argv.slice(2);
const threads = Number(threadCount);
const reply = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

// Shared memory needs a page that is isolated from other origins.
const ISOLATED = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-resource-policy": "same-origin",
};
const folder = fileURLToPath(new URL("./node_modules/@wllama/wllama/esm/", import.meta.url));
const FILES = new Map([
  ["/index.js", { path: join(folder, "index.js"), type: "text/javascript" }],
  ["/wllama.wasm", { path: join(folder, "wasm/wllama.wasm"), type: "application/wasm" }],
  ["/model.gguf", { path: modelPath, type: "application/octet-stream" }],
]);

function serve(request, response) {
  if (request.url === "/") {
    response.writeHead(200, { ...ISOLATED, "content-type": "text/html" });
    return response.end("<!doctype html><title>wllama</title>");
  }
  const file = FILES.get(request.url);
  if (file === undefined) {
    response.writeHead(404, ISOLATED);
    return response.end();
  }
  const length = statSync(file.path).size;
  response.writeHead(200, { ...ISOLATED, "content-type": file.type, "content-length": length });
  createReadStream(file.path).pipe(response);
}

/** Runs in the page: loads the model for `parallel` sequences in place of what was loaded before. */
async function load({ threads, parallel }) {
  const { Wllama } = await import("/index.js");
  await globalThis.wllama?.exit();
  globalThis.wllama = new Wllama({ default: "/wllama.wasm" }, { suppressNativeLog: true });
  const model = await (await fetch("/model.gguf")).blob();
  await globalThis.wllama.loadModel([model], {
    n_threads: threads,
    n_gpu_layers: 0,
    n_batch: 512,
    n_ubatch: 512,
    n_ctx: parallel === 1 ? 2304 : 512 * parallel,
    n_parallel: parallel,
    ...(parallel === 1 ? {} : { kv_unified: false }),
  });
  return Wllama.getLibllamaVersion();
}

/** Runs in the page: one completion, its own timings. */
async function complete({ text, count, cached }) {
  const options = { max_tokens: count, temperature: 0, ignore_eos: true, cache_prompt: cached };
  const { timings } = await globalThis.wllama.createCompletion({ prompt: text, ...options });
  return timings;
}

/** Runs in the page: streams at once, with the times of their tokens. */
function completeAll({ texts, count }) {
  const options = { max_tokens: count, temperature: 0, ignore_eos: true, cache_prompt: false, stream: true };
  return Promise.all(texts.map(async (prompt) => {
    const arrivals = [];
    for await (const _chunk of await globalThis.wllama.createCompletion({ prompt, ...options })) {
      arrivals.push({ ms: performance.now(), tokens: arrivals.length + 1 });
    }
    return arrivals;
  }));
}

/** Starts the browser, opens the page and answers questions until the input ends. */
async function run(profile, port) {
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath,
    headless: true,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-background-networking",
      "--disable-component-update",
    ],
  });
  try {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${port}/`);
    const release = await page.evaluate(load, { threads, parallel: 1 });
    let loaded = 1;
    const ensure = async (parallel) => {
      if (loaded !== parallel) await page.evaluate(load, { threads, parallel });
      loaded = parallel;
    };
    const answers = {
      async prefill({ text }) {
        await ensure(1);
        return { value: (await page.evaluate(complete, { text, count: 1, cached: false })).prompt_per_second };
      },
      // The prompt may come from the cache: only what follows it is measured.
      async decode({ text, count }) {
        await ensure(1);
        return { value: (await page.evaluate(complete, { text, count, cached: true })).predicted_per_second };
      },
      async batch({ texts, count }) {
        await ensure(texts.length);
        return { streams: await page.evaluate(completeAll, { texts, count }) };
      },
    };
    const agent = await page.evaluate(() => navigator.userAgent.match(/Chrome\/\S+/)?.[0]);
    reply({ version: `libllama ${release}, ${agent}, ${threads} threads, f16 KV` });
    for await (const line of createInterface({ input: process.stdin })) {
      const question = JSON.parse(line);
      reply(await answers[question.kind](question));
    }
  } finally {
    await browser.close();
  }
}

const profile = mkdtempSync(join(tmpdir(), "wllama-"));
const server = createServer(serve);
try {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  await run(profile, server.address().port);
} catch (error) {
  reply({ error: String(error?.message ?? error).split("\n")[0] });
  process.exitCode = 1;
} finally {
  server.close();
  rmSync(profile, { recursive: true, force: true });
}
