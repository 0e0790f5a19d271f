import { assert, assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import fc from "fast-check";
import { joinSafetensors, type SafetensorsTensor, writeSafetensors } from "../../tests/synthetic/safetensors_writer.ts";
import { type ByteSource, MemorySource } from "./byte_source.ts";
import { ModelFileError } from "./model_file_error.ts";
import { MAX_SAFETENSORS_HEADER_BYTES, SafetensorsFile } from "./safetensors.ts";

function parse(bytes: Uint8Array): SafetensorsFile {
  return new SafetensorsFile(new MemorySource(bytes, "test.safetensors"));
}

const TENSORS: readonly SafetensorsTensor[] = [
  { name: "a", dtype: "F32", shape: [2, 3], data: new Uint8Array(24).fill(1) },
  { name: "b", dtype: "BF16", shape: [4], data: new Uint8Array(8).fill(2) },
  { name: "c", dtype: "F16", shape: [], data: new Uint8Array(2).fill(3) },
];

Deno.test("SafetensorsFile reads names, types, shapes, metadata and data", () => {
  const file = parse(writeSafetensors(TENSORS));
  assertEquals(file.metadata, { format: "pt" });
  assertEquals(
    [...file.tensors.values()].map(({ name, dtype, shape, rows, cols }) => ({ name, dtype, shape, rows, cols })),
    [
      { name: "a", dtype: "F32", shape: [2, 3], rows: 2, cols: 3 },
      { name: "b", dtype: "BF16", shape: [4], rows: 1, cols: 4 },
      { name: "c", dtype: "F16", shape: [], rows: 1, cols: 1 },
    ],
  );
  const into = new Uint8Array(4);
  file.tensors.get("b")?.readInto(into, 4);
  assertEquals(into, new Uint8Array(4).fill(2));
});

Deno.test("SafetensorsFile accepts empty tensors and tensors in any order of names", () => {
  const header = JSON.stringify({
    z: { dtype: "F32", shape: [1], data_offsets: [0, 4] },
    none: { dtype: "F32", shape: [0, 7], data_offsets: [4, 4] },
    a: { dtype: "F32", shape: [2], data_offsets: [4, 12] },
  });
  assertEquals([...parse(joinSafetensors(header, new Uint8Array(12))).tensors.keys()], ["z", "none", "a"]);
});

/** A file of one header entry and `size` bytes of data. */
function entry(value: unknown, size = 24): Uint8Array {
  return joinSafetensors(JSON.stringify({ a: value }), new Uint8Array(size));
}

const GOOD = { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] };
const two = (first: readonly number[], second: readonly number[], size: number) => {
  const of = ([begin, end]: readonly number[]) => ({
    dtype: "F32",
    shape: [(end - begin) / 4],
    data_offsets: [begin, end],
  });
  return joinSafetensors(JSON.stringify({ a: of(first), b: of(second) }), new Uint8Array(size));
};

