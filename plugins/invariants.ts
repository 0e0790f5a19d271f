/**
 * What every scheduler policy must do, as checks over seeded random views and toy runs.
 *
 * @module
 */
import { SeededRandom, ViewFuzzer } from "./fuzz.ts";
import { readSchedulerPlugin } from "./handshake.ts";
import { SchedulerHost } from "./host.ts";
import {
  handshakeInvariant,
  InputWatch,
  type InvariantSubject,
  openStrict,
  type PolicyInvariant,
  requireEqual,
  type StrictHost,
} from "./invariant.ts";
import { ToyEngine, type ToyRun } from "./toy_engine.ts";
import type { SchedulerPlugin } from "./types.ts";

type Subject = InvariantSubject<SchedulerPlugin>;

function openHost(subject: Subject, clock: { readonly ms: number }): Promise<StrictHost<SchedulerHost>> {
  return openStrict(subject, {
    clock,
    open: (plugin, options) => SchedulerHost.open(plugin, { ...options, starvationMs: Infinity }),
  });
}

/** Calls a hook of the host with random views and stops at the first fault. */
async function fuzz(
  subject: Subject,
  call: (host: SchedulerHost, views: { readonly fuzzer: ViewFuzzer; readonly nowMs: number }) => void,
): Promise<void> {
  const clock = { ms: 1000 };
  const random = new SeededRandom(subject.seed);
  const fuzzer = new ViewFuzzer(random);
  const { host, throwFault } = await openHost(subject, clock);
  using _ = host;
  for (let round = 0; round < subject.rounds; round++) {
    clock.ms += random.pick([0, 0.25, 20, 100_000]);
    call(host, { fuzzer, nowMs: clock.ms });
    throwFault();
  }
}

async function openToy(
  subject: Subject,
  seed: number,
): Promise<{ readonly engine: ToyEngine } & Disposable> {
  const clock = { ms: 0 };
  const { host, throwFault } = await openHost({ ...subject, seed }, clock);
  const engine = new ToyEngine(host, { clock, random: new SeededRandom(seed), requests: 40, afterStep: throwFault });
  return { engine, [Symbol.dispose]: () => host[Symbol.dispose]() };
}

async function toyRun(subject: Subject, seed: number): Promise<ToyRun> {
  using toy = await openToy(subject, seed);
  return toy.engine.run();
}

/** The checks, in the order they are run. */
export const SCHEDULER_INVARIANTS: readonly PolicyInvariant<SchedulerPlugin>[] = [
  handshakeInvariant("scheduler", readSchedulerPlugin),
  {
    name: "create",
    says: "accepts its options and creates its state at once",
    async check(subject) {
      (await openHost(subject, { ms: 0 })).host[Symbol.dispose]();
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
    name: "score",
    says: "writes a finite score for each member of any cluster that runs requests",
    check: (subject) =>
      fuzz(subject, (host, { fuzzer }) => {
        const cluster = fuzzer.cluster();
        const { name, full } = cluster.members;
        host.route(fuzzer.request(), cluster, [...name.keys()].filter((i) => full[i] === 1));
      }),
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

async function checkInputs(subject: Subject): Promise<void> {
  const { admit, rank, plan, score, observe, ...rest } = readSchedulerPlugin(subject.plugin, "under test");
  const watch = new InputWatch();
  const watched: SchedulerPlugin = {
    ...rest,
    ...(admit && {
      admit: (state, request, instance) =>
        watch.run("admit", { view: [request, instance], call: () => admit(state, request, instance) }),
    }),
    ...(rank && {
      rank: (state, queue, out) => watch.run("rank", { view: queue, call: () => rank(state, queue, out) }),
    }),
    ...(plan && { plan: (state, step, out) => watch.run("plan", { view: step, call: () => plan(state, step, out) }) }),
    ...(score && {
      score: (state, request, cluster, out) =>
        watch.run("score", { view: [request, cluster], call: () => score(state, request, cluster, out) }),
    }),
    ...(observe && {
      observe: (state, events) => watch.run("observe", { view: events, call: () => observe(state, events) }),
    }),
  };
  await fuzz({ ...subject, plugin: watched, rounds: Math.min(subject.rounds, 40) }, (host, { fuzzer, nowMs }) => {
    host.admit(fuzzer.request(), fuzzer.instance());
    host.rank(fuzzer.queue(nowMs));
    host.plan(fuzzer.step(nowMs));
    host.route(fuzzer.request(), fuzzer.cluster(), [0]);
    host.observe(fuzzer.events(nowMs));
  });
  watch.throwWritten();
}
