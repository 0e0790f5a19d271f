/**
 * Opens and closes links, and connections that say GOAWAY, many times over. Run by its test in a process whose freed memory
 * is overwritten, so that any use of it after the end of a session shows.
 *
 * @module
 */
import { connect } from "node:http2";
import type { MemberCard } from "../protocol/member.ts";
import { PROTOCOL_VERSION } from "../protocol/messages.ts";
import { openHttp2Network } from "./http2_network.ts";
import type { NetworkListener, PeerLink } from "./link.ts";

const LINKS = 60;
const GOODBYES = 30;

/** A member with KV of 64 KB a segment. */
function card(index: number): MemberCard {
  const format = {
    modelDigest: "m",
    kvType: "f32",
    layout: "test",
    layers: 1,
    heads: 1,
    kvHeads: 1,
    headDim: 8,
    blockTokens: 16,
    segmentTokens: 256,
    blockBytes: 4096,
  } as const;
  const [clusterUrl, publicUrl, kernelDigest] = ["", "", "k"];
  const rest = { pid: 1, protocol: PROTOCOL_VERSION, pluginApi: 1, format, clusterUrl, publicUrl, kernelDigest };
  return { name: `member-${index}`, incarnation: String(index).repeat(32), role: "full", ...rest };
}

async function main(): Promise<void> {
  const networks = await Promise.all(
    [1, 2].map((index) => openHttp2Network({ card: card(index), host: "127.0.0.1", port: 0 })),
  );
  const links: (PeerLink | undefined)[] = [undefined, undefined];
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let ended = 0;

  /** Closes each link in turn from either end, at once or with messages under way; dials again once both ends are closed. */
  function listener(own: number): NetworkListener {
    return {
      opened(link) {
        links[own] = link;
        const [first, second] = links;
        if (!first || !second) return;
        if (ended % 4 < 2) {
          for (let call = 0; call < 20; call++) first.control({ kind: "ping", call });
          second.kv({
            kind: "piece",
            call: 1,
            run: { lease: 1, stamp: 1, from: 0, count: 1 },
            offset: 0,
            bytes: new Uint8Array(40_000),
          });
        }
        (ended % 2 ? first : second)[Symbol.dispose]();
      },
      closed() {
        links[own] = undefined;
        if (links.some((link) => link !== undefined)) return;
        ended++;
        if (ended === LINKS) resolve();
        else networks[ended % 3 ? 0 : 1].dial(networks[ended % 3 ? 1 : 0].url);
      },
      received() {},
      failed: (_, error) => reject(error),
    };
  }

  networks.forEach((network, own) => network.listen(listener(own)));
  networks[0].dial(networks[1].url);
  await promise;

  for (let i = 0; i < GOODBYES; i++) {
    const session = connect(networks[0].url);
    session.on("error", () => {});
    const closed = new Promise((resolve) => session.once("close", resolve));
    const stream = session.request({ ":method": "POST", ":path": i % 3 === 0 ? "/" : "/cluster/control" });
    stream.on("error", () => {});
    stream.once("response", () => setTimeout(() => session.destroyed || session.goaway(i % 2), 0));
    setTimeout(() => session.destroy(), 15);
    await closed;
  }

  for (const network of networks) network[Symbol.dispose]();
  await Promise.all(networks.map(({ finished }) => finished));
  console.log(`${ended} links ended`);
}

await main();
