/**
 * How users name models.
 *
 * @module
 */
import { KNOWN_MODELS } from "./known_models.ts";

/** A model as a user named it. */
export type ModelSpec =
  | { readonly kind: "path"; readonly path: string }
  | { readonly kind: "hub"; readonly repo: string; readonly file?: string }
  | { readonly kind: "known"; readonly name: string };

const REPO = /^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/;

/**
 * Reads `hf:org/repo`, `hf:org/repo:file`, the name of a known model, or else a path.
 *
 * @throws {SyntaxError} when what follows `hf:` is not a repository, or its file is not a relative path inside it.
 */
export function parseModelSpec(text: string): ModelSpec {
  if (text.startsWith("hf:")) return parseHubSpec(text);
  return KNOWN_MODELS.has(text) ? { kind: "known", name: text } : { kind: "path", path: text };
}

/** The text that {@linkcode parseModelSpec} reads as `spec`. */
export function formatModelSpec(spec: ModelSpec): string {
  switch (spec.kind) {
    case "path":
      return spec.path;
    case "known":
      return spec.name;
    case "hub":
      return `hf:${spec.repo}${spec.file === undefined ? "" : `:${spec.file}`}`;
  }
}

/** Whether `name` is a relative path in plain characters that stays where it begins. */
export function isSafeFileName(name: string): boolean {
  const parts = name.split("/");
  return parts.every((part) => /^[^\\:*?"<>|\p{Cc}]{1,200}$/u.test(part) && part !== "." && part !== "..") &&
    name.length <= 1000;
}

function parseHubSpec(text: string): ModelSpec {
  const rest = text.slice("hf:".length);
  const colon = rest.indexOf(":");
  const repo = colon < 0 ? rest : rest.slice(0, colon);
  const file = colon < 0 ? undefined : rest.slice(colon + 1);
  if (!REPO.test(repo) || repo.includes("..") || repo.includes("--")) {
    throw new SyntaxError(`Cannot use model ${text}: wanted hf:org/repo[:file], got repository "${repo}"`);
  }
  if (file !== undefined && !isSafeFileName(file)) {
    throw new SyntaxError(`Cannot use model ${text}: wanted a file inside the repository, got "${file}"`);
  }
  return { kind: "hub", repo, file };
}
