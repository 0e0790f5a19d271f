/**
 * Guards the regular expressions of a tokenizer file. They come with the model and run by backtracking, so shapes that
 * can take exponential time are refused before they meet a text.
 *
 * @module
 */

/** Longest pattern, UTF-16 units. */
export const MAX_PATTERN_LENGTH: number = 16_384;

/**
 * Refuses a pattern with a back reference or with a repeated group that does not always match the same way, such as
 * `(a+)+`, `(a|a)*` or `(a?){64}`. The pre-tokenizers of published models repeat only characters, classes and groups of
 * fixed length.
 *
 * @throws {RangeError} when the pattern is too long or has such a part.
 */
export function checkPattern(source: string): void {
  if (source.length > MAX_PATTERN_LENGTH) {
    throw new RangeError(
      `Cannot use tokenizer pattern: wanted at most ${MAX_PATTERN_LENGTH} characters, got ${source.length}`,
    );
  }
  // One entry per open group: whether what it holds can match in more than one way.
  const varies = [false];
  let closedVaries = false;
  for (let at = 0; at < source.length; at++) {
    const repeatsVarying = closedVaries;
    closedVaries = false;
    switch (source[at]) {
      case "\\":
        at++;
        if (/[1-9kg]/.test(source[at] ?? "")) throw refused(source, "a back reference");
        break;
      case "[":
        at = endOfClass(source, at);
        break;
      case "(":
        varies.push(false);
        if (source[at + 1] === "?") at++;
        break;
      case ")":
        if (varies.length === 1) break;
        closedVaries = varies.pop() ?? false;
        varies[varies.length - 1] ||= closedVaries;
        break;
      case "|":
      case "?":
        varies[varies.length - 1] = true;
        break;
      case "*":
      case "+":
      case "{":
        if (repeatsVarying) throw refused(source, "a repeated group that can match in several ways");
        varies[varies.length - 1] ||= !/^\{\d+\}/.test(source.slice(at, at + 16));
        break;
    }
  }
}

function refused(source: string, part: string): RangeError {
  const shown = source.length > 80 ? `${source.slice(0, 80)}…` : source;
  return new RangeError(`Cannot use tokenizer pattern ${JSON.stringify(shown)}: it has ${part}`);
}

/** Index of the bracket that closes the class opened at `from`; classes nest in the dialect of tokenizer files. */
function endOfClass(source: string, from: number): number {
  let depth = 0;
  for (let at = from; at < source.length; at++) {
    if (source[at] === "\\") at++;
    else if (source[at] === "[") {
      depth++;
      if (source[at + 1] === "^") at++;
      if (source[at + 1] === "]") at++;
    } else if (source[at] === "]" && --depth === 0) return at;
  }
  return source.length;
}
