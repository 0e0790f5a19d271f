import { assertEquals } from "@std/assert";
import { ownPermissions } from "./spawn_self.ts";

Deno.test("ownPermissions() passes whole kinds on where this program has them", () => {
  assertEquals(ownPermissions("/cache", () => true), [
    "--allow-net",
    "--allow-read",
    "--allow-write",
    "--allow-env",
    "--allow-ffi",
    "--allow-run",
    "--allow-sys",
    "--allow-import",
  ]);
});

Deno.test("ownPermissions() passes on no more than this program has", () => {
  assertEquals(ownPermissions("/cache", () => false), []);
  const granted = (ask: Deno.PermissionDescriptor) =>
    (ask.name === "write" && ask.path === "/cache") || ask.name === "net" ||
    (ask.name === "env" && ask.variable?.startsWith("HF_") === true) ||
    (ask.name === "run" && ask.command === Deno.execPath());
  assertEquals(ownPermissions("/cache", granted), [
    "--allow-net",
    "--allow-write=/cache",
    "--allow-env=HF_*",
    `--allow-run=${Deno.execPath()}`,
  ]);
});
