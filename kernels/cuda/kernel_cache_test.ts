import { assert, assertEquals, assertThrows } from "@std/assert";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { CudaContext, CudaError } from "../../ffi/cuda/cuda.ts";
import { FakeDriver } from "../../ffi/cuda/fake_driver.ts";
import { readEntry } from "./cache_entry.ts";
import type { CudaKernel } from "./compile.ts";
import { KernelCache, type KernelCacheOptions, kernelDirectory } from "./kernel_cache.ts";

const ignore = !FakeDriver.available;
const SCALE: CudaKernel = { name: "scale", source: "void scale();", defines: { N: 1 } };
const ADD: CudaKernel = { name: "add", source: "void add();" };

/** Runs `body` with a fake GPU and an empty directory. */
function withCache(body: (open: (options?: KernelCacheOptions) => KernelCache, directory: string) => void): void {
  const directory = Deno.makeTempDirSync();
  try {
    using fake = FakeDriver.open();
    using context = CudaContext.open({ libraries: fake.libraries });
    body((options) => KernelCache.open(context, { directory, ...options }), directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

function files(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
}

Deno.test({
  name: "KernelCache.modules() compiles what is not there, says so, and reads it the next time",
  ignore,
  fn() {
    withCache((open, directory) => {
      const seen: string[] = [];
      const onProgress = (done: number, total: number, name: string) => seen.push(`${done}/${total} ${name}`);
      const first = open({ onProgress });
      assertEquals(first.modules([SCALE, ADD]).length, 2);
      assertEquals(seen, ["0/2 scale", "1/2 add", "2/2 add"]);
      assertEquals(first.counts, { loaded: 0, compiled: 2, damaged: 0, unkept: 0 });
      assertEquals(files(directory).map((name) => name.replace(/-[0-9a-f]{64}/, "")), ["add.cubin", "scale.cubin"]);
      seen.length = 0;
      const second = open({ onProgress });
      second.module(SCALE);
      second.module(ADD);
      assertEquals(second.counts, { loaded: 2, compiled: 0, damaged: 0, unkept: 0 });
      assertEquals(seen, []);
      assertEquals(first.modules([]), []);
    });
  },
});

Deno.test({
  name: "KernelCache knows a kernel by its source and macros",
  ignore,
  fn() {
    withCache((open, directory) => {
      const cache = open();
      cache.module(SCALE);
      cache.module({ ...SCALE, defines: { N: 2 } });
      cache.module({ ...SCALE, source: "void scale(int);" });
      cache.module({ ...SCALE, defines: { N: "1" } });
      assertEquals(cache.counts.compiled, 3);
      assertEquals(files(directory).length, 3);
    });
  },
});

Deno.test({
  name: "KernelCache tells GPUs and drivers apart",
  ignore,
  fn() {
    const directory = Deno.makeTempDirSync();
    try {
      using fake = FakeDriver.open();
      const compiledBy = (ordinal: number) => {
        using context = CudaContext.open({ ordinal, libraries: fake.libraries });
        const cache = KernelCache.open(context, { directory });
        cache.module(SCALE);
        return cache.counts.compiled;
      };
      const first = [compiledBy(0), compiledBy(0), compiledBy(1), compiledBy(1)];
      fake.setVersion(13010);
      assertEquals([...first, compiledBy(0)], [1, 0, 1, 0, 1]);
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  },
});

Deno.test({
  name: "KernelCache builds a damaged entry again",
  ignore,
  fn() {
    withCache((open, directory) => {
      open().module(SCALE);
      const path = join(directory, files(directory)[0]);
      const whole = Deno.readFileSync(path);
      for (
        const damaged of [
          whole.subarray(0, whole.length - 1),
          whole.map((byte, at) => at === 60 ? byte ^ 1 : byte),
        ]
      ) {
        Deno.writeFileSync(path, damaged);
        const cache = open();
        cache.module(SCALE);
        assertEquals(cache.counts, { loaded: 0, compiled: 1, damaged: 1, unkept: 0 });
        assertEquals(Deno.readFileSync(path), whole);
      }
    });
  },
});

Deno.test({
  name: "KernelCache works without a directory it can write",
  ignore,
  fn() {
    withCache((open, directory) => {
      Deno.writeTextFileSync(join(directory, "file"), "");
      const cache = open({ directory: join(directory, "file", "below") });
      cache.module(SCALE);
      assertEquals(cache.counts, { loaded: 0, compiled: 1, damaged: 0, unkept: 1 });
    });
  },
});

Deno.test({
  name: "KernelCache.module() keeps nothing of a kernel that does not compile, and shows the log",
  ignore,
  fn() {
    withCache((open, directory) => {
      const error = assertThrows(() => open().module({ name: "bad", source: "BROKEN" }), CudaError);
      assert(error.message.startsWith("Cannot compile bad.cu: "), error.message);
      assert(error.message.endsWith("line 1: broken"), error.message);
      assertEquals(files(directory), []);
    });
  },
});

Deno.test({
  name: "KernelCache shares its directory with other processes that fill it at the same time",
  ignore,
  async fn() {
    const directory = Deno.makeTempDirSync();
    try {
      // Built here, so that the processes do nothing but compile.
      FakeDriver.open()[Symbol.dispose]();
      const script = fileURLToPath(new URL("./testdata/fill_cache.ts", import.meta.url));
      const outputs = await Promise.all(Array.from({ length: 3 }, () =>
        new Deno.Command(Deno.execPath(), {
          args: ["run", "--no-check", "--no-lock", "-A", script, directory],
          stdin: "null",
        }).output()));
      for (const { stdout, stderr } of outputs) {
        assertEquals(new TextDecoder().decode(stdout), "24 0 0\n", new TextDecoder().decode(stderr));
      }
      const names = files(directory);
      assertEquals(names.length, 24);
      for (const name of names) assertEquals(readEntry(join(directory, name)).kind, "hit", name);
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  },
});

Deno.test("kernelDirectory() follows the cache directory of this program and the platform", () => {
  const of = (variables: Readonly<Record<string, string>>) => kernelDirectory((name) => variables[name]);
  assertEquals(of({ INFINITE_LLM_CACHE: "/c", HOME: "/h" }), "/c/kernels");
  assertEquals(of({ XDG_CACHE_HOME: "/x", HOME: "/h" }), "/x/infinite-llm/kernels");
  assertEquals(of({ XDG_CACHE_HOME: "x", HOME: "/h" }), "/h/.cache/infinite-llm/kernels");
  assertThrows(() => of({}), TypeError, "wanted HOME to be set");
});
