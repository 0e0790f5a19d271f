import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { clusterOptions, publicUrl } from "./cluster_settings.ts";
import { readCommandLine } from "./command_line.ts";
import type { Settings } from "./flags.ts";
import { resolveSettings } from "./settings.ts";
import { UsageError } from "./usage_error.ts";

async function settle(...args: string[]): Promise<Settings> {
  const line = readCommandLine(args);
  assert(line.kind === "run");
  return await resolveSettings({ ...line, env: () => undefined });
}

async function refused(args: readonly string[], message: string): Promise<void> {
  await assertRejects(() => settle(...args), UsageError, message);
}

async function withKey(bytes: string, use: (path: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    const path = join(directory, "cluster.key");
    await Deno.writeTextFile(path, bytes);
    await use(path);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function testdata(name: string): string {
  return fileURLToPath(new URL(`../../scheduler/links/testdata/${name}.pem`, import.meta.url));
}

const TLS = ["--cluster-tls-cert", testdata("cluster.cert")]
  .concat("--cluster-tls-key", testdata("cluster.key"), "--cluster-tls-ca", testdata("cluster.ca"));

Deno.test("clusterOptions() leaves an instance alone without --join and --cluster-listen", async () => {
  assertEquals(await clusterOptions(await settle("serve")), undefined);
});

Deno.test("clusterOptions() takes flags over and listens on loopback by default", async () => {
  const joined = await clusterOptions(await settle("serve", "--join", "http://127.0.0.1:7600/"));
  assertEquals([joined?.join, joined?.host, joined?.port, joined?.role], [
    ["http://127.0.0.1:7600"],
    "127.0.0.1",
    0,
    "full",
  ]);
  const flags = ["--name", "a.b_c-1", "--role", "holder", "--lend-share", "0.25", "--gentle-fill", "2.5"];
  const policy = ["--memory-policy", "builtin:spread", "--memory-policy-opt", "x=1"];
  const started = await clusterOptions(await settle("serve", "--cluster-listen", "[::1]:7600", ...flags, ...policy));
  assertEquals(started, {
    name: "a.b_c-1",
    role: "holder",
    join: [],
    host: "::1",
    port: 7600,
    advertise: undefined,
    key: undefined,
    tls: undefined,
    memoryPolicy: "builtin:spread",
    memoryPolicyOptions: { x: 1 },
    lendShare: 0.25,
    timings: { newcomerMs: 2500 },
  });
  const manager = await clusterOptions(await settle("gmanager", "--listen", "localhost:0"));
  assertEquals([manager?.host, manager?.port], ["localhost", 0]);
});

Deno.test("clusterOptions() reads the key without line ends behind it and refuses short ones", async () => {
  const read = async (path: string) => {
    const listen = ["--cluster-listen", "0.0.0.0:7600", "--advertise", "http://10.0.0.1:7600"];
    return await clusterOptions(await settle("serve", ...listen, "--cluster-key-file", path));
  };
  const key = "k".repeat(32);
  await withKey(`${key}\r\n`, async (path) => {
    assertEquals((await read(path))?.key, new TextEncoder().encode(key));
  });
  await withKey(`${"k".repeat(31)}\n`, async (path) => {
    await assertRejects(() => read(path), TypeError, "wanted 32 to 4096 bytes, found 31");
    await assertRejects(() => read(`${path}.none`), TypeError, "found nothing");
    await assertRejects(() => read(join(path, "..")), TypeError, "found a directory");
  });
  await withKey("canary".repeat(1000), async (path) => {
    const { message } = await assertRejects(() => read(path), TypeError, "found 6000");
    assert(!message.includes("canary"));
  });
});

Deno.test("checkClusterFlags() refuses addresses beyond this machine with neither key nor TLS", async () => {
  const needs = "beyond this machine members need --cluster-key-file or --cluster-tls-cert";
  await refused(["serve", "--join", "http://10.0.0.1:7600"], `Cannot use --join http://10.0.0.1:7600: ${needs}`);
  await refused(["serve", "--cluster-listen", "10.0.0.1:7600"], `Cannot use --cluster-listen 10.0.0.1:7600: ${needs}`);
  const advertised = ["--advertise", "http://host:7600"];
  await refused(["serve", "--cluster-listen", "127.0.0.1:0", ...advertised], `Cannot use --advertise`);
  await refused(["serve", "--cluster-listen", "0.0.0.0:0"], "nobody can connect to it, wanted --advertise besides it");
  await refused(["gmanager", "--listen", "10.0.0.1:7600"], `Cannot use --listen 10.0.0.1:7600: ${needs}`);
  await refused(["cluster", "--instances", "2", "--cluster-listen", "10.0.0.1:1"], needs);
  const keyed = await settle("serve", "--join", "http://10.0.0.1:7600", "--cluster-key-file", "never read here");
  assertEquals(keyed.join, ["http://10.0.0.1:7600"]);
});

Deno.test("clusterOptions() reads the files of TLS and checks them against the address that others are told", async () => {
  for (const start of [["serve", "--cluster-listen"], ["gmanager", "--listen"]]) {
    const options = await clusterOptions(await settle(...start, "127.0.0.1:0", ...TLS));
    assertEquals(options?.tls?.cert, await Deno.readTextFile(testdata("cluster.cert")));
    assertEquals(structuredClone(options), options);
    const wide = [...start, "0.0.0.0:0", "--advertise", "https://localhost:7600/", ...TLS];
    assertEquals((await clusterOptions(await settle(...wide)))?.advertise, "https://localhost:7600");
  }
  const elsewhere = await settle("serve", "--cluster-listen", "10.0.0.1:7600", ...TLS);
  await assertRejects(() => clusterOptions(elsewhere), UsageError, "wanted a certificate for 10.0.0.1");
  const advertised = await settle("serve", "--cluster-listen", "127.0.0.1:0", "--advertise", "https://a:1", ...TLS);
  await assertRejects(() => clusterOptions(advertised), UsageError, "wanted a certificate for a,");
});

Deno.test("checkClusterFlags() wants all files of TLS, or none", async () => {
  const wanted = "wanted --cluster-tls-cert, --cluster-tls-key and --cluster-tls-ca, got only";
  const listen = ["--cluster-listen", "127.0.0.1:0"];
  await refused(["serve", ...listen, "--cluster-tls-ca", "c"], `Cannot link over TLS: ${wanted} --cluster-tls-ca`);
  const two = ["--cluster-tls-cert", "c", "--cluster-tls-key", "k"];
  await refused(["cluster", "--instances", "2", ...two], `${wanted} --cluster-tls-cert and --cluster-tls-key`);
  await refused(["gmanager", "--listen", "127.0.0.1:0", ...two], wanted);
});

Deno.test("checkClusterFlags() wants https with TLS, http without, and no key besides TLS", async () => {
  const listen = ["serve", "--cluster-listen", "10.0.0.1:7600"];
  const urls = ["--advertise", "https://10.0.0.1:7600", "--join", "https://10.0.0.2:7600"];
  assertEquals((await settle(...listen, ...urls, ...TLS)).join, ["https://10.0.0.2:7600"]);
  assertEquals((await settle(...listen, ...urls, ...TLS, "--cluster-key-file", "k")).clusterKeyFile, "k");
  const http = 'wanted https://HOST:PORT with --cluster-tls-cert, got "http://10.0.0.1:7600"';
  await refused([...listen, "--join", "http://10.0.0.1:7600", ...TLS], `Cannot use --join: ${http}`);
  await refused([...listen, "--advertise", "http://10.0.0.1:7600", ...TLS], `Cannot use --advertise: ${http}`);
  await refused(["serve", "--join", "10.0.0.1:7600", ...TLS], 'wanted https://HOST:PORT, got "10.0.0.1:7600"');
  const https = 'Cannot use --join: wanted http://HOST:PORT without --cluster-tls-cert, got "https://10.0.0.1:7600"';
  await refused(["serve", "--join", "https://10.0.0.1:7600"], https);
});

Deno.test("checkClusterFlags() names the form that it wants", async () => {
  const cases: [string[], string][] = [
    [["--join", "10.0.0.1:7600"], 'Cannot use --join: wanted http://HOST:PORT, got "10.0.0.1:7600"'],
    [["--join", "https://127.0.0.1:7600"], "wanted http://HOST:PORT"],
    [["--join", "http://127.0.0.1"], "wanted http://HOST:PORT"],
    [["--cluster-listen", "7600"], 'Cannot use --cluster-listen: wanted HOST:PORT, got "7600"'],
    [
      ["--cluster-listen", "127.0.0.1:0", "--advertise", "me"],
      'Cannot use --advertise: wanted http://HOST:PORT, got "me"',
    ],
    [["--cluster-listen", "127.0.0.1:0", "--name", "Big One"], "Cannot use --name: wanted 1 to 64 of a-z 0-9 . _ -"],
    [["--cluster-listen", "127.0.0.1:0", "--name", "x".repeat(65)], "Cannot use --name"],
  ];
  for (const [args, message] of cases) await refused(["serve", ...args], message);
});

Deno.test("checkClusterFlags() refuses flags of members without a cluster, and what a holder cannot use", async () => {
  const lonely = [
    ["--role", "holder"],
    ["--name", "x"],
    ["--advertise", "http://127.0.0.1:1"],
    ["--cluster-key-file", "k"],
    ["--cluster-tls-cert", "c"],
    ["--cluster-tls-key", "k"],
    ["--cluster-tls-ca", "a"],
    ["--memory-policy", "builtin:spread"],
    ["--memory-policy-opt", "a=1"],
    ["--lend-share", "0"],
    ["--gentle-fill", "0"],
  ];
  for (const args of lonely) await refused(["serve", ...args], `Cannot use ${args[0]}`);
  await refused(
    ["serve", "--join", "http://127.0.0.1:1", "--role", "holder", "--kv-tokens", "8"],
    "Cannot size a holder",
  );
  await refused(["cluster"], "Cannot start a cluster: wanted --instances N");
  await refused(["gmanager"], "Cannot start a gManager: wanted --listen HOST:PORT");
  assertEquals((await settle("ps")).url, "http://127.0.0.1:8080");
});

Deno.test("publicUrl() puts a name that can be reached in the place of one that stands for all", () => {
  const none = { advertise: undefined };
  assertEquals(publicUrl("http://127.0.0.1:8080", none), "http://127.0.0.1:8080");
  assertEquals(publicUrl("http://0.0.0.0:8080", none), "http://127.0.0.1:8080");
  assertEquals(publicUrl("https://[::]:8080", none), "https://[::1]:8080");
  assertEquals(publicUrl("https://0.0.0.0:8080", { advertise: "http://10.0.0.1:7600" }), "https://10.0.0.1:8080");
  assertEquals(publicUrl("http://0.0.0.0:8080", { advertise: "https://10.0.0.1:7600" }), "http://10.0.0.1:8080");
});
