import { assertEquals } from "@std/assert";
import { type Manifest, MANIFEST_URL } from "./manifest.ts";
import { manifestProblems } from "./verify.ts";

async function committed(): Promise<Manifest> {
  return JSON.parse(await Deno.readTextFile(MANIFEST_URL));
}

Deno.test("manifestProblems() finds nothing wrong with the committed module", async () => {
  assertEquals(await manifestProblems(await committed()), []);
});

Deno.test("manifestProblems() names what differs", async () => {
  const manifest = await committed();
  const problems = await manifestProblems({ ...manifest, bytes: 1, sources: "00", files: { "exports.ts": "11" } });
  assertEquals(problems.map((problem) => problem.split(":")[0]), [
    "lib/exports.ts",
    "size of the kernel module",
    "crate sources and flags",
  ]);
});
