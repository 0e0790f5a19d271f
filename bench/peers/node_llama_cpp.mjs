// node-llama-cpp (native llama.cpp) as a child that answers lines of JSON. Arguments: model file, threads.
import { createInterface } from "node:readline";
import process from "node:process";

// Not a literal: the package is installed beside the copy of this file that is run, and nowhere else.
const PACKAGE = "node-llama-cpp";
const { getLlama, LlamaLogLevel } = await import(PACKAGE);
const [modelPath, threadCount] = process.argv.slice(2);
const threads = Number(threadCount);
const GREEDY = { temperature: 0 };
const reply = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

/** Evaluates a whole prompt and samples once, after its last token. Returns milliseconds and the sampled token. */
async function prefill(sequence, ids) {
  await sequence.clearHistory();
  const start = performance.now();
  const last = [ids.at(-1), { generateNext: { token: true, options: GREEDY } }];
  const results = await sequence.controlledEvaluate([...ids.slice(0, -1), last]);
  return { ms: performance.now() - start, token: results.at(-1).next.token };
}

/** Generates `count` tokens after `first`, one a step. */
async function decode(sequence, first, count) {
  let generated = 0;
  for await (const _token of sequence.evaluate([first], { ...GREEDY, yieldEogToken: true })) {
    if (++generated >= count) break;
  }
}

try {
  const llama = await getLlama({
    gpu: false,
    build: "never",
    maxThreads: threads,
    logLevel: LlamaLogLevel.disabled,
  });
  const model = await llama.loadModel({ modelPath });
  const open = (options) =>
    model.createContext({
      threads: { min: threads, ideal: threads },
      batchSize: 512,
      flashAttention: "auto",
      ...options,
    });
  let single;
  let eight;

  const answers = {
    async prefill({ ids }) {
      single ??= (await open({ contextSize: 2304, sequences: 1 })).getSequence();
      const { ms } = await prefill(single, ids);
      return ids.length / ms * 1e3;
    },
    async decode({ ids, count }) {
      single ??= (await open({ contextSize: 2304, sequences: 1 })).getSequence();
      const { token } = await prefill(single, ids);
      const start = performance.now();
      await decode(single, token, count);
      return count / (performance.now() - start) * 1e3;
    },
    async batch({ prompts, count }) {
      if (eight === undefined) {
        const context = await open({ contextSize: 512, sequences: prompts.length });
        eight = prompts.map(() => context.getSequence());
      }
      const first = [];
      for (const [i, ids] of prompts.entries()) first.push((await prefill(eight[i], ids)).token);
      const start = performance.now();
      await Promise.all(eight.map((sequence, i) => decode(sequence, first[i], count)));
      return eight.length * count / (performance.now() - start) * 1e3;
    },
  };

  const { release } = llama.llamaCppRelease;
  reply({ version: `llama.cpp ${release}, node ${process.version}, ${threads} threads, f16 KV` });
  for await (const line of createInterface({ input: process.stdin })) {
    const question = JSON.parse(line);
    reply({ value: await answers[question.kind](question) });
  }
  process.exit(0);
} catch (error) {
  reply({ error: String(error?.message ?? error) });
  process.exit(1);
}
