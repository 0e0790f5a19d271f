/**
 * An answer that a policy writes call by call.
 *
 * @module
 */
import { PolicyFault } from "./error.ts";

/** Remembers the first rule that was broken, so that a policy cannot hide it, and ends with the call. */
export class AnswerDraft {
  readonly #noun: string;
  #fault: PolicyFault | undefined;
  #closed = false;

  /** Makes an open draft of what `noun` names. */
  constructor(noun: string) {
    this.#noun = noun;
  }

  /**
   * Runs one write of the policy.
   *
   * @throws {PolicyFault} when the draft is closed or the write breaks a rule; the draft is spoilt even if the policy
   * catches it.
   */
  write(write: () => void): void {
    if (this.#closed) throw new PolicyFault(`Cannot write to the ${this.#noun}: its call is over`);
    try {
      write();
    } catch (error) {
      if (error instanceof PolicyFault) this.#fault ??= error;
      throw error;
    }
  }

  /**
   * Ends the draft: later writes throw and change nothing.
   *
   * @throws {PolicyFault} the first broken rule, if there is one.
   */
  close(): void {
    this.#closed = true;
    if (this.#fault !== undefined) throw this.#fault;
  }
}
