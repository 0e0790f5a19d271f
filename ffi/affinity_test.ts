import { assert, assertEquals } from "@std/assert";
import { allowedCpus, setAllowedCpus } from "./affinity.ts";

const pinnable = allowedCpus().length > 0;

Deno.test({
  name: "setAllowedCpus() pins the thread and restores it",
  ignore: !pinnable,
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
