import { assert, assertEquals, assertMatch, assertNotEquals, assertThrows } from "@std/assert";
import { buildSyntheticDirectory, writeDirectory } from "../../tests/synthetic/synthetic_directory.ts";
import { buildSyntheticGguf } from "../../tests/synthetic/synthetic_gguf.ts";
import { writeGguf } from "../../tests/synthetic/gguf_writer.ts";
import { ModelFileError } from "../weights/model_file_error.ts";
import { openModel } from "./open_model.ts";

function withFolder(use: (path: string) => void): void {
  const path = Deno.makeTempDirSync();
  try {
    use(path);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

function digestOf(path: string): string {
  using model = openModel(path);
  return model.digest;
}

Deno.test("openModel() opens a GGUF file under its stem and closes it", () => {
  withFolder((folder) => {
    Deno.writeFileSync(`${folder}/tiny.Q8_0.gguf`, buildSyntheticGguf({ dtype: "Q8_0" }));
    const model = openModel(`${folder}/tiny.Q8_0.gguf`);
    assertEquals(model.name, "tiny.Q8_0");
    assertMatch(model.digest, /^[0-9a-f]{64}$/);
    assertEquals(model.config.family, "llama");
    const { weights } = model;
    const bytes = [weights.embedding, weights.outputNorm, ...weights.layers.flatMap((layer) => Object.values(layer))];
    assertEquals(model.weightBytes, bytes.reduce((sum, tensor) => sum + tensor.bytes, 0));
    weights.embedding.readInto(new Uint8Array(34), 0);
    model[Symbol.dispose]();
    model[Symbol.dispose]();
    assertThrows(() => weights.embedding.readInto(new Uint8Array(34), 0), ReferenceError, "closed");
  });
});

Deno.test("openModel() opens a directory of each family under its name", () => {
  for (const modelType of ["llama", "mistral"]) {
    withFolder((folder) => {
      writeDirectory(folder, buildSyntheticDirectory({}, { modelType }));
      using model = openModel(folder);
      assertEquals(model.name, folder.split("/").at(-1));
      assertEquals(model.config.family, modelType);
      assertEquals(model.text.eos.includes(2), true);
    });
  }
});

Deno.test("openModel() keeps two models apart in one process", () => {
  withFolder((folder) => {
    Deno.writeFileSync(`${folder}/a.gguf`, buildSyntheticGguf({ seed: 1 }));
    Deno.writeFileSync(`${folder}/b.gguf`, buildSyntheticGguf({ seed: 2 }));
    const first = openModel(`${folder}/a.gguf`);
    using second = openModel(`${folder}/b.gguf`);
    first[Symbol.dispose]();
    const bytes = new Uint8Array(16);
    second.weights.embedding.readInto(bytes, 0);
    assert(bytes.some((byte) => byte !== 0));
  });
});

Deno.test("openModel() gives one digest to equal files and others to files that differ", () => {
  withFolder((folder) => {
    const bytes = buildSyntheticGguf({ seed: 1 });
    Deno.writeFileSync(`${folder}/a.gguf`, bytes);
    Deno.writeFileSync(`${folder}/b.gguf`, bytes);
    assertEquals(digestOf(`${folder}/a.gguf`), digestOf(`${folder}/b.gguf`));
    const changed = bytes.slice();
    changed[changed.length - 100] ^= 1;
    Deno.writeFileSync(`${folder}/b.gguf`, changed);
    assertNotEquals(digestOf(`${folder}/a.gguf`), digestOf(`${folder}/b.gguf`));
    Deno.writeFileSync(`${folder}/b.gguf`, buildSyntheticGguf({ seed: 1, theta: 20_000 }));
    assertNotEquals(digestOf(`${folder}/a.gguf`), digestOf(`${folder}/b.gguf`));
  });
});

const string = (value: string) => ({ type: "string", value } as const);
const BROKEN: readonly (readonly [string, Uint8Array, string])[] = [
  ["a file that is no model", new TextEncoder().encode("hello, world"), 'magic must be "GGUF", got "hell"'],
  [
    "a file without an architecture",
    writeGguf({ metadata: [], tensors: [] }),
    "general.architecture must be one of llama, mistral",
  ],
  [
    "another architecture",
    writeGguf({ metadata: [["general.architecture", string("bert")]], tensors: [] }),
    'must be one of llama, mistral, got "bert"',
  ],
  [
    "one part of several",
    writeGguf({
      metadata: [["general.architecture", string("llama")], ["split.count", { type: "u16", value: 3 }]],
      tensors: [],
    }),
    "split.count must be 1, got 3",
  ],
];
for (const [name, bytes, message] of BROKEN) {
  Deno.test(`openModel() refuses ${name}`, () => {
    withFolder((folder) => {
      Deno.writeFileSync(`${folder}/x.gguf`, bytes);
      assertThrows(() => openModel(`${folder}/x.gguf`), ModelFileError, message);
    });
  });
}

Deno.test("openModel() refuses a path that is not there and a directory without a model", () => {
  withFolder((folder) => {
    assertThrows(() => openModel(`${folder}/absent.gguf`), ModelFileError, "must be a .gguf file or a model directory");
    assertThrows(() => openModel(folder), ModelFileError, "config.json is missing");
    Deno.writeTextFileSync(`${folder}/config.json`, '{"model_type": "gpt2"}');
    assertThrows(() => openModel(folder), ModelFileError, "weights are missing");
    writeDirectory(folder, buildSyntheticDirectory({}, { modelType: "qwen3" }));
    assertThrows(() => openModel(folder), ModelFileError, 'model_type must be one of llama, mistral, got "qwen3"');
  });
});

Deno.test("openModel() checks the tokenizer when it is asked for", () => {
  withFolder((folder) => {
    writeDirectory(folder, buildSyntheticDirectory({}));
    Deno.writeTextFileSync(`${folder}/tokenizer.json`, "{");
    using model = openModel(folder);
    assertThrows(() => model.text, ModelFileError, "tokenizer.json must be JSON");
  });
});
