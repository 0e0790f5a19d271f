import { assertEquals } from "@std/assert";
import { contextTest } from "./test_fake.ts";
import { cString, CStrings } from "./host_memory.ts";

Deno.test("cString() ends UTF-8 with a zero", () => {
  assertEquals([...cString("aé")], [97, 0xc3, 0xa9, 0]);
  assertEquals([...cString("")], [0]);
});

contextTest("HostMemory finds where a buffer lies and reads text that lies there", ({ context }) => {
  const { host } = context.scope.driver;
  const text = cString("über den Wolken");
  assertEquals(host.text(host.address(text.buffer)), "über den Wolken");
  assertEquals(host.text(0n), "");
  const strings = new CStrings(host, ["one", "", "three"]);
  assertEquals([...strings.array].map((address) => host.text(address)), ["one", "", "three"]);
  assertEquals([strings.length, strings.keep()], [3, 11]);
  assertEquals(new CStrings(host, []).array.length, 1);
});
