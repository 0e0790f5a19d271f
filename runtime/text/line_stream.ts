/**
 * JSON documents as lines of a byte stream.
 *
 * @module
 */

/**
 * Lines of `stream`, without their ends; an unfinished last line is dropped.
 *
 * @throws {RangeError} when a line grows beyond `maxLength` UTF-16 units.
 */
export async function* lines(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  { maxLength = Infinity }: { readonly maxLength?: number } = {},
): AsyncGenerator<string, void, void> {
  let parts: string[] = [];
  let length = 0;
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    let start = 0;
    for (let end = chunk.indexOf("\n"); end >= 0; end = chunk.indexOf("\n", start)) {
      parts.push(chunk.slice(start, end));
      yield parts.join("");
      parts = [];
      length = 0;
      start = end + 1;
    }
    parts.push(chunk.slice(start));
    length += chunk.length - start;
    if (length > maxLength) {
      throw new RangeError(`Cannot read line: wanted at most ${maxLength} characters, got ${length}`);
    }
  }
}

/** Writes `value` as one line of JSON, before it returns. */
export function writeLine(sink: { writeSync(bytes: Uint8Array): number }, value: unknown): void {
  let rest = new TextEncoder().encode(`${JSON.stringify(value)}\n`);
  while (rest.length > 0) rest = rest.subarray(sink.writeSync(rest));
}
