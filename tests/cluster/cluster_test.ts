import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { makeModelDirectory } from "../cli/cli_process.ts";
import { realModelPath } from "../real_model.ts";
import { buildSyntheticGguf } from "../synthetic/synthetic_gguf.ts";
import type { Answer, Question } from "./answers.ts";
import { ClusterProcesses, type MemberProcess } from "./cluster_processes.ts";
import { eventually, pause } from "./deadline.ts";

/** Most time an answer may take: the processors are shared with whatever else runs. */
const ANSWER_MS = 180_000;
/** Most time after which nothing is held any more: a lease lives 10 s. */
const EMPTY_MS = 30_000;

const PROMPT = Array.from({ length: 1600 }, (_, i) => 1000 + (i * 7919 + (i >> 5)) % 20_000);
const LONG: Question = { prompt: PROMPT, maxTokens: 12 };
/** Long enough that much of it is still to come when a lender has been found and killed. */
const SAMPLED: Question = { prompt: PROMPT.slice(0, 1150), maxTokens: 250, temperature: 1, seed: 7, stream: true };

/** One of `members` on which a part of another one's sequence lies, as soon as a heartbeat has said so. */
async function findLender(asked: MemberProcess, members: readonly MemberProcess[]): Promise<MemberProcess> {
  return await eventually(async () => {
    const { sequences } = await asked.report();
    const names = sequences.flatMap(({ home, ranges }) =>
      ranges.map(({ instance }) => instance).filter((instance) => instance !== home)
    );
    return members.find(({ name }) => name !== asked.name && names.includes(name));
  }, { what: "a sequence to lie on another member", ms: 5000, everyMs: 20 });
}

/**
 * Asks, and acts once so many tokens have come. @returns the answer, and what the act gave.
 *
 * @throws {Error} when the answer was complete before the act had begun: it says nothing then.
 */
async function askAndAct<T>(
  front: MemberProcess,
  { question, after, act }: {
    readonly question: Question;
    readonly after: number;
    readonly act: (begins: () => void) => Promise<T>;
  },
): Promise<[Answer, T]> {
  const reached = Promise.withResolvers<void>();
  const state = { tokens: 0, atAct: Infinity };
  const acted = reached.promise.then(() => act(() => state.atAct = state.tokens));
  const onTokens = (count: number) => {
    state.tokens = count;
    if (count >= after) reached.resolve();
  };
  const both = await Promise.all([front.ask(question, { timeoutMs: ANSWER_MS, onTokens }), acted]);
  if (state.atAct >= question.maxTokens) {
    throw new Error(`Cannot act while ${front.name} answers: all ${state.tokens} tokens had come before`);
  }
  return both;
}

Deno.test(
  "Three instances answer a prompt that fits none of them as one large instance does, and when a lender is killed",
  async (t) => {
    await using processes = new ClusterProcesses(await realModelPath());
    const start = async () => {
      const first = await processes.start({ name: "a" });
      const others = ["b", "c"].map((name) => processes.launch({ name, join: [first] }));
      return [first, ...await Promise.all(others.map(async (member) => await (await member).ready()))];
    };
    const [large, members] = await Promise.all([processes.startAlone({ name: "large", kvTokens: 2048 }), start()]);
    const [front] = members;
    await processes.settled(15_000, members);
    await processes.reaches(front, { tokens: 3072, ms: 15_000 });

    await t.step("same tokens and log-probabilities", async () => {
      const [expected, actual] = await Promise.all([
        large.ask(LONG, { timeoutMs: ANSWER_MS }),
        front.ask(LONG, { timeoutMs: ANSWER_MS }),
      ]);
      assertEquals(actual, expected);
      assertEquals(actual.tokens.length, LONG.maxTokens);
      await processes.empty(EMPTY_MS, members);
    });

    await t.step("the same when a lender is killed while it decodes", async () => {
      const kill = async (begins: () => void) => {
        const lender = await findLender(front, members);
        begins();
        await lender.kill();
        return lender.name;
      };
      const [actual, name] = await askAndAct(front, { question: SAMPLED, after: 4, act: kill });
      assertEquals(actual, await large.ask(SAMPLED, { timeoutMs: ANSWER_MS }));
      await front.logged(new RegExp(`lost ${name}`));
      const left = members.filter(({ ended }) => !ended);
      assertEquals(left.length, 2);
      await processes.empty(EMPTY_MS, left);
      const counters = await Promise.all(left.map((member) => member.counters()));
      assertGreater(counters.reduce((sum, { repaired_tokens = 0 }) => sum + repaired_tokens, 0), 0);
    });

    await t.step("a holder that joins raises the longest prompt", async () => {
      const before = await front.maxModelLen();
      await processes.start({ name: "h", role: "holder", kvMemory: "24MiB", join: [front] });
      const after = await eventually(async () => {
        const length = await front.maxModelLen();
        return length > before ? length : undefined;
      }, { what: `more than ${before} tokens in /v1/models`, ms: 15_000 });
      assertEquals((await front.report()).reachableModelLen, after);
      const holder = (await front.report()).members.find(({ id }) => id === "h");
      assertEquals(holder?.role, "holder");
      // Whole segments count.
      assertEquals(after - before, Math.floor((holder?.blocks.total ?? 0) / 16) * 256);
    });
  },
);

