import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { Detokenizer } from "./detokenizer.ts";
import { readJsonLines, smolAssets, tableOf } from "./test_assets.ts";
import { Tokenizer } from "./tokenizer.ts";

const utf8 = new TextEncoder();

interface DecodeCase {
  readonly kind: string;
  readonly ids: readonly number[];
  readonly text: string;
  readonly stream: readonly string[];
}

Deno.test("Detokenizer.push() emits what the reference decoder emits after every id", async () => {
  const { vocabulary } = new Tokenizer(await smolAssets());
  const cases = await readJsonLines<DecodeCase>("decode.jsonl");
  assertEquals(cases.length, 20);
  for (const { kind, ids, text, stream } of cases) {
    const detokenizer = new Detokenizer(vocabulary);
    const emitted = [...ids.map((id) => detokenizer.push(id)), detokenizer.flush()];
    assertEquals(emitted, stream, kind);
    assertEquals(emitted.join(""), text, kind);
  }
});

Deno.test("Detokenizer.push() agrees with TextDecoder on any bytes in any cut", () => {
  const interesting = fc.constantFrom(
    0x41,
    0x80,
    0x8f,
    0x90,
    0x9f,
    0xa0,
    0xbf,
    0xc0,
    0xc1,
    0xc2,
    0xe0,
    0xed,
    0xef,
    0xf0,
    0xf4,
    0xf5,
    0xff,
  );
  const token = fc.oneof(
    fc.array(fc.oneof(interesting, fc.integer({ min: 0, max: 255 })), { maxLength: 6 }).map((b) => Uint8Array.from(b)),
    fc.string({ unit: "binary", maxLength: 3 }).map((text) => utf8.encode(text)),
  );
  fc.assert(
    fc.property(fc.array(token, { maxLength: 12 }), (tokens) => {
      const detokenizer = new Detokenizer(tableOf(tokens));
      const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
      tokens.forEach((bytes, id) => {
        assertEquals(detokenizer.push(id), decoder.decode(Uint8Array.from(bytes), { stream: true }));
      });
      assertEquals(detokenizer.flush(), decoder.decode());
    }),
    { numRuns: 2000 },
  );
});

Deno.test("Detokenizer.push() leaves control tokens out when asked, without breaking a character around them", () => {
  const table = tableOf([Uint8Array.of(0xc3), utf8.encode("<end>"), Uint8Array.of(0xa9)], [1]);
  const skipping = new Detokenizer(table, { skipSpecial: true });
  assertEquals([0, 1, 2].map((id) => skipping.push(id)), ["", "", "é"]);
  const showing = new Detokenizer(table);
  assertEquals([0, 1, 2].map((id) => showing.push(id)), ["", "\ufffd<end>", "\ufffd"]);
});

Deno.test("Detokenizer.push() gives ids beyond the table no text", () => {
  const detokenizer = new Detokenizer(tableOf([utf8.encode("a")]));
  assertEquals([0, 1, -1, 0].map((id) => detokenizer.push(id)), ["a", "", "", "a"]);
});

Deno.test("Detokenizer.flush() leaves the detokenizer as new", () => {
  const detokenizer = new Detokenizer(tableOf([Uint8Array.of(0xe2, 0x82), utf8.encode("€")]));
  assertEquals(detokenizer.push(0), "");
  assertEquals(detokenizer.flush(), "\ufffd");
  assertEquals(detokenizer.flush(), "");
  assertEquals(detokenizer.push(1), "€");
});

Deno.test("Detokenizer.push() keeps a byte order mark", () => {
  const detokenizer = new Detokenizer(tableOf([Uint8Array.of(0xef), Uint8Array.of(0xbb, 0xbf, 0x41)]));
  assertEquals(detokenizer.push(0) + detokenizer.push(1), "\ufeffA");
});
