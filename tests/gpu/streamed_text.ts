/**
 * Streams completions from a server and compares the texts of two devices.
 *
 * @module
 */
import { assertEquals, assertLessOrEqual } from "@std/assert";
import { lines } from "../../runtime/text/line_stream.ts";

/** One token of a streamed completion. */
export interface StreamedToken {
  /** The token as the API names it. */
  readonly token: string;
  /** Its log-probability. */
  readonly logprob: number;
  /** Log-probability of the most probable token minus that of the second. */
  readonly margin: number;
}

/** A completion event with `logprobs: 2`. */
interface CompletionEvent {
  readonly choices: readonly {
    readonly logprobs: {
      readonly tokens: readonly string[];
      readonly token_logprobs: readonly number[];
      readonly top_logprobs: readonly Readonly<Record<string, number>>[];
    } | null;
  }[];
}

/** Streams the most probable continuation of `prompt`. @throws {AssertionError} when the stream does not end as it should. */
export async function streamGreedy(
  url: string,
  { prompt, tokens }: { readonly prompt: string; readonly tokens: number },
): Promise<StreamedToken[]> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt, max_tokens: tokens, temperature: 0, logprobs: 2, ignore_eos: true, stream: true }),
  });
  if (response.status !== 200 || response.body === null) {
    throw new Error(`Cannot stream a completion: ${response.status} ${await response.text()}`);
  }
  const events: string[] = [];
  for await (const line of lines(response.body)) {
    if (line.startsWith("data: ")) events.push(line.slice("data: ".length).trim());
  }
  assertEquals(events.at(-1), "[DONE]");
  return events.slice(0, -1).flatMap((text) => {
    const logprobs = (JSON.parse(text) as CompletionEvent).choices[0]?.logprobs;
    if (logprobs === null || logprobs === undefined) return [];
    return logprobs.tokens.map((token, i) => {
      const [first, second] = Object.values(logprobs.top_logprobs[i]).sort((a, b) => b - a);
      return { token, logprob: logprobs.token_logprobs[i], margin: first - second };
    });
  });
}

/**
 * Counts the tokens that two streams have in common. They may part only where two tokens of the expected one are `margin` or
 * less apart, because there rounding decides.
 *
 * @throws {AssertionError} when they part elsewhere.
 */
export function countCommon(
  actual: readonly StreamedToken[],
  expected: readonly StreamedToken[],
  margin: number,
): number {
  assertEquals(actual.length, expected.length);
  for (const [i, { token, margin: lead }] of expected.entries()) {
    if (actual[i].token === token) continue;
    assertLessOrEqual(lead, margin, `token ${i} is ${actual[i].token}, wanted ${token}`);
    return i;
  }
  return expected.length;
}
