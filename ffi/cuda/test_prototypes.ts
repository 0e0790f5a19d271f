/**
 * Reads the C prototypes in the comments of a table of functions.
 *
 * @module
 */

/** A function as C declares it. */
export interface Prototype {
  /** Key in the table. */
  readonly key: string;
  /** Name in the library. */
  readonly symbol: string;
  /** The whole declaration, with its semicolon. */
  readonly declaration: string;
  /** Type of the result. */
  readonly result: string;
  /** Types of the parameters; an array counts as a pointer. */
  readonly parameters: readonly string[];
}

/** Prototypes in the source of a table, in order: each stands in a comment above its entry. */
export function readPrototypes(source: string): readonly Prototype[] {
  const pairs = source.matchAll(/^ {2}\/\/ ((.*?)\b(\w+)\((.*)\);)\n {2}(\w+): \{/gm);
  return [...pairs].map(([, declaration, result, symbol, list, key]) => ({
    key,
    symbol,
    declaration,
    result,
    parameters: list === "void" ? [] : list.split(", ").map((parameter) => {
      const name = /\w+(\[\])?$/.exec(parameter)?.[0] ?? "";
      return parameter.slice(0, -name.length) + (name.endsWith("[]") ? "*" : "");
    }),
  }));
}
