import { assertEquals } from "@std/assert";
import { ProgressBar } from "./progress.ts";

function bar(terminal: boolean) {
  const written: string[] = [];
  const clock = { ms: 0 };
  const progress = new ProgressBar({ terminal, write: (text) => written.push(text) }, { now: () => clock.ms });
  return { written, clock, progress };
}

const MIB = 2 ** 20;

Deno.test("ProgressBar.advance() redraws one line with bytes, rate and time left on a terminal", () => {
  const { written, clock, progress } = bar(true);
  progress.begin("m.gguf", { totalBytes: 100 * MIB });
  clock.ms = 50;
  progress.advance(MIB);
  clock.ms = 2000;
  progress.advance(50 * MIB);
  progress.finish();
  assertEquals(written, [
    "\rm.gguf [........................]   0%  0 B of 100.0 MiB\x1b[K",
    "\rm.gguf [############............]  50%  50.0 MiB of 100.0 MiB  25.0 MiB/s  2 s left\x1b[K",
    "\rm.gguf [############............]  50%  50.0 MiB of 100.0 MiB  25.0 MiB/s  2 s left\x1b[K",
    "\n",
  ]);
});

Deno.test("ProgressBar.advance() writes a plain line every three seconds elsewhere", () => {
  const { written, clock, progress } = bar(false);
  progress.begin("m.gguf", { totalBytes: 100 * MIB, doneBytes: 10 * MIB });
  for (let second = 1; second <= 4; second++) {
    clock.ms = second * 1000;
    progress.advance((10 + 10 * second) * MIB);
  }
  progress.note("Something happened");
  assertEquals(written, [
    "m.gguf: 10%, 10.0 MiB of 100.0 MiB\n",
    "m.gguf: 40%, 40.0 MiB of 100.0 MiB, 10.0 MiB/s, 6 s left\n",
    "Something happened\n",
  ]);
});

Deno.test("ProgressBar.begin() makes the rate of this transfer, not of what was there before", () => {
  const { written, clock, progress } = bar(false);
  progress.begin("m.gguf", { totalBytes: 7000 * MIB, doneBytes: 5000 * MIB });
  clock.ms = 4000;
  progress.advance(5002 * MIB);
  assertEquals(written.at(-1), "m.gguf: 71%, 4.9 GiB of 6.8 GiB, 512.0 KiB/s, 1 h 6 min left\n");
});
