/**
 * Clusters of processes with members on a GPU: the same answers as one large instance, up to what rounding decides.
 *
 * @module
 */
import { assert, assertAlmostEquals, assertEquals, assertLessOrEqual, assertMatch } from "@std/assert";
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { makeModelDirectory } from "../cli/cli_process.ts";
import type { Answer, AnsweredToken, Question } from "../cluster/answers.ts";
import { ClusterProcesses, type MemberProcess } from "../cluster/cluster_processes.ts";
import { eventually } from "../cluster/deadline.ts";
import { buildSyntheticGguf } from "../synthetic/synthetic_gguf.ts";

/** Most time for an answer, and until nothing is held any more: a lease lives 10 s. */
const ANSWER_MS = 60_000;
const EMPTY_MS = 30_000;
/** Twice the error that bf16 may give a logit of such a model: 0.03 of the largest, some 15. */
const TIE = 0.9;
/** The same with fp8 KV: 0.1 of the largest, where another order of summation chooses another number of fp8. */
const FP8_TIE = 3;

const PROMPT = Array.from({ length: 2300 }, (_, i) => 5 + (i * 7919 + (i >> 5)) % 250);
const LONG: Question = { prompt: PROMPT, maxTokens: 24 };
/** Long enough that much of it is still to come when a lender has been found and killed. */
const STREAMED: Question = { prompt: PROMPT.slice(0, 1150), maxTokens: 400, stream: true };

/** The defaults on a GPU, and what makes members on processors ones of the same format. */
const ON_GPU = ["--device", "cuda"] as const;
const EXACT_ON_GPU = [...ON_GPU, "--deterministic"] as const;
const ON_HOST = ["--device", "wasm", "--kv-type", "bf16"] as const;

const ignore = TestGpu.missing() !== undefined;

/** A model whose KV takes 2 KiB a token. */
async function makeModel(): Promise<Awaited<ReturnType<typeof makeModelDirectory>>> {
  const directory = await makeModelDirectory();
  const shape = { layers: 4, hidden: 256, heads: 4, kvHeads: 2, headDim: 64, intermediate: 384, tied: false };
  await Deno.writeFile(directory.model, buildSyntheticGguf({ ...shape, contextLength: 4096 }));
  return directory;
}

function margin({ top }: AnsweredToken): number {
  const [first, second] = Object.values(top).sort((a, b) => b - a);
  return second === undefined ? Infinity : first - second;
}

/** Compares up to the first place where two tokens were almost equally likely and another one was chosen. @returns how far. */
function countCommonTokens(actual: Answer, expected: Answer, tie: number = TIE): number {
  assertEquals(actual.tokens.length, expected.tokens.length);
  for (const [i, wanted] of expected.tokens.entries()) {
    const got = actual.tokens[i];
    if (got.id !== wanted.id) {
      assertLessOrEqual(margin(wanted), tie, `token ${i} is ${got.id}, wanted ${wanted.id}`);
      return i;
    }
    assertAlmostEquals(got.logprob, wanted.logprob, tie, `log-probability of token ${i}`);
  }
  return expected.tokens.length;
}

/** A member on which a part of another one's sequence lies, as soon as a heartbeat has said so. */
async function findLender(asked: MemberProcess, members: readonly MemberProcess[]): Promise<MemberProcess> {
  return await eventually(async () => {
    const { sequences } = await asked.report();
    const names = sequences.flatMap(({ ranges }) => ranges.map(({ instance }) => instance));
    return members.find(({ name }) => name !== asked.name && names.includes(name));
  }, { what: "a sequence to lie on another member", ms: 5000, everyMs: 20 });
}

/** What the members here must lend before a prompt is sent: newcomers lend their memory little by little. */
const REACH = { tokens: PROMPT.length + 256, ms: 20_000 } as const;

