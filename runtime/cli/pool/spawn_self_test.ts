import { assertEquals } from "@std/assert";
import { libraryDirectories, ownPermissions } from "./spawn_self.ts";

Deno.test("ownPermissions() passes whole kinds on where this program has them", () => {
  assertEquals(ownPermissions({ cacheDirectory: "/cache", granted: () => true }), [
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
  assertEquals(ownPermissions({ cacheDirectory: "/cache", granted: () => false }), []);
  const granted = (ask: Deno.PermissionDescriptor) =>
    (ask.name === "write" && ask.path === "/cache") || ask.name === "net" ||
    (ask.name === "env" && ask.variable?.startsWith("HF_") === true) ||
    (ask.name === "run" && ask.command === Deno.execPath()) || (ask.name === "ffi" && ask.path === "/cuda.so");
  const libraries = ["/cuda.so", "/nvrtc.so"];
  assertEquals(ownPermissions({ cacheDirectory: "/cache", libraries, granted }), [
    "--allow-net",
    "--allow-write=/cache",
    "--allow-env=HF_*",
    "--allow-ffi=/cuda.so",
    `--allow-run=${Deno.execPath()}`,
  ]);
});

Deno.test("libraryDirectories() names each directory once, and nothing where there is no library", () => {
  assertEquals(libraryDirectories(["/a/libnvrtc.so.13", "/b/libcuda.so.1", "/a/libcublasLt.so.13"]), {
    INFINITE_LLM_CUDA_PATH: "/a:/b",
  });
  assertEquals(libraryDirectories([]), {});
});
