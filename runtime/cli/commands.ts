/**
 * Every command: its name and what help texts say about it.
 *
 * @module
 */

/** What is known about a command without running it. */
export interface CommandSpec {
  /** What follows its name. */
  readonly usage: string;
  /** What it does, a sentence without a full stop. */
  readonly summary: string;
  /** Words behind its name besides flags: at least and at most so many, no more than one where they are counted. */
  readonly words: readonly [min: number, max: number];
  /** More about it, below its flags. */
  readonly notes?: string;
}

/** The table. */
export const COMMANDS = {
  serve: {
    usage: "[MODEL] [flags]",
    summary: "Serve a model over HTTP with an OpenAI-compatible API",
    words: [0, 1],
  },
  run: {
    usage: "[MODEL] [flags]",
    summary: "Chat with a model in the terminal",
    words: [0, 1],
    notes: "Lines from standard input are messages. /help lists the commands of the chat, Ctrl-C stops an answer.",
  },
  cluster: {
    usage: "--instances N [--holders M] [flags]",
    summary: "Serve a model with a whole cluster on this machine",
    words: [0, 0],
    notes: "The first instance has the public address; the others listen on free ports of this machine. An instance " +
      "that ends is shown and not started again.",
  },
  "cluster status": {
    usage: "[flags]",
    summary: "Show a running cluster: members, leases, moves and sequences",
    words: [0, 0],
  },
  gmanager: {
    usage: "--listen HOST:PORT [flags]",
    summary: "Run the manager of a cluster by itself",
    words: [0, 0],
    notes: "Not needed where the first member carries it.",
  },
  ps: { usage: "[flags]", summary: "List members and sequences of a running cluster", words: [0, 0] },
  move: {
    usage: "SEQUENCE --segments N --to MEMBER [flags]",
    summary: "Move a part of a sequence's KV to another member",
    words: [1, 1],
  },
  evacuate: {
    usage: "MEMBER [flags]",
    summary: "Take what others have there off a member, and lend nothing to it or from it",
    words: [1, 1],
  },
  pin: { usage: "SEQUENCE [flags]", summary: "Keep a sequence's KV where it is", words: [1, 1] },
  leave: {
    usage: "MEMBER [flags]",
    summary: "Let a member give back, hand over and end",
    words: [1, 1],
  },
  pull: {
    usage: "[MODEL] [flags]",
    summary: "Fetch a model into the cache, or check one that is there",
    words: [0, 1],
  },
  list: { usage: "[flags]", summary: "List the models in the cache", words: [0, 0] },
  remove: { usage: "MODEL [flags]", summary: "Remove a model from the cache", words: [1, 1] },
  doctor: {
    usage: "[flags]",
    summary: "Show what this machine can compute with: GPUs, driver, libraries, compiled kernels, free memory",
    words: [0, 0],
  },
  "plugin check": {
    usage: "FILE [flags]",
    summary: "Run every check of the scheduler interface on a policy",
    words: [1, 1],
    notes: "The file runs with all rights of this program.",
  },
  bench: {
    usage: "[arguments]",
    summary: "Measure this machine and compare with other engines",
    words: [0, Infinity],
    notes: "Its arguments go to bench/main.ts of the repository.",
  },
} as const satisfies Readonly<Record<string, CommandSpec>>;

/** Name of a command. */
export type CommandName = keyof typeof COMMANDS;

/** Commands by name, seen without their exact types. */
export const COMMAND_SPECS: ReadonlyMap<CommandName, CommandSpec> = new Map(
  Object.entries(COMMANDS) as [CommandName, CommandSpec][],
);
