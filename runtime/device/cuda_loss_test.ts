import { assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { CudaError } from "../../ffi/cuda/cuda.ts";
import { tellLoss } from "./cuda_loss.ts";
import { DeviceLostError } from "./device_lost_error.ts";

function failing(lost: boolean): CudaError {
  return new CudaError({ call: "cuStreamQuery", code: 700, codeName: "SOME_ERROR", context: "wait", lost });
}

Deno.test("tellLoss() makes the end of a GPU known by its class and leaves everything else as it is", () => {
  assertEquals(tellLoss(() => 7), 7);
  const lost = assertThrows(() =>
    tellLoss(() => {
      throw failing(true);
    }), DeviceLostError);
  assertEquals(lost.message, "Cannot use the device any more: Cannot wait: cuStreamQuery returned SOME_ERROR (700)");
  for (const error of [failing(false), new RangeError("Cannot attend: wanted another layer")]) {
    const thrown = assertThrows(() =>
      tellLoss(() => {
        throw error;
      })
    );
    assertStrictEquals(thrown, error);
  }
});
