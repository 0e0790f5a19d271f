import { assertEquals } from "@std/assert";
import { allowedCpus } from "./affinity.ts";
import { adviseHugePages } from "./huge_pages.ts";

Deno.test({
  name: "adviseHugePages() reaches beyond a shared memory's present size and leaves its contents alone",
  // Where the C library cannot be opened there is nothing to advise.
  ignore: allowedCpus().length === 0,
  fn() {
    const memory = new WebAssembly.Memory({ initial: 64, maximum: 1024, shared: true });
    const before = new Uint8Array(memory.buffer);
    before[5] = 7;
    assertEquals(adviseHugePages(before, 1024 * 65536), true);
    memory.grow(512);
    const after = new Uint8Array(memory.buffer);
    after[after.length - 1] = 9;
    assertEquals([after[5], after[6], after[after.length - 1]], [7, 0, 9]);
  },
});
