import { assertEquals, assertRejects } from "@std/assert";
import { lines, writeLine } from "./line_stream.ts";

function streamOf(...chunks: readonly Uint8Array<ArrayBuffer>[]): ReadableStream<Uint8Array<ArrayBuffer>> {
  return ReadableStream.from(chunks);
}

Deno.test("lines() joins what was cut and cuts what was joined", async () => {
  const bytes = new TextEncoder().encode("één\n\nzwei\ntrois\nunfinished");
  for (const size of [1, 2, 3, 7, 100]) {
    const chunks = Array.from(
      { length: Math.ceil(bytes.length / size) },
      (_, i) => bytes.slice(i * size, (i + 1) * size),
    );
    assertEquals(await Array.fromAsync(lines(streamOf(...chunks))), ["één", "", "zwei", "trois"]);
  }
});

Deno.test("lines() refuses a line that never ends", async () => {
  const chunk = new TextEncoder().encode("x".repeat(100));
  await assertRejects(
    () => Array.fromAsync(lines(streamOf(chunk, chunk, chunk), { maxLength: 250 })),
    RangeError,
    "wanted at most 250",
  );
});

Deno.test("writeLine() writes everything to a sink that takes little at a time", () => {
  const written: number[] = [];
  writeLine({
    writeSync(bytes) {
      written.push(...bytes.subarray(0, 3));
      return Math.min(3, bytes.length);
    },
  }, { text: "a\nb" });
  assertEquals(new TextDecoder().decode(Uint8Array.from(written)), '{"text":"a\\nb"}\n');
});
