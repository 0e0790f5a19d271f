/**
 * What the step behind the next one computes, as far as it can be known before that one has run: so it can be planned and begun
 * while that one runs.
 *
 * @module
 */
import type { BlockTables } from "./block_tables.ts";
import type { Sequence } from "./sequence.ts";
import type { PlannedSequence, StepLimits } from "./step_plan.ts";

/** The part of one sequence that the step behind the next one computes. */
export interface ForeseenSequence {
  /** The sequence; it runs, and its blocks cover the tokens. */
  readonly sequence: Sequence;
  /** Position of the first token. */
  readonly position: number;
  /** Tokens, at least one. */
  readonly tokens: number;
  /** Rows of logits they need. */
  readonly logits: "none" | "last";
  /** Whether its one token is the one that the step in front chooses. */
  readonly chosen: boolean;
}

/** What foresight stands on. */
export interface ForesightOptions {
  /** Running sequences that may compute, in the order in which they are served. */
  readonly running: readonly Sequence[];
  /** Waiting sequences that may start, in order. */
  readonly waiting: readonly Sequence[];
  /** Block tables. */
  readonly tables: BlockTables;
  /** What one step may hold, when a sequence decodes in it and when none does. */
  readonly limits: (mixed: boolean) => StepLimits;
  /** Starts a waiting sequence. @returns whether it runs now. */
  readonly tryStart: (sequence: Sequence) => boolean;
}

/** What is known of a sequence after the next step. */
interface Outlook {
  readonly sequence: Sequence;
  readonly computed: number;
  /** Known tokens without KV; counts a chosen one. */
  readonly pending: number;
  readonly chosen: boolean;
}

/** Whether a sequence ends with the token that the next step chooses for it, or without one. */
function endsWithToken({ maxTokens, generated }: Sequence): boolean {
  return generated + 1 >= maxTokens;
}

function outlookOf(sequence: Sequence, entry: PlannedSequence | undefined): Outlook | undefined {
  const { length, computed } = sequence;
  if (entry === undefined) return { sequence, computed, pending: length - computed, chosen: false };
  if (entry.last && endsWithToken(sequence)) return undefined;
  const end = entry.position + entry.tokens;
  return { sequence, computed: end, pending: length - end + Number(entry.last), chosen: entry.last };
}

/** Digests of the blocks that a part of a prompt fills. */
function* filledBlocks(
  { sequence, position, tokens }: Pick<ForeseenSequence, "sequence" | "position" | "tokens">,
): Generator<string> {
  const { blockTokens } = sequence;
  const end = Math.min(position + tokens, sequence.length);
  for (let block = Math.floor(position / blockTokens); (block + 1) * blockTokens <= end; block++) {
    yield sequence.blockDigest(block);
  }
}

/**
 * The step behind one with these entries, when every sequence goes on that may: decodes, then parts of prompts, then new
 * sequences, which it starts. Blocks for all of it are in the tables then. Empty when it cannot be told.
 */
export function foresee(
  entries: readonly PlannedSequence[],
  { running, waiting, tables, limits, tryStart }: ForesightOptions,
): ForeseenSequence[] {
  // Lost and lent segments, and rows for whole prompts, are rare and not worth foreseeing.
  if (entries.some(({ repair, logits }) => repair || logits === "all")) return [];
  if (running.some(({ places, promptRows }) => places.size > 0 || promptRows)) return [];
  const entryOf = new Map(entries.map((entry) => [entry.sequence, entry]));
  const outlooks = running.map((sequence) => outlookOf(sequence, entryOf.get(sequence)))
    .filter((outlook) => outlook !== undefined);
  const isDecode = ({ sequence, pending, chosen }: Outlook) => pending === 1 && (chosen || sequence.generated > 0);
  const decodes = outlooks.filter(isDecode);
  let { tokens: tokensLeft, rows: rowsLeft } = limits(decodes.length > 0);
  if (decodes.length > Math.min(tokensLeft, rowsLeft)) return [];
  const foreseen: ForeseenSequence[] = [];
  for (const { sequence, computed, chosen } of decodes) {
    if (!tables.tryReserve(sequence, computed + 1)) return [];
    foreseen.push({ sequence, position: computed, tokens: 1, logits: "last", chosen });
  }
  tokensLeft -= decodes.length;
  rowsLeft -= decodes.length;
  const take = ({ sequence, computed, pending }: Outlook) => {
    // One that borrows gets blocks for the rest of its prompt only as its segments move out.
    const most = Math.min(tokensLeft, sequence.capacity - computed);
    const whole = pending <= most && rowsLeft > 0;
    const tokens = whole ? pending : Math.min(most, pending - 1);
    if (tokens < 1) return;
    foreseen.push({ sequence, position: computed, tokens, logits: whole ? "last" : "none", chosen: false });
    tokensLeft -= tokens;
    rowsLeft -= Number(whole);
  };
  for (const outlook of outlooks) if (!isDecode(outlook)) take(outlook);
  if (waiting.length === 0 || tokensLeft === 0) return foreseen;
  const soon = new Set([...entries, ...foreseen].flatMap((part) => part.tokens > 1 ? [...filledBlocks(part)] : []));
  for (const sequence of waiting) {
    if (tokensLeft === 0 || sequence.promptRows) break;
    // Waiting a step longer saves computing what a step on its way computes.
    const found = tables.findPrefix(sequence).blocks.length;
    if (found < Math.floor(sequence.sharable / sequence.blockTokens) && soon.has(sequence.blockDigest(found))) break;
    if (!tryStart(sequence)) break;
    const outlook = outlookOf(sequence, undefined);
    if (outlook === undefined || sequence.places.size > 0) break;
    take(outlook);
  }
  return foreseen;
}

/** Whether a foreseen part is what its sequence computes next. */
export function isAsForeseen({ sequence, position, tokens, logits }: ForeseenSequence): boolean {
  const chunk = sequence.nextChunk({ tokens, rows: Infinity });
  return !chunk.repair && chunk.position === position && chunk.tokens === tokens && chunk.logits === logits;
}
