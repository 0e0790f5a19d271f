/**
 * Waiting that ends: whatever does not come in time is an error that says what did not come.
 *
 * @module
 */

/** Waits for `promise`. @throws {Error} naming `what` after `ms`. */
export async function within<T>(ms: number, what: string, promise: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`Cannot wait for ${what}: ${ms} ms have passed`)), ms);
  // Nobody listens any more once the race is won.
  promise.catch(() => {});
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits. */
export async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Looks again and again until `look` gives something.
 *
 * @throws {Error} naming `what` and what was seen last after `ms`.
 */
export async function eventually<T>(
  look: () => Promise<T | undefined>,
  options: {
    /** What is waited for. */
    readonly what: string;
    /** Most time, ms. */
    readonly ms: number;
    /** Between two looks, ms. @default {100} */
    readonly everyMs?: number;
    /** What was seen last, for the error. */
    readonly seen?: () => string;
  },
): Promise<T> {
  const { what, ms, everyMs = 100, seen = () => "" } = options;
  const untilMs = performance.now() + ms;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > untilMs) throw new Error(`Cannot wait for ${what}: ${ms} ms have passed ${seen()}`.trim());
    await pause(everyMs);
  }
}
