import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ApiError } from "./api_error.ts";
import { parseJsonObject } from "./parse_json.ts";

const BOUNDS = { depth: 8, keys: 20 };

function parse(text: string | Uint8Array, bounds = BOUNDS): unknown {
  return parseJsonObject(typeof text === "string" ? new TextEncoder().encode(text) : text, bounds);
}

const nested = (depth: number) => `{"a":`.repeat(depth) + "0" + "}".repeat(depth);

const REFUSED: readonly (readonly [string, string | Uint8Array])[] = [
  ["nothing", ""],
  ["null", "null"],
  ["an array", "[{}]"],
  ["a string", '"a"'],
  ["a truncated object", '{"a":'],
  ["a trailing comma", '{"a":1,}'],
  ["a byte order mark", '\ufeff{"a":1}'],
  ["NaN", '{"a":NaN}'],
  ["Infinity", '{"a":-Infinity}'],
  ["text after the object", "{} {}"],
  ["a comment", "{/* a */}"],
  ["single quotes", "{'a':1}"],
  ["a raw line break in a string", '{"a":"\n"}'],
  ["bytes that are not UTF-8", Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d)],
  ["an overlong UTF-8 sequence", Uint8Array.of(0x7b, 0x22, 0xc0, 0x80, 0x22, 0x3a, 0x31, 0x7d)],
  ["half of a surrogate pair in a value", '{"a":["\\uD800"]}'],
  ["half of a surrogate pair in a key", '{"\\udc00":1}'],
  ["more nesting than allowed", nested(9)],
  ["far more nesting than the parser survives", "[".repeat(1_000_000)],
  ["more keys than allowed", `{${Array.from({ length: 21 }, (_, index) => `"${index}":0`).join()}}`],
];

for (const [name, body] of REFUSED) {
  Deno.test(`parseJsonObject() refuses ${name}`, () => {
    const error = assertThrows(() => parse(body), ApiError);
    assertEquals([error.status, error.code], [400, "invalid_json"]);
  });
}

Deno.test("parseJsonObject() does not quote the body in its message", () => {
  const error = assertThrows(() => parse('{"prompt":"secret" oops}'), ApiError);
  assertEquals(error.message, "Cannot parse the request body: it is not JSON at position 19");
});

Deno.test("parseJsonObject() counts brackets and colons outside of strings only", () => {
  const text = '[{:\\"'.repeat(30);
  assertEquals(parse(JSON.stringify({ text })), { text });
});

Deno.test("parseJsonObject() accepts nesting and keys up to the bounds", () => {
  assertEquals(parse(nested(8)), JSON.parse(nested(8)));
});

Deno.test("parseJsonObject() lets the last of several equal keys win", () => {
  assertEquals(parse('{"a":1,"a":2}'), { a: 2 });
});

Deno.test("parseJsonObject() keeps __proto__ an ordinary key", () => {
  const value = parse('{"__proto__":{"polluted":true},"constructor":1}');
  assertEquals(Object.keys(value as object), ["__proto__", "constructor"]);
  assertEquals(Object.getPrototypeOf(value), Object.prototype);
  assertEquals("polluted" in {}, false);
});

Deno.test("parseJsonObject() keeps every well-formed string", () => {
  fc.assert(fc.property(fc.string({ unit: "grapheme" }), (text) => {
    assertEquals(parse(JSON.stringify({ text })), { text });
  }));
});

Deno.test("parseJsonObject() agrees with JSON.parse on any JSON object", () => {
  fc.assert(fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
    const text = JSON.stringify(value);
    assertEquals(parse(text, { depth: 100, keys: 10_000 }), JSON.parse(text));
  }));
});

Deno.test("parseJsonObject() throws ApiError or parses, whatever the bytes", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
    try {
      parse(bytes);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    }
  }));
});
