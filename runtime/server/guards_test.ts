import { assertEquals, assertThrows } from "@std/assert";
import { ApiError } from "./api_error.ts";
import { checkLoopbackHost, CorsPolicy, isLoopback } from "./guards.ts";

Deno.test("isLoopback() knows this machine's names", () => {
  for (const name of ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1", "[::1]"]) {
    assertEquals(isLoopback(name), true, name);
  }
  for (const name of ["0.0.0.0", "::", "", "127.0.0.1.example", "localhost.example", "1270.0.1", "192.0.2.1"]) {
    assertEquals(isLoopback(name), false, name);
  }
});

Deno.test("checkLoopbackHost() passes this machine's names with any port and nothing else", () => {
  for (const host of [undefined, "localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "[::1]"]) {
    checkLoopbackHost(host);
  }
  for (const host of ["", "evil.example", "evil.example:8080", "localhost:80:80", "localhost@evil", "[::2]", ":80"]) {
    assertThrows(() => checkLoopbackHost(host), ApiError);
  }
});

Deno.test("CorsPolicy.headers() allows listed origins, or all of them", () => {
  const policy = new CorsPolicy(["https://a.example"]);
  assertEquals(policy.headers("https://a.example")["access-control-allow-origin"], "https://a.example");
  for (const origin of [undefined, "null", "http://a.example", "https://a.example.evil", "https://a.example:444"]) {
    assertEquals(policy.headers(origin), { vary: "Origin" });
  }
  assertEquals(new CorsPolicy(["*"]).headers("https://b.example")["access-control-allow-origin"], "https://b.example");
  assertEquals(new CorsPolicy([]).headers("https://a.example"), {});
});
