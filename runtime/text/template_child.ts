/**
 * Main module of the template process. It reads requests from standard input, renders them on a
 * thread of its own and ends itself when a rendering takes too much processor time.
 *
 * @module
 */
import process from "node:process";
import { lines, writeLine } from "./line_stream.ts";
import { templateLimits, type TemplateReply, type TemplateRequest } from "./template_protocol.ts";
// Puts the thread's module and the template library into the module cache with this one.
import "./template_thread.ts";

/** How often the processor time is looked at, milliseconds. */
const WATCH_MS = 5;

async function main(): Promise<void> {
  const thread = new Worker(new URL("./template_thread.ts", import.meta.url), { type: "module" });
  const { port1: port, port2 } = new MessageChannel();
  const ready = answer(port);
  thread.postMessage(port2, [port2]);
  reply(await ready);
  for await (const line of lines(Deno.stdin.readable)) {
    const request: TemplateRequest = JSON.parse(line);
    const { cpuMs, output } = templateLimits(line.length);
    const answered = answer(port);
    port.postMessage(request);
    const before = process.cpuUsage();
    const watch = setInterval(() => {
      const { user, system } = process.cpuUsage(before);
      if ((user + system) / 1000 <= cpuMs) return;
      reply({ kind: "overrun", cpuMs });
      Deno.exit();
    }, WATCH_MS);
    const result = await answered;
    clearInterval(watch);
    reply(limited(result, output));
  }
  thread.terminate();
  port.close();
}

function answer(port: MessagePort): Promise<TemplateReply> {
  return new Promise((resolve) => port.onmessage = ({ data }: MessageEvent<TemplateReply>) => resolve(data));
}

function limited(result: TemplateReply, limit: number): TemplateReply {
  if (result.kind !== "text" || result.text.length <= limit) return result;
  return { kind: "error", message: `wanted at most ${limit} characters of output, got ${result.text.length}` };
}

function reply(message: TemplateReply): void {
  writeLine(Deno.stdout, message);
}

if (import.meta.main) await main();
