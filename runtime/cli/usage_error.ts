/**
 * The error of a command line that cannot be carried out as it is written.
 *
 * @module
 */

/** The command line is wrong: exit status 2. */
export class UsageError extends Error {
  /** Error name. */
  override readonly name = "UsageError";
}
