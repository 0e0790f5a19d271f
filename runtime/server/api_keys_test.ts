import { assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { digestKey, findKey, loadApiKeys, parseApiKeys, tenantOf } from "./api_keys.ts";

Deno.test("parseApiKeys() reads plain keys and digests and skips comments and empty lines", () => {
  const digest = digestKey("two").toHex();
  const keys = parseApiKeys(`# keys\n\none\r\n  sha256:${digest.toUpperCase()}  \n`, "keys");
  assertEquals(keys.map((key) => key.toHex()), [digestKey("one").toHex(), digest]);
});

Deno.test("parseApiKeys() names the line that is wrong but not its text", () => {
  for (const line of ["sha256:abcd", "sha256:", "two words", "k\u00e9y", "\u0001"]) {
    const error = assertThrows(() => parseApiKeys(`ok\n${line}`, "keys"), SyntaxError, "line 2");
    assertEquals(error.message.includes(line), false);
  }
  assertThrows(() => parseApiKeys("# nothing\n", "keys"), SyntaxError, "wanted at least one key, found none");
});

Deno.test("loadApiKeys() reads a file", async () => {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, "one\ntwo\n");
    assertEquals((await loadApiKeys(path)).length, 2);
  } finally {
    await Deno.remove(path);
  }
  await assertRejects(() => loadApiKeys(path), Deno.errors.NotFound);
});

Deno.test("findKey() finds exactly the keys that are there", () => {
  const keys = [digestKey("one"), digestKey("two")];
  assertEquals(findKey(keys, "two"), keys[1]);
  for (const key of ["", "on", "one ", "One", "three"]) assertEquals(findKey(keys, key), undefined);
  assertEquals(findKey([], ""), undefined);
});

Deno.test("tenantOf() is stable, differs between keys and is no part of the digest", () => {
  const key = digestKey("one");
  assertEquals(tenantOf(key), tenantOf(digestKey("one")));
  assertNotEquals(tenantOf(key), tenantOf(digestKey("two")));
  assertEquals(key.toHex().includes(tenantOf(key)), false);
});
