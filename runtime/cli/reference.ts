/**
 * The reference page of the command line, `docs/cli.md`, made of the tables of commands and flags:
 *
 *     deno run runtime/cli/reference.ts > docs/cli.md
 *
 * @module
 */
import { COMMAND_SPECS, type CommandName } from "./commands.ts";
import { FLAG_SPECS, type FlagKey, flagsOf, flagVariable } from "./flags.ts";
import { defaultText, flagUsage, wrap } from "./help.ts";

/** Width to which `deno fmt` wraps prose. */
const WIDTH = 120;

const INTRODUCTION = `# The command line

    deno run -A cli.ts COMMAND [flags]

\`--help\` behind a command shows its flags, \`--version\` the version; both need no permission.

Every flag can be given in three places. The command line goes first, then the environment, then the file:

- on the command line, as \`--kv-memory 1GiB\` or \`--kv-memory=1GiB\`; switches as \`--offline\` or \`--offline=false\`;
- as an environment variable, \`INFINITE_LLM_KV_MEMORY=1GiB\`; lists are separated by commas, empty variables count as
  unset;
- in the JSON file that \`--config\` names, as \`{"kv-memory": "1GiB", "cors-origin": ["https://app.example"]}\`.

Relative paths start from the working directory. Secrets are read from files (\`--api-key-file\`, \`--tls-key\`) or from the
environment (\`HF_TOKEN\`), never from the command line, which everybody on the machine can read.

The exit status is 0 when all went well, 1 when something failed, 2 when the command line is wrong, 4 when a GPU failed
so that only another process can use it again, and 130 or 143 when a second Ctrl-C or SIGTERM ended a server that was
finishing its requests. An error is one line; \`--debug\` adds where it comes from.`;

/** The page. */
export function cliReference(): string {
  const sections = [...COMMAND_SPECS.keys()].map(commandSection);
  return `${[INTRODUCTION, ...sections].join("\n\n")}\n`;
}

function commandSection(command: CommandName): string {
  const spec = COMMAND_SPECS.get(command);
  const flags = flagsOf(command).map(flagItem);
  return [
    `## ${command}`,
    `    ${command} ${spec?.usage}`,
    ...wrap(`${spec?.summary}.${spec?.notes === undefined ? "" : ` ${spec.notes}`}`, WIDTH),
    ...flags.length === 0 ? [] : [flags.join("\n")],
  ].join("\n\n");
}

function flagItem(key: FlagKey): string {
  const variable = FLAG_SPECS.get(key)?.env === undefined ? "" : `\`${flagVariable(key)}\``;
  const extra = [defaultText(key), variable].filter((text) => text !== "").join("; ");
  const help = FLAG_SPECS.get(key)?.help.replaceAll("*", "\\*");
  // Spaces inside a code span do not break a line.
  const usage = `\`${flagUsage(key)}\``.replaceAll(" ", "\0");
  const lines = wrap(`${usage}: ${help}${extra === "" ? "" : ` (${extra})`}.`, WIDTH - 2);
  return lines.map((line, index) => `${index === 0 ? "- " : "  "}${line}`).join("\n").replaceAll("\0", " ");
}

if (import.meta.main) Deno.stdout.writeSync(new TextEncoder().encode(cliReference()));
