import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { e4m3Bits, e4m3Value, MAX_E4M3 } from "./e4m3.ts";

const NUMBERS = Array.from({ length: 256 }, (_, bits) => bits).filter((bits) => (bits & 0x7f) !== 0x7f);

Deno.test("e4m3Value() gives the numbers of the format, and e4m3Bits() their bits again", () => {
  assertEquals([0x00, 0x01, 0x07, 0x08, 0x38, 0x7e].map(e4m3Value), [0, 2 ** -9, 7 * 2 ** -9, 2 ** -6, 1, 448]);
  assertEquals([0x7f, 0xff].map(e4m3Value), [NaN, NaN]);
  for (const bits of NUMBERS) assertEquals(e4m3Bits(e4m3Value(bits)), bits);
});

Deno.test("e4m3Bits() takes the nearest number, of two the even one, and keeps NaN", () => {
  assertEquals([NaN, Infinity, -Infinity, 1e30, 449, -0].map(e4m3Bits), [0x7f, 0x7e, 0xfe, 0x7e, 0x7e, 0x80]);
  // Halfway between 1 and 1.125, 1.125 and 1.25, 0 and the smallest, the smallest and twice that.
  assertEquals([1.0625, 1.1875, 2 ** -10, 3 * 2 ** -10].map(e4m3Bits), [0x38, 0x3a, 0x00, 0x02]);
  fc.assert(fc.property(fc.double({ min: -MAX_E4M3, max: MAX_E4M3, noNaN: true }), (value) => {
    const distance = Math.min(...NUMBERS.map((bits) => Math.abs(e4m3Value(bits) - value)));
    assertEquals(Math.abs(e4m3Value(e4m3Bits(value)) - value), distance);
  }));
});
