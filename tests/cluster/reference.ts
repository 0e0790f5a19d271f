/**
 * Undisturbed answers of one large instance. Each question is asked once.
 *
 * @module
 */
import type { Answer, Question } from "./answers.ts";
import { ClusterProcesses, type MemberProcess } from "./cluster_processes.ts";

/** Most time of an answer, ms. */
const ANSWER_MS = 240_000;

/** One instance that is large enough for every question, started when it is first asked. */
export class Reference implements AsyncDisposable {
  readonly #processes: ClusterProcesses;
  readonly #kvTokens: number;
  readonly #answers = new Map<string, Promise<Answer>>();
  #instance: Promise<MemberProcess> | undefined;

  /** Answers with the model at `model`, a path. */
  constructor(model: string, { kvTokens }: { readonly kvTokens: number }) {
    this.#processes = new ClusterProcesses(model);
    this.#kvTokens = kvTokens;
  }

  /** The answer to a question; whether it comes in events makes no difference. */
  async answer({ stream: _, ...question }: Question): Promise<Answer> {
    const key = JSON.stringify(question);
    let answer = this.#answers.get(key);
    if (answer === undefined) {
      this.#instance ??= this.#processes.startAlone({ name: "reference", kvTokens: this.#kvTokens });
      answer = this.#instance.then((instance) => instance.ask(question, { timeoutMs: ANSWER_MS }));
      this.#answers.set(key, answer);
    }
    return await answer;
  }

  /** Ends the instance. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#processes[Symbol.asyncDispose]();
  }
}
