import { assertEquals, assertThrows } from "@std/assert";
import { JsonDocument, parseJson } from "./json_document.ts";
import { ModelFileError } from "./model_file_error.ts";

function parse(text: string) {
  return parseJson(new TextEncoder().encode(text), { file: "dir", field: "config.json" });
}

Deno.test("parseJson() reads strings with quotes, escapes and colons in them", () => {
  assertEquals(parse('{"a:b": "c\\":\\\\", "d": [{"e": ":"}, {}], "f": null}'), {
    "a:b": 'c":\\',
    d: [{ e: ":" }, {}],
    f: null,
  });
});

const BROKEN: readonly (readonly [string, string, string])[] = [
  ["an empty file", "", "config.json must be JSON"],
  ["null", "null", "must be a JSON object"],
  ["an array", "[]", "must be a JSON object"],
  ["a truncated object", '{"a": [1', "must be JSON"],
  ["a trailing comma", '{"a": 1,}', "must be JSON"],
  ["a byte order mark", "\ufeff{}", "must be JSON"],
  ["NaN", '{"a": NaN}', "must be JSON"],
  ["a repeated key", '{"a": 1, "a": 2}', "repeats a key"],
  ["a repeated key deep inside", '{"a": [{"b": 1, "c": {"d": 1, "\\u0064": 2}}]}', "repeats a key"],
  ["a million brackets", "[".repeat(1e6), "at most 64 deep"],
];
for (const [name, text, message] of BROKEN) {
  Deno.test(`parseJson() refuses ${name}`, () => {
    assertThrows(() => parse(text), ModelFileError, message);
  });
}

Deno.test("JsonDocument gives typed fields, null as absent, and errors with the path", () => {
  const document = new JsonDocument(
    "config.json",
    parse('{"n": 1, "s": "x", "b": true, "z": null, "o": {"p": {"q": []}}}'),
  );
  assertEquals([document.number("n"), document.string("s"), document.boolean("b")], [1, "x", true]);
  assertEquals([document.number("z"), document.number("absent"), document.object("absent")], [
    undefined,
    undefined,
    undefined,
  ]);
  assertEquals(document.get("toString"), undefined);
  assertThrows(() => document.number("s"), ModelFileError, 's must be a number, got "x"');
  assertThrows(() => document.string("n"), ModelFileError, "n must be a string, got 1");
  assertThrows(() => document.boolean("n"), ModelFileError, "n must be true or false, got 1");
  assertThrows(() => document.object("n"), ModelFileError, "n must be an object");
  assertThrows(() => document.object("o")?.object("p")?.number("q"), ModelFileError, "o.p.q must be a number, got []");
});
