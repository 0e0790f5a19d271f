import { assertEquals, assertThrows } from "@std/assert";
import { FakeDriver } from "../../ffi/cuda/fake_driver.ts";
import { Nvrtc } from "../../ffi/cuda/cuda.ts";
import { archOf, compileCuda, cudaSource } from "./compile.ts";

Deno.test("archOf() asks for all instructions of a GPU where there is such a target", () => {
  assertEquals([[8, 0], [8, 9], [9, 0], [10, 0], [12, 1]].map(([major, minor]) => archOf({ major, minor })), [
    "sm_80",
    "sm_89",
    "sm_90a",
    "sm_100a",
    "sm_121a",
  ]);
});

Deno.test("cudaSource() gives macros in one order and only the headers that are included", () => {
  const headers = {
    "a.cuh": '#include "b.cuh"\nint a;',
    "b.cuh": '#pragma once\n  #  include "a.cuh"\nint b;',
    "c.cuh": "int c;",
  };
  const kernel = { name: "k", source: '#include "a.cuh"\n// #include "c.cuh"\n', defines: { Z: 1, A: "float" } };
  assertEquals(cudaSource(kernel, { arch: "sm_80", headers }), {
    name: "k",
    source: kernel.source,
    headers: { "a.cuh": headers["a.cuh"], "b.cuh": headers["b.cuh"] },
    options: ["-arch=sm_80", "-std=c++17", "-DA=float", "-DZ=1"],
  });
  assertEquals(cudaSource(kernel, { arch: "sm_80", headers, verbose: true }).options.at(-1), "--ptxas-options=-v");
});

Deno.test("cudaSource() names the header that is not there and who includes it", () => {
  const headers = { "a.cuh": '#include "gone.cuh"' };
  assertThrows(
    () => cudaSource({ name: "k", source: '#include "a.cuh"' }, { arch: "sm_80", headers }),
    ReferenceError,
    'Cannot compile k: a.cuh includes "gone.cuh", wanted one of a.cuh',
  );
});

Deno.test({
  name: "compileCuda() compiles under the file's name",
  ignore: !FakeDriver.available,
  fn() {
    using fake = FakeDriver.open();
    using nvrtc = Nvrtc.open(fake.libraries.get("nvrtc"));
    const { cubin } = compileCuda(nvrtc, { name: "k", source: "int x;", defines: { N: 3 } }, { arch: "sm_90a" });
    assertEquals(
      new TextDecoder().decode(cubin),
      "k.cu\nint x;\noption -arch=sm_90a\noption -std=c++17\noption -DN=3\n",
    );
  },
});
