import { assertEquals } from "@std/assert";
import { HEADERS } from "./headers.ts";

Deno.test("HEADERS has every file of include/ as it is", () => {
  const folder = new URL("./include/", import.meta.url);
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
  assertEquals(Object.keys(HEADERS).sort(), names);
  for (const name of names) assertEquals(HEADERS[name], Deno.readTextFileSync(new URL(name, folder)), name);
});
