/**
 * What every memory policy must do, as checks over seeded random views.
 *
 * @module
 */
import { SeededRandom, ViewFuzzer } from "./fuzz.ts";
import { readMemoryPlugin } from "./handshake.ts";
import {
  handshakeInvariant,
  InputWatch,
  type InvariantSubject,
  openStrict,
  type PolicyInvariant,
  requireEqual,
  type StrictHost,
} from "./invariant.ts";
import { MemoryHost } from "./memory_host.ts";
import type { MemoryPlugin } from "./types.ts";

type Subject = InvariantSubject<MemoryPlugin>;

/** Asks one policy about random views on a clock that advances with each round. */
class Interview implements Disposable {
  readonly #fuzzer: ViewFuzzer;
  readonly #random: SeededRandom;
  readonly #clock: { ms: number };
  readonly #strict: StrictHost<MemoryHost>;
  /** Every answer so far. */
  readonly answers: string[] = [];

  constructor(seed: number, { clock, strict }: {
    readonly clock: { ms: number };
    readonly strict: StrictHost<MemoryHost>;
  }) {
    this.#random = new SeededRandom(seed);
    this.#fuzzer = new ViewFuzzer(this.#random);
    this.#clock = clock;
    this.#strict = strict;
  }

  static async open(subject: Subject, seed: number = subject.seed): Promise<Interview> {
    const clock = { ms: 1000 };
    const strict = await openStrict({ ...subject, seed }, { clock, open: MemoryHost.open });
    return new Interview(seed, { clock, strict });
  }

  /** Asks once. @throws {Error} when the answer is refused. */
  ask(hook: "place" | "move" | "evict"): void {
    const { host, throwFault } = this.#strict;
    this.#clock.ms += this.#random.pick([0, 0.25, 20, 100_000]);
    const cluster = this.#fuzzer.cluster();
    switch (hook) {
      case "place":
        this.answers.push(JSON.stringify(host.place(this.#fuzzer.placement(cluster), cluster)));
        break;
      case "move":
        this.answers.push(JSON.stringify(host.move({ ...cluster, self: -1 })));
        break;
      case "evict":
        this.answers.push(JSON.stringify(host.evict(this.#fuzzer.eviction())));
        break;
      default:
        hook satisfies never;
    }
    throwFault();
  }

  /** Asks about everything once. */
  askAll(): void {
    this.ask("place");
    this.ask("move");
    this.ask("evict");
  }

  [Symbol.dispose](): void {
    this.#strict.host[Symbol.dispose]();
  }
}

async function interview(subject: Subject, ask: (interview: Interview) => void): Promise<readonly string[]> {
  using opened = await Interview.open(subject);
  for (let round = 0; round < subject.rounds; round++) ask(opened);
  return opened.answers;
}

/** The checks, in the order they are run. */
export const MEMORY_INVARIANTS: readonly PolicyInvariant<MemoryPlugin>[] = [
  handshakeInvariant("memory", readMemoryPlugin),
  {
    name: "create",
    says: "accepts its options and creates its state at once",
    async check(subject) {
      (await Interview.open(subject))[Symbol.dispose]();
    },
  },
  {
    name: "place",
    says: "places all segments or none, on usable members and within what they lend",
    check: async (subject) => void await interview(subject, (opened) => opened.ask("place")),
  },
  {
    name: "move",
    says: "moves only what lies there, to usable members with room, and nothing in circles",
    check: async (subject) => void await interview(subject, (opened) => opened.ask("move")),
  },
  {
    name: "evict",
    says: "writes a finite number for each candidate",
    check: async (subject) => void await interview(subject, (opened) => opened.ask("evict")),
  },
  { name: "inputs", says: "does not write into what it reads", check: checkInputs },
  {
    name: "replay",
    says: "decides the same for the same views, clock and random numbers",
    async check(subject) {
      const first = await interview(subject, (opened) => opened.askAll());
      const second = await interview(subject, (opened) => opened.askAll());
      requireEqual(second, first, "Cannot replay the run");
    },
  },
  {
    name: "isolation",
    says: "keeps everything in its state, so that two hosts do not disturb each other",
    async check(subject) {
      const alone = await interview(subject, (opened) => opened.askAll());
      using one = await Interview.open(subject);
      using other = await Interview.open(subject, subject.seed + 1);
      for (let round = 0; round < subject.rounds; round++) {
        one.askAll();
        other.askAll();
      }
      requireEqual(one.answers, alone, "Cannot run beside a second host");
    },
  },
];

async function checkInputs(subject: Subject): Promise<void> {
  const { place, move, evict, ...rest } = readMemoryPlugin(subject.plugin, "under test");
  const watch = new InputWatch();
  const plugin: MemoryPlugin = {
    ...rest,
    ...(place && {
      place: (state, request, cluster, out) =>
        watch.run("place", { view: [request, cluster], call: () => place(state, request, cluster, out) }),
    }),
    ...(move && {
      move: (state, cluster, out) => watch.run("move", { view: cluster, call: () => move(state, cluster, out) }),
    }),
    ...(evict && {
      evict: (state, view, out) => watch.run("evict", { view, call: () => evict(state, view, out) }),
    }),
  };
  await interview({ ...subject, plugin, rounds: Math.min(subject.rounds, 40) }, (opened) => opened.askAll());
  watch.throwWritten();
}
