/**
 * Loads the plugin it is sent and answers with the message of the error. Runs in a Worker, because a runtime in which a
 * module never finishes cannot go idle.
 */
/// <reference lib="deno.worker" />
import { loadSchedulerPlugin } from "../load.ts";

self.onmessage = async ({ data }: MessageEvent<{ readonly specifier: string; readonly timeoutMs: number }>) => {
  try {
    await loadSchedulerPlugin(data.specifier, { timeoutMs: data.timeoutMs });
    self.postMessage("loaded");
  } catch (error) {
    self.postMessage(error instanceof Error ? `${error.name}: ${error.message}` : "no error");
  }
};
