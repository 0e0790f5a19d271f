/**
 * How people and programs ask a program to stop.
 *
 * @module
 */

/** Exit status of a program that a signal ended: 128 and the signal's number. */
const STATUS: Readonly<Partial<Record<Deno.Signal, number>>> = { SIGINT: 130, SIGBREAK: 130, SIGTERM: 143 };

/** Calls `onSignal` for each stop signal, with the exit status that it stands for, until it is disposed. */
export function listenForStop(onSignal: (status: number) => void): Disposable {
  const signals: readonly Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT", "SIGBREAK"] : ["SIGINT", "SIGTERM"];
  const listeners = signals.map((signal) => ({ signal, listener: () => onSignal(STATUS[signal] ?? 1) }));
  for (const { signal, listener } of listeners) Deno.addSignalListener(signal, listener);
  return {
    [Symbol.dispose]() {
      for (const { signal, listener } of listeners) Deno.removeSignalListener(signal, listener);
    },
  };
}

/** Asked to stop once. */
export interface StopRequest extends Disposable {
  /** Resolves when the program is asked to stop. */
  readonly asked: Promise<undefined>;
}

/**
 * Waits to be asked to stop by a signal; a second one ends the process at once, or with `onSecond`. With `announced`, the
 * program is somebody's child: Ctrl-C in their terminal is theirs to handle, and the end of standard input asks it.
 */
export function awaitStop(
  options: { readonly announced?: boolean; readonly onSecond?: (status: number) => void } = {},
): StopRequest {
  const { announced = false, onSecond = Deno.exit } = options;
  const stopped = Promise.withResolvers<undefined>();
  let asked = false;
  const ask = () => {
    asked = true;
    stopped.resolve(undefined);
  };
  const signals = listenForStop((status) => {
    if (announced && status === STATUS.SIGINT) return;
    // Whoever asks twice does not want to wait.
    if (asked) onSecond(status);
    ask();
  });
  if (announced) void inputEnded().then(ask);
  return { asked: stopped.promise, [Symbol.dispose]: () => signals[Symbol.dispose]() };
}

async function inputEnded(): Promise<void> {
  const buffer = new Uint8Array(256);
  try {
    while (await Deno.stdin.read(buffer) !== null);
  } catch {
    // An input that cannot be read has ended too.
  }
}
