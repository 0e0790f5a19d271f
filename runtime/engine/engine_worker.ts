/**
 * Worker that owns a device and runs the engine on it.
 *
 * @module
 */
import { assembleEngine } from "./assemble_engine.ts";
import { serveEngine } from "./engine_server.ts";

if (import.meta.main) {
  addEventListener("message", (event) => {
    if (event instanceof MessageEvent) void serveEngine(event.data, assembleEngine);
  }, { once: true });
}
