/**
 * What every scheduler policy must do, as checks over seeded random views and toy runs.
 *
 * @module
 */
import { SeededRandom, ViewFuzzer } from "./fuzz.ts";
import { readSchedulerPlugin, unknownKeys } from "./handshake.ts";
import { SchedulerHost } from "./host.ts";
import { ToyEngine, type ToyRun } from "./toy_engine.ts";
import type { SchedulerPlugin } from "./types.ts";

/** A policy under test. */
export interface InvariantSubject {
  /** The plugin object. */
  readonly plugin: SchedulerPlugin;
  /** Options to test it with. */
  readonly config?: unknown;
  /** Seed of views, clock and random source. */
  readonly seed: number;
  /** Views per check. */
  readonly rounds: number;
}

/** One check. */
export interface SchedulerInvariant {
  /** Short name, used to skip it. */
  readonly name: string;
  /** What it says. */
  readonly says: string;
  /** Runs it. @throws {Error} when the policy breaks it. */
  check(subject: InvariantSubject): Promise<void>;
}

/** A host that reports faults instead of getting over them. */
async function openStrict(
  subject: InvariantSubject,
  clock: { readonly ms: number },
): Promise<{ readonly host: SchedulerHost; throwFault(): void }> {
  const lines: string[] = [];
  const random = new SeededRandom(subject.seed);
  const host = await SchedulerHost.open(subject.plugin, {
    config: subject.config,
    now: () => clock.ms,
    random: () => random.next(),
    log: (line) => lines.push(line),
    starvationMs: Infinity,
    breaker: { faults: Infinity },
  });
  const throwFault = () => {
    if (Object.values(host.fallbacks).every((count) => count === 0)) return;
    throw new Error(`Cannot use the answer: ${lines.find((line) => line.includes(" failed in ")) ?? "not logged"}`);
  };
  return { host, throwFault };
}

/** Calls a hook of the host with random views and stops at the first fault. */
async function fuzz(
  subject: InvariantSubject,
  call: (host: SchedulerHost, views: { readonly fuzzer: ViewFuzzer; readonly nowMs: number }) => void,
): Promise<void> {
  const clock = { ms: 1000 };
  const random = new SeededRandom(subject.seed);
  const fuzzer = new ViewFuzzer(random);
  const { host, throwFault } = await openStrict(subject, clock);
  using _ = host;
  for (let round = 0; round < subject.rounds; round++) {
    clock.ms += random.pick([0, 0.25, 20, 100_000]);
    call(host, { fuzzer, nowMs: clock.ms });
    throwFault();
  }
}

async function openToy(
  subject: InvariantSubject,
  seed: number,
): Promise<{ readonly engine: ToyEngine } & Disposable> {
  const clock = { ms: 0 };
  const { host, throwFault } = await openStrict({ ...subject, seed }, clock);
  const engine = new ToyEngine(host, { clock, random: new SeededRandom(seed), requests: 40, afterStep: throwFault });
  return { engine, [Symbol.dispose]: () => host[Symbol.dispose]() };
}

async function toyRun(subject: InvariantSubject, seed: number): Promise<ToyRun> {
  using toy = await openToy(subject, seed);
  return toy.engine.run();
}

function requireEqual(actual: readonly string[], expected: readonly string[], claim: string): void {
  const at = actual.findIndex((decision, i) => decision !== expected[i]);
  if (at < 0 && actual.length === expected.length) return;
  throw new Error(`${claim}: decision ${at} was "${expected[at]}", then "${actual[at]}"`);
}

