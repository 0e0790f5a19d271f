import { assert, assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  GGUF_TYPE,
  type GgufContents,
  type GgufEntry,
  type GgufTensor,
  writeGguf,
} from "../../tests/synthetic/gguf_writer.ts";
import { type ByteSource, MemorySource } from "./byte_source.ts";
import { GgufFile } from "./gguf.ts";
import { GgufStrings } from "./gguf_header.ts";
import { ModelFileError } from "./model_file_error.ts";

const F32 = 0;
const Q4_0 = 2;

function parse(bytes: Uint8Array): GgufFile {
  return new GgufFile(new MemorySource(bytes, "test.gguf"));
}

function tensor(name: string, changes: Partial<GgufTensor> = {}): GgufTensor {
  return { name, dimensions: [8, 2], type: F32, data: new Uint8Array(64).fill(name.length), ...changes };
}

function file(changes: Partial<GgufContents> = {}): Uint8Array {
  return writeGguf({
    metadata: [["general.architecture", { type: "string", value: "llama" }]],
    tensors: [tensor("a"), tensor("bb")],
    ...changes,
  });
}

function withEntry(key: string, entry: GgufEntry): Uint8Array {
  return file({ metadata: [[key, entry]] });
}

for (const version of [2, 3]) {
  Deno.test(`GgufFile reads version ${version}`, () => {
    const gguf = parse(file({ version }));
    assertEquals(gguf.version, version);
    assertEquals(gguf.string("general.architecture"), "llama");
    assertEquals([...gguf.tensors.keys()], ["a", "bb"]);
  });
}

Deno.test("GgufFile reads every value type", () => {
  const gguf = parse(file({
    metadata: [
      ["u8", { type: "u8", value: 255 }],
      ["i8", { type: "i8", value: -128 }],
      ["u16", { type: "u16", value: 65535 }],
      ["i16", { type: "i16", value: -32768 }],
      ["u32", { type: "u32", value: 4294967295 }],
      ["i32", { type: "i32", value: -2147483648 }],
      ["f32", { type: "f32", value: 0.5 }],
      ["bool", { type: "bool", value: true }],
      ["string", { type: "string", value: "\ufeff\u00e9\u{1f642}\0" }],
      ["u64", { type: "u64", value: 2n ** 53n - 1n }],
      ["i64", { type: "i64", value: -1 }],
      ["huge", { type: "u64", value: 2n ** 64n - 1n }],
      ["low", { type: "i64", value: -(2n ** 63n) }],
      ["f64", { type: "f64", value: Math.PI }],
      ["u8s", { type: "array", of: "u8", value: [1, 255] }],
      ["i8s", { type: "array", of: "i8", value: [-1] }],
      ["u16s", { type: "array", of: "u16", value: [65535] }],
      ["i16s", { type: "array", of: "i16", value: [-2] }],
      ["u32s", { type: "array", of: "u32", value: [4294967295] }],
      ["i32s", { type: "array", of: "i32", value: [-3, 3] }],
      ["f32s", { type: "array", of: "f32", value: [-0.5] }],
      ["bools", { type: "array", of: "bool", value: [true, false] }],
      ["u64s", { type: "array", of: "u64", value: [2n ** 40n] }],
      ["i64s", { type: "array", of: "i64", value: [-5] }],
      ["f64s", { type: "array", of: "f64", value: [0.1] }],
      ["strings", { type: "array", of: "string", value: ["", "a", "\ufeffb", "\u00e9"] }],
      ["with NUL", { type: "array", of: "string", value: ["a\0b", "c"] }],
      ["empty", { type: "array", of: "string", value: [] }],
    ],
  }));
  const values = Object.fromEntries([...gguf.keys()].map((key) => {
    const value = gguf.get(key);
    return [key, value instanceof GgufStrings ? value.toArray() : value];
  }));
  assertEquals(values, {
    u8: 255,
    i8: -128,
    u16: 65535,
    i16: -32768,
    u32: 4294967295,
    i32: -2147483648,
    f32: 0.5,
    bool: true,
    string: "\ufeff\u00e9\u{1f642}\0",
    u64: 2 ** 53 - 1,
    i64: -1,
    huge: 2n ** 64n - 1n,
    low: -(2n ** 63n),
    f64: Math.PI,
    u8s: Uint8Array.of(1, 255),
    i8s: Int8Array.of(-1),
    u16s: Uint16Array.of(65535),
    i16s: Int16Array.of(-2),
    u32s: Uint32Array.of(4294967295),
    i32s: Int32Array.of(-3, 3),
    f32s: Float32Array.of(-0.5),
    bools: Uint8Array.of(1, 0),
    u64s: Float64Array.of(2 ** 40),
    i64s: Float64Array.of(-5),
    f64s: Float64Array.of(0.1),
    strings: ["", "a", "\ufeffb", "\u00e9"],
    "with NUL": ["a\0b", "c"],
    empty: [],
  });
  assertEquals(gguf.strings("strings")?.at(2), "\ufeffb");
  assertThrows(() => gguf.number("huge"), ModelFileError, "huge must be a number below 2^53, got a bigint");
  assertThrows(() => gguf.string("u8s"), ModelFileError, "must be a string, got an array of 2");
  assertThrows(() => gguf.boolean("u8"), ModelFileError, "must be a boolean, got a number");
  assertThrows(() => gguf.numbers("strings"), ModelFileError, "must be an array of numbers");
  assertThrows(() => gguf.strings("u8s"), ModelFileError, "must be an array of strings");
});

