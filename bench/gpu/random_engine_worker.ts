/**
 * Worker that runs an engine with random weights on a GPU.
 *
 * @module
 */
import { serveEngine } from "../../runtime/engine/engine_server.ts";
import { assembleRandom } from "./random_engine.ts";

if (import.meta.main) {
  addEventListener("message", (event) => {
    if (event instanceof MessageEvent) void serveEngine(event.data, assembleRandom);
  }, { once: true });
}
