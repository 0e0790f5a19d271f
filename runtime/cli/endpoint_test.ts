import { assertEquals } from "@std/assert";
import { clusterUrl, isLocal, isWildcard, parseClusterUrl, parseEndpoint } from "./endpoint.ts";

Deno.test("parseEndpoint() reads HOST:PORT and nothing else", () => {
  assertEquals(parseEndpoint("127.0.0.1:0"), { host: "127.0.0.1", port: 0 });
  assertEquals(parseEndpoint("[::1]:7600"), { host: "::1", port: 7600 });
  assertEquals(parseEndpoint("node-1.lan:65535"), { host: "node-1.lan", port: 65535 });
  for (const text of ["", "7600", ":7600", "a", "a:", "a:65536", "a:-1", "a:1:2", "::1:7600", "a b:1", "http://a:1"]) {
    assertEquals(parseEndpoint(text), undefined, text);
  }
});

Deno.test("parseClusterUrl() wants http or https, a host and a port above 0", () => {
  assertEquals(parseClusterUrl("http://127.0.0.1:7600"), { scheme: "http", host: "127.0.0.1", port: 7600 });
  assertEquals(parseClusterUrl("https://[::1]:80/"), { scheme: "https", host: "::1", port: 80 });
  const others = [
    "http://a",
    "http://a:0",
    "https://a",
    "ftp://a:1",
    "a:1",
    "http://u:p@a:1",
    "http://a:1/x",
    "http://a:1?x",
  ];
  for (const text of others) assertEquals(parseClusterUrl(text), undefined, text);
});

Deno.test("clusterUrl() writes what parseClusterUrl() reads", () => {
  for (const url of ["http://127.0.0.1:7600", "https://[::1]:80", "http://node-1:1"]) {
    const endpoint = parseClusterUrl(url);
    assertEquals(endpoint && clusterUrl(endpoint), url);
  }
});

Deno.test("isLocal() and isWildcard() tell hosts apart", () => {
  const kinds = ["127.0.0.1", "::1", "localhost", "10.0.0.1", "0.0.0.0", "::", "0"].map((host) => {
    return [isLocal({ host, port: 1 }), isWildcard({ host, port: 1 })];
  });
  assertEquals(kinds, [
    [true, false],
    [true, false],
    [true, false],
    [false, false],
    [false, true],
    [false, true],
    [false, true],
  ]);
});
