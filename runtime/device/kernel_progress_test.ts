import { assertEquals } from "@std/assert";
import { kernelProgress } from "./kernel_progress.ts";

Deno.test("kernelProgress() tells of the first kernel at once, then of one every 2 s with how many are done", () => {
  const lines: string[] = [];
  let time = 0;
  const compiling = kernelProgress({ log: (line) => lines.push(line), now: () => time });
  assertEquals(lines, []);
  for (
    const [at, name] of [[100, "rope"], [1000, "norm"], [2099, "merge"], [2100, "attend"], [2200, "sample"]] as const
  ) {
    time = at;
    compiling(name);
  }
  assertEquals(lines, [
    "Compiling kernels for this GPU, which later starts need not do: rope",
    "Compiling kernels for this GPU: 3 done, attend",
  ]);
});
