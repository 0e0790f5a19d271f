/**
 * An engine Worker over the test device. `modelName` picks what it does: `unreadable` fails to open; `slow`, `fragile`
 * and `mortal` take 2 ms a step; a prompt of 13 tokens and a cancellation break a `fragile` engine, two requests at a time
 * kill the Worker of a `mortal` one; the third step of a `lost` engine loses its device, with two
 * requests a timer of an `absent` one does, a promise of an `adrift` one.
 *
 * @module
 */
import type { EngineEvent, QueueView } from "../../plugins/types.ts";
import { TestPolicy } from "../../scheduler/test_policy.ts";
import { DeviceLostError } from "../device/device_lost_error.ts";
import type { AssembledEngine, AssemblyContext } from "./assemble_engine.ts";
import { Engine } from "./engine.ts";
import type { OpenEngineOptions } from "./engine_protocol.ts";
import { serveEngine } from "./engine_server.ts";
import { TestDevice } from "./test_device.ts";

class FragilePolicy extends TestPolicy {
  override rank(queue: QueueView): Int32Array {
    if (queue.promptTokens.includes(13)) throw new Error("Test engine breaks in a step");
    return super.rank(queue);
  }

  override observe(events: readonly EngineEvent[]): void {
    const cancelled = events.some((event) => event.kind === "ended" && event.reason === "cancelled");
    if (cancelled) throw new Error("Test engine breaks between steps");
  }
}

class MortalPolicy extends TestPolicy {
  override rank(queue: QueueView): Int32Array {
    setTimeout(() => {
      throw new Error("Test worker dies");
    });
    return super.rank(queue);
  }
}

class AbsentPolicy extends TestPolicy {
  override rank(queue: QueueView): Int32Array {
    setTimeout(() => {
      throw new DeviceLostError(new Error("it was lost between two steps"));
    });
    return super.rank(queue);
  }
}

class AdriftPolicy extends TestPolicy {
  override rank(queue: QueueView): Int32Array {
    setTimeout(() => void Promise.reject(new DeviceLostError(new Error("it was lost between two steps"))));
    return super.rank(queue);
  }
}

const POLICIES: Readonly<Record<string, new () => TestPolicy>> = {
  fragile: FragilePolicy,
  mortal: MortalPolicy,
  absent: AbsentPolicy,
  adrift: AdriftPolicy,
};

async function assemble(options: OpenEngineOptions, { text, log }: AssemblyContext): Promise<AssembledEngine> {
  const { modelName = "test", maxQueue } = options;
  if (modelName === "unreadable") throw new RangeError("Cannot read the test model: it is unreadable");
  const device = new TestDevice({ blocks: 64 });
  const stepMs = ["slow", "fragile", "mortal", "absent", "adrift"].includes(modelName) ? 2 : 0;
  let steps = 0;
  device.beforeStep = () => {
    if (modelName === "lost" && ++steps === 3) throw new DeviceLostError(new Error("a kernel of the test went astray"));
    const untilMs = performance.now() + stepMs;
    while (performance.now() < untilMs);
  };
  const engine = new Engine({
    device,
    policy: new (POLICIES[modelName] ?? TestPolicy)(),
    ...await text,
    maxModelLen: 200,
    maxBatch: 8,
    modelName,
    modelDigest: "00",
    maxQueue,
  });
  log("assembled");
  return { engine, device, [Symbol.dispose]: () => log("disposed") };
}

if (import.meta.main) {
  addEventListener("message", (event) => {
    if (event instanceof MessageEvent) void serveEngine(event.data, assemble);
  }, { once: true });
}
