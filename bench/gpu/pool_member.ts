/**
 * A full member of a cluster whose model has a measured shape and random weights on a GPU, in the calling thread.
 *
 *     deno run -A bench/gpu/pool_member.ts --model llama2-7b --kv-tokens 4096 --join http://127.0.0.1:PORT
 *
 * As a program it joins, decodes a sequence of its own without an end, and prints ten lines of JSON a second: {@linkcode Pace}.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { SchedulerHost } from "../../plugins/host.ts";
import { type OpenMember, openMember } from "../../runtime/cluster/open_member.ts";
import { CudaDevice } from "../../runtime/device/cuda_device.ts";
import type { Device } from "../../runtime/device/device.ts";
import { WasmDevice } from "../../runtime/device/wasm_device.ts";
import { Engine } from "../../runtime/engine/engine.ts";
import { Tokenizer } from "../../runtime/text/tokenizer.ts";
import { openSynthetic } from "../../tests/conformance/open_synthetic.ts";
import { findShape } from "./random_engine.ts";

/** Sequences that run together. */
const BATCH = 32;
const PROMPT_TOKENS = 256;
const LINE_MS = 100;
/** A name that stands for no measured shape: a tiny model on the processors, to try the program without a GPU. */
const TINY = "tiny";

/** How to open one. */
export interface PoolMemberOptions {
  /** Name of a shape. */
  readonly model: string;
  /** KV tokens. */
  readonly kvTokens: number;
  /** Cluster ports to join. */
  readonly join: readonly string[];
}

/** How fast a member decodes its own sequence. */
export interface Pace {
  /** Times between its tokens, ms, of the last tenth of a second. */
  readonly gaps: readonly number[];
}

/** A member and what decoding on it gives. */
export interface PoolMember extends Disposable {
  /** It. */
  readonly open: OpenMember;
  /** Computes. */
  readonly device: Device;
  /** Address of its cluster port. */
  readonly url: string;
  /**
   * Runs a sequence of this length; resolves with the times of its tokens, ms.
   *
   * @throws {Error} when it fails.
   */
  decode(work: { readonly prompt: number; readonly tokens: number; readonly onToken?: () => void }): Promise<number[]>;
}

/** Opens one. The caller disposes of it. */
export async function openPoolMember({ model, kvTokens, join }: PoolMemberOptions): Promise<PoolMember> {
  using opened = new DisposableStack();
  const tiny = { layers: 4, hidden: 256, heads: 4, kvHeads: 2, headDim: 64, intermediate: 384, contextLength: 8192 };
  const text = model === TINY
    ? tiny
    : { layers: 1, hidden: 16, heads: 1, kvHeads: 1, headDim: 16, intermediate: 16, dtype: "F16" as const };
  const vocab = model === TINY ? {} : { vocab: findShape(model).config.vocab };
  using file = openSynthetic({ ...text, ...vocab });
  const device = opened.use(
    model === TINY
      ? await WasmDevice.open(file, { blocks: kvTokens / 16, kvType: "bf16", threads: 1 })
      : CudaDevice.random(findShape(model).config, { ...findShape(model), blocks: kvTokens / 64 }),
  );
  const now = () => performance.now();
  const log = (line: string) => console.error(line);
  const scheduler = opened.use(await SchedulerHost.load("builtin:fcfs", { now, random: Math.random, log }));
  const { vocabulary } = new Tokenizer(file.text);
  const member = opened.use(
    await openMember({
      // Lent little by little in its first seconds otherwise, which would be measured.
      cluster: { join, timings: { newcomerMs: 0 }, lendShare: 1 },
      device,
      modelDigest: `random ${model}`,
      engine: (hooks) =>
        new Engine({
          device,
          policy: scheduler,
          vocabulary,
          eos: [],
          maxModelLen: device.config.contextLength,
          maxBatch: BATCH,
          modelName: model,
          modelDigest: `random ${model}`,
          prefixCache: false,
          now,
          ...hooks,
        }),
      scheduler,
      maxBatch: BATCH,
      log,
    }),
  );
  const kept = opened.move();
  let requests = 0;
  return {
    open: member,
    device,
    url: member.member.card.clusterUrl,
    decode({ prompt, tokens, onToken = () => {} }) {
      const ended = Promise.withResolvers<number[]>();
      const times: number[] = [];
      // Not through the member, which would have it run where there is most room. The member looks for work by itself.
      member.member.engine?.add({
        id: `bench-${requests++}`,
        prompt: Array.from({ length: prompt }, (_, i) => 3 + (i * 7919) % 250),
        maxTokens: tokens,
        sampling: { temperature: 0, ignoreEos: true },
      }, (event) => {
        if (event.kind === "token") {
          for (const _ of event.ids) times.push(now());
          onToken();
        }
        if (event.kind !== "end") return;
        if (event.error === undefined) ended.resolve(times);
        else ended.reject(new Error(`Cannot decode: ${event.error.message}`));
      });
      return ended.promise;
    },
    [Symbol.dispose]: () => kept.dispose(),
  };
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      "model": { type: "string", default: TINY },
      "kv-tokens": { type: "string" },
      "join": { type: "string" },
    },
  });
  using member = await openPoolMember({
    model: values.model,
    kvTokens: Number(values["kv-tokens"]),
    join: values.join === undefined ? [] : [values.join],
  });
  console.log(JSON.stringify({ ready: true }));
  let last = 0;
  let gaps: number[] = [];
  let saidMs = performance.now();
  for (;;) {
    last = 0;
    await member.decode({
      prompt: PROMPT_TOKENS,
      tokens: PROMPT_TOKENS,
      onToken() {
        const now = performance.now();
        if (last > 0) gaps.push(now - last);
        last = now;
        if (now - saidMs < LINE_MS) return;
        console.log(JSON.stringify({ gaps } satisfies Pace));
        gaps = [];
        saidMs = now;
      },
    });
  }
}