Deno.test("GgufFile gives dimensions slowest first and the bytes of each tensor", () => {
  const data = Uint8Array.from({ length: 4 * 24 }, (_, index) => index);
  const gguf = parse(file({ tensors: [tensor("a"), tensor("cube", { dimensions: [4, 3, 2], data })] }));
  const cube = gguf.tensors.get("cube");
  assert(cube !== undefined);
  assertEquals([cube.shape, cube.rows, cube.cols, cube.bytes], [[2, 3, 4], 6, 4, 96]);
  const into = new Uint8Array(10);
  cube.readInto(into, 86);
  assertEquals(into, data.slice(86));
  assertThrows(() => cube.readInto(into, 87), RangeError, "it has 96");
  assertThrows(() => cube.readInto(into, -1), RangeError, "it has 96");
});

Deno.test("GgufFile honours the stated alignment", () => {
  const gguf = parse(file({ alignment: 256, metadata: [["general.alignment", { type: "u32", value: 256 }]] }));
  assertEquals(gguf.dataOffset % 256, 0);
  const into = new Uint8Array(64);
  gguf.tensors.get("bb")?.readInto(into, 0);
  assertEquals(into, new Uint8Array(64).fill(2));
});

Deno.test("GgufFile accepts bytes after the last tensor and a file without tensors", () => {
  assertEquals(parse(Uint8Array.of(...file(), 1, 2, 3)).tensors.size, 2);
  assertEquals(parse(file({ tensors: [] })).tensors.size, 0);
});

/** Bytes of a file with one metadata entry whose value type and value are raw. */
function rawValue(type: number, value: readonly number[]): Uint8Array {
  const whole = writeGguf({ metadata: [["k", { type: "u8", value: 0 }]], tensors: [] });
  const head = whole.subarray(0, 24 + 8 + 1);
  return Uint8Array.of(...head, type, 0, 0, 0, ...value);
}

const u64 = (value: bigint): number[] => [...new Uint8Array(new BigUint64Array([value]).buffer)];
const HUGE = 2n ** 64n - 1n;

