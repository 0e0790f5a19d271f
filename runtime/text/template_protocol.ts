/**
 * What the template process and its owner say to each other: one JSON document a line, one request at a time.
 *
 * @module
 */

/** Processor time that a rendering may take in the template process for each 256 KiB of its request, milliseconds. */
export const TEMPLATE_CPU_MS: number = 100;
/** Time that it may take by the clock for each 256 KiB, in case the machine is busy, milliseconds. */
export const TEMPLATE_WALL_MS: number = 2_000;
/** What a template may write beyond the length of its request, UTF-16 units. */
export const TEMPLATE_OUTPUT: number = 1 << 20;
/** Heap of the template process, MiB. */
export const TEMPLATE_HEAP_MIB: number = 256;

/** One rendering. */
export interface TemplateRequest {
  /** Jinja source. */
  readonly template: string;
  /** Variables of the template. */
  readonly variables: Readonly<Record<string, unknown>>;
}

/** Answer of the template process. */
export type TemplateReply =
  | { readonly kind: "ready" }
  | { readonly kind: "text"; readonly text: string }
  /** The template is wrong, raised an error or wrote too much. */
  | { readonly kind: "error"; readonly message: string }
  /** The rendering took too much processor time; the process has ended. */
  | { readonly kind: "overrun"; readonly cpuMs: number };

/** Limits of one rendering. */
export interface TemplateLimits {
  /** Processor time, milliseconds. */
  readonly cpuMs: number;
  /** Time by the clock, milliseconds. */
  readonly wallMs: number;
  /** Output, UTF-16 units. */
  readonly output: number;
}

/** Limits for a request of `length` UTF-16 units: 100 ms, 2 s and 1 MiB, and more for long requests. */
export function templateLimits(length: number): TemplateLimits {
  const share = Math.max(1, length / (1 << 18));
  return { cpuMs: TEMPLATE_CPU_MS * share, wallMs: TEMPLATE_WALL_MS * share, output: TEMPLATE_OUTPUT + length };
}
