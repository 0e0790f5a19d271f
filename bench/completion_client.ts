/**
 * A client of the completion routes that notes when tokens arrive.
 *
 * @module
 */
import { lines } from "../runtime/text/line_stream.ts";

/** A streamed answer: the time of the request and the data of each event with the time of its arrival, ms. */
export interface TimedStream {
  /** When the request was sent. */
  readonly sentMs: number;
  /** Events in order, without the closing `[DONE]`. */
  readonly events: readonly { readonly ms: number; readonly data: string }[];
}

/** Posts `body` and reads the event stream of the answer to its end. @throws {Error} when the status is not 200. */
export async function postStream(url: string, body: unknown): Promise<TimedStream> {
  const text = JSON.stringify(body);
  const sentMs = performance.now();
  const response = await fetch(url, { method: "POST", body: text, headers: { "content-type": "application/json" } });
  if (response.status !== 200 || response.body === null) {
    throw new Error(`Cannot complete a prompt at ${url}: ${response.status} ${(await response.text()).slice(0, 200)}`);
  }
  const events: { ms: number; data: string }[] = [];
  for await (const line of lines(response.body)) {
    const data = /^data: ?(\{.*)$/.exec(line.trimEnd())?.[1];
    if (data !== undefined) events.push({ ms: performance.now(), data });
  }
  return { sentMs, events };
}

/**
 * Milliseconds from the request to the first event of its answer, over the OpenAI completion route.
 *
 * @throws {Error} when the answer has no event.
 */
export async function firstTokenMs(url: string, ids: readonly number[]): Promise<number> {
  const { sentMs, events } = await postStream(`${url}/v1/completions`, {
    prompt: ids,
    max_tokens: 2,
    temperature: 0,
    ignore_eos: true,
    stream: true,
  });
  if (events.length === 0) throw new Error(`Cannot time the first token at ${url}: the answer is empty`);
  return events[0].ms - sentMs;
}
