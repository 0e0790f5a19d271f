import { assert, assertEquals, assertGreater, assertThrows } from "@std/assert";
import { CapacityError, type EngineRequest } from "./request.ts";
import { TEST_SEGMENT, TestCluster } from "./test_cluster.ts";
import { testGreedy } from "./test_device.ts";
import { Transcript } from "./test_engine.ts";

function tokens(length: number, first = 0): number[] {
  return Array.from({ length }, (_, i) => (first + 7 * i) % 94);
}

function greedy(id: string, prompt: number[], maxTokens: number): EngineRequest {
  return { id, prompt, maxTokens, sampling: { temperature: 0 } };
}

Deno.test("Engine serves a prompt that is larger than its pool and prefills while the KV moves out", () => {
  const cluster = new TestCluster({ blocks: 10, holders: [8, 8] });
  const request = greedy("long", tokens(120), 20);
  const transcript = cluster.test.add(request);
  cluster.drain();
  assertEquals(transcript.ids[0], testGreedy(request.prompt as number[], 20));
  assertGreater(cluster.moved, 10);
});
