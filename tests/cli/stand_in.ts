/**
 * Stands in for an instance of a pool: the server of a holder over a made-up cluster that knows the name it was given.
 * It fails to start when its name is in `STAND_IN_FAILS`, and does not end when asked when it is in `STAND_IN_DEAF`.
 *
 * @module
 */
import { announcementLine } from "../../runtime/cli/announcement.ts";
import { readCommandLine } from "../../runtime/cli/command_line.ts";
import { resolveSettings } from "../../runtime/cli/settings.ts";
import { FakeCluster, SAMPLE_REPORT } from "../../runtime/server/fakes/cluster.ts";
import { createLogger } from "../../runtime/server/logger.ts";
import { startHolderServer } from "../../runtime/server/server.ts";

const line = readCommandLine(Deno.args);
if (line.kind !== "run") throw new TypeError(`Cannot stand in: wanted serve, got ${Deno.args}`);
const { name = "", role, join } = await resolveSettings({ ...line, env: () => undefined });
const named = (variable: string) => Deno.env.get(variable)?.split(",").includes(name) === true;
console.error(`joins ${join.length}`);
if (named("STAND_IN_FAILS")) {
  console.error("infinite-llm: Cannot start: no memory");
  Deno.exit(1);
}
const members = SAMPLE_REPORT.members.map((member, at) => ({ ...member, id: at === 0 ? name : member.id }));
const cluster = new FakeCluster({ from: name, members });
const server = await startHolderServer({
  holder: Promise.resolve({ cluster }),
  port: 0,
  logger: createLogger({ level: "silent" }),
});
Deno.addSignalListener("SIGINT", () => {});
console.log(announcementLine({ url: server.url, name, role, clusterUrl: "http://127.0.0.1:1" }));
for await (const _ of Deno.stdin.readable);
console.error(`${name} is asked to stop`);
if (!named("STAND_IN_DEAF")) Deno.exit(0);
