import { assertEquals } from "@std/assert";
import { nearest, suggestion } from "./nearest.ts";

Deno.test("nearest() finds the name that few changes lead to", () => {
  const names = ["host", "port", "kv-memory", "kv-tokens"];
  assertEquals(nearest("prot", names), "port");
  assertEquals(nearest("hots", names), "host");
  assertEquals(nearest("kv_memory", names), "kv-memory");
  assertEquals(nearest("kvtoken", names), "kv-tokens");
  assertEquals(nearest("temperature", names), undefined);
  assertEquals(nearest("x", []), undefined);
});

Deno.test("suggestion() is empty where nothing is near", () => {
  assertEquals(suggestion("prot", ["port"]), ", did you mean port?");
  assertEquals(suggestion("zzzzzz", ["port"]), "");
});