/** Asks for a long answer and kills who lends to it while it comes. @returns the answer, who was killed, and when. */
async function askAndKill(
  front: MemberProcess,
  members: readonly MemberProcess[],
): Promise<{ readonly actual: Answer; readonly name: string; readonly after: number }> {
  const begun = Promise.withResolvers<void>();
  let come = 0;
  const asked = front.ask(STREAMED, {
    timeoutMs: ANSWER_MS,
    onTokens: (count) => {
      come = count;
      if (count >= 4) begun.resolve();
    },
  });
  const killed = begun.promise.then(async () => {
    const lender = await findLender(front, members);
    const after = come;
    await lender.kill();
    return { name: lender.name, after };
  });
  const [actual, { name, after }] = await Promise.all([asked, killed]);
  assert(after < STREAMED.maxTokens, "the answer was complete before the lender was killed");
  await front.logged(new RegExp(`lost ${name}`));
  return { actual, name, after };
}

Deno.test({
  name: "Two CUDA instances and a WASM holder answer a prompt that fits none of them, also when a lender is killed",
  ignore,
  async fn(t) {
    await using directory = await makeModel();
    await using processes = new ClusterProcesses(directory.model);
    const large = await processes.start({ name: "large", kvTokens: 4096, flags: ON_GPU });
    const front = await processes.start({ name: "a", flags: ON_GPU });
    const [second, holder] = await Promise.all([
      processes.start({ name: "b", join: [front], flags: ON_GPU }),
      processes.start({ name: "h", role: "holder", kvMemory: "2MiB", join: [front] }),
    ]);
    const members = [front, second, holder];
    await processes.settled(15_000, members);
    await processes.reaches(front, REACH);

    await t.step("the same tokens as one large instance, up to a tie", async () => {
      const expected = await large.ask(LONG, { timeoutMs: ANSWER_MS });
      const actual = await front.ask(LONG, { timeoutMs: ANSWER_MS });
      const common = countCommonTokens(actual, expected);
      console.log(`${common} of ${LONG.maxTokens} tokens in common`);
      assert(common > 0);
      assertMatch(front.log, /h \(wasm\) round otherwise than this member \(cuda\)/);
      await processes.empty(EMPTY_MS, members);
    });

    await t.step("the same when a lender is killed while it decodes", async () => {
      await processes.reaches(front, REACH);
      const { actual, name, after } = await askAndKill(front, members);
      const common = countCommonTokens(actual, await large.ask(STREAMED, { timeoutMs: ANSWER_MS }));
      console.log(`${name} was killed after ${after} tokens; ${common} of ${STREAMED.maxTokens} tokens in common`);
      const left = members.filter(({ ended }) => !ended);
      assertEquals(left.length, 2);
      await processes.empty(EMPTY_MS, left);
    });
  },
});

Deno.test({
  name: "Deterministic CUDA members give the very answer of one large instance, also when a lender is killed",
  ignore,
  async fn(t) {
    await using directory = await makeModel();
    await using processes = new ClusterProcesses(directory.model);
    const flags = EXACT_ON_GPU;
    const large = await processes.start({ name: "large", kvTokens: 4096, flags });
    const front = await processes.start({ name: "a", flags });
    const [second, holder] = await Promise.all([
      processes.start({ name: "b", join: [front], flags }),
      processes.start({ name: "h", role: "holder", kvMemory: "2MiB", join: [front], flags }),
    ]);
    const members = [front, second, holder];
    await processes.settled(15_000, members);
    await processes.reaches(front, REACH);

    await t.step("tokens and log-probabilities", async () => {
      const expected = await large.ask(LONG, { timeoutMs: ANSWER_MS });
      assertEquals(await front.ask(LONG, { timeoutMs: ANSWER_MS }), expected);
      assert(!front.log.includes("round otherwise"), front.log);
      await processes.empty(EMPTY_MS, members);
    });

    await t.step("when a lender is killed while it decodes", async () => {
      await processes.reaches(front, REACH);
      const { actual } = await askAndKill(front, members);
      assertEquals(actual, await large.ask(STREAMED, { timeoutMs: ANSWER_MS }));
      await processes.empty(EMPTY_MS, members.filter(({ ended }) => !ended));
    });
  },
});

