/**
 * The signals by which people and service managers ask a program to stop.
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
