/**
 * Least squares with few unknowns.
 *
 * @module
 */

/** Normal equations of a weighted least squares problem; rows come as the few elements that are not 0. */
export class NormalEquations {
  readonly #size: number;
  readonly #matrix: Float64Array;
  readonly #right: Float64Array;

  /** Makes empty equations of `size` unknowns. */
  constructor(size: number) {
    this.#size = size;
    this.#matrix = new Float64Array(size * size);
    this.#right = new Float64Array(size);
  }

  /** Adds the row `sum of row[k][1] * x[row[k][0]] = value`. */
  add(row: readonly (readonly [index: number, element: number])[], options: {
    readonly value: number;
    readonly weight: number;
  }): void {
    const { value, weight } = options;
    for (const [i, left] of row) {
      this.#right[i] += weight * left * value;
      for (const [j, right] of row) this.#matrix[i * this.#size + j] += weight * left * right;
    }
  }

  /**
   * The solution by Cholesky's method, unknown by unknown. An unknown that the rows say nothing about, or nothing that the
   * ones before it do not say (to one part in `1 / tolerance`), is undefined and counts as 0 for the others.
   */
  solve(tolerance: number): readonly (number | undefined)[] {
    const size = this.#size;
    const factor = new Float64Array(size * size);
    const known: boolean[] = [];
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < i; j++) {
        if (!known[j]) continue;
        let sum = this.#matrix[i * size + j];
        for (let k = 0; k < j; k++) sum -= factor[i * size + k] * factor[j * size + k];
        factor[i * size + j] = sum / factor[j * size + j];
      }
      let rest = this.#matrix[i * size + i];
      for (let k = 0; k < i; k++) rest -= factor[i * size + k] ** 2;
      known.push(rest > tolerance * this.#matrix[i * size + i]);
      if (known[i]) factor[i * size + i] = Math.sqrt(rest);
      else factor.fill(0, i * size, (i + 1) * size);
    }
    const solution = new Float64Array(size);
    for (let i = 0; i < size; i++) {
      if (!known[i]) continue;
      let sum = this.#right[i];
      for (let k = 0; k < i; k++) sum -= factor[i * size + k] * solution[k];
      solution[i] = sum / factor[i * size + i];
    }
    for (let i = size - 1; i >= 0; i--) {
      if (!known[i]) continue;
      let sum = solution[i];
      for (let k = i + 1; k < size; k++) sum -= factor[k * size + i] * solution[k];
      solution[i] = sum / factor[i * size + i];
    }
    return known.map((isKnown, i) => isKnown ? solution[i] : undefined);
  }
}
