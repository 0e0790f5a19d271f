import { assertEquals } from "@std/assert";
import { readJson, readText, type ReadValue } from "./flag_value.ts";
import { FLAG_SPECS, type FlagKey, type FlagSpec } from "./flags.ts";

function flag(key: FlagKey): FlagSpec {
  const found = FLAG_SPECS.get(key);
  if (found === undefined) throw new TypeError(`no flag ${key}`);
  return found;
}

const text = (key: FlagKey, value: string): ReadValue => readText(flag(key), value);
const json = (key: FlagKey, value: unknown): ReadValue => readJson(flag(key), value);

Deno.test("readText() reads sizes with binary and decimal units", () => {
  assertEquals(text("kvMemory", "512MiB"), { value: 512 * 2 ** 20 });
  assertEquals(text("kvMemory", "1.5 GB"), { value: 1.5e9 });
  assertEquals(text("kvMemory", "4096"), { value: 4096 });
  for (const wrong of ["", "0", "-1MiB", "1MB2", "12 parsecs", "1e999", "512mib", "1 toString"]) {
    assertEquals(text("kvMemory", wrong), { wanted: "a size such as 512MiB or 1.5GB" }, wrong);
  }
});

Deno.test("readText() reads numbers within their range", () => {
  assertEquals(text("port", "0"), { value: 0 });
  assertEquals(text("temperature", ".5"), { value: 0.5 });
  for (const wrong of ["", "1.5", "-1", "65536", "0x10", "NaN", "Infinity", "1 2", "8080 "]) {
    assertEquals(text("port", wrong), { wanted: "a whole number from 0 to 65535" }, wrong);
  }
  assertEquals(text("temperature", "2.1"), { wanted: "a number from 0 to 2" });
});

Deno.test("readText() names all choices and the nearest one", () => {
  assertEquals(text("kvType", "bf16"), { value: "bf16" });
  assertEquals(text("kvType", "fp16"), { wanted: "one of f32, f16, bf16, fp8 (f16?)" });
});

Deno.test("readText() reads switches", () => {
  assertEquals(text("offline", "1"), { value: true });
  assertEquals(text("offline", "False"), { value: false });
  assertEquals(text("offline", "maybe"), { wanted: "true or false" });
});

Deno.test("readText() reads pairs whose values are JSON or else text", () => {
  assertEquals(text("schedulerOpt", "agingMs=500"), { value: { agingMs: 500 } });
  assertEquals(text("schedulerOpt", "name=a=b"), { value: { name: "a=b" } });
  assertEquals(text("schedulerOpt", "=1"), { wanted: "KEY=VALUE" });
});

Deno.test("readText() refuses control characters anywhere", () => {
  for (const key of ["host", "port", "model", "corsOrigin", "schedulerOpt"] as const) {
    assertEquals(text(key, "a=\nb"), { wanted: "text without control characters" });
  }
});

Deno.test("readJson() wants the JSON type of the flag", () => {
  assertEquals(json("port", 9000), { value: 9000 });
  assertEquals(json("port", "9000"), { wanted: "a whole number from 0 to 65535" });
  assertEquals(json("offline", true), { value: true });
  assertEquals(json("offline", "true"), { wanted: "true or false" });
  assertEquals(json("kvMemory", "1GiB"), { value: 2 ** 30 });
  assertEquals(json("kvMemory", null), { wanted: "text" });
  assertEquals(json("corsOrigin", ["https://a"]), { value: ["https://a"] });
  assertEquals(json("corsOrigin", "https://a"), { wanted: "a list of texts" });
  assertEquals(json("schedulerOpt", { a: 1 }), { value: { a: 1 } });
  assertEquals(json("schedulerOpt", [1]), { wanted: "an object" });
  assertEquals(json("host", 1), { wanted: "text" });
});

Deno.test("readText() reads a choice with a number where one may follow, and no other", () => {
  assertEquals(text("device", "cuda"), { value: "cuda" });
  assertEquals(text("device", "cuda:3"), { value: "cuda:3" });
  assertEquals(text("device", "cuda:007"), { value: "cuda:7" });
  for (const wrong of ["cuda:", "cuda:x", "cuda:1:2", "cuda:-1"]) {
    assertEquals(text("device", wrong), { wanted: "cuda, or cuda: and a number" });
  }
  assertEquals(text("device", "wasm:1"), { wanted: "one of auto, cuda, wasm (wasm?)" });
  assertEquals(text("kvType", "f16:1"), { wanted: "one of f32, f16, bf16, fp8 (f16?)" });
});
