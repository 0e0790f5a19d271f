import { assertEquals } from "@std/assert";
import plugin from "./lint_plugin.ts";

/** What the rule finds in a source at a path. */
function found(path: string, source: string): string[] {
  return Deno.lint.runPlugin(plugin, `/repository/${path}`, source)
    .filter(({ id }) => id === "house/ports-only")
    .map(({ message }) => message.replace("The simulator runs this code: take ", "").replace(" from outside", ""));
}

Deno.test("house/ports-only finds clocks, randomness, timers, sockets and the runtime in simulated code", () => {
  const sources: Readonly<Record<string, string>> = {
    "const t = Date.now();": "Date.now",
    "const t = new Date();": "Date",
    "const t = performance.now();": "performance.now",
    "const r = Math.random();": "Math.random",
    "setTimeout(() => {}, 1);": "setTimeout",
    "setInterval(() => {}, 1);": "setInterval",
    "queueMicrotask(() => {});": "queueMicrotask",
    "crypto.getRandomValues(new Uint8Array(1));": "crypto.getRandomValues",
    "const id = crypto.randomUUID();": "crypto.randomUUID",
    "const path = Deno.cwd();": "Deno.cwd",
    "const t = globalThis.setTimeout;": "globalThis.setTimeout",
    'const answer = fetch("http://a");': "fetch",
    'const socket = new WebSocket("ws://a");': "WebSocket",
    'import { connect } from "node:net";': "node:net",
    'import * as http2 from "node:http2";': "node:http2",
    'import { setTimeout as wait } from "node:timers/promises";': "node:timers/promises",
    'import { randomBytes } from "node:crypto";': "node:crypto: randomBytes",
    'import * as crypto from "node:crypto";': "node:crypto: all of it",
  };
  for (const [source, what] of Object.entries(sources)) {
    assertEquals(found("scheduler/lending/creditor.ts", source), [what], source);
    assertEquals(found("runtime/cluster/member.ts", source), [what], source);
  }
});

Deno.test("house/ports-only lets pass what only looks alike", () => {
  const sources = [
    "const { performance } = report; const ms = performance.batchMs;",
    "export interface Load { readonly performance?: number; setTimeout(): void }",
    "const t = ports.now(); ports.timer(1, () => {}); const r = Math.max(1, 2);",
    'import { createHash, hkdfSync, type KeyObject } from "node:crypto";',
    "const now = (clock: { now(): number }) => clock.now();",
  ];
  for (const source of sources) assertEquals(found("runtime/cluster/member.ts", source), [], source);
});

Deno.test("house/ports-only leaves openers, Workers, links and tests alone", () => {
  const source = "const t = performance.now();";
  for (
    const path of [
      "scheduler/links/http2_network.ts",
      "scheduler/lending/creditor_test.ts",
      "scheduler/gmanager/test_members.ts",
      "runtime/cluster/open_ports.ts",
      "runtime/cluster/cluster_worker.ts",
      "runtime/engine/engine.ts",
    ]
  ) assertEquals(found(path, source), [], path);
});
