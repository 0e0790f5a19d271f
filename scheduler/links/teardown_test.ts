import { assertEquals } from "@std/assert";

Deno.test("Http2Network uses no memory of sessions that have ended", async () => {
  const { code, signal, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--allow-net=127.0.0.1",
      "--allow-env",
      new URL("test_teardown.ts", import.meta.url).pathname,
    ],
    env: { MALLOC_PERTURB_: "165" },
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  assertEquals([signal, code, text(stdout)], [null, 0, "60 links ended\n"], text(stderr));
});
