/**
 * Members of unlike devices as far as no GPU is needed: what they say of themselves, and who is refused.
 *
 * @module
 */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { digestedDevice } from "../../runtime/cluster/digested_device.ts";
import { kvFormat } from "../../runtime/cluster/open_member.ts";
import { memberDigest } from "../../runtime/cluster/open_member_digest.ts";
import { SEGMENT_TOKENS } from "../../runtime/device/device.ts";
import { WasmDevice } from "../../runtime/device/wasm_device.ts";
import { PeerError } from "../../scheduler/links/link.ts";
import { checkPeer } from "../../scheduler/protocol/hello_checks.ts";
import type { MemberCard } from "../../scheduler/protocol/member.ts";
import { openSynthetic } from "../conformance/open_synthetic.ts";
import { GroupedDevice } from "./grouped_blocks.ts";

function card(name: string, format: MemberCard["format"]): MemberCard {
  return {
    name,
    incarnation: name.padEnd(32, "0"),
    role: "full",
    clusterUrl: `http://${name}:1`,
    publicUrl: "",
    pid: 1,
    protocol: 1,
    pluginApi: 1,
    kernelDigest: "",
    format,
  };
}

Deno.test("kvFormat() is that of blocks as they travel, so that pools with blocks of another size fit together", async () => {
  using model = openSynthetic();
  using small = await WasmDevice.open(model, { blocks: 64, kvType: "bf16" });
  using large = new GroupedDevice(await WasmDevice.open(model, { blocks: 64, kvType: "bf16" }), 4);
  assertEquals([large.layout.blockTokens, large.blockBytes], [64, 4 * small.blockBytes]);
  const format = kvFormat(small, model.digest);
  assertEquals(kvFormat(large, model.digest), format);
  assertEquals([format.blockTokens, format.blockBytes, format.segmentTokens], [16, small.blockBytes, SEGMENT_TOKENS]);
  checkPeer(card("a", format), card("b", kvFormat(large, model.digest)));
});

Deno.test("checkPeer() refuses a pool of another type and one stored otherwise, by name", async () => {
  using model = openSynthetic();
  using bf16 = await WasmDevice.open(model, { blocks: 16, kvType: "bf16" });
  using f16 = await WasmDevice.open(model, { blocks: 16, kvType: "f16" });
  const own = kvFormat(bf16, model.digest);
  assertThrows(
    () => checkPeer(card("a", own), card("b", kvFormat(f16, model.digest))),
    PeerError,
    "Cannot link a with b: wanted kvType bf16, got f16",
  );
  // An fp8 pool would keep less of bf16 blocks than it was given.
  assertThrows(
    () => checkPeer(card("a", own), card("b", { ...own, kvType: "fp8" })),
    PeerError,
    "Cannot link a with b: wanted kvType bf16, got fp8",
  );
  const reference = { ...bf16.info, kind: "reference" } as const;
  const stored = kvFormat(Object.create(bf16, { info: { value: reference } }), model.digest);
  assertThrows(
    () => checkPeer(card("a", own), card("b", stored)),
    PeerError,
    "wanted layout units/i8/1, got reference",
  );
});

Deno.test("memberDigest() names the device before the digest", async () => {
  const digest = await memberDigest({ kind: "wasm" });
  assertMatch(digest, /^wasm [0-9a-f]{64}$/);
  assertEquals(await memberDigest({ kind: "wasm" }), digest);
  assertEquals(digestedDevice(digest), "wasm");
  assertEquals(digestedDevice("cuda deterministic 0123"), "cuda deterministic");
  assertEquals(digestedDevice("0123"), "");
  assert(digest.length <= 256);
});
