/**
 * The models of rounds of chaos, and undisturbed answers of each.
 *
 * @module
 */
import { realModelPath } from "../real_model.ts";
import { buildSyntheticGguf } from "../synthetic/synthetic_gguf.ts";
import type { RoundPlan } from "./chaos_plan.ts";
import type { RoundSetting } from "./chaos_round.ts";
import { Reference } from "./reference.ts";

/** Enough layers that a token takes a while and many messages. */
const SYNTHETIC = { layers: 12, kvHeads: 2, headDim: 16, contextLength: 8192 } as const;
/** Bytes of keys and values of one token of the synthetic model, f16. */
const SYNTHETIC_TOKEN_BYTES = SYNTHETIC.layers * SYNTHETIC.kvHeads * SYNTHETIC.headDim * 2 * 2;
/** The same of SmolLM2-135M: 30 layers of 3 heads of 64. */
const REAL_TOKEN_BYTES = 30 * 3 * 64 * 2 * 2;
/** More than any cluster of a round holds. */
const REFERENCE_TOKENS = 8192;

/** Opens models when they are first wanted. */
export class ChaosModels implements AsyncDisposable {
  readonly #opened = new AsyncDisposableStack();
  readonly #settings = new Map<RoundPlan["model"], Promise<RoundSetting>>();

  /** What a round with that model needs. */
  async setting(model: RoundPlan["model"]): Promise<RoundSetting> {
    let setting = this.#settings.get(model);
    if (setting === undefined) {
      setting = model === "real" ? this.#real() : this.#synthetic();
      this.#settings.set(model, setting);
    }
    return await setting;
  }

  /** Ends the instances that gave undisturbed answers. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened.disposeAsync();
  }

  async #real(): Promise<RoundSetting> {
    return await this.#with(await realModelPath(), REAL_TOKEN_BYTES);
  }

  async #synthetic(): Promise<RoundSetting> {
    const path = await Deno.makeTempFile({ suffix: ".gguf" });
    this.#opened.defer(() => Deno.remove(path));
    await Deno.writeFile(path, buildSyntheticGguf(SYNTHETIC));
    return await this.#with(path, SYNTHETIC_TOKEN_BYTES);
  }

  async #with(model: string, tokenBytes: number): Promise<RoundSetting> {
    const keyFile = await Deno.makeTempFile({ suffix: ".key" });
    this.#opened.defer(() => Deno.remove(keyFile));
    // Nobody else may read a key.
    await Deno.chmod(keyFile, 0o600);
    await Deno.writeTextFile(keyFile, "k".repeat(64));
    const reference = this.#opened.use(new Reference(model, { kvTokens: REFERENCE_TOKENS }));
    return { model, tokenBytes, keyFile, reference };
  }
}
