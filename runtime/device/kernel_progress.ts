/**
 * Tells people why a first start on a GPU takes longer.
 *
 * @module
 */

/** Time between two lines, ms. */
const PACE_MS = 2000;

/** Where the lines go. */
export interface KernelProgressOptions {
  /** Takes a line. */
  readonly log: (message: string) => void;
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number;
}

/** Takes the name of each kernel before it is compiled, and says so in a line at the first one and then every 2 s. */
export function kernelProgress({ log, now }: KernelProgressOptions): (name: string) => void {
  let count = 0;
  let told = 0;
  return (name) => {
    count++;
    if (count > 1 && now() - told < PACE_MS) return;
    told = now();
    log(
      count === 1
        ? `Compiling kernels for this GPU, which later starts need not do: ${name}`
        : `Compiling kernels for this GPU: ${count - 1} done, ${name}`,
    );
  };
}
