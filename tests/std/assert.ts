/**
 * The part of `@std/assert` that this project uses, with the same names and signatures, over `node:assert` and `expect`.
 * On a machine that reaches JSR the import map points `@std/assert` at the original instead.
 *
 * @module
 */
import { AssertionError, deepStrictEqual, notDeepStrictEqual } from "node:assert/strict";
import { expect } from "expect";

export { AssertionError };

type Class<E extends Error> = abstract new (...args: never[]) => E;

function describe(message: string, detail?: string): string {
  return detail === undefined ? message : `${message}: ${detail}`;
}

/** Throws unless `value` is truthy. */
export function assert(value: unknown, message = ""): asserts value {
  if (!value) {
    throw new AssertionError({ message: message || "Expected a truthy value", actual: value, expected: true });
  }
}

/** Throws unconditionally. */
export function fail(message?: string): never {
  throw new AssertionError({ message: describe("Failed assertion", message) });
}

/** Deep equality. */
export function assertEquals<T>(actual: T, expected: T, message?: string): void {
  try {
    deepStrictEqual(actual, expected);
  } catch (error) {
    if (!(error instanceof AssertionError) || message === undefined) throw error;
    throw new AssertionError({ message: describe(message, error.message), actual, expected });
  }
}

/** Deep inequality. */
export function assertNotEquals<T>(actual: T, expected: T, message?: string): void {
  notDeepStrictEqual(actual, expected, message);
}

/** Equality by `Object.is`. */
export function assertStrictEquals<T>(actual: unknown, expected: T, message?: string): asserts actual is T {
  if (!Object.is(actual, expected)) {
    throw new AssertionError({ message: describe("Values are not identical", message), actual, expected });
  }
}

/** Equality of numbers within `tolerance` (absolute; by default 1e-7 of the expected magnitude). */
export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, message?: string): void {
  if (Object.is(actual, expected)) return;
  const allowed = tolerance ?? (Number.isFinite(expected) ? Math.abs(expected) * 1e-7 : 1e-7);
  if (!(Math.abs(actual - expected) <= allowed)) {
    throw new AssertionError({
      message: describe(`Expected ${actual} to be within ${allowed} of ${expected}`, message),
      actual,
      expected,
    });
  }
}

/** Not null and not undefined. */
export function assertExists<T>(actual: T, message?: string): asserts actual is NonNullable<T> {
  assert(actual !== undefined && actual !== null, describe("Expected a value, got null or undefined", message));
}

/** `instanceof`. */
export function assertInstanceOf<T>(
  actual: unknown,
  type: abstract new (...args: never[]) => T,
  message?: string,
): asserts actual is T {
  assert(actual instanceof type, describe(`Expected an instance of ${type.name}`, message));
}

/** Substring. */
export function assertStringIncludes(actual: string, expected: string, message?: string): void {
  assert(actual.includes(expected), describe(`Expected "${actual}" to contain "${expected}"`, message));
}

/** Regular expression. */
export function assertMatch(actual: string, expected: RegExp, message?: string): void {
  assert(expected.test(actual), describe(`Expected "${actual}" to match ${expected}`, message));
}

/** Subset of an object's properties. */
export function assertObjectMatch(actual: object, expected: object, message?: string): void {
  try {
    expect(actual).toMatchObject(expected as Record<string, unknown>);
  } catch (error) {
    throw new AssertionError({ message: describe(error instanceof Error ? error.message : String(error), message) });
  }
}

/** actual > expected. */
export function assertGreater<T>(actual: T, expected: T, message?: string): void {
  assert(actual > expected, describe(`Expected ${actual} > ${expected}`, message));
}

/** actual >= expected. */
export function assertGreaterOrEqual<T>(actual: T, expected: T, message?: string): void {
  assert(actual >= expected, describe(`Expected ${actual} >= ${expected}`, message));
}

/** actual < expected. */
export function assertLess<T>(actual: T, expected: T, message?: string): void {
  assert(actual < expected, describe(`Expected ${actual} < ${expected}`, message));
}

/** actual <= expected. */
export function assertLessOrEqual<T>(actual: T, expected: T, message?: string): void {
  assert(actual <= expected, describe(`Expected ${actual} <= ${expected}`, message));
}

function checkError<E extends Error>(error: unknown, type?: Class<E>, includes?: string, message?: string): E {
  if (type && !(error instanceof type)) {
    const got = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    throw new AssertionError({ message: describe(`Expected ${type.name}, got ${got}`, message) });
  }
  if (includes !== undefined && !(error instanceof Error && error.message.includes(includes))) {
    const got = error instanceof Error ? error.message : String(error);
    throw new AssertionError({ message: describe(`Expected an error with "${includes}", got "${got}"`, message) });
  }
  return error as E;
}

/** Throws unless `fn` throws; returns the error. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  type?: Class<E>,
  includes?: string,
  message?: string,
): E {
  try {
    fn();
  } catch (error) {
    return checkError(error, type, includes, message);
  }
  throw new AssertionError({ message: describe("Expected the function to throw", message) });
}

/** Rejects unless `fn` rejects; resolves to the error. */
export async function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  type?: Class<E>,
  includes?: string,
  message?: string,
): Promise<E> {
  try {
    await fn();
  } catch (error) {
    return checkError(error, type, includes, message);
  }
  throw new AssertionError({ message: describe("Expected the promise to reject", message) });
}
