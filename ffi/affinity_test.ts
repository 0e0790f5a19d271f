import { assert, assertEquals } from "@std/assert";
import { allowedCpus, setAllowedCpus } from "./affinity.ts";

const linux = Deno.build.os === "linux" && Deno.permissions.querySync({ name: "ffi" }).state === "granted";

Deno.test({
  name: "setAllowedCpus() pins the thread and restores it",
  ignore: !linux,
  fn() {
    const before = allowedCpus();
    assert(before.length > 0);
    try {
      assert(setAllowedCpus([before[0]]));
      assertEquals(allowedCpus(), [before[0]]);
    } finally {
      assert(setAllowedCpus(before));
    }
    assertEquals(allowedCpus(), before);
  },
});

Deno.test("setAllowedCpus() reports a set without usable CPUs as not done", () => {
  assertEquals(setAllowedCpus([]), false);
});
