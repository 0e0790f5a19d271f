import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { type ChatMessage, TemplateError, type TextCodec } from "./codec.ts";
import { openModel } from "../model/open_model.ts";
import { buildSyntheticGguf } from "../../tests/synthetic/synthetic_gguf.ts";
import { metaspaceAssets, readJson, smolAssets } from "./test_assets.ts";
import { createTextCodec } from "./text_codec.ts";
import { openTextCodec } from "./worker_codec.ts";

interface Rendering {
  readonly rendered: string;
  readonly ids: readonly number[];
  readonly ids_safe: readonly number[];
}

interface ChatCases {
  readonly template: string;
  readonly cases: readonly {
    readonly name: string;
    readonly messages: readonly ChatMessage[];
    readonly gen: Rendering;
    readonly nogen: Rendering;
  }[];
}

const codecs: Record<string, (assets: Parameters<typeof createTextCodec>[0]) => Promise<TextCodec>> = {
  createTextCodec: (assets) => Promise.try(() => createTextCodec(assets)),
  openTextCodec,
};

for (const [name, open] of Object.entries(codecs)) {
  Deno.test(`${name}() renders and encodes the reference chats, contents kept apart from control tokens`, async () => {
    const { template, cases } = await readJson<ChatCases>("chat.json");
    assertEquals(cases.length, 12);
    await using codec = await open(await smolAssets(template));
    for (const { name, messages, gen, nogen } of cases) {
      for (const [wanted, addGenerationPrompt] of [[gen, true], [nogen, false]] as const) {
        const [text, ids] = await Promise.all([
          codec.renderChat(messages, { addGenerationPrompt }),
          codec.encodeChat(messages, { addGenerationPrompt }),
        ]);
        assertEquals(text, wanted.rendered, name);
        assertEquals([...ids], wanted.ids_safe, name);
        assertEquals([...await codec.encode(text, { parseSpecial: true })], wanted.ids, name);
      }
    }
  });

  Deno.test(`${name}() keeps error classes and goes on after errors`, async () => {
    await using codec = await open({
      ...metaspaceAssets(),
      chatTemplate: "{{ raise_exception(messages[0].content) }}",
    });
    const messages = [{ role: "user", content: "no </s> here" }];
    await assertRejects(() => codec.renderChat(messages), TemplateError, "no </s> here");
    await assertRejects(() => codec.encodeChat(messages), TemplateError);
    await assertRejects(() => codec.decode([1 << 20]), RangeError);
    assertEquals(await codec.decode(await codec.encode("Hello\ud800")), "Hello\ufffd");
  });

  Deno.test(`${name}() refuses chats of a model without a template`, async () => {
    await using codec = await open(metaspaceAssets());
    await assertRejects(() => codec.encodeChat([]), TemplateError, "--chat-template");
  });

  Deno.test(`${name}() rejects a damaged tokenizer with its own error`, async () => {
    const assets = { tokenizerJson: { model: { vocab: { a: -1 } } }, specialTokens: {}, addBos: false, eos: [] };
    await assertRejects(() => open(assets), RangeError, "Cannot read tokenizer");
  });

  Deno.test(`${name}() takes no work after disposal`, async () => {
    const codec = await open({ ...metaspaceAssets(), chatTemplate: "x" });
    assertEquals(await codec.renderChat([]), "x");
    await codec[Symbol.asyncDispose]();
    await codec[Symbol.asyncDispose]();
    await assertRejects(() => codec.renderChat([]), ReferenceError, "disposed");
  });
}

Deno.test("TextCodec.encodeChat() begins with BOS once, whether the template writes it or not", async () => {
  const messages = [{ role: "user", content: "<s>a" }];
  for (const template of ["{{ bos_token }}{{ messages[0].content }}", "{{ messages[0].content }}"]) {
    await using codec = createTextCodec({ ...metaspaceAssets(), chatTemplate: template });
    const ids = [...await codec.encodeChat(messages)];
    assertEquals(ids.slice(1), [...await codec.encode("<s>a")]);
    assertEquals(ids.filter((id) => id === 1), [1]);
  }
});

Deno.test("TextCodec.encodeChat() keeps control tokens out of template variables and nested fields", async () => {
  const template = "<|im_start|>{{ tools | tojson }}{{ messages[0].tool_calls | tojson }}{{ messages[0].name | trim }}";
  await using codec = createTextCodec(await smolAssets(template));
  const call = { function: { name: "f", arguments: { "<|im_end|>": ["<|im_start|>", 1] } } };
  const messages = [{ role: "user", content: "", name: " <|endoftext|>", tool_calls: [call] }];
  const options = { variables: { tools: ["<|im_end|>"], messages: "ignored", bos_token: "ignored" } };
  const text = await codec.renderChat(messages, options);
  const ids = await codec.encodeChat(messages, options);
  assertEquals(ids[0], 1);
  assert(ids.subarray(1).every((id) => codec.vocabulary.special[id] === 0));
  assertEquals(await codec.decode(ids), text);
  assertNotEquals([...ids], [...await codec.encode(text, { parseSpecial: true })]);
});

Deno.test("openTextCodec() leaves the calling thread free while it encodes a long text", async () => {
  await using codec = await openTextCodec(await smolAssets());
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const ids = await codec.encode("a".repeat(1 << 20));
  clearInterval(timer);
  assertEquals(ids.length, 1 << 18);
  assert(turns > 0);
});

Deno.test("openTextCodec() fails requests under way when it is disposed", async () => {
  const chatTemplate = "{% for i in range(10000000) %}{% endfor %}";
  const codec = await openTextCodec({ ...metaspaceAssets(), chatTemplate });
  const underWay = assertRejects(() => codec.renderChat([]), Error);
  await codec[Symbol.asyncDispose]();
  await underWay;
});

Deno.test("openTextCodec() reads the text of a model file in its Worker", async () => {
  const modelPath = await Deno.makeTempFile({ suffix: ".gguf" });
  try {
    await Deno.writeFile(modelPath, buildSyntheticGguf());
    using model = openModel(modelPath);
    await using near = createTextCodec(model.text);
    await using far = await openTextCodec({ modelPath, chatTemplate: "{{ messages[0].content }}!" });
    assertEquals([far.bos, far.eos], [near.bos, near.eos]);
    assertEquals(far.vocabulary, near.vocabulary);
    assertEquals(await far.renderChat([{ role: "user", content: "hi" }]), "hi!");
  } finally {
    await Deno.remove(modelPath);
  }
  await assertRejects(() => openTextCodec({ modelPath: "missing.gguf" }), Error, "missing.gguf");
});

Deno.test("TextCodec.bos is set only where the model begins prompts with it", async () => {
  for (const addBos of [true, false]) {
    await using codec = createTextCodec({ ...metaspaceAssets(), addBos });
    assertEquals(codec.bos, addBos ? 1 : undefined);
  }
});
