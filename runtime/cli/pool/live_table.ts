/**
 * A table that stays below everything else that is written to a terminal; without a terminal, lines that say what changed.
 *
 * @module
 */

/** Where it is written. */
export interface LiveTableOptions {
  /** Takes text. */
  readonly write: (text: string) => void;
  /** Width of the terminal; undefined where there is none. */
  readonly width: () => number | undefined;
}

const UP_AND_CLEAR = (lines: number) => lines === 0 ? "" : `\x1b[${lines}A\x1b[J`;

/** Draws and redraws. */
export class LiveTable {
  readonly #options: LiveTableOptions;
  #drawn: readonly string[] = [];
  #said: ReadonlySet<string> = new Set();

  /** Draws nothing yet. */
  constructor(options: LiveTableOptions) {
    this.#options = options;
  }

  /** Writes a line that stays. */
  print(line: string): void {
    const { write, width } = this.#options;
    if (width() === undefined) return write(`${line}\n`);
    write(`${UP_AND_CLEAR(this.#drawn.length)}${line}\n${block(this.#drawn)}`);
  }

  /** Takes the table away. */
  hide(): void {
    this.#options.write(UP_AND_CLEAR(this.#drawn.length));
    this.#drawn = [];
  }

  /** Shows `lines` instead of those shown before; the first one is the head. */
  show(lines: readonly string[]): void {
    const { write, width } = this.#options;
    const columns = width();
    if (columns === undefined) {
      const changed = lines.slice(1).filter((line) => !this.#said.has(line));
      this.#said = new Set(lines);
      if (changed.length > 0) write(block([lines[0], ...changed]));
      return;
    }
    // A line that wraps would be two to go up by.
    const cut = lines.map((line) => line.slice(0, columns - 1));
    write(`${UP_AND_CLEAR(this.#drawn.length)}${block(cut)}`);
    this.#drawn = cut;
  }
}

function block(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join("");
}
