/**
 * What the host accepts as answers of a memory policy.
 *
 * @module
 */
import { AnswerDraft } from "./draft.ts";
import { PolicyFault } from "./error.ts";
import type { ClusterView, EvictionView, MembersView, MoveDraft, PlacementDraft, PlacementView } from "./types.ts";

/** Segments to put on a member. */
export interface CheckedPlacement {
  /** Index in the view. */
  readonly member: number;
  /** Segments. */
  readonly segments: number;
}

/** A move of the lowest segments of one sequence that lie on a member. */
export interface CheckedMove {
  /** Index of the sequence in the view. */
  readonly sequence: number;
  /** Index of the member that holds them now. */
  readonly from: number;
  /** Index of the member that takes them. */
  readonly to: number;
  /** Segments. */
  readonly segments: number;
  /** Tokens a second gained over the pair, as the policy predicts it; undefined when it does not say. */
  readonly predictedGain?: number;
}

/** Takes down a placement and checks it call by call, against views that the plugin cannot reach. */
export class PlacementRecorder {
  readonly #request: PlacementView;
  readonly #cluster: ClusterView;
  readonly #shares = new Map<number, number>();
  readonly #draft = new AnswerDraft("placement");
  /** What the plugin writes to. A call that breaks a rule throws and spoils the placement. */
  readonly out: PlacementDraft = Object.freeze({
    put: (member: number, segments: number) => this.#draft.write(() => this.#put(member, segments)),
  });

  /** Makes an empty placement of what the request wants to borrow. */
  constructor(request: PlacementView, cluster: ClusterView) {
    this.#request = request;
    this.#cluster = cluster;
  }

