import { assertEquals, assertThrows } from "@std/assert";
import { join } from "node:path";
import { BlasLt } from "./blas.ts";
import type { DevicePtr } from "./buffer.ts";
import { CudaContext } from "./context.ts";
import { CudaError } from "./error.ts";
import type { FakeDriver } from "./fake_driver.ts";
import { fakeTest } from "./test_fake.ts";

/** What the fake library tells and does. */
class FakeBlas implements Disposable {
  readonly #library;

  constructor(fake: FakeDriver) {
    this.#library = Deno.dlopen(join(fake.libraries.get("blasLt").path), {
      // int fake_blas_take_notes(char *out, int bytes);
      fake_blas_take_notes: { parameters: ["buffer", "i32"], result: "i32" },
      // int fake_blas_live(void);
      fake_blas_live: { parameters: [], result: "i32" },
      // void fake_blas_none(int value);
      fake_blas_none: { parameters: ["i32"], result: "void" },
      // void fake_blas_fail(int status);
      fake_blas_fail: { parameters: ["i32"], result: "void" },
    });
    this.takeNotes();
    this.offerNone(false);
    this.failWith(0);
  }

  takeNotes(): string[] {
    const text = new Uint8Array(1 << 14);
    const bytes = this.#library.symbols.fake_blas_take_notes(text, text.length);
    return new TextDecoder().decode(text.subarray(0, bytes)).split("\n").slice(0, -1);
  }

  offerNone(value: boolean): void {
    this.#library.symbols.fake_blas_none(value ? 1 : 0);
  }

  failWith(status: number): void {
    this.#library.symbols.fake_blas_fail(status);
  }

  get live(): number {
    return this.#library.symbols.fake_blas_live();
  }

  [Symbol.dispose](): void {
    this.#library.close();
  }
}

fakeTest("BlasPlan.run() asks for the row-major product by columns: W transposed times A", (fake) => {
  using blasFake = new FakeBlas(fake);
  using context = CudaContext.open({ libraries: fake.libraries });
  using stream = context.stream();
  using blas = new BlasLt(context, { workspaceBytes: 4096 });
  const plan = blas.plan({ m: 3, n: 5, k: 7, out: "f32", add: true });
  assertEquals(blasFake.takeNotes(), ["ask workspace 4096 align 16"]);
  assertEquals([plan.algorithms, plan.chosen], [2, 0]);
  const args = { a: 1000n as DevicePtr, w: 2000n as DevicePtr, d: 3000n as DevicePtr };
  plan.run(stream, args);
  assertEquals(blasFake.takeNotes(), [
    "compute 68 scale 0 transpose 1 alpha 1 beta 1 algo 100",
    "A at 2000 type 14 7 x 5 ld 7",
    "B at 1000 type 14 7 x 3 ld 7",
    "C at 3000 type 0 5 x 3 ld 5",
    "D at 3000 type 0 5 x 3 ld 5",
    "workspace 1 of 4096",
  ]);
  const plain = blas.plan({ m: 3, n: 5, k: 7, out: "bf16", add: false });
  plain.choose(1);
  blasFake.takeNotes();
  plain.run(stream, args);
  assertEquals(blasFake.takeNotes().filter((line) => /^(compute|D)/.test(line)), [
    "compute 68 scale 0 transpose 1 alpha 1 beta 0 algo 102",
    "D at 3000 type 14 5 x 3 ld 5",
  ]);
});

fakeTest("BlasLt.plan() gives one plan a shape and refuses shapes that are none", (fake) => {
  using blasFake = new FakeBlas(fake);
  using context = CudaContext.open({ libraries: fake.libraries });
  using blas = new BlasLt(context);
  const shape = { m: 1, n: 2, k: 3, out: "bf16", add: false } as const;
  const plan = blas.plan(shape);
  assertEquals(blas.plan({ ...shape }) === plan, true);
  assertEquals(blas.plan({ ...shape, add: true }) === plan, false);
  assertThrows(() => blas.plan({ ...shape, n: 0 }), RangeError, "N must be a positive integer, got 0");
  assertThrows(() => plan.choose(2), RangeError, "wanted 0 to 1, got 2");
  blasFake.offerNone(true);
  assertThrows(() => blas.plan({ ...shape, m: 9 }), CudaError, "Cannot plan a product of M 9, N 2, K 3");
});

fakeTest("BlasPlan.run() tells a refused product from a dead context", (fake) => {
  using blasFake = new FakeBlas(fake);
  using context = CudaContext.open({ libraries: fake.libraries });
  using stream = context.stream();
  using blas = new BlasLt(context);
  const plan = blas.plan({ m: 1, n: 2, k: 3, out: "bf16", add: false });
  const none = 0n as DevicePtr;
  const failed = () => assertThrows(() => plan.run(stream, { a: none, w: none, d: none }), CudaError);
  blasFake.failWith(7);
  assertEquals(
    failed().message,
    "Cannot compute a product of M 1, N 2, K 3: cublasLtMatmul returned CUBLAS_STATUS_INVALID_VALUE (7)",
  );
  assertEquals(failed().lost, false);
  fake.setEventState(700);
  assertEquals(failed().lost, true);
});

fakeTest("BlasLt gives everything back, by itself or with its context", (fake) => {
  using blasFake = new FakeBlas(fake);
  const context = CudaContext.open({ libraries: fake.libraries });
  const first = new BlasLt(context);
  const second = new BlasLt(context);
  first.plan({ m: 1, n: 2, k: 3, out: "bf16", add: false });
  const plan = second.plan({ m: 1, n: 2, k: 3, out: "bf16", add: false });
  const stream = context.stream();
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  context[Symbol.dispose]();
  assertEquals([blasFake.live, fake.live], [0, 0]);
  const none = 0n as DevicePtr;
  assertThrows(() => plan.run(stream, { a: none, w: none, d: none }), ReferenceError);
  assertThrows(() => second.version, ReferenceError, "Cannot use cuBLASLt: it is disposed");
});

fakeTest("BlasLt takes a library that the driver can work with, or says that there is none", (fake) => {
  fake.setVersion(12080);
  using context = CudaContext.open({ libraries: fake.libraries });
  const before = fake.live;
  assertThrows(() => new BlasLt(context), Deno.errors.NotFound, "which the driver (CUDA 12) is too old for");
  assertEquals(fake.live, before);
});
