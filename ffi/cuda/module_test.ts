import { assert, assertEquals, assertThrows } from "@std/assert";
import { CudaError } from "./error.ts";
import { contextTest } from "./test_fake.ts";

contextTest("CudaModule.function() tells what a kernel takes", ({ fake, context }) => {
  fake.takeNotes();
  using module = context.load(new TextEncoder().encode("\x7fELF...."));
  assert(fake.takeNotes().includes("image \x7fELF"));
  fake.setParameters(8, 4, 128);
  const kernel = module.function("scale");
  assert(fake.takeNotes().includes("function scale"));
  assertEquals([kernel.name, kernel.registers, kernel.localBytes], ["scale", 40, 30]);
  assertEquals(kernel.parameterBytes, [8, 4, 128]);
  assertEquals(kernel.blocksPerMultiprocessor(256, 2048), 6);
  fake.takeNotes();
  kernel.setSharedBytes(100000);
  kernel.preferShared();
  kernel.allowLargeClusters();
  assertEquals(fake.takeNotes(), [
    "attribute 8 = 100000",
    "cuFuncSetAttribute",
    "attribute 9 = 100",
    "cuFuncSetAttribute",
    "attribute 14 = 1",
    "cuFuncSetAttribute",
  ]);
});

contextTest("CudaModule names what could not be loaded, found or set", ({ fake, context }) => {
  fake.fail("cuModuleLoadData", 2);
  assertThrows(() => context.load(new Uint8Array(77)), CudaError, "Cannot load a cubin of 77 bytes");
  using module = (fake.fail(""), context.load(new Uint8Array(77)));
  fake.fail("cuModuleGetFunction", 500);
  assertThrows(() => module.function("gone"), CudaError, "Cannot find the kernel gone");
  fake.fail("cuFuncSetAttribute", 1);
  const kernel = module.function("scale");
  assertThrows(() => kernel.setSharedBytes(9), CudaError, "Cannot give scale 9 bytes of shared memory");
});
