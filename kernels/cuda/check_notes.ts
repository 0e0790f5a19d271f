/**
 * What a `.cu` file says about how it is to be compiled without a GPU, in lines of its comments:
 *
 * - `@arch sm_90a` names the architectures it is for; without it {@linkcode ALL_ARCHITECTURES}.
 * - `@define HEAD_DIM=128 GROUP=4` gives macros for one compile; several lines ask for several; without it one with none.
 *
 * @module
 */

/** Architectures that kernels are checked for unless they say otherwise. */
export const ALL_ARCHITECTURES: readonly string[] = ["sm_80", "sm_90a", "sm_100"];

/** How to compile one file. */
export interface CheckNotes {
  /** For these architectures. */
  readonly architectures: readonly string[];
  /** Once with each of these sets of macros. */
  readonly variants: readonly Readonly<Record<string, string>>[];
}

/** Reads the notes of a source. @throws {SyntaxError} when one is malformed; names the file. */
export function readCheckNotes(file: string, source: string): CheckNotes {
  const notes = [...source.matchAll(/^[ \t*/]*@(arch|define)\b(.*)$/gm)].map(([, kind, rest]) => ({
    kind,
    words: rest.replace(/\*\/\s*$/, "").trim().split(/\s+/).filter((word) => word !== ""),
  }));
  const architectures = notes.filter(({ kind }) => kind === "arch").flatMap(({ words }) => words);
  for (const arch of architectures) {
    if (!/^sm_\d+[af]?$/.test(arch)) throw new SyntaxError(`Cannot check ${file}: wanted @arch sm_90a, got ${arch}`);
  }
  const variants = notes.filter(({ kind }) => kind === "define").map(({ words }) =>
    Object.fromEntries(words.map((word) => {
      const [, name, value] = /^([A-Za-z_]\w*)=(\S+)$/.exec(word) ?? [];
      if (name === undefined) throw new SyntaxError(`Cannot check ${file}: wanted @define NAME=VALUE, got ${word}`);
      return [name, value];
    }))
  );
  return {
    architectures: architectures.length === 0 ? ALL_ARCHITECTURES : architectures,
    variants: variants.length === 0 ? [{}] : variants,
  };
}
