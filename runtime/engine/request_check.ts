/**
 * What a request must be before the engine takes it.
 *
 * @module
 */
import { CapacityError, type EngineRequest } from "./request.ts";

/** Most choices of one request. */
export const MAX_CHOICES = 128;

/** What a request is checked against. */
export interface RequestBounds {
  /** Rows of the vocabulary. */
  readonly vocab: number;
  /** Longest prompt plus output, tokens. */
  readonly maxModelLen: number;
  /** KV tokens of the pool. */
  readonly kvTokens: number;
  /** KV tokens of the pool and of what can be borrowed now. */
  readonly reachableTokens: number;
  /** Whether a prompt and output of these lengths can ever run. */
  readonly canEverFit: (promptTokens: number, maxTokens: number) => boolean;
}

/**
 * Checks the numbers of a request.
 *
 * @throws {RangeError} when a count or a token id is out of range.
 * @throws {CapacityError} when it can never fit.
 */
export function checkRequest(request: EngineRequest, bounds: RequestBounds): void {
  const { prompt, maxTokens, n = 1 } = request;
  if (prompt.length === 0) throw new RangeError("Cannot run a request: wanted at least one prompt token, got none");
  checkIds(prompt, { vocab: bounds.vocab, where: "" });
  if (!Number.isInteger(maxTokens) || maxTokens < 0) {
    throw new RangeError(`Cannot run a request: wanted maxTokens of 0 or more, got ${maxTokens}`);
  }
  if (!Number.isInteger(n) || n < 1 || n > MAX_CHOICES) {
    throw new RangeError(`Cannot run a request: wanted n from 1 to ${MAX_CHOICES}, got ${n}`);
  }
  checkResumed(request, bounds.vocab);
  const length = prompt.length + maxTokens;
  const { maxModelLen, kvTokens, reachableTokens } = bounds;
  if (length > maxModelLen) {
    throw tooLong(request, `the longest context is ${maxModelLen} tokens, ${reachableTokens} can be reached now`);
  }
  if (!bounds.canEverFit(prompt.length, maxTokens)) {
    throw tooLong(
      request,
      `the KV pool holds ${kvTokens} tokens, ${reachableTokens} can be reached now (longest context ${maxModelLen})`,
    );
  }
}

function checkIds(ids: ArrayLike<number>, options: { readonly vocab: number; readonly where: string }): void {
  const { vocab, where } = options;
  for (let i = 0; i < ids.length; i++) {
    const token = ids[i];
    if (!Number.isInteger(token) || token < 0 || token >= vocab) {
      throw new RangeError(`Cannot run a request: wanted token ids below ${vocab}, got ${token} at index ${i}${where}`);
    }
  }
}

function checkResumed({ resumed, n = 1, maxTokens }: EngineRequest, vocab: number): void {
  if (resumed === undefined) return;
  if (resumed.length !== n) {
    throw new RangeError(`Cannot run a request: wanted resumed tokens of ${n} choices, got ${resumed.length}`);
  }
  for (const [index, ids] of resumed.entries()) {
    if (ids.length > maxTokens) {
      throw new RangeError(
        `Cannot run a request: wanted at most ${maxTokens} resumed tokens, got ${ids.length} of choice ${index}`,
      );
    }
    checkIds(ids, { vocab, where: ` of the resumed tokens of choice ${index}` });
  }
}

function tooLong({ prompt, maxTokens }: EngineRequest, limit: string): CapacityError {
  return new CapacityError(
    `Cannot run a request: ${limit}, wanted ${prompt.length + maxTokens} ` +
      `(${prompt.length} of the prompt and ${maxTokens} to generate)`,
    { status: 400, code: "context_length_exceeded" },
  );
}
