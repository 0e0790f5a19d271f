/**
 * A load of small HTTP/1.1 requests that costs the client little: fixed bytes out, the end of the answer found by its
 * length.
 *
 * @module
 */

const SEPARATOR = "\r\n\r\n";
const BUFFER_BYTES = 16384;

/**
 * Length of the answer at the start of `text`, head and body; undefined while its head is incomplete.
 *
 * @throws {Error} when the status is not 200 or no length is stated.
 */
export function answerLength(text: string): number | undefined {
  const end = text.indexOf(SEPARATOR);
  if (end < 0) return undefined;
  const head = text.slice(0, end);
  if (!head.startsWith("HTTP/1.1 200")) throw new Error(`Cannot load the server: it answered ${head.split("\r\n")[0]}`);
  const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
  if (length === undefined) throw new Error("Cannot load the server: its answer states no content-length");
  return end + SEPARATOR.length + Number(length);
}

/** Answers a second to GET `path`, over `connections` connections with one request each in flight, for `ms`. */
export async function requestsPerSecond(
  url: string,
  options: { readonly path: string; readonly connections: number; readonly ms: number },
): Promise<number> {
  const { hostname, port, host } = new URL(url);
  const request = new TextEncoder().encode(`GET ${options.path} HTTP/1.1\r\nhost: ${host}\r\n\r\n`);
  const start = performance.now();
  const end = start + options.ms;
  const run = async (): Promise<number> => {
    using connection = await Deno.connect({ hostname, port: Number(port) });
    const buffer = new Uint8Array(BUFFER_BYTES);
    const decoder = new TextDecoder("latin1");
    let answers = 0;
    while (performance.now() < end) {
      await connection.write(request);
      let text = "";
      for (let wanted: number | undefined; wanted === undefined || text.length < wanted; wanted = answerLength(text)) {
        const count = await connection.read(buffer);
        if (count === null) throw new Error(`Cannot load ${url}: the server closed the connection`);
        text += decoder.decode(buffer.subarray(0, count));
      }
      answers++;
    }
    return answers;
  };
  const counts = await Promise.all(Array.from({ length: options.connections }, run));
  return counts.reduce((sum, count) => sum + count, 0) / (performance.now() - start) * 1e3;
}