const BROKEN: readonly (readonly [string, () => Uint8Array, string])[] = [
  ["an empty file", () => new Uint8Array(0), "magic needs 4 bytes at 0, the file has 0"],
  ["another magic", () => file({ magic: "GGML" }), 'magic must be "GGUF", got "GGML"'],
  ["a big-endian file", () => file({ version: 0x03000000 }), "version is big-endian"],
  ["version 0", () => file({ version: 0 }), "version must be 2 or 3, got 0"],
  ["version 1", () => file({ version: 1 }), "got 1"],
  ["a future version", () => file({ version: 4 }), "got 4"],
  ["2^64-1 tensors", () => file({ tensorCount: HUGE }), `tensor count must be at most 65536, got ${HUGE}`],
  ["2^64-1 entries", () => file({ entryCount: HUGE }), `metadata count must be at most 65536, got ${HUGE}`],
  ["more tensors than there are", () => file({ tensorCount: 60_000 }), "tensor name 2"],
  ["more entries than there are", () => file({ entryCount: 60_000 }), "Cannot load test.gguf"],
  ["an empty key", () => withEntry("", { type: "u8", value: 1 }), "metadata key 0 must not be empty"],
  ["a huge key", () => withEntry("k".repeat(65_536), { type: "u8", value: 1 }), "must be at most 65535, got 65536"],
  [
    "a repeated key",
    () => file({ metadata: [["k", { type: "u8", value: 1 }], ["k", { type: "u8", value: 1 }]] }),
    'metadata key 1 repeats "k"',
  ],
  ["an unknown value type", () => rawValue(13, [0]), "k has value type 13, known are 0 to 12"],
  ["a boolean of 2", () => rawValue(GGUF_TYPE.bool, [2]), "k must be a boolean byte 0 or 1, got 2"],
  ["a string of 2^64-1 bytes", () => rawValue(GGUF_TYPE.string, u64(HUGE)), `k must be at most 16777216, got ${HUGE}`],
  ["a string longer than the file", () => rawValue(GGUF_TYPE.string, u64(100n)), "k needs 100 bytes"],
  ["a string that is not UTF-8", () => rawValue(GGUF_TYPE.string, [...u64(1n), 0xff]), "k must be UTF-8"],
  ["an array of 2^64-1", () => rawValue(GGUF_TYPE.array, [0, 0, 0, 0, ...u64(HUGE)]), "k must be at most 4194304"],
  [
    "an array longer than the file",
    () => rawValue(GGUF_TYPE.array, [12, 0, 0, 0, ...u64(1_000_000n)]),
    "k needs 8000000",
  ],
  [
    "an array of more strings than the file has bytes",
    () => rawValue(GGUF_TYPE.array, [8, 0, 0, 0, ...u64(3_000_000n)]),
    "k has 3000000 strings, the file has only 0 bytes left",
  ],
  [
    "an array with a huge string",
    () => rawValue(GGUF_TYPE.array, [8, 0, 0, 0, ...u64(1n), ...u64(HUGE)]),
    "k has a string longer than 16777216 bytes at 0",
  ],
  ["a nested array", () => rawValue(GGUF_TYPE.array, [9, 0, 0, 0, ...u64(1n)]), "k is an array of arrays"],
  ["an array of an unknown type", () => rawValue(GGUF_TYPE.array, [77, 0, 0, 0, ...u64(1n)]), "array of value type 77"],
  [
    "an array with an integer past 2^53",
    () => rawValue(GGUF_TYPE.array, [10, 0, 0, 0, ...u64(1n), ...u64(HUGE)]),
    "wanted integers below 2^53",
  ],
  [
    "alignment 0",
    () => withEntry("general.alignment", { type: "u32", value: 0 }),
    "must be a power of two up to 65536, got 0",
  ],
  ["alignment 13", () => withEntry("general.alignment", { type: "u32", value: 13 }), "got 13"],
  ["a huge alignment", () => withEntry("general.alignment", { type: "u32", value: 2 ** 31 }), "got 2147483648"],
  [
    "an alignment of another type",
    () => withEntry("general.alignment", { type: "u64", value: 32 }),
    "value type 4, got 10",
  ],
  [
    "a tensor name of 65 bytes",
    () => file({ tensors: [tensor("n".repeat(65))] }),
    "tensor name 0 must be at most 64, got 65",
  ],
  ["an empty tensor name", () => file({ tensors: [tensor("")] }), "tensor name 0 must not be empty"],
  ["a repeated tensor name", () => file({ tensors: [tensor("a"), tensor("a")] }), 'tensor name 1 repeats "a"'],
  ["0 dimensions", () => file({ tensors: [tensor("a", { dimensions: [] })] }), "must have 1 to 4 dimensions, got 0"],
  ["5 dimensions", () => file({ tensors: [tensor("a", { dimensions: [1, 1, 1, 1, 1] })] }), "got 5"],
  ["a dimension of 0", () => file({ tensors: [tensor("a", { dimensions: [8, 0] })] }), "has size 0 in dimension 1"],
  [
    "a negative dimension",
    () => file({ tensors: [tensor("a", { dimensions: [-8] })] }),
    "must be at most 9007199254740991",
  ],
  [
    "a product past 2^53",
    () => file({ tensors: [tensor("a", { dimensions: [2 ** 40, 2 ** 40] })] }),
    "more than 2^53 elements",
  ],
  [
    "a product that wraps to 16",
    () => file({ tensors: [tensor("a", { dimensions: [2 ** 32, 2 ** 32, 16] })] }),
    "more than 2^53 elements",
  ],
  ["bytes past 2^53", () => file({ tensors: [tensor("a", { dimensions: [2 ** 52] })] }), "more than 2^53 bytes"],
  [
    "an unsupported tensor type",
    () => file({ tensors: [tensor("a", { type: 6 })] }),
    "has type Q5_0 (6), supported are F32",
  ],
  [
    "an unknown tensor type",
    () => file({ tensors: [tensor("a", { type: 4_000_000_000 })] }),
    "has type unknown (4000000000)",
  ],
  [
    "rows that are not whole blocks",
    () => file({ tensors: [tensor("a", { type: Q4_0 })] }),
    "Q4_0 needs a multiple of 32",
  ],
  [
    "a misaligned offset",
    () => file({ tensors: [tensor("a", { offset: 4 })] }),
    "begins at 4, wanted a multiple of 32",
  ],
  [
    "an offset of 2^63",
    () => file({ tensors: [tensor("a", { offset: 2n ** 63n })] }),
    "must be at most 9007199254740991",
  ],
  ["an offset past the end", () => file({ tensors: [tensor("a", { offset: 1 << 20 })] }), "the file has"],
  ["a tensor past the end", () => file({ tensors: [tensor("a", { dimensions: [8, 3] })] }), "the file has"],
  [
    "overlapping tensors",
    () => file({ tensors: [tensor("a"), tensor("bb", { offset: 32 })] }),
    'tensor "bb" overlaps tensor "a"',
  ],
  ["one tensor over another", () => file({ tensors: [tensor("a"), tensor("bb", { offset: 0 })] }), "overlaps"],
  [
    "two tensors whose sizes wrap together",
    () => {
      const size = 2 ** 50;
      return file({ tensors: [tensor("a", { dimensions: [size] }), tensor("b", { dimensions: [size] })] });
    },
    "the file has",
  ],
];