  /**
   * Ends the placement: later calls by the plugin throw and change nothing.
   *
   * @throws {PolicyFault} when it breaks a rule.
   */
  finish(): readonly CheckedPlacement[] {
    this.#draft.close();
    const placed = Array.from(this.#shares, ([member, segments]) => ({ member, segments }));
    const sum = placed.reduce((total, { segments }) => total + segments, 0);
    const wanted = this.#request.segments;
    if (sum !== wanted && sum !== 0) {
      throw new PolicyFault(`Cannot accept the placement: wanted ${wanted} segments or none, got ${sum}`);
    }
    return placed;
  }

  #put(member: number, segments: number): void {
    const { members, self } = this.#cluster;
    const action = `put segments on member ${nameOf(members, member)}`;
    if (member === self) throw new PolicyFault(`Cannot ${action}: it is the one that wants to borrow`);
    if (members.usable[member] !== 1) throw new PolicyFault(`Cannot ${action}: it is not usable`);
    if (this.#shares.has(member)) throw new PolicyFault(`Cannot ${action}: it has its share already`);
    checkCount(segments, { action, most: members.lendableSegments[member], limit: "it would lend" });
    this.#shares.set(member, segments);
  }
}

/** Takes down moves and checks them call by call, against a view that the plugin cannot reach. */
export class MoveRecorder {
  readonly #cluster: ClusterView;
  readonly #moves: CheckedMove[] = [];
  /** Segments taken of each member's free memory so far. */
  readonly #taken: Int32Array;
  readonly #draft = new AnswerDraft("moves");
  /** What the plugin writes to. A call that breaks a rule throws and spoils all moves. */
  readonly out: MoveDraft = Object.freeze({
    move: (sequence: number, options: Parameters<MoveDraft["move"]>[1]) =>
      this.#draft.write(() => {
        // Each property is read once: a getter cannot show one value to the checks and another to the host.
        const { from, to, segments, predictedGain } = options;
        this.#move({ sequence, from, to, segments, ...(predictedGain === undefined ? {} : { predictedGain }) });
      }),
  });

  /** Makes an empty list. */
  constructor(cluster: ClusterView) {
    this.#cluster = cluster;
    this.#taken = new Int32Array(cluster.members.length);
  }

  /**
   * Ends the list: later calls by the plugin throw and change nothing.
   *
   * @throws {PolicyFault} when it breaks a rule.
   */
  finish(): readonly CheckedMove[] {
    this.#draft.close();
    return this.#moves;
  }

  #move(move: CheckedMove): void {
    const { members, sequences } = this.#cluster;
    const { sequence, from, to, segments } = move;
    if (!isIndex(sequence, sequences.length)) {
      throw new PolicyFault(`Cannot move sequence ${String(sequence)}: it is not in the view`);
    }
    const action = `move sequence ${sequence} from ${nameOf(members, from)} to ${nameOf(members, to)}`;
    if (sequences.pinned[sequence] === 1) throw new PolicyFault(`Cannot ${action}: it is pinned`);
    if (from === to) throw new PolicyFault(`Cannot ${action}: wanted two members`);
    const home = sequences.home[sequence];
    if (members.full[home] !== 1) throw new PolicyFault(`Cannot ${action}: its home runs no requests`);
    if (members.usable[to] !== 1) throw new PolicyFault(`Cannot ${action}: the taker is not usable`);
    for (const other of this.#moves) {
      if (other.sequence !== sequence) continue;
      if (other.from === from && other.to === to) throw new PolicyFault(`Cannot ${action}: it is moved there already`);
      // What "the lowest segments there" are would depend on which move is carried out first.
      if (other.from === to || other.to === from) {
        throw new PolicyFault(`Cannot ${action}: another of its moves goes the other way`);
      }
    }
    const moved = this.#moves.reduce((sum, other) => {
      return other.sequence === sequence && other.from === from ? sum + other.segments : sum;
    }, 0);
    const there = sequences.segmentsOn[sequence * members.length + from] - moved;
    checkCount(segments, { action, most: there, limit: "lie there" });
    const room = to === home
      ? members.totalSegments[to] - members.ownSegments[to] - members.lentSegments[to]
      : members.lendableSegments[to];
    checkCount(segments, { action, most: room - this.#taken[to], limit: to === home ? "are free" : "it would lend" });
    if (move.predictedGain !== undefined && !Number.isFinite(move.predictedGain)) {
      throw new PolicyFault(`Cannot ${action}: wanted a finite gain, got ${String(move.predictedGain)}`);
    }
    this.#taken[to] += segments;
    this.#moves.push(move);
  }
}

/**
 * The candidates to give up first, as many as are called back: lowest number first, ties in the order of the view.
 *
 * @throws {PolicyFault} when there is not one finite number a candidate.
 */
export function evictionOrder(ranks: Float64Array, view: EvictionView): readonly number[] {
  if (ranks.length !== view.length) {
    throw new PolicyFault(`Cannot accept the eviction: wanted ${view.length} numbers, got an array of ${ranks.length}`);
  }
  for (let i = 0; i < ranks.length; i++) {
    if (!Number.isFinite(ranks[i])) {
      throw new PolicyFault(`Cannot accept the eviction: wanted a finite number for candidate ${i}, got ${ranks[i]}`);
    }
  }
  return Array.from(ranks.keys()).sort((a, b) => ranks[a] - ranks[b] || a - b).slice(0, Math.max(0, view.segments));
}

/** @throws {PolicyFault} when there is no such member. */
function nameOf(members: MembersView, member: number): string {
  if (isIndex(member, members.length)) return members.name[member];
  throw new PolicyFault(`Cannot use member ${String(member)}: it is not in the view`);
}

function isIndex(value: number, length: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < length;
}

function checkCount(
  segments: number,
  { action, most, limit }: { readonly action: string; readonly most: number; readonly limit: string },
): void {
  if (Number.isInteger(segments) && segments >= 1 && segments <= most) return;
  throw new PolicyFault(
    `Cannot ${action}: wanted 1 to ${Math.max(0, most)} segments (as many ${limit}), got ${String(segments)}`,
  );
}
