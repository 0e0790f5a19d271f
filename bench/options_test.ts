import { assertEquals, assertThrows } from "@std/assert";
import { parseOptions } from "./options.ts";
import { ROWS } from "./rows.ts";

Deno.test("parseOptions() runs every row and every peer that can be had by default", () => {
  const options = parseOptions(["--model", "m.gguf"]);
  assertEquals(options?.rows, ROWS);
  assertEquals(options?.peers, ["node-llama-cpp", "wllama"]);
  assertEquals([options?.repeats, options?.threads, options?.pin], [5, 2, false]);
});

Deno.test("parseOptions() prefers the model of the command line to that of the environment, and that to the default", () => {
  assertEquals(parseOptions(["--model", "a"], { model: "b" })?.model, "a");
  assertEquals(parseOptions([], { model: "b" })?.model, "b");
  assertEquals(parseOptions([])?.model, "smollm2-135m-instruct");
});

Deno.test("parseOptions() adds the programs whose path is given", () => {
  const options = parseOptions(["--model", "m.gguf", "--llama-bench", "a", "--llama-server", "b"]);
  assertEquals(options?.peers, ["node-llama-cpp", "wllama", "llama-bench", "llama-server"]);
});

Deno.test("parseOptions() keeps the order of the rows", () => {
  const options = parseOptions(["--only", "health,decode-128", "--peers", "none"], { model: "m.gguf" });
  assertEquals(options?.rows.map(({ id }) => id), ["decode-128", "health"]);
  assertEquals(options?.peers, []);
});

Deno.test("parseOptions() answers nothing when help is asked for", () => {
  assertEquals(parseOptions(["--help"]), undefined);
});

const WRONG: readonly (readonly [args: string[], message: string])[] = [
  [["--modle", "m"], "--modle"],
  [["--model", "m", "--only", "decode"], 'row "decode"'],
  [["--model", "m", "--peers", "vllm"], 'peer "vllm"'],
  [["--model", "m", "--peers", "llama-bench"], "--llama-bench PATH"],
  [["--model", "m", "--repeats", "0"], "--repeats 0"],
  [["--model", "m", "--threads", "two"], "--threads two"],
  [["--model", "m", "--seed", ""], "--seed"],
];
for (const [args, message] of WRONG) {
  Deno.test(`parseOptions() refuses ${args.join(" ")}`, () => {
    assertThrows(() => parseOptions(args), TypeError, message);
  });
}
