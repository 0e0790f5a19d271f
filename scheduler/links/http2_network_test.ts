import { testNetwork } from "../../tests/conformance/link_suite.ts";
import { type Http2Network, openHttp2Network } from "./http2_network.ts";

function harness(key?: Uint8Array) {
  const networks: Http2Network[] = [];
  return {
    async open(card: Parameters<typeof openHttp2Network>[0]["card"], options?: { readonly epoch?: () => number }) {
      const network = await openHttp2Network({ card, host: "127.0.0.1", port: 0, key, ...options });
      networks.push(network);
      return network;
    },
    async [Symbol.asyncDispose]() {
      for (const network of networks) network[Symbol.dispose]();
      await Promise.all(networks.map(({ finished }) => finished));
    },
  };
}

testNetwork("HTTP/2", () => harness());
testNetwork("HTTP/2 with a key", () => harness(new Uint8Array(32).fill(5)));
