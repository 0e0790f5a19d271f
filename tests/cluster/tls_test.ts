import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fileURLToPath } from "node:url";
import { makeModelDirectory, runCli } from "../cli/cli_process.ts";
import { ClusterProcesses } from "./cluster_processes.ts";
import { pause } from "./deadline.ts";

/** Most time an answer may take: the processors are shared with whatever else runs. */
const ANSWER_MS = 60_000;

/** The tiny model says of itself that it is shorter. */
const LONG = ["--max-model-len", "4096"];

function testdata(name: string): string {
  return fileURLToPath(new URL(`../../scheduler/links/testdata/${name}.pem`, import.meta.url));
}

/** The flags of a member of `authority`, which trusts those in the file `ca`. */
function tls(authority: string, ca: string = testdata(`${authority}.ca`)): string[] {
  const own = ["--cluster-tls-cert", testdata(`${authority}.cert`), "--cluster-tls-key", testdata(`${authority}.key`)];
  return [...own, "--cluster-tls-ca", ca];
}

Deno.test("Members over TLS answer a prompt that fits neither, and as one large instance does", async () => {
  await using model = await makeModelDirectory();
  await using processes = new ClusterProcesses(model.model);
  const first = await processes.start({ name: "first", kvTokens: 512, flags: [...tls("cluster"), ...LONG] });
  assertMatch(first.where.clusterUrl, /^https:\/\/127\.0\.0\.1:\d+$/);
  const attic = await processes.start({ name: "attic", role: "holder", join: [first], flags: tls("cluster") });
  await processes.settled(ANSWER_MS, [first, attic]);
  await processes.reaches(first, { tokens: 1000, ms: ANSWER_MS });
  const question = { prompt: Array.from({ length: 900 }, (_, at) => 3 + at % 100), maxTokens: 8 };
  const large = await processes.start({ name: "large", kvTokens: 2048, flags: LONG });
  const answer = await first.ask(question, { timeoutMs: ANSWER_MS });
  assertEquals(answer, await large.ask(question, { timeoutMs: ANSWER_MS }));
});

Deno.test("A member over TLS links with nobody of another authority, with no TLS, or with another key", async () => {
  await using model = await makeModelDirectory();
  const path = (name: string) => `${model.path}/${name}`;
  const both = await Promise.all(["cluster.ca", "foreign.ca"].map((name) => Deno.readTextFile(testdata(name))));
  await Deno.writeTextFile(path("both.pem"), both.join(""));
  for (const name of ["key", "another-key"]) await Deno.writeTextFile(path(name), name.repeat(20));
  await using processes = new ClusterProcesses(model.model);
  const settings = { role: "holder", kvMemory: "4MiB" } as const;
  const flags = [...tls("cluster"), "--cluster-key-file", path("key")];
  const first = await processes.start({ ...settings, name: "first", flags });
  const { clusterUrl } = first.where;
  const plainUrl = clusterUrl.replace("https:", "http:");
  const cases = [
    {
      name: "foreign",
      flags: ["--join", clusterUrl, ...tls("foreign")],
      says: /Cannot reach https:\S+ [^\n]*certificate/,
    },
    // It trusts this cluster, but the cluster does not trust it.
    {
      name: "uninvited",
      flags: ["--join", clusterUrl, ...tls("foreign", path("both.pem")), "--cluster-key-file", path("key")],
      says: /may not take this member's certificate/,
    },
    { name: "plain", flags: ["--join", plainUrl, "--cluster-key-file", path("key")], says: /Cannot reach http:/ },
    {
      name: "stranger",
      flags: ["--join", clusterUrl, ...tls("cluster"), "--cluster-key-file", path("another-key")],
      says: /key/,
    },
  ];
  await Promise.all(cases.map(async ({ says, ...rest }) => {
    const member = await processes.start({ ...settings, ...rest });
    const [said] = await member.logged(says);
    const line = (await member.close()).errors.split("\n").find((text) => text.includes(said)) ?? "";
    assertStringIncludes(line, "Cannot ");
  }));
  // Beats would have shown a member that got in.
  await pause(1000);
  assertEquals((await first.report()).members.map(({ id }) => id), ["first"]);
});

Deno.test("cli.ts says at the start what is wrong with the certificates of a cluster", async () => {
  const listen = ["serve", "--role", "holder", "--cluster-listen", "127.0.0.1:0", "--port", "0"];
  const cases: [string[], string][] = [
    [[...listen, ...tls("cluster", testdata("foreign.ca"))], "wanted a certificate that an authority in "],
    [["cluster", "--instances", "2", ...tls("cluster", testdata("cluster.key"))], "found PRIVATE KEY"],
    [["gmanager", "--listen", "10.0.0.1:0", ...tls("cluster")], "wanted a certificate for 10.0.0.1"],
  ];
  await Promise.all(cases.map(async ([args, says]) => {
    const { status, output, errors } = await runCli(args);
    assertEquals([status, output], [2, ""], errors);
    assertStringIncludes(errors, says);
  }));
});
