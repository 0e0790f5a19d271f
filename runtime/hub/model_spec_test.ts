import { assertEquals, assertThrows } from "@std/assert";
import { formatModelSpec, isSafeFileName, parseModelSpec } from "./model_spec.ts";

Deno.test("parseModelSpec() tells hub repositories, known names and paths apart", () => {
  assertEquals(parseModelSpec("hf:org/model"), { kind: "hub", repo: "org/model", file: undefined });
  assertEquals(parseModelSpec("hf:org/m-1.5:sub/m.gguf"), { kind: "hub", repo: "org/m-1.5", file: "sub/m.gguf" });
  assertEquals(parseModelSpec("smollm2-135m-instruct"), { kind: "known", name: "smollm2-135m-instruct" });
  assertEquals(parseModelSpec("./smollm2-135m-instruct"), { kind: "path", path: "./smollm2-135m-instruct" });
  for (const text of ["hf:org/model", "hf:org/model:a/b.gguf", "smollm2-135m-instruct", "C:\\m.gguf"]) {
    assertEquals(formatModelSpec(parseModelSpec(text)), text);
  }
});

Deno.test("parseModelSpec() refuses repositories and files that lead elsewhere", () => {
  for (const repo of ["", "model", "a/b/c", "../b", "a/..", ".a/b", "a/b?x", "a b/c", "a/b--c"]) {
    assertThrows(() => parseModelSpec(`hf:${repo}`), SyntaxError, "wanted hf:org/repo[:file], got repository");
  }
  for (const file of ["", "../m.gguf", "a/../m.gguf", "/m.gguf", "a//m.gguf", "a\\m.gguf", "c:m.gguf", "a\0.gguf"]) {
    assertThrows(() => parseModelSpec(`hf:a/b:${file}`), SyntaxError, "wanted a file inside the repository");
  }
});

Deno.test("isSafeFileName() takes what hubs really have", () => {
  for (const name of ["model-00001-of-00002.safetensors", "sub/dir/m (1).gguf", ".gitattributes", "é.gguf"]) {
    assertEquals(isSafeFileName(name), true, name);
  }
  assertEquals(isSafeFileName("a".repeat(201)), false);
});
