import { assertEquals } from "@std/assert";
import { BlockPool } from "../../scheduler/block_pool.ts";
import { poisonFreed } from "./poison.ts";
import { TOY_WIDTH } from "./toy_model.ts";
import { ToyDevice } from "./toy_device.ts";

Deno.test("poisonFreed() makes a block unreadable when its content is given up, and not before", () => {
  const faults: string[] = [];
  const device = new ToyDevice({
    blocks: 3,
    blockTokens: 4,
    segmentTokens: 4,
    maxStepTokens: 8,
    maxLogitRows: 1,
    onFault: (message) => faults.push(message),
  });
  const pool = new BlockPool(3);
  poisonFreed(pool, device);
  const fill = (block: number) => {
    device.step([{ tokens: [1, 2, 3, 4], position: 0, blocks: [block], logits: "none" }]);
    faults.length = 0;
  };
  const readable = (block: number) => {
    faults.length = 0;
    device.attendNodes(0, [{
      queries: new Float32Array(TOY_WIDTH),
      segments: { from: 0, to: 1 },
      blocks: [block],
    }]);
    return faults.length === 0;
  };
  const own = pool.allocate();
  fill(own);
  pool.publish(own, "d");
  pool.release(own);
  assertEquals(readable(own), true, "cached");
  pool.share(own);
  assertEquals(readable(own), true, "shared");
  const plain = pool.allocate();
  fill(plain);
  pool.release(plain);
  assertEquals(readable(plain), false, "released");
  const [lent] = pool.lend(1);
  fill(lent);
  pool.quarantine([lent]);
  assertEquals(readable(lent), true, "in quarantine");
  pool.settle([lent]);
  assertEquals(readable(lent), false, "settled");
});
