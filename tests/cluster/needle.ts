/**
 * Needles in a long haystack over a cluster: `deno task needle [--tokens 131072] [--kv-tokens 40960]`. Four instances, of
 * which none can hold a third of the prompt, are asked for one chain of needles at all depths. Prints how long it took; the
 * exit status is 1 when a needle was not found exactly.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { buildNeedleModel, hideNeedles, NEEDLE_KEYS } from "../synthetic/needle_model.ts";
import { ClusterProcesses, describeReport } from "./cluster_processes.ts";

const INSTANCES = 4;
/** Most time for the answer, ms. */
const ANSWER_MS = 3_600_000;

const { values } = parseArgs({
  options: {
    "tokens": { type: "string", default: "131072" },
    "kv-tokens": { type: "string", default: "40960" },
  },
});
const tokens = Number(values.tokens);
const kvTokens = Number(values["kv-tokens"]);
if (!Number.isInteger(tokens) || !Number.isInteger(kvTokens) || kvTokens * 3 >= tokens) {
  throw new RangeError(`Cannot run: wanted --kv-tokens below a third of --tokens, got ${kvTokens} and ${tokens}`);
}
Deno.exit(await run() ? 0 : 1);

/** @returns whether every needle was found. */
async function run(): Promise<boolean> {
  const startMs = performance.now();
  const say = (line: string) => console.log(`${((performance.now() - startMs) / 1000).toFixed(1)} s  ${line}`);
  const model = await Deno.makeTempFile({ suffix: ".gguf" });
  await using opened = new AsyncDisposableStack();
  opened.defer(() => Deno.remove(model));
  await Deno.writeFile(model, buildNeedleModel({ contextLength: tokens + NEEDLE_KEYS }));
  const processes = opened.use(new ClusterProcesses(model));
  const first = await processes.start({ name: "i1", kvTokens });
  const others = Array.from({ length: INSTANCES - 1 }, async (_, i) => {
    return await (await processes.launch({ name: `i${i + 2}`, kvTokens, join: [first] })).ready();
  });
  await Promise.all(others);
  await processes.reaches(first, { tokens: tokens + NEEDLE_KEYS, ms: 15_000 });
  say(`${INSTANCES} instances of ${kvTokens} tokens each are ready`);
  const depths = Array.from({ length: NEEDLE_KEYS }, (_, i) => i / (NEEDLE_KEYS - 1));
  const { prompt, answer, positions } = hideNeedles({ length: tokens, depths, seed: 1 });
  let firstMs = 0;
  let placed: Promise<string> | undefined;
  const actual = await first.ask({ prompt, maxTokens: NEEDLE_KEYS, stream: true }, {
    timeoutMs: ANSWER_MS,
    onTokens: () => {
      firstMs ||= performance.now();
      placed ??= first.report().then(describeReport, String);
    },
  }).catch((error) => {
    for (const { name, log } of processes.started) console.error(`${name}: ${log}`);
    throw error;
  });
  say(
    `${actual.tokens.length} tokens, the last ${actual.tokens.length - 1} of them in ${
      ((performance.now() - firstMs) / 1000).toFixed(1)
    } s; after the first: ${await placed}`,
  );
  let found = 0;
  for (const [at, expected] of answer.entries()) {
    const token = actual.tokens.at(at);
    const right = token?.id === expected && token.logprob === 0;
    if (right) found++;
    say(`needle at ${positions[at]}: ${right ? "found" : `NOT FOUND, got ${JSON.stringify(token)}`}`);
  }
  await processes.empty(60_000);
  say(`${found} of ${answer.length} needles found exactly in ${tokens} tokens`);
  return found === answer.length;
}
