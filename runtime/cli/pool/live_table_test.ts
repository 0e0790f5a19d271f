import { assertEquals } from "@std/assert";
import { LiveTable } from "./live_table.ts";

function make(width: number | undefined): { readonly table: LiveTable; readonly take: () => string } {
  let text = "";
  const table = new LiveTable({ write: (part) => text += part, width: () => width });
  return {
    table,
    take: () => {
      const taken = text;
      text = "";
      return taken;
    },
  };
}

Deno.test("LiveTable.show() goes up over the last table and cuts what would wrap", () => {
  const { table, take } = make(6);
  table.show(["HEAD", "one and more"]);
  assertEquals(take(), "HEAD\none a\n");
  table.show(["HEAD", "two"]);
  assertEquals(take(), "\x1b[2A\x1b[JHEAD\ntwo\n");
});

Deno.test("LiveTable.print() keeps its line above the table", () => {
  const { table, take } = make(80);
  table.print("early");
  table.show(["HEAD", "one"]);
  take();
  table.print("news");
  assertEquals(take(), "\x1b[2A\x1b[Jnews\nHEAD\none\n");
});

Deno.test("LiveTable.hide() takes the table away", () => {
  const { table, take } = make(80);
  table.show(["HEAD", "one"]);
  take();
  table.hide();
  table.print("news");
  assertEquals(take(), "\x1b[2A\x1b[Jnews\n");
});

Deno.test("LiveTable.show() writes changed lines only where there is no terminal", () => {
  const { table, take } = make(undefined);
  table.show(["HEAD", "a 1", "b 1"]);
  assertEquals(take(), "HEAD\na 1\nb 1\n");
  table.show(["HEAD", "a 1", "b 1"]);
  assertEquals(take(), "");
  table.show(["HEAD", "a 1", "b 2"]);
  assertEquals(take(), "HEAD\nb 2\n");
  table.print("news");
  assertEquals(take(), "news\n");
});
