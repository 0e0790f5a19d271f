/**
 * Tests over the fake driver.
 *
 * @module
 */
import { CudaContext } from "./context.ts";
import { FakeDriver } from "./fake_driver.ts";

/** Registers a test with a fake driver of its own; ignored where none can be built. */
export function fakeTest(name: string, body: (fake: FakeDriver) => void | Promise<void>): void {
  Deno.test({
    name,
    ignore: !FakeDriver.available,
    async fn() {
      using fake = FakeDriver.open();
      await body(fake);
    },
  });
}

/** As {@linkcode fakeTest}, with GPU 0 open. */
export function contextTest(
  name: string,
  body: (parts: { readonly fake: FakeDriver; readonly context: CudaContext }) => void | Promise<void>,
): void {
  fakeTest(name, async (fake) => {
    using context = CudaContext.open({ libraries: fake.libraries });
    await body({ fake, context });
  });
}
