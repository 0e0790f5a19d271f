/**
 * An engine Worker whose device is lost at its twentieth step.
 *
 * @module
 */
import { DeviceLostError } from "../../runtime/device/device_lost_error.ts";
import { assembleEngine } from "../../runtime/engine/assemble_engine.ts";
import { type EngineAssembler, serveEngine } from "../../runtime/engine/engine_server.ts";

const assemble: EngineAssembler = async (options, context) => {
  const assembled = await assembleEngine(options, context);
  const { device } = assembled;
  const begin = device.begin.bind(device);
  let steps = 0;
  device.begin = (...batch) => {
    if (++steps >= 20) throw new DeviceLostError(new Error("a kernel went astray"));
    return begin(...batch);
  };
  return assembled;
};

if (import.meta.main) {
  addEventListener("message", (event) => {
    if (event instanceof MessageEvent) void serveEngine(event.data, assemble);
  }, { once: true });
}