Deno.test({
  name: "A WASM instance has its segments on a CUDA holder and a CUDA instance, and answers as it does alone",
  ignore,
  async fn() {
    await using directory = await makeModel();
    await using processes = new ClusterProcesses(directory.model);
    const front = await processes.start({ name: "w", flags: ON_HOST });
    const [large, holder, instance] = await Promise.all([
      processes.start({ name: "large", kvTokens: 4096, flags: ON_HOST }),
      processes.start({ name: "h", role: "holder", kvMemory: "2MiB", join: [front], flags: ON_GPU }),
      processes.start({ name: "c", join: [front], flags: ON_GPU }),
    ]);
    const members = [front, holder, instance];
    await processes.settled(15_000, members);
    await processes.reaches(front, REACH);
    const expected = await large.ask(LONG, { timeoutMs: ANSWER_MS });
    const actual = await front.ask(LONG, { timeoutMs: ANSWER_MS });
    const common = countCommonTokens(actual, expected);
    console.log(`${common} of ${LONG.maxTokens} tokens in common`);
    assert(common > 0);
    await processes.empty(EMPTY_MS, members);
  },
});

Deno.test({
  name:
    "An fp8 instance has its segments on holders of both kinds and answers as a large fp8 one; bf16 is refused by name",
  ignore,
  async fn() {
    await using directory = await makeModel();
    await using processes = new ClusterProcesses(directory.model);
    const flags = [...EXACT_ON_GPU, "--kv-type", "fp8"];
    const [large, front] = await Promise.all([
      processes.start({ name: "large", kvTokens: 4096, flags }),
      processes.start({ name: "a", flags }),
    ]);
    const expected = await large.ask(LONG, { timeoutMs: ANSWER_MS });
    const gpu = await processes.start({
      name: "g",
      role: "holder",
      kvMemory: "4MiB",
      join: [front],
      flags: EXACT_ON_GPU,
    });
    await processes.settled(15_000, [front, gpu]);
    await processes.reaches(front, REACH);
    assertEquals(await front.ask(LONG, { timeoutMs: ANSWER_MS }), expected);
    await gpu.kill();
    const host = await processes.start({ name: "h", role: "holder", kvMemory: "4MiB", join: [front] });
    await processes.settled(15_000, [front, host]);
    await processes.reaches(front, REACH);
    const actual = await front.ask(LONG, { timeoutMs: ANSWER_MS });
    const common = countCommonTokens(actual, expected, FP8_TIE);
    console.log(`${common} of ${LONG.maxTokens} tokens in common`);
    assert(common > 0);
    const other = await processes.start({ name: "o", join: [front], flags: ON_GPU });
    await other.logged(/Cannot link .*wanted kvType fp8, got bf16|Cannot link .*wanted kvType bf16, got fp8/);
    await processes.empty(EMPTY_MS, [front, host]);
  },
});

Deno.test({
  name: "A CUDA member is refused by name by members that store KV of another type",
  ignore,
  async fn() {
    await using directory = await makeModel();
    await using processes = new ClusterProcesses(directory.model);
    const first = await processes.start({ name: "first", flags: ["--device", "wasm"] });
    const member = await processes.start({ name: "gpu", join: [first], flags: ON_GPU });
    await member.logged(/Cannot link .*wanted kvType f16, got bf16|Cannot link .*wanted kvType bf16, got f16/);
    const holder = await processes.start({ name: "h", role: "holder", kvMemory: "2MiB", join: [first], flags: ON_GPU });
    await holder.logged(/cannot hold KV of this cluster: .*a CUDA device stores bf16 or fp8, got f16/);
  },
});
