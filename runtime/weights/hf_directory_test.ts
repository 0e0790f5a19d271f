import { assertEquals, assertThrows } from "@std/assert";
import { buildSyntheticDirectory, writeDirectory } from "../../tests/synthetic/synthetic_directory.ts";
import { type SafetensorsTensor, writeSafetensors } from "../../tests/synthetic/safetensors_writer.ts";
import { HfDirectory } from "./hf_directory.ts";
import { ModelFileError } from "./model_file_error.ts";

type Files = Record<string, Uint8Array | string>;

function withDirectory(files: Files, use: (path: string) => void): void {
  const path = Deno.makeTempDirSync();
  try {
    for (const [name, content] of Object.entries(files)) {
      if (typeof content === "string") Deno.writeTextFileSync(`${path}/${name}`, content);
      else Deno.writeFileSync(`${path}/${name}`, content);
    }
    use(path);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

function shard(...names: string[]): Uint8Array {
  const tensors = names.map((name): SafetensorsTensor => ({ name, dtype: "F32", shape: [1], data: new Uint8Array(4) }));
  return writeSafetensors(tensors);
}

function index(weightMap: unknown): string {
  return JSON.stringify({ metadata: {}, weight_map: weightMap });
}

const INDEX = "model.safetensors.index.json";
const CONFIG: Files = { "config.json": "{}" };

Deno.test("HfDirectory joins the tensors of several files and closes them", () => {
  const path = Deno.makeTempDirSync();
  try {
    writeDirectory(path, buildSyntheticDirectory({}, { shards: 3 }));
    const directory = new HfDirectory(path);
    assertEquals(directory.shards.length, 3);
    assertEquals(directory.tensors.size, 2 * 9 + 2);
    assertEquals(directory.config.number("hidden_size"), 64);
    assertEquals(directory.json("absent.json"), undefined);
    assertEquals(directory.text("absent.jinja"), undefined);
    const tensor = directory.tensors.get("model.norm.weight");
    tensor?.readInto(new Uint8Array(tensor.bytes), 0);
    directory[Symbol.dispose]();
    directory[Symbol.dispose]();
    assertThrows(() => tensor?.readInto(new Uint8Array(1), 0), ReferenceError, "closed");
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
});

Deno.test("HfDirectory takes model.safetensors, or the only weight file", () => {
  withDirectory({ ...CONFIG, "model.safetensors": shard("a"), "consolidated.safetensors": shard("b") }, (path) => {
    using directory = new HfDirectory(path);
    assertEquals([...directory.tensors.keys()], ["a"]);
  });
  withDirectory({ ...CONFIG, "weights.safetensors": shard("a") }, (path) => {
    using directory = new HfDirectory(path);
    assertEquals([...directory.tensors.keys()], ["a"]);
  });
});

const BROKEN: readonly (readonly [string, Files, string])[] = [
  ["no configuration", { "model.safetensors": shard("a") }, "config.json is missing"],
  ["a configuration that is not JSON", { "config.json": "{" }, "config.json must be JSON"],
  ["no weights", CONFIG, "weights are missing"],
  [
    "several weight files without an index",
    { ...CONFIG, "a.safetensors": shard("a"), "b.safetensors": shard("b") },
    "2 .safetensors files without",
  ],
  [
    "damaged weights",
    { ...CONFIG, "model.safetensors": new Uint8Array(4) },
    "model.safetensors: header length needs 8 bytes",
  ],
  ["an index without a map", { ...CONFIG, [INDEX]: "{}" }, "weight_map must be an object"],
  [
    "an index of a file in the parent",
    { ...CONFIG, [INDEX]: index({ a: "../a.safetensors" }) },
    "weight_map.a must name a .safetensors file of the same directory",
  ],
  ["an index of a file below", { ...CONFIG, [INDEX]: index({ a: "x/a.safetensors" }) }, "of the same directory"],
  [
    "an index of a file below, backwards",
    { ...CONFIG, [INDEX]: index({ a: "..\\a.safetensors" }) },
    "of the same directory",
  ],
  ["an index of an absolute path", { ...CONFIG, [INDEX]: index({ a: "/etc/a.safetensors" }) }, "of the same directory"],
  ["an index of another kind of file", { ...CONFIG, [INDEX]: index({ a: "config.json" }) }, "of the same directory"],
  ["an index of a number", { ...CONFIG, [INDEX]: index({ a: 1 }) }, "got 1"],
  ["a missing weight file", { ...CONFIG, [INDEX]: index({ a: "a.safetensors" }) }, "a.safetensors cannot be opened"],
  [
    "one tensor in two files",
    {
      ...CONFIG,
      "a.safetensors": shard("a", "b"),
      "b.safetensors": shard("b"),
      [INDEX]: index({ a: "a.safetensors", b: "a.safetensors", c: "b.safetensors" }),
    },
    'tensor "b" is in a.safetensors and in b.safetensors',
  ],
  [
    "a tensor in another file than the index says",
    {
      ...CONFIG,
      "a.safetensors": shard("a"),
      "b.safetensors": shard("b"),
      [INDEX]: index({ a: "b.safetensors", b: "a.safetensors" }),
    },
    'tensor "a" is in a.safetensors, model.safetensors.index.json says b.safetensors',
  ],
  [
    "a tensor that the index lacks",
    { ...CONFIG, "a.safetensors": shard("a", "b"), [INDEX]: index({ a: "a.safetensors" }) },
    "says nothing of it",
  ],
  [
    "a tensor that its file lacks",
    { ...CONFIG, "a.safetensors": shard("a"), [INDEX]: index({ a: "a.safetensors", b: "a.safetensors" }) },
    'tensor "b" is not in a.safetensors',
  ],
];
for (const [name, files, message] of BROKEN) {
  Deno.test(`HfDirectory refuses ${name}`, () => {
    withDirectory(files, (path) => {
      assertThrows(() => new HfDirectory(path), ModelFileError, message);
    });
  });
}

Deno.test("HfDirectory refuses an index that names thousands of files", () => {
  const map = Object.fromEntries(Array.from({ length: 1025 }, (_, file) => [`t${file}`, `${file}.safetensors`]));
  withDirectory({ ...CONFIG, [INDEX]: index(map) }, (path) => {
    assertThrows(() => new HfDirectory(path), ModelFileError, "must name at most 1024 files, got 1025");
  });
});

Deno.test("HfDirectory refuses a JSON file above its limit without reading it", () => {
  withDirectory({ "config.json": "{}" }, (path) => {
    Deno.truncateSync(`${path}/config.json`, 64 * 2 ** 20 + 1);
    assertThrows(() => new HfDirectory(path), ModelFileError, "must have at most 67108864 bytes, it has 67108865");
  });
});
