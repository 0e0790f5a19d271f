import { assertEquals, assertThrows } from "@std/assert";
import { PreTokenizer } from "./pre_tokenizer.ts";

const split = (behavior: string, invert = false) =>
  new PreTokenizer({ type: "Split", pattern: { String: "-" }, behavior, invert }).split("-a--b-", true);

Deno.test("PreTokenizer.split() knows the split behaviours of the reference", () => {
  assertEquals(split("Removed"), ["a", "b"]);
  assertEquals(split("Isolated"), ["-", "a", "-", "-", "b", "-"]);
  assertEquals(split("Contiguous"), ["-", "a", "--", "b", "-"]);
  assertEquals(split("MergedWithPrevious"), ["-", "a-", "-", "b-"]);
  assertEquals(split("MergedWithNext"), ["-a", "-", "-b", "-"]);
  assertEquals(split("Removed", true), ["-", "-", "-", "-"]);
});

Deno.test("PreTokenizer.split() isolates every numeral, not only ASCII digits", () => {
  const digits = new PreTokenizer({ type: "Digits", individual_digits: true });
  assertEquals(digits.split("a12٣½b", true), ["a", "1", "2", "٣", "½", "b"]);
});

Deno.test("PreTokenizer.split() takes whitespace as Unicode does", () => {
  const byteLevel = new PreTokenizer({ type: "ByteLevel", use_regex: true });
  // U+FEFF is no whitespace and U+0085 is, unlike in JavaScript.
  assertEquals(byteLevel.split("a\ufeffb \u0085c", true), ["a", "\ufeff", "b", " ", "\u0085", "c"]);
});

Deno.test("PreTokenizer.split() puts a space before a byte-level text where the file says so", () => {
  const byteLevel = new PreTokenizer({ type: "ByteLevel", add_prefix_space: true });
  assertEquals(byteLevel.split("a b", true), [" a", " b"]);
});

Deno.test("PreTokenizer.split() marks spaces and words like the reference", () => {
  const metaspace = (extra: object) => new PreTokenizer({ type: "Metaspace", replacement: "▁", ...extra });
  assertEquals(metaspace({}).split("a  b", true), ["▁a", "▁", "▁b"]);
  assertEquals(metaspace({ split: false }).split("a  b", true), ["▁a▁▁b"]);
  assertEquals(metaspace({ prepend_scheme: "first" }).split("a", false), ["a"]);
  assertEquals(metaspace({ prepend_scheme: "first" }).split("a", true), ["▁a"]);
  assertEquals(metaspace({ add_prefix_space: false }).split("a", true), ["a"]);
});

Deno.test("PreTokenizer.split() runs other steps through the library", () => {
  assertEquals(new PreTokenizer({ type: "WhitespaceSplit" }).split("a b\nc", true), ["a", "b", "c"]);
});

Deno.test("new PreTokenizer() refuses unknown steps, unknown behaviours and dangerous patterns", () => {
  assertThrows(() => new PreTokenizer({ type: "Teleport" }), Error, "Teleport");
  assertThrows(
    () => new PreTokenizer({ type: "Split", pattern: { String: "a" }, behavior: "Sideways" }),
    TypeError,
    "Sideways",
  );
  const pattern = { Regex: "(a+)+$" };
  assertThrows(() => new PreTokenizer({ type: "Split", pattern, behavior: "Isolated" }), RangeError, "repeated group");
});