Deno.test("A member that is asked to stop moves what others have there before it goes", async () => {
  await using model = await makeModelDirectory();
  await Deno.writeFile(model.model, buildSyntheticGguf({ contextLength: 4096, layers: 8 }));
  await using processes = new ClusterProcesses(model.model);
  const question: Question = { prompt: PROMPT.slice(0, 1100).map((id) => id % 250), maxTokens: 700, stream: true };
  const large = await processes.startAlone({ name: "large", kvTokens: 2048 });
  const front = await processes.start({ name: "a" });
  const others = await Promise.all(
    ["b", "c"].map(async (name) => await (await processes.launch({ name, join: [front] })).ready()),
  );
  await processes.settled(15_000, [front, ...others]);
  await processes.reaches(front, { tokens: 3072, ms: 15_000 });
  const leave = async (begins: () => void) => {
    const lender = await findLender(front, others);
    begins();
    const { status, errors } = await lender.stop();
    assertEquals(status, 0, errors);
    return lender.name;
  };
  const [actual, name] = await askAndAct(front, { question, after: 2, act: leave });
  assertEquals(actual, await large.ask(question, { timeoutMs: ANSWER_MS }));
  const report = await front.report();
  assert(report.members.every(({ id }) => id !== name), `${name} is still listed`);
  await processes.empty(EMPTY_MS, [front, ...others.filter(({ ended }) => !ended)]);
  const counters = await Promise.all(
    processes.alive.filter(({ where }) => where.clusterUrl !== "").map((member) => member.counters()),
  );
  const sum = (counter: string) => counters.reduce((sum, counted) => sum + (counted[counter] ?? 0), 0);
  assertEquals(sum("repaired_tokens"), 0, "it was to be moved, not computed again");
  assertGreater(sum("moves_done"), 0);
});

Deno.test("A member with another model, KV type or key is refused by name", async () => {
  await using model = await makeModelDirectory();
  const other = `${model.path}/other.gguf`;
  await Deno.writeFile(other, buildSyntheticGguf({ seed: 2 }));
  const keys = [`${model.path}/key`, `${model.path}/another-key`];
  for (const [i, path] of keys.entries()) await Deno.writeTextFile(path, `${i}`.repeat(64));
  await Promise.all(keys.map((path) => Deno.chmod(path, 0o600)));
  await using processes = new ClusterProcesses(model.model);
  const first = await processes.start({ name: "first", flags: ["--cluster-key-file", keys[0]] });
  const cases = [
    { name: "digest", model: other, flags: ["--cluster-key-file", keys[0]], says: /wanted modelDigest \w+, got \w+/ },
    { name: "kv", flags: ["--kv-type", "f32", "--cluster-key-file", keys[0]], says: /wanted kvType f16, got f32/ },
    { name: "stranger", flags: ["--cluster-key-file", keys[1]], says: /key/ },
    { name: "keyless", flags: [], says: /key/ },
  ];
  await Promise.all(cases.map(async ({ says, ...settings }) => {
    const member = await processes.start({ ...settings, join: [first] });
    const [said] = await member.logged(says);
    const line = (await member.close()).errors.split("\n").find((text) => text.includes(said)) ?? "";
    assertStringIncludes(line, "Cannot link");
  }));
  // Beats would have shown a member that got in.
  await pause(1000);
  assertEquals((await first.report()).members.map(({ id }) => id), ["first"]);
});
