import { assertEquals, assertThrows } from "@std/assert";
import { insertReport, runReport } from "./report_command.ts";

const BENCH = { mark: "bench" } as const;

Deno.test("insertReport() replaces what stands between the marks", () => {
  const document = "# Title\n\n<!-- bench:begin -->\n\nold\n\n<!-- bench:end -->\n\nrest\n";
  const expected = "# Title\n\n<!-- bench:begin -->\n\nnew\n\n<!-- bench:end -->\n\nrest\n";
  assertEquals(insertReport(document, "new", BENCH), expected);
  assertEquals(insertReport(expected, "new", BENCH), expected);
});

Deno.test("insertReport() leaves marks of another name alone", () => {
  const document = "<!-- gpu:begin -->\nold\n<!-- gpu:end -->\n<!-- bench:begin -->\nother\n<!-- bench:end -->\n";
  assertEquals(
    insertReport(document, "new", { mark: "gpu" }),
    "<!-- gpu:begin -->\n\nnew\n\n<!-- gpu:end -->\n<!-- bench:begin -->\nother\n<!-- bench:end -->\n",
  );
});

Deno.test("insertReport() refuses a document without both marks, in order", () => {
  assertThrows(() => insertReport("<!-- bench:begin -->", "new", BENCH), RangeError, "once each");
  assertThrows(() => insertReport("<!-- bench:end --> <!-- bench:begin -->", "new", BENCH), RangeError, "once each");
});

Deno.test("runReport() puts the report of a file into a document, short where that is asked for", () => {
  const folder = Deno.makeTempDirSync();
  try {
    const [result, document] = [`${folder}/result.json`, `${folder}/README.md`];
    Deno.writeTextFileSync(result, "7");
    Deno.writeTextFileSync(document, "<!-- some:begin -->\n<!-- some:end -->\n");
    const command = {
      program: "some/report.ts",
      mark: "some",
      parse: (json: string) => Number(json),
      render: (value: number) => `value ${value}`,
      renderShort: String,
    };
    const written = (...flags: string[]) => {
      assertEquals(runReport([result, ...flags, "--into", document], command), 0);
      return Deno.readTextFileSync(document);
    };
    assertEquals(written(), "<!-- some:begin -->\n\nvalue 7\n\n<!-- some:end -->\n");
    assertEquals(written("--short"), "<!-- some:begin -->\n\n7\n\n<!-- some:end -->\n");
    assertEquals(runReport([], command), 2);
    assertEquals(runReport([result, "--short"], { ...command, renderShort: undefined }), 2);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
