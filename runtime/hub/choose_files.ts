/**
 * Picks the files of a repository that make up a model.
 *
 * @module
 */
import type { HubFile } from "./hub_repository.ts";

/** The files of a model. */
export interface ChosenFiles {
  /** `file`: one GGUF file; `directory`: configuration, tokenizer and weights beside each other. */
  readonly kind: "file" | "directory";
  /** Files to fetch. */
  readonly files: readonly HubFile[];
}

const REQUIRED = ["config.json", "tokenizer.json"] as const;
const WANTED_TOO = [
  "tokenizer_config.json",
  "generation_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "model.safetensors.index.json",
];

/**
 * Picks `file`, or else the safetensors model, or else the only GGUF file.
 *
 * @param spec How the user named the model, for messages.
 * @throws {Error} when there is no such file, no model, or more than one GGUF file to choose from.
 */
export function chooseFiles(
  files: readonly HubFile[],
  { file, spec }: { readonly file?: string; readonly spec: string },
): ChosenFiles {
  const ggufs = files.filter(({ path }) => path.toLowerCase().endsWith(".gguf"));
  const names = ggufs.map(({ path }) => path).sort().join(", ");
  if (file !== undefined) {
    const found = files.find(({ path }) => path === file);
    if (found === undefined || !ggufs.includes(found)) {
      throw new Error(`Cannot fetch ${spec}: wanted a .gguf file of the repository, it has ${names || "none"}`);
    }
    return { kind: "file", files: [found] };
  }
  const weights = files.filter(({ path }) => /^[^/]+\.safetensors$/.test(path));
  if (weights.length > 0) return { kind: "directory", files: directoryFiles(files, { weights, spec }) };
  if (ggufs.length === 1) return { kind: "file", files: ggufs };
  throw new Error(
    ggufs.length === 0
      ? `Cannot fetch ${spec}: wanted .safetensors or .gguf files, the repository has none`
      : `Cannot fetch ${spec}: wanted one .gguf file, the repository has ${ggufs.length}; ` +
        `name one as ${spec}:FILE: ${names}`,
  );
}

function directoryFiles(
  files: readonly HubFile[],
  { weights, spec }: { readonly weights: readonly HubFile[]; readonly spec: string },
): HubFile[] {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const missing = REQUIRED.filter((name) => !byPath.has(name));
  if (missing.length > 0) {
    throw new Error(
      `Cannot fetch ${spec}: wanted ${missing.join(" and ")} beside the weights, the repository has none`,
    );
  }
  const small = [...REQUIRED, ...WANTED_TOO].flatMap((name) => byPath.get(name) ?? []);
  const single = byPath.get("model.safetensors");
  // Beside sharded or single weights some repositories keep copies for other programs, such as `consolidated.safetensors`.
  const shards = weights.filter(({ path }) => /-\d{5}-of-\d{5}\.safetensors$/.test(path));
  const chosen = byPath.has("model.safetensors.index.json") && shards.length > 0
    ? shards
    : single !== undefined
    ? [single]
    : weights;
  return [...small, ...chosen];
}
