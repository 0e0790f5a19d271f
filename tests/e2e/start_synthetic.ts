/**
 * A whole server over a tiny random model: file, text Worker, engine Worker, WASM kernels and HTTP.
 *
 * @module
 */
import type { EngineHandle } from "../../runtime/engine/request.ts";
import type { OpenEngineOptions } from "../../runtime/engine/engine_protocol.ts";
import { openEngine } from "../../runtime/engine/worker_engine.ts";
import { createLogger } from "../../runtime/server/logger.ts";
import { type RunningServer, startServer } from "../../runtime/server/server.ts";
import type { TextCodec } from "../../runtime/text/codec.ts";
import { openTextCodec } from "../../runtime/text/worker_codec.ts";
import type { SyntheticSpec } from "../synthetic/spec.ts";
import { buildSyntheticGguf } from "../synthetic/synthetic_gguf.ts";

/** A running server and its parts. */
export interface SyntheticServer extends AsyncDisposable {
  /** The server. */
  readonly server: RunningServer;
  /** Its engine. */
  readonly engine: EngineHandle;
  /** Its tokenizer. */
  readonly text: TextCodec;
}

/** Starts a server on a free port. */
export async function startSynthetic(
  options: Partial<OpenEngineOptions> & { readonly spec?: SyntheticSpec } = {},
): Promise<SyntheticServer> {
  const { spec, ...engineOptions } = options;
  const opened = new AsyncDisposableStack();
  const modelPath = await Deno.makeTempFile({ suffix: ".gguf" });
  opened.defer(() => Deno.remove(modelPath));
  await Deno.writeFile(modelPath, buildSyntheticGguf({ contextLength: 512, ...spec }));
  const text = opened.use(await openTextCodec({ modelPath }));
  const engine = opened.use(
    await openEngine({ modelPath, device: { kind: "wasm", threads: 2 }, ...engineOptions }, { text }),
  );
  const server = opened.use(await startServer({ engine, text, port: 0, logger: createLogger({ level: "error" }) }));
  return { server, engine, text, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}
