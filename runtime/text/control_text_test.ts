import { assertEquals, assertNotEquals, assertStrictEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { AddedTokenSplitter } from "./added_tokens.ts";
import { ControlTextGuard } from "./control_text.ts";
import type { AddedToken } from "./tokenizer_json.ts";

function control(content: string, id: number): AddedToken {
  return { id, content, control: true, lstrip: false, rstrip: false, normalized: false };
}

const tokens = ["<|end|>", "<s>", "<<s>>", "¤", "a>b"].map(control);
const splitter = new AddedTokenSplitter(tokens);
const guard = new ControlTextGuard(tokens);

/** Tokens found in a rendered text, and the text without the marker. */
function read(text: string, marker?: string): { found: string[]; plain: string } {
  const sections = splitter.split(text, marker);
  return {
    found: sections.flatMap((section) => typeof section === "string" ? [] : [section.content]),
    plain: marker === undefined ? text : text.replaceAll(marker, ""),
  };
}

Deno.test("ControlTextGuard.guard() leaves values without control-token text as they are", () => {
  const values = { messages: [{ role: "user", content: "1 > 2, {a|b} \ue000" }] };
  const guarded = guard.guard(values);
  assertStrictEquals(guarded.values, values);
  assertEquals(guarded.marker, undefined);
});

Deno.test("ControlTextGuard.guard() hides control tokens whatever the texts around them", () => {
  const part = fc.constantFrom(
    "<|end|>",
    "<s>",
    "<<s>>",
    "¤",
    "a>b",
    "<",
    "<|",
    "end|>",
    "s>",
    "<<",
    ">",
    "a",
    " ",
    "\n",
    "x",
    "😀",
  );
  const text = fc.array(part, { maxLength: 6 }).map((parts) => parts.join(""));
  fc.assert(
    fc.property(fc.array(text, { minLength: 1, maxLength: 4 }), fc.boolean(), (texts, trimmed) => {
      const { values, marker } = guard.guard(texts);
      const shape = (text: string) => trimmed ? text.trim() : text;
      const rendered = values.map(shape).join("");
      const { found, plain } = read(rendered, marker);
      assertEquals(found, []);
      assertEquals(plain, texts.map(shape).join(""));
      // The template's own control tokens stay.
      assertEquals(read(`<s>${rendered}<|end|>`, marker).found, ["<s>", "<|end|>"]);
    }),
    { numRuns: 3000 },
  );
});

Deno.test("ControlTextGuard.guard() reaches strings and keys at any depth", () => {
  const values = { a: [{ "<s>": "<|end|>", "__proto__x": [1, null, true, ["¤"]] }] };
  const { values: guarded, marker = "" } = guard.guard(values);
  const json = JSON.stringify(guarded);
  assertNotEquals(marker, "");
  assertEquals(read(json, marker), { found: [], plain: JSON.stringify(values) });
});

Deno.test("ControlTextGuard.guard() picks a character that the text does not use", () => {
  const { marker } = guard.guard(["\ue000\ue001 <s> \ue003"]);
  assertEquals(marker, "\ue002");
});

Deno.test("ControlTextGuard.guard() refuses text that uses every private-use character", () => {
  const all = Array.from({ length: 6400 }, (_, i) => String.fromCharCode(0xe000 + i)).join("");
  assertEquals(guard.guard([all]).marker, undefined);
  assertThrows(() => guard.guard([all, "<s>"]), RangeError, "private-use");
});
