/**
 * Help texts, made of the tables of commands and flags.
 *
 * @module
 */
import { COMMAND_SPECS, type CommandName } from "./commands.ts";
import { FLAG_SPECS, type FlagKey, flagName, flagsOf, type FlagSpec, flagVariable } from "./flags.ts";

const WIDTH = 100;
const FLAG_COLUMN = 30;

/** Help on everything, or on one command. */
export function helpText(command?: CommandName): string {
  const lines = command === undefined ? overview() : commandHelp(command);
  return lines.join("\n");
}

/** What a flag is when it is not given, for example `default 8080`; empty when it is simply off. */
export function defaultText(key: FlagKey): string {
  const flag = FLAG_SPECS.get(key);
  if (flag === undefined) return "";
  if (flag.otherwise !== undefined) return `default: ${flag.otherwise}`;
  const value: unknown = flag.default;
  return typeof value === "string" || typeof value === "number" ? `default: ${value}` : "";
}

function choicesOf({ choices, numbered }: Extract<FlagSpec, { readonly kind: "choice" }>): string {
  return choices.map((choice) => choice === numbered ? `${choice}[:N]` : choice).join("|");
}

/** A flag with what follows it: `--port N`. */
export function flagUsage(key: FlagKey): string {
  const flag = FLAG_SPECS.get(key);
  if (flag === undefined || flag.kind === "switch") return `--${flagName(key)}`;
  return `--${flagName(key)} ${flag.kind === "choice" ? choicesOf(flag) : flag.value ?? "VALUE"}`;
}

function overview(): string[] {
  const commands = [...COMMAND_SPECS].map(([name, { summary }]) => `  ${name.padEnd(16)}${summary}`);
  return [
    "Usage: infinite-llm COMMAND [flags]",
    "",
    ...commands,
    "",
    "infinite-llm COMMAND --help says more, infinite-llm --version tells the version.",
  ];
}

function commandHelp(command: CommandName): string[] {
  const spec = COMMAND_SPECS.get(command);
  const flags = flagsOf(command);
  return [
    `Usage: infinite-llm ${command} ${spec?.usage ?? ""}`,
    "",
    spec?.summary ?? "",
    ...flags.length === 0 ? [] : ["", ...flags.flatMap(flagLines), "", ...ENVIRONMENT],
    ...spec?.notes === undefined ? [] : ["", spec.notes],
  ];
}

const ENVIRONMENT = [
  "Every flag can be set by an environment variable too (--kv-memory: INFINITE_LLM_KV_MEMORY) or in the",
  "file that --config names. The command line goes first, then the environment, then the file.",
];

function flagLines(key: FlagKey): string[] {
  const flag = FLAG_SPECS.get(key);
  const own = flag?.env === undefined ? "" : `${flagVariable(key)}`;
  const extra = [defaultText(key), own].filter((text) => text !== "").join("; ");
  const text = `${flag?.help}${extra === "" ? "" : ` (${extra})`}`;
  const usage = `  ${flagUsage(key)}`;
  const wrapped = wrap(text, WIDTH - FLAG_COLUMN).map((line) => " ".repeat(FLAG_COLUMN) + line);
  return usage.length + 2 > FLAG_COLUMN
    ? [usage, ...wrapped]
    : [usage.padEnd(FLAG_COLUMN) + wrapped[0].trimStart(), ...wrapped.slice(1)];
}

/** Cuts text at spaces into lines of at most `width` characters. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
