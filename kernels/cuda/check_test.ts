import { assert, assertEquals, assertThrows } from "@std/assert";
import { join } from "node:path";
import { FakeDriver } from "../../ffi/cuda/fake_driver.ts";
import { Nvrtc } from "../../ffi/cuda/cuda.ts";
import { checkKernel, findKernels, readUsage } from "./check.ts";
import { ALL_ARCHITECTURES, readCheckNotes } from "./check_notes.ts";

Deno.test("readCheckNotes() compiles once for every architecture without notes", () => {
  assertEquals(readCheckNotes("k.cu", "// a kernel\nvoid k();"), { architectures: ALL_ARCHITECTURES, variants: [{}] });
});

Deno.test("readCheckNotes() reads architectures and macros from any kind of comment", () => {
  const source =
    "/*\n * @arch sm_90a sm_100\n *  @define HEAD_DIM=64 T=float\n * @define HEAD_DIM=128 */\n// @define N=1\n";
  assertEquals(readCheckNotes("k.cu", source), {
    architectures: ["sm_90a", "sm_100"],
    variants: [{ HEAD_DIM: "64", T: "float" }, { HEAD_DIM: "128" }, { N: "1" }],
  });
});

Deno.test("readCheckNotes() names the file of a malformed note", () => {
  assertThrows(() => readCheckNotes("k.cu", "// @arch hopper"), SyntaxError, "Cannot check k.cu: wanted @arch");
  assertThrows(() => readCheckNotes("k.cu", "// @define HEAD_DIM"), SyntaxError, "wanted @define NAME=VALUE");
});

Deno.test("readUsage() adds spills and takes the most registers", () => {
  const log =
    "ptxas info    : Function properties for a\n    32 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n" +
    "ptxas info    : Used 40 registers, 400 bytes smem\nptxas info    : Used 168 registers, used 1 barriers\n";
  assertEquals(readUsage(log), { registers: 168, spillBytes: 20 });
  assertEquals(readUsage(""), { registers: 0, spillBytes: 0 });
});

Deno.test({
  name: "checkKernel() reports every variant, and those that do not compile",
  ignore: !FakeDriver.available,
  fn() {
    const folder = Deno.makeTempDirSync();
    try {
      using fake = FakeDriver.open();
      using nvrtc = Nvrtc.open(fake.libraries.get("nvrtc"));
      Deno.mkdirSync(join(folder, "b"));
      Deno.writeTextFileSync(join(folder, "b/good.cu"), "// @arch sm_80 sm_90a\n// @define N=1\n// @define N=2\n");
      Deno.writeTextFileSync(join(folder, "a.cu"), "// @arch sm_80\nBROKEN");
      Deno.writeTextFileSync(join(folder, "c.cu"), '// @arch sm_80\n#include "gone.cuh"');
      Deno.writeTextFileSync(join(folder, "notes.txt"), "");
      const paths = findKernels(folder);
      assertEquals(paths, ["a.cu", "b/good.cu", "c.cu"].map((path) => join(folder, path)));
      const results = paths.flatMap((path) => [...checkKernel(nvrtc, path)]);
      assertEquals(results.map(({ kernel, arch, error }) => [kernel, arch, error === undefined]), [
        ["a", "sm_80", false],
        ["good N=1", "sm_80", true],
        ["good N=1", "sm_90a", true],
        ["good N=2", "sm_80", true],
        ["good N=2", "sm_90a", true],
        ["c", "sm_80", false],
      ]);
      assert(results[0].error?.includes("line 1: broken"));
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  },
});
