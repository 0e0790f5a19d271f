import { assertEquals } from "@std/assert";
import { parseTorchLines, type TorchJob } from "./torch_peer.ts";

const JOBS: readonly TorchJob[] = ["32,8,128,1,1024", "32,8,128,1,8192", "32,32,128,1,8192"];

Deno.test("parseTorchLines() pairs figures with jobs and drops those that failed or are missing", () => {
  const { version, us } = parseTorchLines("PyTorch 2.11.0, cuDNN 91900\n6.81\nnan\n", JOBS);
  assertEquals(version, "PyTorch 2.11.0, cuDNN 91900");
  assertEquals([...us], [["32,8,128,1,1024", 6.81]]);
});

Deno.test("parseTorchLines() tells that there is no PyTorch", () => {
  assertEquals(parseTorchLines("", JOBS), { version: undefined, us: new Map() });
});
