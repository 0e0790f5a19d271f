/**
 * Reads what compute-sanitizer writes.
 *
 * @module
 */

/** Something that it found, once for all places of the same kind in the same kernel. */
export interface Finding {
  /** What, for example `Invalid __global__ read of size 4 bytes`. */
  readonly what: string;
  /** Where in the machine code, for example `attend_decode+0x1230`; empty where it does not say. */
  readonly where: string;
  /** How often. */
  readonly count: number;
}

/** What a log says. */
export interface SanitizerReport {
  /** Findings of all kinds, as its summaries count them; undefined where a log has no summary: it did not end. */
  readonly errors: number | undefined;
  /** The different ones, in the order in which they came first. */
  readonly findings: readonly Finding[];
}

/** Begins every line of its own. */
const MARK = /^=+ ?/;
/** Lines that are no findings. */
const OTHER = /^(COMPUTE-SANITIZER|.*SUMMARY:|Program hit|Target application|Error: No attachable process|Saved host)/;

/** Reads the logs of one run, one for each of its processes. */
export function readSanitizerLogs(logs: readonly string[]): SanitizerReport {
  const found = new Map<string, { what: string; where: string; count: number }>();
  let errors = 0;
  let ended = logs.length > 0;
  for (const log of logs) {
    const lines = log.split("\n").filter((line) => MARK.test(line)).map((line) => line.replace(MARK, ""));
    const summaries = lines.flatMap((line) => /SUMMARY: (\d+) (?:errors?|hazards?)/.exec(line)?.[1] ?? []);
    if (summaries.length === 0) ended = false;
    errors += summaries.reduce((sum, count) => sum + Number(count), 0);
    for (const [index, line] of lines.entries()) {
      if (line === "" || /^\s/.test(line) || OTHER.test(line)) continue;
      const where = /^\s+at (\S.*?)(?: in \S+)?$/.exec(lines[index + 1] ?? "")?.[1] ?? "";
      // Addresses of one fault differ from run to run.
      const what = line.replace(/ at 0x[0-9a-f]+/g, "");
      const key = `${what}\n${where}`;
      const finding = found.get(key) ?? { what, where, count: 0 };
      finding.count++;
      found.set(key, finding);
    }
  }
  return { errors: ended ? errors : undefined, findings: [...found.values()] };
}
