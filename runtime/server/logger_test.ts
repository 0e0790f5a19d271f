import { assert, assertEquals, assertMatch } from "@std/assert";
import { createLogger, describeFailure, type LoggerOptions } from "./logger.ts";

function kept(options: LoggerOptions = {}) {
  const lines: string[] = [];
  const decoder = new TextDecoder();
  const logger = createLogger({
    now: () => 1_700_000_000_123,
    write: (line) => {
      lines.push(decoder.decode(line));
      return Promise.resolve();
    },
    ...options,
  });
  return { logger, lines };
}

Deno.test("Logger.info() writes one JSON object a line", async () => {
  const { logger, lines } = kept({ format: "json" });
  logger.info("request", { id: "a", status: 200, ignored: ["b", "c"], missing: undefined });
  await logger.flush();
  assertEquals(lines, [
    '{"time":"2023-11-14T22:13:20.123Z","level":"info","message":"request","id":"a","status":200,"ignored":["b","c"]}\n',
  ]);
});

Deno.test("Logger.warn() writes pretty lines that control characters cannot break", async () => {
  const { logger, lines } = kept();
  logger.warn("request", { id: "a\n22:00:00 error forged", ok: true, list: ["x", "y"] });
  await logger.flush();
  assertEquals(lines, ['22:13:20.123 warn  request id="a\\n22:00:00 error forged" ok=true list="x,y"\n']);
});

Deno.test("Logger leaves out what is below its level", async () => {
  const { logger, lines } = kept({ level: "warn" });
  logger.debug("a");
  logger.info("b");
  logger.warn("c");
  logger.error("d");
  const silent = kept({ level: "silent" });
  silent.logger.error("e");
  await logger.flush();
  assertEquals([lines.length, silent.lines.length], [2, 0]);
});

Deno.test("Logger cuts long lines", async () => {
  const { logger, lines } = kept({ lineBytes: 64 });
  logger.info("é".repeat(200));
  await logger.flush();
  assert(new TextEncoder().encode(lines[0]).length <= 66 && lines[0].endsWith("\n"));
});

Deno.test("Logger drops lines beyond its rate and says so in the next second", async () => {
  let now = 5000;
  const { logger, lines } = kept({ linesPerSecond: 2, now: () => now });
  for (let i = 0; i < 5; i++) logger.info(`line ${i}`);
  now = 6000;
  logger.info("later");
  await logger.flush();
  assertEquals(lines.map((line) => line.slice(13).trim()), [
    "info  line 0",
    "info  line 1",
    "warn  log lines dropped dropped=3",
    "info  later",
  ]);
});

Deno.test("Logger does not wait for a reader that is stuck and keeps a bounded number of lines", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  let written = 0;
  const logger = createLogger({
    waitingLines: 10,
    write: async () => {
      await promise;
      written++;
    },
  });
  for (let i = 0; i < 500; i++) logger.info("line");
  resolve();
  await logger.flush();
  assert(written >= 10 && written <= 12);
});

Deno.test("Logger survives a log that cannot be written", async () => {
  const lines: string[] = [];
  let broken = true;
  const logger = createLogger({
    format: "json",
    write: (line) => {
      if (broken) return Promise.reject(new Deno.errors.BrokenPipe());
      lines.push(new TextDecoder().decode(line));
      return Promise.resolve();
    },
  });
  logger.info("lost");
  await logger.flush();
  broken = false;
  logger.info("kept");
  await logger.flush();
  assertEquals(lines.map((line) => JSON.parse(line).message), ["log lines dropped", "kept"]);
});

Deno.test("describeFailure() tells class and place but not the message", () => {
  const { error, at } = describeFailure(new RangeError("a\n    secret\nb"));
  assertEquals(error, "RangeError");
  assertMatch(at[0], /logger_test\.ts/);
  assert(!JSON.stringify(at).includes("secret"));
  assertEquals(describeFailure("text"), { error: "string", at: [] });
});
