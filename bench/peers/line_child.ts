/**
 * A child process that answers one line of JSON for each line of JSON it gets.
 *
 * @module
 */
import { lines } from "../../runtime/text/line_stream.ts";

/** What a child answers. */
export interface ChildAnswer {
  /** Set when it failed. */
  readonly error?: string;
  /** Figure asked for. */
  readonly value?: number;
  /** Version and settings, in the first answer. */
  readonly version?: string;
  /** Times of the tokens of several streams, ms of the child's clock. */
  readonly streams?: readonly (readonly { readonly ms: number; readonly tokens: number }[])[];
}

const STOP_MS = 10_000;

/** A running child. Questions are asked one at a time. */
export class LineChild implements AsyncDisposable {
  /** What it said about itself when it was ready. */
  readonly version: string;
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #answers: AsyncGenerator<string, void, void>;

  /** Takes over what {@linkcode LineChild.start} started. */
  constructor(parts: {
    version: string;
    child: Deno.ChildProcess;
    writer: WritableStreamDefaultWriter<Uint8Array>;
    answers: AsyncGenerator<string, void, void>;
  }) {
    this.version = parts.version;
    this.#child = parts.child;
    this.#writer = parts.writer;
    this.#answers = parts.answers;
  }

  /** Starts `program` and waits for its first answer. @throws {Error} when it fails or ends before that. */
  static async start(program: string, args: readonly string[]): Promise<LineChild> {
    const child = new Deno.Command(program, { args: [...args], stdin: "piped", stdout: "piped", stderr: "null" })
      .spawn();
    const answers = lines(child.stdout);
    const writer = child.stdin.getWriter();
    try {
      const { version = "" } = await nextAnswer(answers);
      return new LineChild({ version, child, writer, answers });
    } catch (error) {
      await stop(child, { writer, answers });
      throw error;
    }
  }

  /** Process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** Sends a question and waits for its answer. @throws {Error} when the child says so or ends. */
  async ask(question: unknown): Promise<ChildAnswer> {
    await this.#writer.write(new TextEncoder().encode(`${JSON.stringify(question)}\n`));
    return await nextAnswer(this.#answers);
  }

  /** Asks for a figure. @throws {Error} when the answer has none. */
  async askValue(question: unknown): Promise<number> {
    const { value } = await this.ask(question);
    if (value === undefined) throw new Error("Cannot measure a peer: its answer has no value");
    return value;
  }

  /** Closes its input, on which it ends. */
  async [Symbol.asyncDispose](): Promise<void> {
    await stop(this.#child, { writer: this.#writer, answers: this.#answers });
  }
}

async function nextAnswer(answers: AsyncGenerator<string, void, void>): Promise<ChildAnswer> {
  for (;;) {
    const { value: line, done } = await answers.next();
    if (done || line === undefined) throw new Error("Cannot measure a peer: its process ended");
    // Native libraries print lines of their own.
    if (!line.startsWith("{")) continue;
    const answer: ChildAnswer = JSON.parse(line);
    if (answer.error !== undefined) throw new Error(`Cannot measure a peer: ${answer.error}`);
    return answer;
  }
}

async function stop(
  child: Deno.ChildProcess,
  { writer, answers }: {
    writer: WritableStreamDefaultWriter<Uint8Array>;
    answers: AsyncGenerator<string, void, void>;
  },
): Promise<void> {
  await writer.close().catch(() => {});
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
  await child.status;
  clearTimeout(timer);
  await answers.return();
}
