import { assertEquals } from "@std/assert";
import { CudaContext } from "./context.ts";
import { FakeDriver } from "./fake_driver.ts";
import { cString, CStrings } from "./host_memory.ts";

Deno.test("cString() ends UTF-8 with a zero", () => {
  assertEquals([...cString("aé")], [97, 0xc3, 0xa9, 0]);
  assertEquals([...cString("")], [0]);
});

Deno.test({
  name: "HostMemory finds where a buffer lies and reads text that lies there",
  ignore: !FakeDriver.available,
  fn() {
    using fake = FakeDriver.open();
    using context = CudaContext.open({ libraries: fake.libraries });
    const { host } = context.scope.driver;
    const text = cString("über den Wolken");
    assertEquals(host.text(host.address(text.buffer)), "über den Wolken");
    assertEquals(host.text(0n), "");
    const strings = new CStrings(host, ["one", "", "three"]);
    assertEquals([...strings.array].map((address) => host.text(address)), ["one", "", "three"]);
    assertEquals([strings.length, strings.keep()], [3, 11]);
    assertEquals(new CStrings(host, []).array.length, 1);
  },
});
