/**
 * `infinite-llm run`: a chat in the terminal.
 *
 * @module
 */
import { Chat } from "../chat.ts";
import { type CommandInput, DEVICE_LOST_STATUS, oneLine } from "../main.ts";
import { namedModel } from "../named_model.ts";
import { openHub } from "../open_hub.ts";
import { readFlagFile } from "../read_flag_file.ts";
import { startModel } from "../start_model.ts";
import { listenForStop } from "../stop_signals.ts";

const CHAT_HELP = `/help          show this
/clear         forget what was said
/system TEXT   set the system message; without TEXT, leave it to the model
/exit          end the chat, as Ctrl-D does
Ctrl-C stops an answer, or ends the chat where there is none`;

/** Longest message, UTF-16 units. */
const MAX_LINE = 2 ** 20;

/**
 * Chats over standard input and output until the input ends or the device is lost. Gives 1 when the last message had no
 * answer.
 */
export async function run(input: CommandInput): Promise<number> {
  const { settings } = input;
  const template = settings.chatTemplate && await readFlagFile("--chat-template", settings.chatTemplate);
  const model = await openHub(input).hub.find(namedModel(input));
  const starting = startModel(settings, { model, chatTemplate: template, log: (message) => console.error(message) });
  const [engine, text] = await Promise.all([starting.engine, starting.text]);
  await using _engine = engine;
  await using _text = text;
  const chat = new Chat({ ...settings, engine, text });
  const terminal = Deno.stdin.isTerminal();
  if (terminal) console.error(`${engine.info.model} on ${engine.info.device}. /help shows what else can be said.`);
  return await talk(chat, { terminal, lost: engine.deviceLost });
}

async function talk(
  chat: Chat,
  { terminal, lost }: { readonly terminal: boolean; readonly lost?: Promise<Error> },
): Promise<number> {
  const input = inputLines();
  const ended = Promise.withResolvers<undefined>();
  let gone = false;
  void lost?.then(() => {
    gone = true;
    ended.resolve(undefined);
  });
  let answering: AbortController | undefined;
  let failed = false;
  using _signals = listenForStop((status) => {
    if (status === 130 && answering !== undefined) answering.abort();
    else ended.resolve(undefined);
  });
  while (true) {
    if (terminal) write(">>> ");
    const next = await Promise.race([input.next(), ended.promise]);
    if (next === undefined || next.done === true) break;
    const line = next.value.trim();
    if (line === "") continue;
    if (line === "/exit") break;
    if (line.startsWith("/")) {
      command(chat, line);
      continue;
    }
    answering = new AbortController();
    failed = !await answer(chat, { line, signal: answering.signal });
    answering = undefined;
  }
  if (terminal) write("\n");
  if (gone) return DEVICE_LOST_STATUS;
  return failed ? 1 : 0;
}

/** Answers a message. Gives whether that went well; a failure is one line, and the chat goes on. */
async function answer(
  chat: Chat,
  { line, signal }: { readonly line: string; readonly signal: AbortSignal },
): Promise<boolean> {
  try {
    const { reason } = await chat.answer(line, { onText: write, signal });
    write("\n");
    if (reason === "cancelled") console.error("[stopped]");
    if (reason === "length") console.error("[the answer is cut off: --max-tokens or the context allows no more]");
    return true;
  } catch (error) {
    write("\n");
    console.error(`infinite-llm: ${oneLine(error)}${error instanceof RangeError ? "; /clear begins anew" : ""}`);
    return false;
  }
}

function command(chat: Chat, line: string): void {
  const [, name, rest] = /^\/(\S*)\s*(.*)$/.exec(line) ?? [];
  switch (name) {
    case "help":
      console.error(CHAT_HELP);
      break;
    case "clear":
      chat.clear();
      break;
    case "system":
      chat.system = rest === "" ? undefined : rest;
      break;
    default:
      console.error(`There is no /${name}; /help shows what there is`);
  }
}

/** Lines of standard input, the last one also when nothing ends it. */
async function* inputLines(): AsyncGenerator<string, void, void> {
  let pending = "";
  for await (const chunk of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (pending + chunk).split("\n");
    pending = lines.pop() ?? "";
    yield* lines;
    if (pending.length > MAX_LINE) {
      throw new RangeError(`Cannot read a message: wanted at most ${MAX_LINE} characters, got more`);
    }
  }
  if (pending !== "") yield pending;
}

function write(text: string): void {
  for (let rest = new TextEncoder().encode(text); rest.length > 0;) rest = rest.subarray(Deno.stdout.writeSync(rest));
}
