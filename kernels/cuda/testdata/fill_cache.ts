/**
 * Loads 24 kernels through the cache directory in its argument, and prints how many it compiled.
 *
 * @module
 */
import { CudaContext } from "../../../ffi/cuda/cuda.ts";
import { FakeDriver } from "../../../ffi/cuda/fake_driver.ts";
import { KernelCache } from "../kernel_cache.ts";

function main(directory: string): void {
  using fake = FakeDriver.open();
  using context = CudaContext.open({ libraries: fake.libraries });
  const cache = KernelCache.open(context, { directory });
  cache.modules(Array.from({ length: 24 }, (_, index) => ({ name: `k${index}`, source: `// ${"x".repeat(20_000)}` })));
  const { loaded, compiled, damaged, unkept } = cache.counts;
  console.log(loaded + compiled, damaged, unkept);
}

main(Deno.args[0]);
