import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { TemplateError } from "./codec.ts";
import { TEMPLATE_OUTPUT } from "./template_protocol.ts";
import { TemplateRenderer } from "./template_renderer.ts";

const render = (renderer: TemplateRenderer, template: string, variables: Record<string, unknown> = {}) =>
  renderer.render({ template, variables });

Deno.test("TemplateRenderer.render() renders in order, and trims blocks like the reference", async () => {
  await using renderer = new TemplateRenderer();
  const block = "{% if true %}\n  {% set x = 'a' %}\n{{ x }}\n  {% endif %}\n";
  const rendered = await Promise.all([
    render(renderer, "{{ n }}", { n: 1 }),
    render(renderer, "{{ n }}", { n: 2 }),
    render(renderer, block),
    render(renderer, "{{ text | tojson }}", { text: "é \ue000 \u2028 <" }),
    render(renderer, "{{ strftime_now('%Y') | length }}"),
  ]);
  assertEquals(rendered, ["1", "2", "a\n", '"é \ue000 \u2028 <"', "4"]);
});

Deno.test("TemplateRenderer.render() reports what is wrong with a template and goes on", async () => {
  await using renderer = new TemplateRenderer();
  const wrong: [string, string][] = [
    ["{{ raise_exception('roles must alternate') }}", "roles must alternate"],
    ["{% if %}", ""],
    ["{{ x | teleport }}", "teleport"],
    ["{{ 'a'.constructor.constructor('return 1')() }}", ""],
    ["{{ [].__proto__.push(1) }}", ""],
    ["(".repeat(10) + "{{ " + "(".repeat(100_000) + "1", ""],
    ["{% for i in range(3) %}", ""],
    ["{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ""],
  ];
  for (const [template, problem] of wrong) {
    const error = await assertRejects(() => render(renderer, template), TemplateError, "Cannot render chat template");
    assertStringIncludes(error.message, problem);
  }
  assertEquals(await render(renderer, "fine"), "fine");
});

Deno.test("TemplateRenderer.render() stops templates that run on or fill the memory, and goes on", async () => {
  await using renderer = new TemplateRenderer();
  const nested = "{% for a in range(3000) %}{% for b in range(3000) %}{% set x = a * b %}{% endfor %}{% endfor %}";
  for (const template of [nested, "{% for i in range(10000000) %}{% endfor %}", "{{ range(300000000) | length }}"]) {
    await assertRejects(() => render(renderer, template), TemplateError, "wanted");
    assertEquals(await render(renderer, "alive"), "alive");
  }
});

Deno.test("TemplateRenderer.render() stops templates that write too much, and takes long honest messages", async () => {
  await using renderer = new TemplateRenderer();
  const doubling =
    "{% set ns = namespace(s='x') %}{% for i in range(24) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}";
  await assertRejects(() => render(renderer, doubling), TemplateError, "characters of output");
  const text = "long ".repeat(TEMPLATE_OUTPUT / 2);
  assertEquals(await render(renderer, "<{{ text }}>", { text }), `<${text}>`);
});

Deno.test("TemplateRenderer.render() gives a template no way to files", async () => {
  await using renderer = new TemplateRenderer();
  await assertRejects(() => render(renderer, "{% include '/etc/hostname' %}"), TemplateError);
  await assertRejects(() => render(renderer, "{% import 'template_thread.ts' as t %}"), TemplateError);
  assertEquals(await render(renderer, "{{ Deno }}{{ globalThis }}{{ self }}"), "");
});

Deno.test("TemplateRenderer fails what is under way when it is disposed, and everything after", async () => {
  const renderer = new TemplateRenderer();
  assertEquals(await render(renderer, "warm"), "warm");
  const underWay = render(renderer, "{% for i in range(10000000) %}{% endfor %}");
  const waiting = render(renderer, "x");
  const failures = Promise.all([
    assertRejects(() => underWay, ReferenceError),
    assertRejects(() => waiting, ReferenceError),
  ]);
  // Lets the first request reach its process.
  await new Promise((resolve) => setTimeout(resolve, 20));
  await renderer[Symbol.asyncDispose]();
  await failures;
  await assertRejects(() => render(renderer, "x"), ReferenceError, "disposed");
  await renderer[Symbol.asyncDispose]();
});

Deno.test({
  name: "TemplateRenderer.render() names the permission that is missing",
  permissions: { read: true, env: true, run: false },
  async fn() {
    await using renderer = new TemplateRenderer();
    const error = await assertRejects(() => render(renderer, "x"), Deno.errors.NotCapable);
    assertStringIncludes(error.message, `--allow-run=${Deno.execPath()}`);
  },
});

Deno.test("TemplateRenderer.render() needs neither environment nor read permission", async () => {
  const main = new URL("./template_renderer.ts", import.meta.url).href;
  const source = `import { TemplateRenderer } from ${JSON.stringify(main)};
    await using renderer = new TemplateRenderer();
    console.log(await renderer.render({ template: "{{ 1 + 1 }}", variables: {} }));`;
  const config = new URL("../../deno.json", import.meta.url);
  const path = (url: URL) => decodeURIComponent(url.pathname);
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-lock", `--config=${path(config)}`, `--allow-run=${Deno.execPath()}`, "-"],
    env: { LD_LIBRARY_PATH: "/nowhere" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const input = child.stdin.getWriter();
  await input.write(new TextEncoder().encode(source));
  await input.close();
  const { stdout, stderr, success } = await child.output();
  assert(success, new TextDecoder().decode(stderr));
  assertEquals(new TextDecoder().decode(stdout), "2\n");
});