/** The checks, in the order they are run. */
export const SCHEDULER_INVARIANTS: readonly SchedulerInvariant[] = [
  {
    name: "handshake",
    says: "states API version, kind, name and version, and nothing the interface does not know",
    check({ plugin }) {
      readSchedulerPlugin(plugin, "under test");
      const unknown = unknownKeys(plugin);
      if (unknown.length > 0) {
        throw new TypeError(`Cannot know every property: the interface has no ${unknown.join(", ")}`);
      }
      return Promise.resolve();
    },
  },
  {
    name: "create",
    says: "accepts its options and creates its state at once",
    async check(subject) {
      (await openStrict(subject, { ms: 0 })).host[Symbol.dispose]();
    },
  },
  {
    name: "admit",
    says: "accepts or rejects any request",
    check: (subject) => fuzz(subject, (host, { fuzzer }) => void host.admit(fuzzer.request(), fuzzer.instance())),
  },
  {
    name: "rank",
    says: "writes a finite rank for each sequence of any queue",
    check: (subject) => fuzz(subject, (host, { fuzzer, nowMs }) => void host.rank(fuzzer.queue(nowMs))),
  },
  {
    name: "plan",
    says: "plans within budget, batch and pending tokens for any queue",
    check: (subject) => fuzz(subject, (host, { fuzzer, nowMs }) => void host.plan(fuzzer.step(nowMs))),
  },
  {
    name: "observe",
    says: "takes events about sequences it has never seen",
    check: (subject) =>
      fuzz(subject, (host, { fuzzer, nowMs }) => {
        host.observe(fuzzer.events(nowMs));
        host.rank(fuzzer.queue(nowMs));
      }),
  },
  {
    name: "inputs",
    says: "does not write into what it reads",
    check: checkInputs,
  },
  {
    name: "replay",
    says: "decides the same for the same views, clock and random numbers",
    async check(subject) {
      const first = await toyRun(subject, subject.seed);
      const second = await toyRun(subject, subject.seed);
      requireEqual(second.decisions, first.decisions, "Cannot replay the run");
    },
  },
  {
    name: "isolation",
    says: "keeps everything in its state, so that two hosts do not disturb each other",
    async check(subject) {
      const alone = await toyRun(subject, subject.seed);
      using toy = await openToy(subject, subject.seed);
      using other = await openToy(subject, subject.seed + 1);
      while (!toy.engine.done) {
        toy.engine.step();
        if (!other.engine.done) other.engine.step();
      }
      requireEqual(toy.engine.run().decisions, alone.decisions, "Cannot run beside a second host");
    },
  },
  {
    name: "liveness",
    says: "lets every accepted sequence end",
    async check(subject) {
      for (let run = 0; run < 5; run++) await toyRun(subject, subject.seed + run);
    },
  },
];

async function checkInputs(subject: InvariantSubject): Promise<void> {
  const { admit, rank, plan, observe, ...rest } = readSchedulerPlugin(subject.plugin, "under test");
  const written = new Set<string>();
  const watch = <T>(hook: string, { view, call }: { readonly view: object; readonly call: () => T }): T => {
    const before = JSON.stringify(view);
    const answer = call();
    if (JSON.stringify(view) !== before) written.add(hook);
    return answer;
  };
  const watched: SchedulerPlugin = {
    ...rest,
    ...(admit && {
      admit: (state, request, instance) =>
        watch("admit", { view: [request, instance], call: () => admit(state, request, instance) }),
    }),
    ...(rank && { rank: (state, queue, out) => watch("rank", { view: queue, call: () => rank(state, queue, out) }) }),
    ...(plan && { plan: (state, step, out) => watch("plan", { view: step, call: () => plan(state, step, out) }) }),
    ...(observe && {
      observe: (state, events) => watch("observe", { view: events, call: () => observe(state, events) }),
    }),
  };
  await fuzz({ ...subject, plugin: watched, rounds: Math.min(subject.rounds, 40) }, (host, { fuzzer, nowMs }) => {
    host.admit(fuzzer.request(), fuzzer.instance());
    host.rank(fuzzer.queue(nowMs));
    host.plan(fuzzer.step(nowMs));
    host.observe(fuzzer.events(nowMs));
  });
  if (written.size > 0) {
    throw new Error(`Cannot share views with the policy: it writes into what it reads in ${[...written].join(", ")}`);
  }
}
