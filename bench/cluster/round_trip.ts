/**
 * Row `round-trip`: one layer's attention to 1,024 tokens on a holder in another process, while nothing else runs, and
 * where its time goes.
 *
 * @module
 */
import { openKvStore } from "../../runtime/device/wasm_kv_store.ts";
import { type KvStore, SEGMENT_TOKENS } from "../../runtime/device/device.ts";
import type { KvFormat } from "../../scheduler/protocol/member.ts";
import { ClusterProcesses } from "../../tests/cluster/cluster_processes.ts";
import { summarize } from "../statistics.ts";
import type { BenchContext } from "./bench_context.ts";
import { timeEcho } from "./echo.ts";
import { LoneHome } from "./lone_home.ts";
import { QueryDevice } from "./query_device.ts";
import type { Detail, Measured } from "./result.ts";
import { quantile } from "./quantile.ts";
import { type RoundTripParts, timeParts } from "./round_trip_parts.ts";

const SEGMENTS = 4;
/** Steps that warm both sides up. */
const WARM_STEPS = 60;

/** Measures the row. */
export async function measureRoundTrip({ model, modelPath, options, log }: BenchContext): Promise<Measured> {
  const { layers, heads, kvHeads, headDim } = model.config;
  const layout = { layers, heads, kvHeads, headDim, blockTokens: 16, kvType: "f16" } as const;
  const blocksPerSegment = SEGMENT_TOKENS / layout.blockTokens;
  using store = await openKvStore({ layout, blocks: 2 * SEGMENTS * blocksPerSegment });
  fillStore(store);
  const format: KvFormat = {
    ...layout,
    modelDigest: model.digest,
    layout: "wasm/i8/1",
    segmentTokens: SEGMENT_TOKENS,
    blockBytes: store.blockBytes,
  };
  const device = new QueryDevice(store, model.config);
  await using processes = new ClusterProcesses(modelPath);
  const holder = await processes.start({ name: "holder", role: "holder" });
  await using home = await LoneHome.open({
    device,
    store,
    format,
    holder: holder.where.clusterUrl,
    segments: SEGMENTS,
  });
  for (let step = 0; step < WARM_STEPS; step++) await home.ask();
  const stepsOfOne = Math.ceil(options.roundTrips / options.repeats / layers);
  const medians: number[] = [];
  const p99s: number[] = [];
  for (let sample = 0; sample < options.repeats; sample++) {
    await home.renew();
    device.layerMs.length = 0;
    for (let step = 0; step < stepsOfOne; step++) await home.ask();
    medians.push(quantile(device.layerMs, 0.5));
    p99s.push(quantile(device.layerMs, 0.99));
    log(`  ${medians[sample].toFixed(3)} ms, p99 ${p99s[sample].toFixed(3)} ms`);
  }
  const parts = timeParts(store, { format, segments: SEGMENTS, rounds: options.roundTrips });
  const median = summarize(medians);
  const bytes = { goBytes: parts.requestBytes, comeBytes: parts.replyBytes, rounds: options.roundTrips };
  const echo = await timeEcho("http2", bytes);
  const tcp = await timeEcho("tcp", bytes);
  return {
    figures: median,
    how:
      `an attention client of its own with ${layers} layers of queries that computes nothing else, and serve --role ` +
      `holder in another process; ${SEGMENTS * SEGMENT_TOKENS} tokens as one node, ${heads} heads of ${headDim}, ` +
      `${kvHeads} KV heads; ${medians.length} x ${stepsOfOne * layers} round trips of ${parts.requestBytes} and ` +
      `${parts.replyBytes} bytes; the parts are timed alone, with the code of members, at the median`,
    details: [
      { what: "p99 of the round trip", unit: "ms", figures: summarize(p99s) },
      ...breakdown(median.median, {
        parts,
        roundTrip: quantile(echo.roundTripMs, 0.5),
        write: quantile(echo.writeMs, 0.5),
      }),
      one("the same bytes as a bare HTTP/2 echo between two processes", quantile(echo.roundTripMs, 0.5)),
      one("the same bytes as a bare TCP echo between two processes", quantile(tcp.roundTripMs, 0.5)),
    ],
  };
}

function one(what: string, ms: number): Detail {
  return { what, unit: "ms", figures: summarize([ms]) };
}

/** Where a round trip goes; what the parts do not explain is the rest. */
function breakdown(
  total: number,
  times: { readonly parts: RoundTripParts; readonly roundTrip: number; readonly write: number },
): Detail[] {
  const { parts, roundTrip, write } = times;
  const middle = (samples: readonly number[]) => quantile(samples, 0.5);
  const serialise = middle(parts.encodeRequestMs);
  const wake = roundTrip / 2 - write;
  const compute = middle(parts.decodeRequestMs) + middle(parts.computeMs);
  const back = middle(parts.encodeReplyMs) + roundTrip / 2;
  const merge = middle(parts.decodeReplyMs);
  return [
    one("serialise: encode and frame the queries", serialise),
    one("send: the call that writes them", write),
    one("wake: until the holder's code runs (half an echo without its write)", wake),
    one("compute: check, read and attend", compute),
    one("of which attention", middle(parts.computeMs)),
    one("return: encode and frame the partials, write, wake (half an echo)", back),
    one("merge: check, read and copy the partials", merge),
    one("not explained by the parts", total - serialise - write - wake - compute - back - merge),
  ];
}

/** Finite keys and values in every block. */
function fillStore(store: KvStore): void {
  const values = new Float16Array(store.blockBytes / 2);
  for (let block = 0; block < store.blocks; block++) {
    for (let i = 0; i < values.length; i++) values[i] = Math.sin(i * 12.9898 + block) / 2;
    store.writeBlock(block, new Uint8Array(values.buffer));
  }
}
