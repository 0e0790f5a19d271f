/**
 * Operators' wishes on their way through a cluster: each goes to the one member that can fulfil it, a report comes from the
 * gManager.
 *
 * @module
 */
import type { MemberCard } from "../../scheduler/protocol/member.ts";
import type {
  ControlMessage,
  LeaseReport,
  MemberStatus,
  MoveReport,
  PlacementEntry,
} from "../../scheduler/protocol/messages.ts";
import { type MoveOrder, type MoveResult, parseSequence } from "./orders.ts";
import type { Peers } from "./peers.ts";
import type { MemberPorts } from "./ports.ts";
import type { ClusterCommand, ClusterReport, CommandResult, ReportedRange, ReportedSequence } from "./report.ts";

/** What this member does itself. */
export interface OperatorHands {
  /** Its own view of the cluster. */
  report(): ClusterReport;
  /** Moves segments of a sequence at home here. */
  move(order: MoveOrder, done: (result: MoveResult) => void): void;
  /** Pins a sequence at home here. @returns whether it is live. */
  pin(handle: number, pinned: boolean): boolean;
  /** Calls everything back and lends nothing more, until undone. */
  evacuate(undo: boolean): void;
  /** Leaves the cluster. */
  leave(): void;
}

/** Makes an {@linkcode Operator}. */
export interface OperatorOptions {
  /** Outside. */
  readonly ports: MemberPorts;
  /** Links. */
  readonly peers: Peers;
  /** Name of this member. */
  readonly self: string;
  /** Time in which another member must answer, ms. */
  readonly callMs: number;
  /** The gManager's incarnation, while one is reached and is another member. */
  readonly manager: () => string | undefined;
  /** What this member does itself. */
  readonly hands: OperatorHands;
}

/** What a report is made of. */
export interface ReportParts {
  /** Directory. */
  readonly members: readonly MemberStatus[];
  /** Request placement map. */
  readonly placements: readonly PlacementEntry[];
  /** Leases. */
  readonly leases: readonly (LeaseReport & { readonly creditor: string })[];
  /** Moves. */
  readonly moves: readonly MoveReport[];
  /** gManager's name. */
  readonly manager?: string;
  /** Epoch. */
  readonly epoch: number;
  /** Memory policy. */
  readonly memoryPolicy: string;
  /** Tokens of one segment. */
  readonly segmentTokens: number;
  /** Tokens of one block; 0 while unknown. */
  readonly blockTokens: number;
  /** Bytes of one block; 0 while unknown. */
  readonly blockBytes: number;
  /** Longest prompt plus output now. */
  readonly reachableModelLen: number;
}

/** What travels in an `operate` message. */
type Wish = ClusterCommand | { readonly kind: "report" };

/** Reports and commands. */
export class Operator {
  readonly #options: OperatorOptions;

  /** Acts for one member. */
  constructor(options: OperatorOptions) {
    this.#options = options;
  }

