/**
 * The command line: reads it, runs the command, and turns what goes wrong into one line and an exit status.
 *
 * @module
 */
import type { DeviceLostError } from "../device/device_lost_error.ts";
import { readCommandLine } from "./command_line.ts";
import type { CommandName } from "./commands.ts";
import type { Settings } from "./flags.ts";
import { UsageError } from "./usage_error.ts";

/** What a command gets. */
export interface CommandInput {
  /** Values of all flags. */
  readonly settings: Settings;
  /** Words that are no flags. */
  readonly words: readonly string[];
  /** Reads an environment variable; undefined too where that is not permitted. */
  readonly env: (name: string) => string | undefined;
}

/** Exit status of a process whose GPU can do nothing more in it. */
export const DEVICE_LOST_STATUS = 4;

/** Runs a command. Gives the exit status. */
export type Command = (input: CommandInput) => Promise<number>;

/** What the program around the command line provides. */
export interface Host {
  /** Version of the program. */
  readonly version: string;
  /** Runs the benchmark suite with its own arguments. */
  readonly bench: (args: string[]) => Promise<number>;
}

/**
 * Runs a command line. Gives the exit status: 0 when all went well, 1 when something failed, 2 when the command line is
 * wrong. Modules of commands are loaded when they are needed, so help needs no permission.
 */
export async function main(args: readonly string[], host: Host): Promise<number> {
  const debug = args.includes("--debug") || /^(1|true|yes|on)$/i.test(readVariable("INFINITE_LLM_DEBUG") ?? "");
  const report = (error: unknown) => {
    console.error(`infinite-llm: ${oneLine(error)}`);
    if (debug && error instanceof Error) console.error(error.stack);
  };
  globalThis.addEventListener("error", (event) => {
    event.preventDefault();
    report(event.error);
    Deno.exit(statusOf(event.error));
  });
  try {
    const line = readCommandLine(args);
    switch (line.kind) {
      case "help":
        console.log((await import("./help.ts")).helpText(line.command));
        return 0;
      case "version":
        console.log(`infinite-llm ${host.version}`);
        return 0;
      case "pass":
        return await host.bench([...line.args]);
      case "run": {
        const { resolveSettings } = await import("./settings.ts");
        const settings = await resolveSettings({ ...line, env: readVariable });
        const command = await loadCommand(line.command);
        // A server logs such promises and serves on, where it can.
        const serves = line.command === "serve" || line.command === "cluster";
        endOnRejection(report, (error) => !serves || statusOf(error) === DEVICE_LOST_STATUS);
        return await command({ settings, words: line.words, env: readVariable });
      }
    }
  } catch (error) {
    report(error);
    return error instanceof UsageError ? 2 : 1;
  }
}

async function loadCommand(name: Exclude<CommandName, "bench">): Promise<Command> {
  switch (name) {
    case "serve":
      return (await import("./commands/serve.ts")).serve;
    case "run":
      return (await import("./commands/run.ts")).run;
    case "cluster":
      return (await import("./commands/cluster.ts")).cluster;
    case "cluster status":
      return (await import("./commands/cluster_status.ts")).clusterStatus;
    case "gmanager":
      return (await import("./commands/gmanager.ts")).gmanager;
    case "ps":
      return (await import("./commands/ps.ts")).ps;
    case "move":
    case "evacuate":
    case "pin":
    case "leave":
      return (await import("./commands/steer.ts")).steer(name);
    case "pull":
      return (await import("./commands/pull.ts")).pull;
    case "list":
      return (await import("./commands/list.ts")).list;
    case "remove":
      return (await import("./commands/remove.ts")).remove;
    case "doctor":
      return (await import("./commands/doctor.ts")).doctor;
    case "plugin check":
      return (await import("./commands/plugin_check.ts")).pluginCheck;
  }
}

/** Ends the process when a promise is rejected that nobody waits for, with an error that ends it. */
function endOnRejection(report: (error: unknown) => void, ends: (error: unknown) => boolean): void {
  globalThis.addEventListener("unhandledrejection", (event) => {
    if (!ends(event.reason)) return;
    event.preventDefault();
    report(event.reason);
    Deno.exit(statusOf(event.reason));
  });
}

/** Exit status of a process that ends by an error nobody waited for. */
function statusOf(error: unknown): number {
  const lost: DeviceLostError["name"] = "DeviceLostError";
  return error instanceof Error && error.name === lost ? DEVICE_LOST_STATUS : 1;
}

/** An environment variable; asking for the permission to read it would stop scripts and need it for help. */
function readVariable(variable: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  return state === "granted" ? Deno.env.get(variable) : undefined;
}

/** The message of an error on one line. */
export function oneLine(error: unknown): string {
  const message = error instanceof Error ? error.message || error.name : String(error);
  return message.replace(/\s*[\r\n]+\s*/g, " ").trim();
}
