/**
 * Progress of transfers, for people.
 *
 * @module
 */
import { formatBytes } from "./format_bytes.ts";

/** Told how a transfer goes. One transfer at a time. */
export interface TransferReporter {
  /** A transfer begins, `doneBytes` of `totalBytes` being there already. */
  begin(label: string, options: { readonly totalBytes: number; readonly doneBytes?: number }): void;
  /** So much is there now. */
  advance(doneBytes: number): void;
  /** The transfer ended, well or not. */
  finish(): void;
  /** Something worth a line. */
  note(message: string): void;
}

/** Reports nothing. */
export const SILENT: TransferReporter = { begin() {}, advance() {}, finish() {}, note() {} };

/** Where {@linkcode ProgressBar} writes. */
export interface ProgressSink {
  /** Whether the last line can be rewritten. */
  readonly terminal: boolean;
  /** Takes text. */
  write(text: string): void;
}

/** Time between two lines where the last one cannot be rewritten, and between two drawings where it can, ms. */
const LINE_MS = 3000;
const DRAW_MS = 100;
const BAR_CELLS = 24;
/** The rate is that of about this long, ms. */
const RATE_MS = 5000;

/** Draws a bar with bytes, rate and time left on a terminal; elsewhere writes a line every few seconds. */
export class ProgressBar implements TransferReporter {
  readonly #sink: ProgressSink;
  readonly #now: () => number;
  #label = "";
  #total = 0;
  #done = 0;
  #drawnMs = -Infinity;
  #drawn = false;
  /** Earlier readings, oldest first, of which the rate is made. */
  #readings: { readonly ms: number; readonly done: number }[] = [];

  /** Makes one; `now` gives milliseconds. */
  constructor(sink: ProgressSink, { now = () => performance.now() }: { readonly now?: () => number } = {}) {
    this.#sink = sink;
    this.#now = now;
  }

  /** See {@linkcode TransferReporter}. */
  begin(label: string, { totalBytes, doneBytes = 0 }: { readonly totalBytes: number; readonly doneBytes?: number }) {
    this.#label = label;
    this.#total = totalBytes;
    this.#done = doneBytes;
    this.#readings = [];
    this.#drawnMs = -Infinity;
    this.advance(doneBytes);
  }

  /** See {@linkcode TransferReporter}. */
  advance(doneBytes: number): void {
    const ms = this.#now();
    this.#done = doneBytes;
    if (ms - this.#drawnMs < (this.#sink.terminal ? DRAW_MS : LINE_MS)) return;
    this.#drawnMs = ms;
    this.#readings.push({ ms, done: doneBytes });
    while (this.#readings.length > 2 && ms - this.#readings[1].ms >= RATE_MS) this.#readings.shift();
    this.#draw();
  }

  /** See {@linkcode TransferReporter}. */
  finish(): void {
    this.#readings.push({ ms: this.#now(), done: this.#done });
    this.#draw();
    if (this.#sink.terminal) this.#sink.write("\n");
    this.#drawn = false;
  }

  /** See {@linkcode TransferReporter}. */
  note(message: string): void {
    this.#sink.write(`${this.#drawn && this.#sink.terminal ? "\n" : ""}${message}\n`);
    this.#drawn = false;
  }

  #draw(): void {
    const share = this.#total > 0 ? Math.min(1, this.#done / this.#total) : 0;
    const first = this.#readings[0];
    const last = this.#readings[this.#readings.length - 1];
    const seconds = (last.ms - first.ms) / 1000;
    const rate = seconds > 0 ? (last.done - first.done) / seconds : 0;
    const parts = [
      `${String(Math.floor(share * 100)).padStart(3)}%`,
      `${formatBytes(this.#done)} of ${formatBytes(this.#total)}`,
      ...rate > 0 ? [`${formatBytes(rate)}/s`] : [],
      ...rate > 0 && this.#done < this.#total ? [`${timeLeft((this.#total - this.#done) / rate)} left`] : [],
    ];
    if (!this.#sink.terminal) {
      this.#sink.write(`${this.#label}: ${parts.join(", ").trimStart()}\n`);
      return;
    }
    const cells = Math.round(share * BAR_CELLS);
    const bar = `[${"#".repeat(cells)}${".".repeat(BAR_CELLS - cells)}]`;
    // Erases what a longer drawing before it left on the line.
    this.#sink.write(`\r${this.#label} ${bar} ${parts.join("  ")}\x1b[K`);
    this.#drawn = true;
  }
}

function timeLeft(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
}
