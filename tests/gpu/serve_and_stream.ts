/**
 * A server in a process of its own that streams completions and is stopped.
 *
 * @module
 */
import { assertEquals, assertMatch } from "@std/assert";
import { RunningCli } from "../cli/cli_process.ts";
import { type StreamedToken, streamGreedy } from "./streamed_text.ts";

/** What a server streamed. */
export interface ServedStreams {
  /** Tokens of each prompt's continuation. */
  readonly streams: readonly (readonly StreamedToken[])[];
  /** The line in which the server said that it is ready. */
  readonly ready: string;
}

/**
 * Runs `cli.ts serve` with `args`, streams the most probable continuation of every prompt at the same time, sees that no KV
 * block is owned afterwards, and stops the server.
 *
 * @throws {AssertionError} when a block is owned or the server does not end well.
 */
export async function serveAndStream(
  args: readonly string[],
  { prompts, tokens }: { readonly prompts: readonly string[]; readonly tokens: number },
): Promise<ServedStreams> {
  await using cli = new RunningCli(["serve", ...args, "--port", "0"]);
  const [, url] = await cli.match(/^Listening on (http:\/\/127\.0\.0\.1:\d+)\n/);
  const [ready] = await cli.match(/\nReady in .*\n/);
  const streams = await Promise.all(prompts.map((prompt) => streamGreedy(url, { prompt, tokens })));
  const metrics = await (await fetch(`${url}/metrics`)).text();
  assertMatch(metrics, /kv_blocks\{[^}]*state="owned"\} 0\n/);
  cli.signal("SIGTERM");
  const { status, errors } = await cli.end();
  assertEquals(status, 0, errors);
  return { streams, ready };
}
