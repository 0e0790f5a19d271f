import { assertEquals } from "@std/assert";
import { loaderVariables } from "./loader_variables.ts";

Deno.test("loaderVariables() leaves them to children of a program that may run everything, and empties them elsewhere", () => {
  assertEquals(loaderVariables({ mayRunAll: true }), {});
  assertEquals(loaderVariables({ mayRunAll: false }), { LD_LIBRARY_PATH: "", LD_PRELOAD: "" });
});

Deno.test("loaderVariables() let a program that may run only some start them whatever the loader is told", () => {
  const module = JSON.stringify(new URL("./loader_variables.ts", import.meta.url).href);
  const code = `
    import { loaderVariables } from ${module};
    const { success } = new Deno.Command(Deno.execPath(), { args: ["--version"], env: loaderVariables(), stdout: "null" })
      .outputSync();
    console.log(success);`;
  const { stdout, stderr } = new Deno.Command(Deno.execPath(), {
    args: ["eval", "--ext=ts", code],
    env: { LD_LIBRARY_PATH: "/nowhere/at/all", NO_COLOR: "1" },
  }).outputSync();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  assertEquals(text(stdout), "true\n", text(stderr));
  const program = Deno.makeTempFileSync({ suffix: ".ts" });
  try {
    Deno.writeTextFileSync(program, code);
    const limited = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--no-prompt",
        "--no-config",
        "--no-check",
        "--allow-read",
        `--allow-run=${Deno.execPath()}`,
        program,
      ],
      env: { LD_LIBRARY_PATH: "/nowhere/at/all", NO_COLOR: "1" },
    }).outputSync();
    assertEquals(text(limited.stdout), "true\n", text(limited.stderr));
  } finally {
    Deno.removeSync(program);
  }
});
