/**
 * Reads the words of a command line.
 *
 * @module
 */
import { COMMAND_SPECS, type CommandName } from "./commands.ts";
import { FLAG_SPECS, type FlagKey, flagName, flagsOf, type FlagSpec } from "./flags.ts";
import { readText } from "./flag_value.ts";
import { suggestion } from "./nearest.ts";
import { UsageError } from "./usage_error.ts";

/** What a command line asks for. */
export type CommandLine =
  | { readonly kind: "help"; readonly command?: CommandName }
  | { readonly kind: "version" }
  | { readonly kind: "pass"; readonly command: "bench"; readonly args: readonly string[] }
  | {
    readonly kind: "run";
    readonly command: Exclude<CommandName, "bench">;
    /** Words that are no flags. */
    readonly words: readonly string[];
    /** Values of the flags that were given. */
    readonly given: ReadonlyMap<FlagKey, unknown>;
  };

/** Flags that would show a secret to everybody who lists the processes, and what to use instead. */
const SECRETS: ReadonlyMap<string, string> = new Map([
  ["cluster-key", "put it in a file and name that with --cluster-key-file"],
  ["api-key", "put it in a file and name that with --api-key-file"],
  ["hf-token", "set HF_TOKEN"],
  ["token", "set HF_TOKEN"],
]);

/**
 * Reads `args`.
 *
 * @throws {UsageError} when a command or flag is unknown, a value is not what the flag takes, or words are missing.
 */
export function readCommandLine(args: readonly string[]): CommandLine {
  const [first, second] = args;
  if (first === undefined || first === "help" || first === "--help" || first === "-h") return { kind: "help" };
  if (first === "--version" || first === "-V") return { kind: "version" };
  const command = readCommand(first, second);
  const rest = args.slice(command.split(" ").length);
  if (rest.includes("--help") || rest.includes("-h")) return { kind: "help", command };
  return command === "bench" ? { kind: "pass", command, args: rest } : readRest(command, rest);
}

function readCommand(first: string, second: string | undefined): CommandName {
  const names = [...COMMAND_SPECS.keys()];
  const found = names.find((name) => name === `${first} ${second}`) ?? names.find((name) => name === first);
  if (found !== undefined) return found;
  const longer = names.find((name) => name.startsWith(`${first} `));
  if (longer !== undefined) {
    throw new UsageError(
      `Cannot run ${first}: wanted "${longer}", got ${second === undefined ? "no more" : `"${second}"`}`,
    );
  }
  throw new UsageError(
    first.startsWith("-")
      ? `Cannot read the command line: wanted a command (${names.join(", ")}) before ${withoutValue(first)}`
      : `Cannot run ${first}: there is no such command${
        suggestion(first, names) || `, wanted one of ${names.join(", ")}`
      }`,
  );
}

function readRest(command: Exclude<CommandName, "bench">, rest: readonly string[]): CommandLine {
  const keys = new Map(flagsOf(command).map((key) => [flagName(key), key]));
  const words: string[] = [];
  const given = new Map<FlagKey, unknown>();
  for (let at = 0; at < rest.length; at++) {
    const word = rest[at];
    if (word === "--") {
      words.push(...rest.slice(at + 1));
      break;
    }
    if (!word.startsWith("-") || word === "-") {
      words.push(word);
      continue;
    }
    const equals = word.indexOf("=");
    const name = word.slice(0, equals < 0 ? undefined : equals).replace(/^--?/, "");
    const key = word.startsWith("--") ? keys.get(name) : undefined;
    const flag = key && FLAG_SPECS.get(key);
    if (key === undefined || flag === undefined) throw unknownFlag(command, { word, name, names: keys.keys() });
    let text: string | undefined = equals < 0 ? undefined : word.slice(equals + 1);
    if (text === undefined && flag.kind !== "switch") text = rest[++at];
    // A switch stands for itself.
    given.set(
      key,
      joined(flag, { name, text: text ?? (flag.kind === "switch" ? "true" : undefined), before: given.get(key) }),
    );
  }
  const [min, max] = COMMAND_SPECS.get(command)?.words ?? [0, 0];
  if (words.length < min || words.length > max) {
    const wanted = max === 0 ? "nothing" : `${min === max ? "" : "at most "}one word`;
    const longer = [...COMMAND_SPECS.keys()].filter((name) => name.startsWith(`${command} `));
    throw new UsageError(
      `Cannot run ${command}: wanted ${wanted} besides flags, got ` +
        (words.length === 0 ? "none" : words.map((word) => JSON.stringify(word)).join(", ")) +
        suggestion(`${command} ${words[0]}`, longer),
    );
  }
  return { kind: "run", command, words, given };
}

/** The value of an occurrence, added to those before it where the flag may be given several times. */
function joined(
  flag: FlagSpec,
  { name, text, before }: { readonly name: string; readonly text: string | undefined; readonly before: unknown },
): unknown {
  const repeatable = flag.kind === "list" || flag.kind === "pairs";
  if (before !== undefined && !repeatable) throw new UsageError(`Cannot use --${name}: wanted it once, got it again`);
  if (text === undefined) throw new UsageError(`Cannot use --${name}: wanted ${flag.value ?? "a value"}, got nothing`);
  const read = readText(flag, text);
  if ("wanted" in read) {
    throw new UsageError(`Cannot use --${name}: wanted ${read.wanted}, got ${JSON.stringify(text)}`);
  }
  if (Array.isArray(before) && Array.isArray(read.value)) return [...before, ...read.value];
  return flag.kind === "pairs" ? { ...Object(before), ...Object(read.value) } : read.value;
}

function unknownFlag(
  command: CommandName,
  { word, name, names }: { readonly word: string; readonly name: string; readonly names: Iterable<string> },
): UsageError {
  const advice = SECRETS.get(name);
  if (advice !== undefined) {
    return new UsageError(`Cannot use --${name}: everybody who lists processes would see the secret, ${advice}`);
  }
  const dashed = [...names].map((known) => `--${known}`);
  return new UsageError(
    `Cannot run ${command}: there is no flag ${withoutValue(word)}${suggestion(`--${name}`, dashed)}`,
  );
}

/** A flag without its value, which may be a secret under a mistyped name. */
function withoutValue(word: string): string {
  return word.split("=")[0];
}
