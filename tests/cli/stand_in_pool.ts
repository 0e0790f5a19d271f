/**
 * The `cluster` command with stand-ins as its children.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { readCommandLine } from "../../runtime/cli/command_line.ts";
import { runPool } from "../../runtime/cli/commands/cluster.ts";
import { resolveSettings } from "../../runtime/cli/settings.ts";

const STAND_IN = fileURLToPath(new URL("./stand_in.ts", import.meta.url));

const line = readCommandLine(["cluster", ...Deno.args]);
if (line.kind !== "run") throw new TypeError(`Cannot run a pool: wanted flags of cluster, got ${Deno.args}`);
const settings = await resolveSettings({ ...line, env: () => undefined });
Deno.exit(
  await runPool({ settings }, {
    spawn: (args) =>
      new Deno.Command(Deno.execPath(), {
        args: ["run", "--quiet", "--no-prompt", "--cached-only", "-A", STAND_IN, ...args],
        stdin: "piped",
        stdout: "piped",
        stderr: "piped",
      }).spawn(),
  }),
);
