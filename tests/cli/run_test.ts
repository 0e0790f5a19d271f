import { assertEquals, assertStringIncludes } from "@std/assert";
import { makeModelDirectory, runCli, RunningCli } from "./cli_process.ts";

const SMALL = ["--threads", "1", "--kv-tokens", "512", "--temperature", "0", "--max-tokens", "8"];

Deno.test("cli.ts run answers each line of its input and takes commands between them", async () => {
  await using directory = await makeModelDirectory();
  const input = "hello\n/help\n\n/clear\nhello\n/system Be brief\nhello\n/nothing\nhel";
  const { status, output, errors } = await runCli(["run", directory.model, ...SMALL], { input });
  assertEquals(status, 0, errors);
  assertStringIncludes(errors, "/clear         forget what was said");
  assertStringIncludes(errors, "There is no /nothing; /help shows what there is");
  const again = await runCli(["run", directory.model, ...SMALL], { input: "hello\n/exit\nhello\n" });
  // After /clear the same message has the same answer; what follows /exit has none.
  const answer = again.output;
  assertEquals(output.startsWith(answer + answer), true, JSON.stringify({ output, answer }));
  assertEquals(output.length > 2 * answer.length, true);
});

Deno.test("cli.ts run says when a conversation is longer than the context, and ends with 1", async () => {
  await using directory = await makeModelDirectory();
  const args = ["run", directory.model, ...SMALL, "--max-model-len", "40"];
  const { status, errors } = await runCli(args, { input: `${"long ".repeat(50)}\n` });
  assertEquals(status, 1);
  assertStringIncludes(errors, "infinite-llm: Cannot answer: the conversation has ");
  assertStringIncludes(errors, "the context 40; /clear begins anew");
});

Deno.test("cli.ts run stops an answer at Ctrl-C, goes on, and ends at Ctrl-C between answers", async () => {
  await using directory = await makeModelDirectory();
  const long = ["--threads", "1", "--kv-tokens", "100000", "--max-model-len", "100000", "--max-tokens", "90000"];
  await using cli = new RunningCli(["run", directory.model, ...long, "--temperature", "0"], { input: "" });
  await cli.write("hello\n");
  await cli.match(/l/);
  cli.signal("SIGINT");
  await cli.matchErrors(/^\[stopped\]\n$/);
  const said = cli.output.length;
  await cli.write("hello again\n");
  await cli.match(new RegExp(`^[^]{${said + 10}}`));
  cli.signal("SIGINT");
  await cli.matchErrors(/^(\[stopped\]\n){2}$/);
  cli.signal("SIGINT");
  const { status, errors } = await cli.end();
  assertEquals({ status, errors }, { status: 0, errors: "[stopped]\n[stopped]\n" });
});
