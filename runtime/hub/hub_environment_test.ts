import { assert, assertEquals, assertThrows } from "@std/assert";
import { readHubEnvironment } from "./hub_environment.ts";

const read = (variables: Readonly<Record<string, string>>) => readHubEnvironment((name) => variables[name]);

Deno.test("readHubEnvironment() reads the hub's variables and takes empty ones as unset", () => {
  assertEquals(read({}), { endpoint: undefined, token: undefined, offline: false });
  assertEquals(read({ HF_ENDPOINT: "", HF_TOKEN: "", HF_HUB_OFFLINE: "" }), read({}));
  assertEquals(read({ HF_ENDPOINT: "https://mirror", HF_TOKEN: "hf_x\n", HF_HUB_OFFLINE: "1" }), {
    endpoint: "https://mirror",
    token: "hf_x",
    offline: true,
  });
  assertEquals(read({ HF_HUB_OFFLINE: "0" }).offline, false);
});

Deno.test("readHubEnvironment() refuses a token that cannot be sent, without showing it", () => {
  const error = assertThrows(() => read({ HF_TOKEN: "canary\nx" }), TypeError, "Cannot use HF_TOKEN");
  assert(!error.message.includes("canary"));
});