for (const [name, build, message] of BROKEN) {
  Deno.test(`GgufFile refuses ${name}`, () => {
    const error = assertThrows(() => parse(build()), ModelFileError, message);
    assertEquals(error.file, "test.gguf");
  });
}

/** A source that says it is huge: after its first bytes, one 64-bit integer again and again. It notes what is read. */
class HugeSource implements ByteSource {
  readonly name = "huge.gguf";
  readonly size = 2 ** 45;
  /** Bytes read so far. */
  total = 0;
  readonly #head: Uint8Array;
  readonly #pattern: Uint8Array;

  constructor(head: Uint8Array, pattern: bigint) {
    this.#head = head;
    this.#pattern = Uint8Array.from(u64(pattern));
  }

  readInto(into: Uint8Array, offset: number): void {
    this.total += into.length;
    for (let index = 0; index < into.length; index++) {
      const at = offset + index - this.#head.length;
      into[index] = at < 0 ? this.#head[offset + index] : this.#pattern[at % 8];
    }
  }

  [Symbol.dispose](): void {}
}

Deno.test("GgufFile reads no more of a huge file than its header needs", () => {
  const source = new HugeSource(file(), 0n);
  assertEquals(new GgufFile(source).tensors.size, 2);
  assertEquals(source.total, 2 ** 20);
});

