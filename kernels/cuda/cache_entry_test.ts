import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { join } from "node:path";
import { decodeEntry, encodeEntry, readEntry, writeEntry } from "./cache_entry.ts";

Deno.test("decodeEntry() gives back what encodeEntry() was given", () => {
  fc.assert(fc.property(fc.uint8Array({ minLength: 1, maxLength: 300 }), (cubin) => {
    assertEquals([...decodeEntry(encodeEntry(cubin)) ?? []], [...cubin]);
  }));
});

Deno.test("decodeEntry() notices every changed, missing or added byte", () => {
  const whole = encodeEntry(new Uint8Array([1, 2, 3, 4, 5]));
  for (let at = 0; at < whole.length; at++) {
    const changed = whole.slice();
    changed[at] ^= 16;
    assertEquals(decodeEntry(changed), undefined, `byte ${at}`);
    assertEquals(decodeEntry(whole.slice(0, at)), undefined, `length ${at}`);
  }
  assertEquals(decodeEntry(new Uint8Array([...whole, 0])), undefined);
});

Deno.test("writeEntry() makes the directory, replaces what is there and leaves nothing else", () => {
  const folder = Deno.makeTempDirSync();
  try {
    const path = join(folder, "deep/er", "scale.cubin");
    assertEquals(readEntry(path), { kind: "missing" });
    writeEntry(path, new Uint8Array([1]));
    writeEntry(path, new Uint8Array([2, 3]));
    const entry = readEntry(path);
    assert(entry.kind === "hit");
    assertEquals([...entry.cubin], [2, 3]);
    Deno.writeTextFileSync(path, "ILKC and then nonsense, long enough to have a digest and more");
    assertEquals(readEntry(path), { kind: "damaged" });
    assertEquals([...Deno.readDirSync(join(folder, "deep/er"))].map(({ name }) => name), ["scale.cubin"]);
    Deno.mkdirSync(join(folder, "taken"));
    assertThrows(() => writeEntry(join(folder, "taken"), new Uint8Array([1])));
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), ["deep", "taken"]);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
