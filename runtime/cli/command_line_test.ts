import { assert, assertEquals, assertThrows } from "@std/assert";
import { type CommandLine, readCommandLine } from "./command_line.ts";
import { UsageError } from "./usage_error.ts";

const COMMANDS = "serve, run, cluster, cluster status, gmanager, ps, move, evacuate, pin, leave, pull, list, remove, " +
  "doctor, plugin check, bench";

function given(...args: string[]): Record<string, unknown> {
  const line: CommandLine = readCommandLine(args);
  assert(line.kind === "run");
  return Object.fromEntries(line.given);
}

function refused(args: readonly string[], message: string): UsageError {
  return assertThrows(() => readCommandLine(args), UsageError, message);
}

Deno.test("readCommandLine() reads flags before and after words", () => {
  assertEquals(readCommandLine(["serve", "--port", "0", "m.gguf", "--offline", "--kv-memory=1GiB"]), {
    kind: "run",
    command: "serve",
    words: ["m.gguf"],
    given: new Map<never, unknown>(Object.entries({ port: 0, offline: true, kvMemory: 2 ** 30 }) as [never, unknown][]),
  });
  assertEquals(readCommandLine(["plugin", "check", "--", "--odd.ts"]), {
    kind: "run",
    command: "plugin check",
    words: ["--odd.ts"],
    given: new Map(),
  });
});

Deno.test("readCommandLine() joins flags that may be given several times and refuses others", () => {
  assertEquals(given("serve", "--cors-origin", "https://a", "--cors-origin=https://b").corsOrigin, [
    "https://a",
    "https://b",
  ]);
  assertEquals(given("serve", "--scheduler-opt", "a=1", "--scheduler-opt", "b=x").schedulerOpt, { a: 1, b: "x" });
  assertEquals(given("serve", "--offline=false"), { offline: false });
  refused(["serve", "--port", "1", "--port", "2"], "Cannot use --port: wanted it once, got it again");
  refused(["serve", "--offline", "--offline"], "Cannot use --offline: wanted it once, got it again");
});

Deno.test("readCommandLine() names what is near to an unknown command or flag", () => {
  refused(["srve"], "Cannot run srve: there is no such command, did you mean serve?");
  refused(["frobnicate"], `wanted one of ${COMMANDS}`);
  refused(["serve", "--prot", "1"], "Cannot run serve: there is no flag --prot, did you mean --port?");
  refused(["pull", "--port", "1"], "Cannot run pull: there is no flag --port");
  refused(["serve", "-port", "1"], "there is no flag -port, did you mean --port?");
  refused(["--port", "1"], `wanted a command (${COMMANDS}) before --port`);
  refused(["plugin", "chek"], 'Cannot run plugin: wanted "plugin check", got "chek"');
});

Deno.test("readCommandLine() tells a command from one that has a second word", () => {
  const read = (...args: string[]) => {
    const line = readCommandLine(args);
    assert(line.kind === "run");
    return line.command;
  };
  assertEquals(read("cluster", "--instances", "2"), "cluster");
  assertEquals(read("cluster", "status", "--json"), "cluster status");
  assertEquals(readCommandLine(["cluster", "status", "--help"]), { kind: "help", command: "cluster status" });
  refused(["cluster", "stats"], 'wanted nothing besides flags, got "stats", did you mean cluster status?');
  refused(["status"], "Cannot run status: there is no such command");
});

Deno.test("readCommandLine() reads the flags of clusters", () => {
  assertEquals(given("serve", "--join", "http://a:1", "--join=http://b:2", "--role", "holder", "--lend-share", "0.5"), {
    join: ["http://a:1", "http://b:2"],
    role: "holder",
    lendShare: 0.5,
  });
  assertEquals(given("serve", "--memory-policy", "./mine.ts", "--memory-policy-opt", "depth=2"), {
    memoryPolicy: "./mine.ts",
    memoryPolicyOpt: { depth: 2 },
  });
  assertEquals(given("move", "a/1", "--segments", "2", "--to", "b"), { segments: 2, to: "b" });
  refused(["serve", "--lend-share", "1.5"], 'Cannot use --lend-share: wanted a number from 0 to 1, got "1.5"');
  refused(["serve", "--role", "manager"], 'wanted one of full, holder, got "manager"');
  refused(["cluster", "--instances", "0"], 'Cannot use --instances: wanted a whole number from 1 to 64, got "0"');
  refused(["cluster", "--instances", "2", "--join", "http://a:1"], "Cannot run cluster: there is no flag --join");
  refused(["move", "--segments", "1"], "Cannot run move: wanted one word besides flags, got none");
});

Deno.test("readCommandLine() names the flag, what it takes and what came", () => {
  refused(["serve", "--port", "abc"], 'Cannot use --port: wanted a whole number from 0 to 65535, got "abc"');
  refused(["serve", "--port"], "Cannot use --port: wanted N, got nothing");
  refused(["serve", "--device", "wsam"], 'wanted one of auto, cuda, wasm (wasm?), got "wsam"');
  refused(["serve", "--model="], 'Cannot use --model: wanted some text, got ""');
});

Deno.test("readCommandLine() refuses secrets and never shows them", () => {
  for (
    const args of [["--api-key", "canary"], ["--cluster-key", "canary"], ["--api-key=canary"], ["--hf-token=canary"], [
      "--api-kye=canary",
    ]]
  ) {
    const { message } = refused(["serve", ...args], "Cannot ");
    assert(!message.includes("canary"), message);
  }
  refused(["serve", "--api-key=x"], "everybody who lists processes would see the secret, put it in a file");
});

Deno.test("readCommandLine() counts words", () => {
  refused(["remove"], "Cannot run remove: wanted one word besides flags, got none");
  refused(["pull", "a", "b"], 'Cannot run pull: wanted at most one word besides flags, got "a", "b"');
  refused(["list", "a"], 'Cannot run list: wanted nothing besides flags, got "a"');
});

Deno.test("readCommandLine() finds help and version, and passes on what follows bench", () => {
  for (const args of [[], ["--help"], ["-h"], ["help"]]) assertEquals(readCommandLine(args), { kind: "help" });
  assertEquals(readCommandLine(["serve", "--prot", "--help"]), { kind: "help", command: "serve" });
  assertEquals(readCommandLine(["plugin", "check", "-h"]), { kind: "help", command: "plugin check" });
  assertEquals(readCommandLine(["--version"]), { kind: "version" });
  assertEquals(readCommandLine(["bench", "--only", "x"]), { kind: "pass", command: "bench", args: ["--only", "x"] });
});
