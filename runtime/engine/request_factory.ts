/**
 * Turns requests into sequences and choices.
 *
 * @module
 */
import { prefixSalt } from "../../scheduler/prefix_chain.ts";
import { Sequence } from "../../scheduler/sequence.ts";
import type { Device } from "../device/device.ts";
import type { TokenTable } from "../text/codec.ts";
import { Choice } from "./choice.ts";
import { LiveRequest } from "./live_request.ts";
import type { EngineRequest, RequestEvent } from "./request.ts";

/** Makes a {@linkcode RequestFactory}. */
export interface RequestFactoryOptions {
  /** Device whose KV blocks the sequences will use. */
  readonly device: Device;
  /** Bytes of every token. */
  readonly vocabulary: TokenTable;
  /** Ids that end generation. */
  readonly eos: readonly number[];
  /** Digest of the model. */
  readonly modelDigest: string;
  /** Tokens of one segment. */
  readonly segmentTokens: number;
  /** Monotonic clock, ms. */
  readonly now: () => number;
  /** Uniform in [0, 1), for requests without a seed. */
  readonly random: () => number;
}

/** Makes live requests; numbers their sequences in the order of arrival. */
export class RequestFactory {
  readonly #options: RequestFactoryOptions;
  #nextSequence = 1;

  /** Makes one for a device and a model. */
  constructor(options: RequestFactoryOptions) {
    this.#options = options;
  }

  /**
   * Makes a live request. The prompt is copied.
   *
   * @throws {RangeError} when a bias names a token outside the vocabulary, a stop string is empty, or resumed tokens go on
   * after an end.
   */
  create(request: EngineRequest, listener: (event: RequestEvent) => void): LiveRequest {
    const { device, vocabulary, eos, now, random } = this.#options;
    const { vocab } = device.config;
    const sampling = request.sampling ?? {};
    const seed = sampling.seed ?? Math.floor(random() * 2 ** 32);
    const resumedTokens = request.resumed?.reduce((sum, ids) => sum + ids.length, 0) ?? 0;
    const promptLogprobs = resumedTokens > 0 ? undefined : sampling.promptLogprobs;
    const choices = this.#sequences(request, promptLogprobs !== undefined).map((sequence, index) => {
      const resumed = request.resumed?.[index];
      return new Choice({ index, sequence, sampling, seed: seed + index, vocab, vocabulary, eos, resumed });
    });
    return new LiveRequest({ id: request.id, choices, promptLogprobs, resumedTokens, listener, now });
  }

  #sequences(request: EngineRequest, promptRows: boolean): Sequence[] {
    const { kind, kvType, activations, blockTokens } = this.#options.device.info;
    const common = {
      prompt: Int32Array.from(request.prompt),
      maxTokens: request.maxTokens,
      priority: request.priority,
      arrivedMs: this.#options.now(),
      salt: prefixSalt({
        modelDigest: this.#options.modelDigest,
        kvType,
        layout: `${kind}/${activations}/${blockTokens}`,
        tenantSalt: request.cacheSalt ?? "",
      }),
      blockTokens,
      segmentTokens: this.#options.segmentTokens,
    };
    const { n = 1, resumed } = request;
    const leader = new Sequence({ ...common, id: this.#nextSequence++, promptRows, generated: resumed?.[0] });
    const siblings = Array.from(
      { length: n - 1 },
      (_, i) => new Sequence({ ...common, id: this.#nextSequence++, leader, generated: resumed?.[i + 1] }),
    );
    return [leader, ...siblings];
  }
}
