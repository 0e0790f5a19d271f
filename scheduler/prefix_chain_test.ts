import { assertEquals, assertNotEquals } from "@std/assert";
import { PrefixChain, prefixSalt, type PrefixScope } from "./prefix_chain.ts";

const SCOPE: PrefixScope = { modelDigest: "abc123", kvType: "f16", layout: "wasm/i8/16", tenantSalt: "" };

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// The expected digests come from an independent implementation of the documented byte layout (Python's hashlib, struct).
Deno.test("prefixSalt() has the documented bytes", () => {
  assertEquals(hex(prefixSalt(SCOPE)), "61fbaebf46ca7a34105f3264965fd67ca806c0f97e2d89b8ed5779b1f5253464");
  assertEquals(
    hex(prefixSalt({ ...SCOPE, tenantSalt: "tenant é" })),
    "2ce9fa28d14e552561fdaa809a1c1c26201613e49119e7130bbc0641edc01263",
  );
});

Deno.test("PrefixChain.digest() has the documented bytes", () => {
  const tokens = [1, 2, 3, 4, 5, 6, 7, 0xfffffffe];
  const chain = new PrefixChain(prefixSalt(SCOPE), 4);
  assertEquals(
    chain.digest(1, (position) => tokens[position]),
    "9625cf558a4b1307a58a4c4449ae1752e1857f726ad273f9c514b5ef18ab5679",
  );
  assertEquals(
    chain.digest(0, () => 99),
    "719b4f953b3d99301f4e9bad6e44c43d19d1c3b21c919b238aec5dbb7a26791e",
    "a digest once computed is kept",
  );
});

Deno.test("prefixSalt() keeps fields apart", () => {
  const moved = { ...SCOPE, modelDigest: "abc123f", kvType: "16" };
  assertNotEquals(hex(prefixSalt(SCOPE)), hex(prefixSalt(moved)));
});

Deno.test("PrefixChain.digest() depends on every earlier token and on the salt", () => {
  const tokens = [1, 2, 3, 4, 5, 6, 7, 8];
  const digest = (scope: PrefixScope, changed?: number) =>
    new PrefixChain(prefixSalt(scope), 4).digest(1, (position) => position === changed ? 9 : tokens[position]);
  const original = digest(SCOPE);
  for (let position = 0; position < tokens.length; position++) assertNotEquals(digest(SCOPE, position), original);
  assertNotEquals(digest({ ...SCOPE, tenantSalt: "other" }), original);
  assertEquals(digest({ ...SCOPE }), original);
});