Deno.test("GgufFile bounds the header that it keeps of a huge file", () => {
  const head = rawValue(GGUF_TYPE.array, [8, 0, 0, 0, ...u64(1_000_000n)]);
  const source = new HugeSource(head, 65_536n);
  assertThrows(() => new GgufFile(source), ModelFileError, "k makes the header longer than 67108864 bytes");
  assertEquals(source.total, 64 * 2 ** 20);
});

/** A small file with every kind of value in it. */
const SMALL = file({
  metadata: [
    ["general.architecture", { type: "string", value: "llama" }],
    ["general.alignment", { type: "u32", value: 32 }],
    ["llama.context_length", { type: "u64", value: 512 }],
    ["llama.rope.freq_base", { type: "f32", value: 10_000 }],
    ["flag", { type: "bool", value: true }],
    ["tokens", { type: "array", of: "string", value: ["<s>", "a", "\u00e9", ""] }],
    ["scores", { type: "array", of: "f32", value: [0, -1, -2, -3] }],
    ["wide", { type: "array", of: "u64", value: [1, 2] }],
  ],
  tensors: [
    tensor("token_embd.weight"),
    tensor("blk.0.attn_q.weight", { type: Q4_0, dimensions: [32, 3], data: new Uint8Array(54).fill(7) }),
    tensor("vector", { dimensions: [5], data: new Uint8Array(20) }),
  ],
});

Deno.test("GgufFile refuses the file cut at every byte", () => {
  const lastByte = Math.max(...[...parse(SMALL).tensors.values()].map(({ offset, bytes }) => offset + bytes));
  for (let length = 0; length < lastByte; length++) {
    assertThrows(() => parse(SMALL.subarray(0, length)), ModelFileError, "", `cut at ${length}`);
  }
  assertEquals(parse(SMALL.subarray(0, lastByte)).tensors.size, 3);
});

Deno.test("GgufFile either reads or refuses a file with any bytes changed", () => {
  const position = fc.integer({ min: 0, max: SMALL.length - 1 });
  const change = fc.record({ position, value: fc.oneof(fc.integer({ min: 0, max: 255 }), fc.constant(255)) });
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 8 }), (changes) => {
      const bytes = SMALL.slice();
      for (const { position, value } of changes) bytes[position] = value;
      try {
        const gguf = parse(bytes);
        for (const { offset, bytes: size } of gguf.tensors.values()) assert(offset + size <= bytes.length);
        for (const key of gguf.keys()) {
          const value = gguf.get(key);
          if (value instanceof GgufStrings) value.toArray();
        }
      } catch (error) {
        assertInstanceOf(error, ModelFileError);
      }
    }),
    { seed: 4, numRuns: 3000 },
  );
});

Deno.test("GgufFile either reads or refuses a file with a hostile 64-bit size anywhere in it", () => {
  const sizes = [2n ** 63n, HUGE, 2n ** 53n, 2n ** 32n, 2n ** 31n, 0n, 0x7fffffffffffffffn];
  fc.assert(
    fc.property(fc.integer({ min: 0, max: SMALL.length - 8 }), fc.constantFrom(...sizes), (position, size) => {
      const bytes = SMALL.slice();
      new DataView(bytes.buffer).setBigUint64(position, size, true);
      try {
        parse(bytes);
      } catch (error) {
        assertInstanceOf(error, ModelFileError);
      }
    }),
    { seed: 5, numRuns: 3000 },
  );
});
