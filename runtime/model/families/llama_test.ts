import { assert, assertEquals, assertThrows } from "@std/assert";
import { type GgufContents, type GgufEntry, type GgufTensor, writeGguf } from "../../../tests/synthetic/gguf_writer.ts";
import { buildSyntheticDirectory, writeDirectory } from "../../../tests/synthetic/synthetic_directory.ts";
import { buildSyntheticGguf } from "../../../tests/synthetic/synthetic_gguf.ts";
import type { SyntheticSpec } from "../../../tests/synthetic/spec.ts";
import { MemorySource } from "../../weights/byte_source.ts";
import { readValues } from "../../weights/f32_vector.ts";
import { GgufFile } from "../../weights/gguf.ts";
import { HfDirectory } from "../../weights/hf_directory.ts";
import { ModelFileError } from "../../weights/model_file_error.ts";
import type { Decoder } from "../family.ts";
import { LLAMA } from "./llama.ts";
import { MISTRAL } from "./mistral.ts";

const TINY: SyntheticSpec = { layers: 1, hidden: 8, heads: 2, kvHeads: 1, headDim: 4, intermediate: 6 };

const u32 = (value: number): GgufEntry => ({ type: "u32", value });
const f32 = (value: number): GgufEntry => ({ type: "f32", value });

/** The tiny model with metadata changed (undefined removes a key) and tensors rewritten. */
function fromGguf(
  changes: Readonly<Record<string, GgufEntry | undefined>>,
  rewrite: (tensors: GgufTensor[]) => GgufTensor[] = (tensors) => tensors,
): Decoder {
  const original = new GgufFile(new MemorySource(buildSyntheticGguf(TINY)));
  const sizes = ["block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"];
  const kept: Record<string, GgufEntry | undefined> = {};
  for (
    const key of [...sizes, "attention.head_count_kv", "attention.key_length", "rope.dimension_count", "vocab_size"]
  ) {
    kept[`llama.${key}`] = u32(original.number(`llama.${key}`) ?? 0);
  }
  kept["llama.attention.layer_norm_rms_epsilon"] = f32(1e-5);
  const metadata = Object.entries({ ...kept, ...changes }).flatMap(
    ([key, entry]): GgufContents["metadata"] => entry === undefined ? [] : [[key, entry]],
  );
  const tensors = [...original.tensors.values()].map((tensor): GgufTensor => {
    const data = new Uint8Array(tensor.bytes);
    tensor.readInto(data, 0);
    return { name: tensor.name, dimensions: tensor.shape.toReversed(), type: 0, data };
  });
  return LLAMA.fromGguf(new GgufFile(new MemorySource(writeGguf({ metadata, tensors: rewrite(tensors) }), "t.gguf")));
}

