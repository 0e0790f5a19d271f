import { assertEquals, assertThrows } from "@std/assert";
import { type DType, DTYPE_LAYOUT } from "../../kernels/dtype.ts";
import { dequantizeRow } from "./dequantize.ts";

/** Random valid blocks and their values by the `gguf` Python package 0.19.0, both base64; values are f32. */
const GOLDEN: Readonly<Record<string, { readonly bytes: string; readonly values: string }>> = JSON.parse(
  Deno.readTextFileSync(new URL("../../tests/testdata/models/dequantize.json", import.meta.url)),
);

for (const dtype of Object.keys(DTYPE_LAYOUT) as DType[]) {
  Deno.test(`dequantizeRow() gives ${dtype} the bits of the format's own implementation`, () => {
    const bytes = Uint8Array.fromBase64(GOLDEN[dtype].bytes);
    const expected = new Uint32Array(Uint8Array.fromBase64(GOLDEN[dtype].values).buffer);
    const actual = new Uint32Array(dequantizeRow(dtype, bytes).buffer);
    assertEquals(actual, expected);
  });
}

Deno.test("dequantizeRow() reads rows at odd addresses and writes where it is told", () => {
  const bytes = Uint8Array.fromBase64(GOLDEN.Q4_K.bytes);
  const shifted = new Uint8Array(bytes.length + 1);
  shifted.set(bytes, 1);
  const into = new Float32Array(512);
  assertEquals(dequantizeRow("Q4_K", shifted.subarray(1), into), dequantizeRow("Q4_K", bytes));
  assertEquals(into.every((value) => value === 0), false);
});

Deno.test("dequantizeRow() refuses broken blocks and targets of another length", () => {
  assertThrows(() => dequantizeRow("Q8_0", new Uint8Array(35)), RangeError, "whole blocks of 34 bytes, got 35");
  assertThrows(() => dequantizeRow("Q8_0", new Uint8Array(34), new Float32Array(31)), RangeError, "do not fit into 31");
});
