/**
 * Which rows stand for all the others in a small table.
 *
 * @module
 */

const HEADLINES: readonly RegExp[] = [
  /^llama3-8b, decode b(1 at (128|1024|122880)|32 at 1024|128 at 1024)$/,
  /^llama2-7b, decode b(1|32) at 1024$/,
  /^llama3-8b, prefill \d+$/,
  /^smollm2-135m, decode b(1|64) at 256$/,
  /^llama3-8b, 256 requests /,
  /^decode attention, 32\/8 heads of 128, (1 x 1K|1 x 8K|1 x 128K|64 x 4K|1 x 128K \+ 31 x 4K)$/,
  /^prefill attention, 32\/8 x 128, /,
  /^product (8B gate up|o) \d+x\d+, BF16, (1|32) tokens$/,
  /process to first token/,
];

/** Whether the row of that title belongs into a small table. */
export function isHeadline(title: string): boolean {
  return HEADLINES.some((pattern) => pattern.test(title));
}