function fromDirectory(
  changes: Readonly<Record<string, unknown>>,
  { family = LLAMA, spec = TINY }: { readonly family?: typeof LLAMA; readonly spec?: SyntheticSpec } = {},
): Decoder {
  const files = buildSyntheticDirectory(spec);
  const config = { ...JSON.parse(new TextDecoder().decode(files.get("config.json"))), ...changes };
  files.set("config.json", new TextEncoder().encode(JSON.stringify(config)));
  const path = Deno.makeTempDirSync();
  try {
    writeDirectory(path, files);
    using directory = new HfDirectory(path);
    return family.fromHuggingFace(directory);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

Deno.test("LLAMA.fromGguf() reads sizes and defaults", () => {
  const { config, weights } = fromGguf({
    "llama.attention.key_length": undefined,
    "llama.rope.dimension_count": undefined,
    "llama.vocab_size": undefined,
  });
  assertEquals([config.layers, config.hidden, config.heads, config.kvHeads, config.headDim], [1, 8, 2, 1, 4]);
  assertEquals(config.vocab, weights.embedding.rows);
  assertEquals([...config.rope.inverseFrequencies], [1, 0.01]);
  assertEquals(weights.head, weights.embedding);
});

Deno.test("LLAMA.fromGguf() takes sizes that are stated once per layer", () => {
  const array: GgufEntry = { type: "array", of: "i32", value: [1] };
  assertEquals(fromGguf({ "llama.attention.head_count_kv": array }).config.kvHeads, 1);
  const uneven: GgufEntry = { type: "array", of: "i32", value: [1, 2] };
  assertThrows(() => fromGguf({ "llama.attention.head_count_kv": uneven }), ModelFileError, "the same for all layers");
});

Deno.test("LLAMA.fromGguf() reads the oldest spelling of linear scaling", () => {
  const { rope } = fromGguf({ "llama.rope.scale_linear": f32(4) }).config;
  assertEquals([...rope.inverseFrequencies], [0.25, 0.0025]);
  assertEquals([...fromGguf({ "llama.rope.scaling.factor": f32(0) }).config.rope.inverseFrequencies], [1, 0.01]);
});

const rename = (from: string, to: string) => (tensors: GgufTensor[]) =>
  tensors.map((tensor) => tensor.name === from ? { ...tensor, name: to } : tensor);
const reshape = (name: string, dimensions: number[]) => (tensors: GgufTensor[]) =>
  tensors.map((tensor) => tensor.name === name ? { ...tensor, dimensions } : tensor);
const extra = (name: string) => (tensors: GgufTensor[]) => [
  ...tensors,
  { name, dimensions: [8], type: 0, data: new Uint8Array(32) },
];

const BROKEN_GGUF: readonly (readonly [string, Parameters<typeof fromGguf>, string])[] = [
  ["no layer count", [{ "llama.block_count": undefined }], "llama.block_count is missing"],
  ["0 layers", [{ "llama.block_count": u32(0) }], "llama.block_count must be an integer from 1 to 1024, got 0"],
  ["1e9 layers", [{ "llama.block_count": u32(1e9) }], "got 1000000000"],
  ["more layers than there are", [{ "llama.block_count": u32(2) }], 'tensor "blk.1.attn_norm.weight" is missing'],
  ["0 heads", [{ "llama.attention.head_count": u32(0) }], "llama.attention.head_count must be an integer from 1"],
  [
    "0 KV heads",
    [{ "llama.attention.head_count_kv": u32(0) }],
    "llama.attention.head_count_kv must be an integer from 1",
  ],
  [
    "KV heads that do not divide",
    [{ "llama.attention.head_count": u32(3), "llama.attention.head_count_kv": u32(2) }],
    "must divide the 3 query heads, got 2",
  ],
  ["heads that do not divide the width", [{
    "llama.attention.head_count": u32(3),
    "llama.attention.key_length": undefined,
  }], "must divide the width 8"],
  [
    "another head width than the tensors",
    [{ "llama.attention.key_length": u32(8) }],
    'tensor "blk.0.attn_q.weight" has shape [8,8], the configuration needs [16,8]',
  ],
  ["another value width", [{ "llama.attention.value_length": u32(8) }], "must equal the key length 4, got 8"],
  ["a fractional size", [{ "llama.embedding_length": f32(8.5) }], "got 8.5"],
  ["an epsilon of 0", [{ "llama.attention.layer_norm_rms_epsilon": f32(0) }], "must be above 0 and below 1, got 0"],
  ["an epsilon of NaN", [{ "llama.attention.layer_norm_rms_epsilon": f32(NaN) }], "got NaN"],
  [
    "theta NaN",
    [{ "llama.rope.freq_base": f32(NaN) }],
    "llama.rope is not usable: Cannot build RoPE: theta must be a finite number above 1, got NaN",
  ],
  ["theta infinite", [{ "llama.rope.freq_base": f32(Infinity) }], "got Infinity"],
  [
    "a rotation wider than the head",
    [{ "llama.rope.dimension_count": u32(6) }],
    "must rotate at most the head width 4, got 6",
  ],
  ["an odd rotation", [{ "llama.rope.dimension_count": u32(3) }], "even and at least 2, got 3"],
  [
    "an unknown scaling",
    [{ "llama.rope.scaling.type": { type: "string", value: "longrope" } }],
    'must be none, linear or yarn, got "longrope"',
  ],
  ["a context of 0", [{ "llama.context_length": u32(0) }], "llama.context_length must be an integer"],
  ["another vocabulary than the embedding", [{ "llama.vocab_size": u32(300) }], "llama.vocab_size needs [300,8]"],
  ["experts", [{ "llama.expert_count": u32(8) }], "llama.expert_count is not supported, got 8"],
  ["scaled logits", [{ "llama.logit_scale": f32(0.5) }], "llama.logit_scale is not supported, got 0.5"],
  [
    "a sliding window",
    [{ "llama.attention.sliding_window": u32(128) }],
    "of 128 tokens in a context of 512 is not supported",
  ],
  [
    "a size that is text",
    [{ "llama.block_count": { type: "string", value: "1" } }],
    "must be a number below 2^53, got a string",
  ],
  ["a missing tensor", [{}, rename("blk.0.ffn_up.weight", "x")], 'tensor "blk.0.ffn_up.weight" is missing'],
  [
    "a tensor of another shape",
    [{}, reshape("blk.0.ffn_up.weight", [6, 8])],
    "has shape [8,6], the configuration needs [6,8]",
  ],
  [
    "a norm of another shape",
    [{}, reshape("output_norm.weight", [4, 2])],
    "has shape [2,4], the configuration needs [8]",
  ],
  [
    "a tensor that it does not know",
    [{}, extra("blk.0.attn_output.bias")],
    'tensor "blk.0.attn_output.bias" is not known to this model family',
  ],
];
for (const [name, args, message] of BROKEN_GGUF) {
  Deno.test(`LLAMA.fromGguf() refuses ${name}`, () => {
    assertThrows(() => fromGguf(...args), ModelFileError, message);
  });
}

Deno.test("LLAMA.fromHuggingFace() reads sizes, defaults and null as absent", () => {
  const { config } = fromDirectory({
    head_dim: null,
    num_key_value_heads: 1,
    sliding_window: null,
    rope_parameters: null,
  });
  assertEquals([config.headDim, config.kvHeads, config.family], [4, 1, "llama"]);
  assertEquals([...config.rope.inverseFrequencies], [1, 0.01]);
  assertEquals(config.rope.pairing, "halves");
});

Deno.test("LLAMA.fromHuggingFace() reads both spellings of scaling", () => {
  const factors = { factor: 4, original_max_position_embeddings: 128 };
  const older = fromDirectory({
    rope_parameters: undefined,
    rope_theta: 500,
    rope_scaling: { type: "yarn", ...factors },
  }).config.rope;
  const newer = fromDirectory({ rope_parameters: { rope_type: "yarn", rope_theta: 500, ...factors } }).config.rope;
  assertEquals(older, newer);
  assert(older.magnitude > 1.138 && older.magnitude < 1.139);
});

Deno.test("LLAMA.fromHuggingFace() weighs YaRN's attention factor by mscale", () => {
  const scaled = { rope_type: "yarn", rope_theta: 500, factor: Math.E, original_max_position_embeddings: 128 };
  const of = (extra: Record<string, number>) => fromDirectory({ rope_parameters: { ...scaled, ...extra } }).config.rope;
  assertEquals(of({ mscale: 1, mscale_all_dim: 1 }).magnitude, 1);
  assertEquals(of({ mscale: 2, mscale_all_dim: 1 }).magnitude, 1.2 / 1.1);
  assertEquals(of({ attention_factor: 1.25, mscale: 2 }).magnitude, 1.25);
});

Deno.test("LLAMA.fromHuggingFace() gives vectors as F32 whatever the file stores", () => {
  const path = Deno.makeTempDirSync();
  try {
    const spec: SyntheticSpec = { ...TINY, biases: true };
    writeDirectory(path, buildSyntheticDirectory({ ...spec, dtype: "BF16" }));
    using half = new HfDirectory(path);
    const { weights } = LLAMA.fromHuggingFace(half);
    const bias = weights.layers[0].keyBias;
    assert(bias !== undefined);
    assertEquals([bias.dtype, bias.rows, bias.cols, bias.bytes], ["F32", 1, 4, 16]);
    assertEquals(weights.layers[0].key.dtype, "BF16");
    const whole = readValues(bias);
    const tail = new Uint8Array(6);
    bias.readInto(tail, 10);
    assertEquals(tail, new Uint8Array(whole.buffer).slice(10));
    assertThrows(() => bias.readInto(tail, 11), RangeError, "it has 16");
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
});

const BROKEN_CONFIG: readonly (readonly [string, Record<string, unknown>, string])[] = [
  ["no width", { hidden_size: null }, "hidden_size is missing"],
  ["0 heads", { num_attention_heads: 0 }, "num_attention_heads must be an integer from 1 to 1024, got 0"],
  ["heads that are text", { num_attention_heads: "2" }, 'num_attention_heads must be a number, got "2"'],
  ["1e9 layers", { num_hidden_layers: 1e9 }, "num_hidden_layers must be an integer from 1 to 1024"],
  ["another head width", { head_dim: 6 }, "has shape [8,8], the configuration needs [12,8]"],
  ["an epsilon of 0", { rms_norm_eps: 0 }, "rms_norm_eps must be above 0"],
  ["theta 0", { rope_parameters: { rope_theta: 0 } }, "theta must be a finite number above 1, got 0"],
  ["theta that is text", { rope_parameters: { rope_theta: "NaN" } }, "rope_parameters.rope_theta must be a number"],
  ["another vocabulary", { vocab_size: 300 }, "vocab_size needs [300,8]"],
  ["an unknown activation", { hidden_act: "gelu" }, 'hidden_act must be "silu", got "gelu"'],
  [
    "an unknown scaling",
    { rope_parameters: { rope_type: "dynamic", factor: 2 } },
    "must be default, linear, llama3 or yarn",
  ],
  ["a scaling without its factor", { rope_parameters: { rope_type: "linear" } }, "rope_parameters.factor is missing"],
  ["quantised weights", { quantization_config: { bits: 4 } }, "quantization_config is not supported"],
  ["a sliding window", { sliding_window: 256 }, "sliding_window of 256 tokens in a context of 512 is not supported"],
  [
    "a head that the configuration wants and the file lacks",
    { tie_word_embeddings: false },
    'tensor "lm_head.weight" is missing',
  ],
];
for (const [name, changes, message] of BROKEN_CONFIG) {
  Deno.test(`LLAMA.fromHuggingFace() refuses ${name}`, () => {
    assertThrows(() => fromDirectory(changes), ModelFileError, message);
  });
}

Deno.test("LLAMA.fromHuggingFace() ignores a stored head when the configuration ties it", () => {
  const { weights } = fromDirectory({ tie_word_embeddings: true }, { spec: { ...TINY, tied: false } });
  assertEquals(weights.head, weights.embedding);
});

Deno.test("MISTRAL.fromHuggingFace() runs a model whose window never hides a token and refuses others", () => {
  assertEquals(fromDirectory({ sliding_window: null }, { family: MISTRAL }).config.family, "mistral");
  assertEquals(fromDirectory({ sliding_window: 512 }, { family: MISTRAL }).config.contextLength, 512);
  assertThrows(
    () => fromDirectory({ sliding_window: 511 }, { family: MISTRAL }),
    ModelFileError,
    "sliding_window of 511",
  );
});

Deno.test("MISTRAL.fromGguf() says what such a file should call itself", () => {
  const file = new GgufFile(new MemorySource(buildSyntheticGguf(TINY)));
  assertThrows(() => MISTRAL.fromGguf(file), ModelFileError, 'must be "llama" for a Mistral model');
});
