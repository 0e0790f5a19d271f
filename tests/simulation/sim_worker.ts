/**
 * Runs seeds on a thread of its own: the first message brings a port, on which tasks come and results go.
 *
 * @module
 */
import type { SimTask } from "./fleet.ts";
import { runSeed } from "./world.ts";

if (import.meta.main) {
  addEventListener("message", (event) => {
    if (!(event instanceof MessageEvent)) return;
    const [port] = event.ports;
    port.onmessage = ({ data }: MessageEvent<SimTask>) => {
      const { first, count, events } = data;
      port.postMessage(Array.from({ length: count }, (_, i) => runSeed({ seed: first + i, events })));
    };
  }, { once: true });
}
