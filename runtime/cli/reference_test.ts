import { assertEquals, assertStringIncludes } from "@std/assert";
import { COMMAND_SPECS } from "./commands.ts";
import { flagName, flagsOf, flagVariable } from "./flags.ts";
import { helpText } from "./help.ts";
import { cliReference } from "./reference.ts";

Deno.test("cliReference() is what docs/cli.md says", () => {
  const page = Deno.readTextFileSync(new URL("../../docs/cli.md", import.meta.url));
  assertEquals(page.replaceAll("\r\n", "\n"), cliReference(), "run: deno run runtime/cli/reference.ts > docs/cli.md");
});

Deno.test("helpText() lists every command, and every flag of each", () => {
  for (const [command, { summary }] of COMMAND_SPECS) {
    assertStringIncludes(helpText(), summary);
    for (const key of flagsOf(command)) assertStringIncludes(helpText(command), `  --${flagName(key)}`);
  }
});

Deno.test("flagVariable() makes names by one rule, but for the cache", () => {
  assertEquals(flagVariable("kvMemory"), "INFINITE_LLM_KV_MEMORY");
  assertEquals(flagVariable("maxModelLen"), "INFINITE_LLM_MAX_MODEL_LEN");
  assertEquals(flagVariable("cacheDir"), "INFINITE_LLM_CACHE");
});
