import { assert, assertEquals } from "@std/assert";
import { MUTANTS } from "./mutants.ts";

const ROOT = new URL("../../", import.meta.url);

Deno.test("MUTANTS change text that is in the source exactly once", () => {
  const counts = MUTANTS.map(({ name, file, find }) =>
    `${name}: ${Deno.readTextFileSync(new URL(file, ROOT)).split(find).length - 1}`
  );
  assertEquals(counts.filter((count) => !count.endsWith(": 1")), []);
});

Deno.test("MUTANTS are at least twenty, each with a name of its own, a change and a limit", () => {
  assert(MUTANTS.length >= 20);
  assertEquals(new Set(MUTANTS.map(({ name }) => name)).size, MUTANTS.length);
  assertEquals(MUTANTS.filter(({ find, replace, withinSeeds }) => find === replace || withinSeeds < 1), []);
});
