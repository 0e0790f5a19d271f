/**
 * An instance in a process of its own that prefills one fresh prompt after the other while it is told to. Every line of
 * its input is a command, `load` or `rest`; every line of its output is JSON: one when it is ready, one for each prompt.
 * It ends when its input does.
 *
 *     deno run -A loaded_instance.ts '{"modelPath": "m.gguf", "name": "busy", "join": "http://…", …}'
 *
 * @module
 */
import { openModel } from "../../runtime/model/open_model.ts";
import { lines } from "../../runtime/text/line_stream.ts";
import { drawPrompt } from "./bench_context.ts";
import { Home, type HomeOptions } from "./home.ts";

/** What it is started with. */
export interface LoadedInstanceOptions extends Pick<HomeOptions, "kvTokens" | "lendShare" | "sliceWork" | "turns"> {
  /** File of the model. */
  readonly modelPath: string;
  /** Name in the cluster. */
  readonly name: string;
  /** Cluster port of the member to join. */
  readonly join: string;
  /** Tokens of one prompt. */
  readonly promptTokens: number;
  /** Time it computes before it is ready, ms. */
  readonly warmMs: number;
  /** Seed of the prompts. */
  readonly seed: number;
}

/** A line of its output. */
export type LoadedInstanceLine =
  | { readonly kind: "ready" }
  | { readonly kind: "prefilled"; readonly tokens: number; readonly ms: number };

function say(line: LoadedInstanceLine): void {
  console.log(JSON.stringify(line));
}

if (import.meta.main) {
  const options: LoadedInstanceOptions = JSON.parse(Deno.args[0]);
  using model = openModel(options.modelPath);
  using home = await Home.open({ ...options, model, join: [options.join] });
  await home.warm(options.warmMs);
  const state = { loaded: false, ended: false, wake: () => {} };
  const run = async () => {
    for (let prompt = 0; !state.ended;) {
      if (!state.loaded) {
        await new Promise<void>((resolve) => state.wake = resolve);
        continue;
      }
      const begun = performance.now();
      const stream = await home.start(drawPrompt(options.promptTokens, options.seed + prompt++), { maxTokens: 1 });
      say({ kind: "prefilled", tokens: options.promptTokens, ms: stream.tokenMs[0] - begun });
    }
  };
  const running = run();
  say({ kind: "ready" });
  for await (const line of lines(Deno.stdin.readable)) {
    state.loaded = line.trim() === "load";
    state.wake();
  }
  state.ended = true;
  state.wake();
  await running;
  Deno.exit();
}
