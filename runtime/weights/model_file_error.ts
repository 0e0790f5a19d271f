/**
 * The error of every reader of model files.
 *
 * @module
 */

/** What is wrong, and where in the file. */
export interface ModelFileProblem {
  /** Place in the file: a metadata key, a tensor name, a JSON path. */
  readonly field: string;
  /** Rest of the sentence: what was wanted and what was found. */
  readonly problem: string;
  /** Lower-level error, when there was one. */
  readonly cause?: unknown;
}

/** A model file is damaged, hostile, or of a kind that this program does not run. */
export class ModelFileError extends Error {
  /** Error name. */
  override readonly name = "ModelFileError";
  /** File or directory the problem is in. */
  readonly file: string;
  /** Place in the file: a metadata key, a tensor name, a JSON path. */
  readonly field: string;

  /** Message: `Cannot load <file>: <field> <problem>`. */
  constructor(file: string, { field, problem, cause }: ModelFileProblem) {
    super(`Cannot load ${file}: ${field} ${problem}`, { cause });
    this.file = file;
    this.field = field;
  }
}
