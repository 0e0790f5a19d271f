/**
 * What the template process and its owner say to each other: one JSON document a line, one request at a time.
 *
 * @module
 */

/** Processor time that one rendering may take in the template process, milliseconds. */
export const TEMPLATE_CPU_MS: number = 100;
/** Time that one rendering may take by the clock, milliseconds, in case the machine is busy. */
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
  | { readonly kind: "overrun" };
