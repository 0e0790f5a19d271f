import { assertEquals, assertRejects } from "@std/assert";
import { ProcessEndedError, TemplateProcess } from "./template_process.ts";

Deno.test("TemplateProcess.exchange() answers requests until the process is disposed", async () => {
  await using process = await TemplateProcess.start();
  const request = { template: "{{ n }}", variables: { n: 1 } };
  assertEquals(await process.exchange(request), { kind: "text", text: "1" });
  assertEquals(await process.exchange({ ...request, variables: { n: 2 } }), { kind: "text", text: "2" });
  await process[Symbol.asyncDispose]();
  await assertRejects(() => process.exchange(request), ProcessEndedError);
});

Deno.test("TemplateProcess.exchange() ends a process that does not answer in time", async () => {
  await using process = await TemplateProcess.start();
  const request = { template: "{% for i in range(3000000) %}{% endfor %}", variables: {} };
  await assertRejects(() => process.exchange(request, { wallMs: 2 }), ProcessEndedError, "wanted at most 2 ms");
  await assertRejects(() => process.exchange(request), ProcessEndedError, "its process ended");
});
