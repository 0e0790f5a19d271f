import { assertEquals } from "@std/assert";
import { FakeCluster } from "./fakes/cluster.ts";
import { ModelLength } from "./model_length.ts";

Deno.test("ModelLength.current() is the instance's own without a cluster", async () => {
  assertEquals(await new ModelLength({ alone: 7, now: () => 0 }).current(), 7);
});

Deno.test("ModelLength.current() asks the cluster at most once a second", async () => {
  const cluster = new FakeCluster({ reachableModelLen: 100 });
  let now = 0;
  const length = new ModelLength({ alone: 7, cluster, now: () => now });
  assertEquals(await Promise.all([length.current(), length.current()]), [100, 100]);
  cluster.state = { ...cluster.state, reachableModelLen: 300 };
  now = 999;
  assertEquals(await length.current(), 100);
  now = 1000;
  assertEquals(await length.current(), 300);
  assertEquals(cluster.reports, 2);
});

Deno.test("ModelLength.current() keeps the last length while the cluster fails or does not answer", async () => {
  const cluster = new FakeCluster({ reachableModelLen: 100 });
  let now = 0;
  const length = new ModelLength({ alone: 7, cluster, now: () => now });
  cluster.answer = () => Promise.reject(new Error("gone"));
  assertEquals(await length.current(), 7);
  cluster.answer = undefined;
  now = 1000;
  assertEquals(await length.current(), 100);
  cluster.answer = () => new Promise(() => {});
  now = 2000;
  assertEquals(await length.current(), 100);
});