  /** The cluster as the gManager knows it; as this member does while none is reached. */
  report(done: (report: ClusterReport) => void): void {
    const { manager, hands, peers, self } = this.#options;
    const incarnation = manager();
    if (incarnation === undefined) return done(hands.report());
    this.#ask(incarnation, { kind: "report" }, (result) => {
      if (!isReport(result)) return done(hands.report());
      const own = peers.cards.length === 0 ? undefined : hands.report();
      done({ ...result, from: self, reachableModelLen: own?.reachableModelLen ?? result.reachableModelLen });
    });
  }

  /** Carries a wish out, here or where it can be. */
  operate(command: ClusterCommand, done: (result: CommandResult) => void): void {
    const { peers, self } = this.#options;
    const target = command.kind === "move" || command.kind === "pin"
      ? parseSequence(command.sequence)?.home
      : command.member;
    if (target === undefined) {
      const got = command.kind === "move" || command.kind === "pin" ? command.sequence : "";
      return done({
        ok: false,
        status: 400,
        message: `Cannot ${command.kind}: wanted a sequence HOME/NUMBER, got ${got}`,
      });
    }
    if (target === self) return this.#perform(command, done);
    const link = peers.named(target);
    if (link === undefined) {
      return done({ ok: false, status: 404, message: `Cannot ${command.kind}: no member ${target} is reached` });
    }
    this.#ask(link.peer.incarnation, command, (result) => {
      if (isResult(result)) return done(result);
      done({ ok: false, status: 503, message: `Cannot ${command.kind}: ${target} does not answer` });
    });
  }

  /** Another member passes a wish on. */
  take(from: MemberCard, { call, command }: Extract<ControlMessage, { readonly kind: "operate" }>): void {
    const { peers, hands } = this.#options;
    const answer = (result: CommandResult | ClusterReport) =>
      peers.tell(from.incarnation, { kind: "operated", call, result: JSON.stringify(result) });
    const wish = parseWish(command);
    if (wish === undefined) return void answer({ ok: false, status: 400, message: "Cannot operate: unknown command" });
    if (wish.kind === "report") return void answer(hands.report());
    this.#perform(wish, answer);
  }

  /** A report from its parts. */
  compose(parts: ReportParts): ClusterReport {
    return {
      from: this.#options.self,
      manager: parts.manager,
      epoch: parts.epoch,
      memoryPolicy: parts.memoryPolicy,
      segmentTokens: parts.segmentTokens,
      blockTokens: parts.blockTokens,
      reachableModelLen: parts.reachableModelLen,
      members: parts.members.map(({ card, blocks, load, silentMs, state }) => ({
        id: card.name,
        role: card.role,
        state,
        manager: card.name === parts.manager,
        pid: card.pid,
        url: card.publicUrl,
        clusterUrl: card.clusterUrl,
        blocks,
        load,
        silentMs,
      })),
      sequences: reportSequences(parts, this.#options.ports.now()),
      leases: parts.leases.map(({ creditor, lease, debtor, segments, expiresMs }) => ({
        id: `${creditor}/${lease}`,
        creditor,
        debtor,
        segments,
        expiresMs,
      })),
      moves: parts.moves,
    };
  }

  #perform(command: ClusterCommand, done: (result: CommandResult) => void): void {
    const { hands, self } = this.#options;
    switch (command.kind) {
      case "move": {
        const { sequence, segments, from = self, to } = command;
        hands.move({ sequence, segments, from, to }, ({ moved, problem }) => {
          if (moved > 0) done({ ok: true, message: `${moved} segments of ${sequence} go from ${from} to ${to}` });
          else done({ ok: false, status: 409, message: `Cannot move ${sequence}: ${problem ?? "nothing to move"}` });
        });
        break;
      }
      case "pin": {
        const { sequence, pinned } = command;
        const handle = parseSequence(sequence)?.handle ?? NaN;
        if (hands.pin(handle, pinned)) done({ ok: true, message: `${sequence} is ${pinned ? "" : "not "}pinned` });
        else done({ ok: false, status: 404, message: `Cannot pin ${sequence}: no such sequence is live` });
        break;
      }
      case "evacuate":
        hands.evacuate(command.undo === true);
        done({
          ok: true,
          message: command.undo === true ? `${self} lends again` : `${self} calls everything back and lends nothing`,
        });
        break;
      case "leave":
        hands.leave();
        done({ ok: true, message: `${self} is leaving` });
        break;
      default:
        command satisfies never;
    }
  }

  #ask(incarnation: string, wish: Wish, done: (result: unknown) => void): void {
    const { peers, callMs } = this.#options;
    const message = { kind: "operate", call: peers.nextCall(), command: JSON.stringify(wish) } as const;
    peers.ask(incarnation, message, {
      timeoutMs: callMs,
      done: (answer) => done(answer.kind === "operated" ? parseJson(answer.result) : undefined),
    });
  }
}

function reportSequences(
  { placements, blockTokens, blockBytes, segmentTokens }: ReportParts,
  now: number,
): ReportedSequence[] {
  return [...Map.groupBy(placements, ({ sequence }) => sequence)].map(([id, entries]) => {
    const ranges: ReportedRange[] = entries.flatMap(({ member, length, ranges }) =>
      ranges.map(({ from, to, sinceMs }) => {
        const start = from * segmentTokens;
        const end = Math.min(to * segmentTokens, length);
        const bytes = blockTokens === 0 ? 0 : Math.ceil((end - start) / blockTokens) * blockBytes;
        return { instance: member, start, end, bytes, ageMs: Math.max(0, now - sinceMs) };
      })
    );
    return {
      id,
      home: parseSequence(id)?.home ?? "",
      length: entries[0].length,
      pinned: entries.some(({ pinned }) => pinned),
      ranges: ranges.sort((a, b) => a.start - b.start),
    };
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

function isReport(value: unknown): value is ClusterReport {
  return isRecord(value) && typeof value.from === "string" && typeof value.epoch === "number" &&
    [value.members, value.sequences, value.leases, value.moves].every(Array.isArray);
}

function isResult(value: unknown): value is CommandResult {
  return isRecord(value) && typeof value.ok === "boolean" && typeof value.message === "string";
}

function parseWish(text: string): Wish | undefined {
  const value = parseJson(text);
  if (!isRecord(value)) return undefined;
  const { kind, sequence, segments, from, to, member, undo, pinned } = value;
  switch (kind) {
    case "report":
      return { kind };
    case "move":
      if (typeof sequence !== "string" || typeof segments !== "number" || typeof to !== "string") return undefined;
      if (!Number.isInteger(segments) || segments < 1 || from !== undefined && typeof from !== "string") {
        return undefined;
      }
      return { kind, sequence, segments, from, to };
    case "pin":
      return typeof sequence === "string" && typeof pinned === "boolean" ? { kind, sequence, pinned } : undefined;
    case "evacuate":
      return typeof member === "string" ? { kind, member, undo: undo === true } : undefined;
    case "leave":
      return typeof member === "string" ? { kind, member } : undefined;
    default:
      return undefined;
  }
}
