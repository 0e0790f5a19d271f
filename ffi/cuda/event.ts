/**
 * Marks in the work of a stream.
 *
 * @module
 */
import { DRIVER } from "./driver_constants.ts";
import { type ContextScope, OwnedHandle } from "./owned_handle.ts";

/** The driver's handle of an event. */
export type EventHandle = bigint & { readonly brand: "CUevent" };

/** A mark that a stream reaches when everything enqueued before it is done; destroyed on dispose. */
export class CudaEvent extends OwnedHandle<EventHandle> {
  /** Takes an event of the driver; {@linkcode create} makes these. */
  constructor(scope: ContextScope, handle: EventHandle) {
    super(scope, "CUDA event", handle);
  }

  /** Makes one that was never recorded. @throws {CudaError} */
  static create(scope: ContextScope, { timing = false }: { readonly timing?: boolean } = {}): CudaEvent {
    const { driver } = scope;
    scope.enter();
    const handle = new BigUint64Array(1);
    const flags = timing ? DRIVER.CU_EVENT_DEFAULT : DRIVER.CU_EVENT_DISABLE_TIMING;
    driver.check(driver.symbols.cuEventCreate(handle, flags), { call: "cuEventCreate", context: "make an event" });
    return new CudaEvent(scope, handle[0] as EventHandle);
  }

  /** Whether the work before its last record is done; true when it was never recorded. @throws {CudaError} */
  get reached(): boolean {
    const { driver } = this.scope;
    const code = driver.symbols.cuEventQuery(this.handle);
    if (code === DRIVER.CUDA_SUCCESS) return true;
    if (code === DRIVER.CUDA_ERROR_NOT_READY) return false;
    throw driver.error(code, { call: "cuEventQuery", context: "ask for an event" });
  }

  /** Blocks this thread until it is reached. @throws {CudaError} */
  synchronize(): void {
    const { driver } = this.scope;
    driver.check(driver.symbols.cuEventSynchronize(this.handle), {
      call: "cuEventSynchronize",
      context: "wait for an event",
    });
  }

  /**
   * Milliseconds from `earlier` to this event; both made with `timing`, recorded and reached. Resolution 0.5 µs.
   *
   * @throws {CudaError} when one of them is not.
   */
  msSince(earlier: CudaEvent): number {
    const { driver } = this.scope;
    const ms = new Float32Array(1);
    const code = driver.symbols.cuEventElapsedTime(ms, earlier.handle, this.handle);
    driver.check(code, { call: "cuEventElapsedTime", context: "measure the time between two events" });
    return ms[0];
  }

  protected override free(handle: EventHandle): void {
    const { driver } = this.scope;
    driver.check(driver.symbols.cuEventDestroy_v2(handle), { call: "cuEventDestroy_v2", context: "destroy an event" });
  }
}
