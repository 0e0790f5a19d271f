/**
 * Checks of array sizes against named axes: one letter stands for one size over all tensors of a call.
 *
 * @module
 */

/** Sizes of the axes of one kernel call. */
export class Axes {
  readonly #action: string;
  readonly #sizes = new Map<string, number>();

  /**
   * Starts with the axes whose sizes are known.
   *
   * @param action What the caller wants to do, for messages: `Cannot <action>: ...`.
   * @param sizes Axes that are known, by letter.
   * @throws {RangeError} when a size is not a positive integer.
   */
  constructor(action: string, sizes: Readonly<Record<string, number>>) {
    this.#action = action;
    for (const [axis, size] of Object.entries(sizes)) {
      if (!Number.isSafeInteger(size) || size < 1) {
        throw new RangeError(`Cannot ${action}: axis ${axis} must be a positive integer, got ${size}`);
      }
      this.#sizes.set(axis, size);
    }
  }

  /**
   * Checks that `tensor` holds one value per point of `axes`. An axis not seen before takes the size that fits.
   *
   * @throws {RangeError} when no size fits or an axis has another size already; names the tensor and the axis.
   */
  match(tensor: string, length: number, axes: readonly string[]): void {
    const shape = `${tensor} [${axes.join(", ")}]`;
    const open = axes.find((axis) => !this.#sizes.has(axis)) ?? axes[0];
    const rest = axes.filter((axis) => axis !== open);
    const unit = rest.reduce((product, axis) => product * this.size(axis), 1);
    const wanted = rest.map((axis) => `${axis} = ${this.size(axis)}`).join(", ");
    const size = length / unit;
    if (!Number.isInteger(size)) {
      throw new RangeError(
        `Cannot ${this.#action}: ${shape} with ${wanted} holds a multiple of ${unit}, got ${length} values`,
      );
    }
    const known = this.#sizes.get(open);
    if (known !== undefined && known !== size) {
      throw new RangeError(`Cannot ${this.#action}: axis ${open} of ${shape} must be ${known}, got ${size}`);
    }
    this.#sizes.set(open, size);
  }

  /** Size of an axis; 0 is possible for one that {@linkcode match} found. @throws {RangeError} when it is unknown. */
  size(axis: string): number {
    const size = this.#sizes.get(axis);
    if (size === undefined) throw new RangeError(`Cannot ${this.#action}: axis ${axis} has no size yet`);
    return size;
  }
}
