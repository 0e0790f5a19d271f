import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { readClusterTls } from "./read_cluster_tls.ts";
import { UsageError } from "./usage_error.ts";

function testdata(name: string): string {
  return fileURLToPath(new URL(`../../scheduler/links/testdata/${name}.pem`, import.meta.url));
}

/** Flags that name test files. */
function files(cert: string, key: string, ca: string) {
  const path = (name: string) => name.includes(".") && !name.includes("/") ? testdata(name) : name;
  return { clusterTlsCert: path(cert), clusterTlsKey: path(key), clusterTlsCa: path(ca) };
}

/** A directory whose files hold these texts. */
async function withFiles(
  texts: Readonly<Record<string, string>>,
  use: (path: (name: string) => string) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    for (const [name, text] of Object.entries(texts)) await Deno.writeTextFile(join(directory, name), text);
    await use((name) => join(directory, name));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function refused(flags: ReturnType<typeof files>, says: readonly string[], host?: string): Promise<void> {
  const { message } = await assertRejects(() => readClusterTls(flags, { host }), UsageError);
  for (const part of says) assert(message.includes(part), message);
  assert(!message.includes("\n") && !message.includes("-----"), message);
}

Deno.test("readClusterTls() gives what it has read, which can be copied between threads", async () => {
  const read = (name: string) => Deno.readTextFileSync(testdata(name));
  const tls = await readClusterTls(files("cluster.cert", "cluster.key", "cluster.ca"), { host: "127.0.0.1" });
  assertEquals(tls, {
    cert: read("cluster.cert"),
    key: read("cluster.key").trimEnd(),
    ca: read("cluster.ca"),
  });
  assertEquals(structuredClone(tls), tls);
  const none = { clusterTlsCert: undefined, clusterTlsKey: undefined, clusterTlsCa: undefined };
  assertEquals(await readClusterTls(none), undefined);
});

Deno.test("readClusterTls() takes a chain, and one file that holds everything, for what the flag names", async () => {
  const read = (name: string) => Deno.readTextFileSync(testdata(name));
  const chain = await readClusterTls(files("chain.cert", "chain.key", "chain.ca"));
  assertEquals(chain?.cert.match(/BEGIN CERTIFICATE/g)?.length, 2);
  const all = `notes\n${read("cluster.key")}${read("cluster.cert")}`;
  await withFiles({ all, ca: `${read("cluster.ca")}\n${read("foreign.ca")}` }, async (path) => {
    const tls = await readClusterTls(files(path("all"), path("all"), path("ca")));
    assertEquals([tls?.cert, tls?.key], [read("cluster.cert"), read("cluster.key").trimEnd()]);
    assertEquals(tls?.ca, read("cluster.ca") + read("foreign.ca"));
  });
});

Deno.test("readClusterTls() says which file holds something else than it should", async () => {
  const [cert, key, ca] = ["cluster.cert", "cluster.key", "cluster.ca"];
  await refused(files(key, key, ca), ["--cluster-tls-cert ", "wanted a certificate (PEM), found PRIVATE KEY"]);
  await refused(files(cert, cert, ca), ["--cluster-tls-key ", "wanted a private key (PEM)", "found CERTIFICATE"]);
  await refused(files(cert, key, key), ["--cluster-tls-ca ", "wanted a certificate (PEM), found PRIVATE KEY"]);
  await refused(files(cert, key, cert), [
    "--cluster-tls-ca ",
    'wanted certificates of an authority, found "CN=cluster test member", which is none',
  ]);
  await refused(files(ca, key, ca), [
    "--cluster-tls-cert ",
    'wanted the member\'s own certificate first, found "CN=cluster test authority", one of an authority',
  ]);
  await refused(files("chain.cert", "locked.key", "chain.ca"), ["--cluster-tls-key ", "found one with a password"]);
  const read = (name: string) => Deno.readTextFileSync(testdata(name));
  const damaged = { cert: read(cert).replace(/M/, ""), key: read(key).replace(/M/, "") };
  await withFiles({ ...damaged, empty: "\n", other: "canary".repeat(20) }, async (path) => {
    await refused(files(path("cert"), key, ca), ["--cluster-tls-cert ", "found a damaged one"]);
    await refused(files(cert, path("key"), ca), ["--cluster-tls-key ", "found a damaged one"]);
    await refused(files(cert, key, path("empty")), ["--cluster-tls-ca ", "found an empty file"]);
    await refused(files(cert, path("other"), ca), ["--cluster-tls-key ", "found something else"]);
    const { message } = await assertRejects(() => readClusterTls(files(path("none"), key, ca)), TypeError);
    assert(message.includes("Cannot use --cluster-tls-cert ") && message.endsWith("found nothing"), message);
  });
});

Deno.test("readClusterTls() says what does not fit together", async () => {
  await refused(files("cluster.cert", "foreign.key", "cluster.ca"), [
    "--cluster-tls-key ",
    'wanted the key of "CN=cluster test member" in ',
    "found the key of another certificate",
  ]);
  await refused(files("cluster.cert", "cluster.key", "foreign.ca"), [
    "--cluster-tls-cert ",
    "wanted a certificate that an authority in ",
    'found "CN=cluster test member", signed by "CN=cluster test authority"',
  ]);
  const [leaf] = Deno.readTextFileSync(testdata("chain.cert")).split(/(?<=-----END CERTIFICATE-----\n)/);
  await withFiles({ leaf }, async (path) => {
    await refused(files(path("leaf"), "chain.key", "chain.ca"), ['signed by "CN=chain test office"']);
  });
  await refused(files("expired.cert", "chain.key", "chain.ca"), [
    'wanted a certificate that is valid now, found "CN=expired test member", valid from ',
    "2021",
  ]);
  await refused(
    files("cluster.cert", "cluster.key", "cluster.ca"),
    [
      "wanted a certificate for 10.0.0.1, where others reach this member",
      "found one for DNS:localhost, IP Address:127",
    ],
    "10.0.0.1",
  );
});
