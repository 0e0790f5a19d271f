/**
 * A load of completions over HTTP, all at once, from a process of its own.
 *
 *     deno run --allow-net bench/gpu/serving_load.ts '{"url": …, "requests": …}'
 *
 * Prints a line when its prompts are ready, begins when it reads one, and prints a {@linkcode LoadResult} as JSON.
 *
 * @module
 */

/** What to ask for. */
export interface Load {
  /** Where the server listens. */
  readonly url: string;
  /** Requests, all sent at once. */
  readonly requests: number;
  /** Tokens of each prompt, drawn at random. */
  readonly promptTokens: number;
  /** Tokens of each answer. */
  readonly answerTokens: number;
  /** Ids are below this. */
  readonly vocab: number;
  /** Whether answers are streamed. */
  readonly stream: boolean;
  /** Seed of the prompts. */
  readonly seed: number;
}

/** How it went. */
export interface LoadResult {
  /** When the first request was sent and when the last answer ended, ms since the epoch. */
  readonly beganMs: number;
  readonly endedMs: number;
  /** From its request to an answer's first bytes, ms, ascending. */
  readonly firstMs: readonly number[];
  /** Tokens that came back, by the server's count. */
  readonly tokens: number;
}

/** Ids below are control tokens and single bytes. */
const FIRST_ID = 259;

/** Numbers of a fixed sequence, below `limit`. */
function* draw(seed: number, limit: number): Generator<number> {
  let state = seed;
  while (true) {
    state = Math.imul(state, 1664525) + 1013904223 | 0;
    yield (state >>> 8) % limit;
  }
}

async function complete(load: Load, prompt: readonly number[]): Promise<{ firstMs: number; tokens: number }> {
  const { url, answerTokens, stream } = load;
  const begin = performance.now();
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      prompt,
      max_tokens: answerTokens,
      temperature: 0,
      ignore_eos: true,
      stream,
      ...stream ? { stream_options: { include_usage: true } } : {},
    }),
  });
  if (response.status !== 200 || response.body === null) {
    throw new Error(`Cannot complete a prompt: ${response.status} ${(await response.text()).slice(0, 300)}`);
  }
  let firstMs: number | undefined;
  let tail = "";
  for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
    firstMs ??= performance.now() - begin;
    tail = (tail + part).slice(-2000);
  }
  const tokens = /"completion_tokens": ?(\d+)/.exec(tail)?.[1];
  if (tokens === undefined) throw new Error(`Cannot count an answer: it ends with ${tail.slice(-300)}`);
  return { firstMs: firstMs ?? Infinity, tokens: Number(tokens) };
}

/**
 * Sends the load once `ready` resolves, and waits for every answer.
 *
 * @throws {Error} when one is refused or cut off.
 */
export async function sendLoad(load: Load, ready: () => Promise<void>): Promise<LoadResult> {
  const numbers = draw(load.seed, load.vocab - FIRST_ID);
  const prompts = Array.from(
    { length: load.requests },
    () => Array.from({ length: load.promptTokens }, () => FIRST_ID + (numbers.next().value as number)),
  );
  await ready();
  const now = () => performance.timeOrigin + performance.now();
  const beganMs = now();
  const answers = await Promise.all(prompts.map((prompt) => complete(load, prompt)));
  return {
    beganMs,
    endedMs: now(),
    firstMs: answers.map(({ firstMs }) => firstMs).sort((a, b) => a - b),
    tokens: answers.reduce((sum, { tokens }) => sum + tokens, 0),
  };
}

if (import.meta.main) {
  const result = await sendLoad(JSON.parse(Deno.args[0]) as Load, async () => {
    console.log("ready");
    await Deno.stdin.read(new Uint8Array(1));
  });
  console.log(JSON.stringify(result));
}