const BROKEN: readonly (readonly [string, () => Uint8Array, string])[] = [
  ["an empty file", () => new Uint8Array(0), "header length needs 8 bytes, the file has 0"],
  [
    "a header longer than the file",
    () => joinSafetensors("{}", new Uint8Array(0), 3n),
    "must fit into the file of 10 bytes, got 3",
  ],
  ["a header of 2^64-1", () => joinSafetensors("{}", new Uint8Array(0), 2n ** 64n - 1n), "must be at most 16777216"],
  ["a header of no bytes", () => joinSafetensors("", new Uint8Array(0)), 'header must begin with "{"'],
  ["a header that begins with a space", () => joinSafetensors(" {}", new Uint8Array(0)), 'must begin with "{"'],
  ["a header that is an array", () => joinSafetensors("[]", new Uint8Array(0)), 'must begin with "{"'],
  ["a header that is not JSON", () => joinSafetensors("{a", new Uint8Array(0)), "header must be JSON"],
  [
    "a header that is not UTF-8",
    () => joinSafetensors(Uint8Array.of(0x7b, 0xff, 0x7d), new Uint8Array(0)),
    "must be UTF-8",
  ],
  ["a header nested too deep", () => joinSafetensors(`{"a":${"[".repeat(99)}`, new Uint8Array(0)), "at most 64 deep"],
  [
    "a repeated tensor",
    () => joinSafetensors(`{"a":${JSON.stringify(GOOD)},"\\u0061":${JSON.stringify(GOOD)}}`, new Uint8Array(24)),
    "header repeats a key",
  ],
  [
    "a repeated field",
    () => joinSafetensors('{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', new Uint8Array(4)),
    "header repeats a key",
  ],
  ["an entry that is not an object", () => entry([]), 'tensor "a" must be an object'],
  ["an unknown field", () => entry({ ...GOOD, stride: 1 }), 'has an unknown field "stride"'],
  [
    "a missing type",
    () => entry({ shape: [1], data_offsets: [0, 4] }),
    "has type undefined, supported are F32, F16, BF16",
  ],
  ["an unknown type", () => entry({ ...GOOD, dtype: "Q99" }), 'has type "Q99"'],
  ["a type of 64 bits", () => entry({ ...GOOD, dtype: "F64" }), 'has type "F64"'],
  ["a type below a byte", () => entry({ ...GOOD, dtype: "F4" }), 'has type "F4"'],
  ["a shape that is a number", () => entry({ ...GOOD, shape: 6 }), "must have a shape"],
  ["a negative size", () => entry({ ...GOOD, shape: [-2, -3] }), "non-negative integers"],
  ["a fractional size", () => entry({ ...GOOD, shape: [1.5, 4] }), "non-negative integers"],
  ["nine dimensions", () => entry({ ...GOOD, shape: [6, 1, 1, 1, 1, 1, 1, 1, 1] }), "at most 8"],
  ["a product past 2^53", () => entry({ ...GOOD, shape: [2 ** 30, 2 ** 30] }), "more than 2^53 bytes"],
  ["a product that wraps to 6", () => entry({ ...GOOD, shape: [2 ** 32, 2 ** 32, 6] }), "more than 2^53 bytes"],
  ["offsets of three numbers", () => entry({ ...GOOD, data_offsets: [0, 24, 24] }), "two non-negative integers"],
  [
    "reversed offsets",
    () => entry({ ...GOOD, data_offsets: [24, 0] }),
    "has -24 bytes of data, its type and shape need 24",
  ],
  [
    "offsets that disagree with the shape",
    () => entry({ ...GOOD, shape: [7] }),
    "has 24 bytes of data, its type and shape need 28",
  ],
  ["data past the end", () => entry(GOOD, 23), "ends at"],
  ["data after the last tensor", () => entry(GOOD, 25), "data ends at"],
  ["a hole at the front", () => two([4, 8], [8, 12], 12), 'tensor "a" begins at 4, the data before it ends at 0'],
  ["a hole between tensors", () => two([0, 4], [8, 12], 12), 'tensor "b" begins at 8, the data before it ends at 4'],
  ["overlapping tensors", () => two([0, 8], [4, 12], 12), 'tensor "b" begins at 4, the data before it ends at 8'],
  ["two tensors on the same data", () => two([0, 8], [0, 8], 8), "begins at 0, the data before it ends at 8"],
  [
    "metadata that is not strings",
    () => joinSafetensors('{"__metadata__":{"n":1}}', new Uint8Array(0)),
    "__metadata__ must be an object of strings",
  ],
  [
    "metadata that is a string",
    () => joinSafetensors('{"__metadata__":"x"}', new Uint8Array(0)),
    "must be an object of strings",
  ],
];

for (const [name, build, message] of BROKEN) {
  Deno.test(`SafetensorsFile refuses ${name}`, () => {
    const error = assertThrows(() => parse(build()), ModelFileError, message);
    assertEquals(error.file, "test.safetensors");
  });
}

Deno.test("SafetensorsFile refuses a header length above its limit without reading it", () => {
  const source: ByteSource = {
    name: "huge.safetensors",
    size: 2 ** 45,
    readInto(into) {
      assertEquals(into.length, 8);
      new DataView(into.buffer).setBigUint64(0, BigInt(MAX_SAFETENSORS_HEADER_BYTES) + 1n, true);
    },
    [Symbol.dispose]() {},
  };
  assertThrows(() => new SafetensorsFile(source), ModelFileError, "must be at most 16777216, got 16777217");
});

const SMALL = writeSafetensors(TENSORS);

Deno.test("SafetensorsFile refuses the file cut at every byte", () => {
  for (let length = 0; length < SMALL.length; length++) {
    assertThrows(() => parse(SMALL.subarray(0, length)), ModelFileError, "", `cut at ${length}`);
  }
});

Deno.test("SafetensorsFile either reads or refuses a file with any bytes changed", () => {
  const position = fc.integer({ min: 0, max: SMALL.length - 1 });
  const value = fc.oneof(
    fc.integer({ min: 0, max: 255 }),
    fc.constantFrom(...'0123456789[]{}:,"\\-e'.split("").map((c) => c.charCodeAt(0))),
  );
  fc.assert(
    fc.property(fc.array(fc.record({ position, value }), { minLength: 1, maxLength: 6 }), (changes) => {
      const bytes = SMALL.slice();
      for (const change of changes) bytes[change.position] = change.value;
      try {
        for (const { offset, bytes: size } of parse(bytes).tensors.values()) assert(offset + size <= bytes.length);
      } catch (error) {
        assertInstanceOf(error, ModelFileError);
      }
    }),
    { seed: 6, numRuns: 4000 },
  );
});
