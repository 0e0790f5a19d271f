import { assertEquals, assertThrows } from "@std/assert";
import { type ByteSource, FileSource, MemorySource } from "./byte_source.ts";
import { ModelFileError } from "./model_file_error.ts";

const BYTES = Uint8Array.from({ length: 1000 }, (_, index) => index % 251);

function withFile(use: (path: string) => void): void {
  const path = Deno.makeTempFileSync();
  try {
    Deno.writeFileSync(path, BYTES);
    use(path);
  } finally {
    Deno.removeSync(path);
  }
}

const KINDS: readonly (readonly [string, (use: (source: ByteSource) => void) => void])[] = [
  ["MemorySource", (use) => use(new MemorySource(BYTES))],
  ["FileSource", (use) =>
    withFile((path) => {
      using source = new FileSource(path);
      use(source);
    })],
];

for (const [kind, open] of KINDS) {
  Deno.test(`${kind}.readInto() fills plain and shared views from any offset`, () => {
    open((source) => {
      assertEquals(source.size, 1000);
      const plain = new Uint8Array(12).subarray(1, 11);
      source.readInto(plain, 990);
      assertEquals(plain, BYTES.slice(990));
      const shared = new Uint8Array(new SharedArrayBuffer(64)).subarray(3, 33);
      source.readInto(shared, 500);
      assertEquals([...shared], [...BYTES.subarray(500, 530)]);
      source.readInto(new Uint8Array(0), 1000);
    });
  });

  Deno.test(`${kind}.readInto() refuses ranges outside of the source`, () => {
    open((source) => {
      for (const [length, offset] of [[1, 1000], [2, 999], [1, -1], [1001, 0], [1, 0.5], [1, NaN], [1, 2 ** 60]]) {
        assertThrows(() => source.readInto(new Uint8Array(length), offset), RangeError, "it has 1000");
      }
    });
  });

  Deno.test(`${kind} throws after it is disposed, and may be disposed twice`, () => {
    open((source) => {
      source[Symbol.dispose]();
      source[Symbol.dispose]();
      assertThrows(() => source.readInto(new Uint8Array(1), 0), ReferenceError, "closed");
    });
  });
}

Deno.test("FileSource.readInto() reports a file that shrank after it was opened", () => {
  withFile((path) => {
    using source = new FileSource(path);
    Deno.truncateSync(path, 100);
    source.readInto(new Uint8Array(100), 0);
    assertThrows(() => source.readInto(new Uint8Array(200), 0), ModelFileError, "byte 100 is past the end");
  });
});

Deno.test("FileSource reads past 4 GiB of a sparse file", () => {
  const path = Deno.makeTempFileSync();
  try {
    const offset = 5 * 2 ** 30;
    {
      using file = Deno.openSync(path, { write: true });
      file.seekSync(offset, Deno.SeekMode.Start);
      file.writeSync(Uint8Array.of(1, 2, 3));
    }
    using source = new FileSource(path);
    const into = new Uint8Array(4);
    source.readInto(into, offset - 1);
    assertEquals(into, Uint8Array.of(0, 1, 2, 3));
  } finally {
    Deno.removeSync(path);
  }
});
