/**
 * Runs the steps of a home: local work on the device, attention to segments elsewhere through their holders.
 *
 * For each layer the queries go out as soon as they are computed, with a turn of the event loop; the layer's keys, values
 * and local attention are computed while the holders work; then the partials are merged in the segment tree. An answer that does not come is asked for once
 * more; then the holder is given up, the step counts as lost and the scheduler has the missing segments computed again.
 *
 * Longer than other files because one layer of one step is one conversation: asking, watching, taking and giving up share
 * its state.
 *
 * @module
 */
import { segmentNodes } from "../../kernels/merge_partials/spec.ts";
import type { BorrowedSlot } from "../../scheduler/lending/borrowed.ts";
import { PeerError } from "../../scheduler/links/link.ts";
import type { AttendItem, AttendReply, AttendRequest, Refused, SlotRun } from "../../scheduler/protocol/messages.ts";
import type { Device, DeviceStep, KvLayout, SegmentRange, StepHints, StepStop } from "../device/device.ts";
import { SEGMENT_TOKENS } from "../device/device.ts";
import type { RunSequence, StepOutcome, StepRunner } from "../engine/step_runner.ts";
import type { Counters } from "./counters.ts";
import type { Peers } from "./peers.ts";
import type { MemberPorts, Timer } from "./ports.ts";

/**
 * Most multiply-accumulates that one message asks of a holder at first, so that no message keeps it from others for long: a
 * holder that answers fast gets larger ones. A message holds at least one query token.
 */
const MESSAGE_WORK = 32e6;

/** Most for any holder. */
const MOST_MESSAGE_WORK = 2e9;

/** Most bytes of an answer, as far as several query tokens are asked for. */
const MESSAGE_BYTES = 4 * 2 ** 20;

/** An answer within that time asks for larger messages, ms, and one after the other for smaller ones. */
const FAST_MS = 3;
const SLOW_MS = 12;

/** Multiply-accumulates a millisecond that the slowest holder is expected to do: longer work may take longer. */
const SLOWEST_WORK_PER_MS = 1e6;

/** Makes an {@linkcode AttentionClient}. */
export interface AttentionClientOptions {
  /** Computes. */
  readonly device: Device;
  /** Outside. */
  readonly ports: MemberPorts;
  /** Links. */
  readonly peers: Peers;
  /** Counters. */
  readonly counters: Counters;
  /** Least time an answer may take before it is asked for again, ms. */
  readonly partialMs: number;
  /** Multiply-accumulates between two turns of the event loop while a step runs; Infinity when nobody waits for turns. */
  readonly slice: () => number;
  /** Tokens of one segment. @default {SEGMENT_TOKENS} */
  readonly segmentTokens?: number;
  /** Told of every step that ran. */
  readonly onStep: (step: StepTiming) => void;
  /** A holder did not answer twice, or broke the protocol: give it up. It must take the segments there off the books. */
  readonly onHolderLost: (incarnation: string, reason: string) => void;
  /** A holder refused slots: it must take them off the books. */
  readonly onSlotsRefused: (incarnation: string, leases: ReadonlySet<number>, reason: string) => void;
}

/** What a step was and how long it took. */
export interface StepTiming {
  /** Sequences. */
  readonly batch: number;
  /** Tokens computed. */
  readonly tokens: number;
  /** Context tokens that were attended to here, summed over the tokens computed. */
  readonly contextTokens: number;
  /** Time from begin to end, waits included, ms. */
  readonly ms: number;
  /** Whether others computed a part of it. */
  readonly remote: boolean;
  /** Part of that time in which it did nothing but wait for others, ms. */
  readonly waitMs: number;
}

/** Segments of one sequence at one holder. */
interface HeldRange {
  readonly index: number;
  readonly holder: string;
  readonly segments: SegmentRange;
  readonly runs: readonly SlotRun[];
}

/** What was asked of a holder in one message. */
interface Question {
  readonly holder: string;
  readonly request: AttendRequest;
  /** For each item: its range and the first of its query tokens. */
  readonly parts: readonly { readonly range: HeldRange; readonly token: number }[];
  readonly sentMs: number;
  /** Multiply-accumulates. */
  readonly work: number;
  /** Time its answer may take, ms. */
  readonly timeoutMs: number;
  /** When it is late. */
  dueMs: number;
  retried: boolean;
}

/** A message while it is put together. */
interface Draft {
  readonly items: AttendItem[];
  readonly parts: { readonly range: HeldRange; readonly token: number }[];
  work: number;
  /** Bytes of its answer. */
  bytes: number;
}

/** Partial of a node whose query tokens were spread over several messages. */
interface Assembly {
  readonly o: Float32Array;
  readonly lse: Float32Array;
  missing: number;
}

interface RunningStep {
  readonly startMs: number;
  waitMs: number;
  readonly batch: readonly RunSequence[];
  readonly step: DeviceStep;
  readonly ranges: readonly HeldRange[];
  readonly done: (outcome: StepOutcome) => void;
  /** Questions of the current layer without an answer. */
  readonly open: Map<number, Question>;
  readonly assemblies: Map<string, Assembly>;
  /** Set while the step can do nothing but wait. */
  waiting?: { readonly layer: number; readonly sinceMs: number };
}

/** One step at a time. */
export class AttentionClient implements StepRunner {
  readonly #options: AttentionClientOptions;
  readonly #layout: KvLayout;
  readonly #segmentTokens: number;
  #running: RunningStep | undefined;
  /** Multiply-accumulates of a message, by holder, where they are not {@linkcode MESSAGE_WORK}. */
  readonly #messageWork = new Map<string, number>();
  /** Fires when the first of the open questions may be late; one timer for all of them, a step asks a hundred. */
  #watch: { readonly timer: Timer; readonly dueMs: number } | undefined;

  /** Runs steps on a device. */
  constructor(options: AttentionClientOptions) {
    this.#options = options;
    this.#layout = options.device.layout;
    this.#segmentTokens = options.segmentTokens ?? SEGMENT_TOKENS;
  }

  /** See {@linkcode StepRunner.run}. */
  run(batch: readonly RunSequence[], done: (outcome: StepOutcome) => void, hints?: StepHints): void {
    const ranges = batch.flatMap((sequence, index) => heldRanges(sequence, index));
    const startMs = this.#options.ports.now();
    try {
      if (ranges.length === 0 && this.#options.slice() === Infinity) {
        const output = this.#options.device.step(batch, hints);
        this.#time({ startMs, batch, ranges, waitMs: 0 });
        return done({ kind: "ran", output });
      }
      const step = this.#options.device.begin(
        batch.map((sequence, index) => ({
          ...sequence,
          absent: ranges.filter((range) => range.index === index).map(({ segments }) => segments),
        })),
        hints,
      );
      this.#running = { startMs, waitMs: 0, batch, step, ranges, done, open: new Map(), assemblies: new Map() };
    } catch (error) {
      return done({ kind: "failed", error });
    }
    this.#advance(this.#running);
  }

  /** A holder is gone, or leases of it are: whatever waits for it is lost. */
  lose(incarnation: string): void {
    this.#messageWork.delete(incarnation);
    const running = this.#running;
    if (running?.ranges.some(({ holder }) => holder === incarnation)) this.#end(running, { kind: "lost" });
  }

  /** A message on the attention lane of a link: an answer. @returns whether it was expected. */
  take(incarnation: string, answer: AttendReply | Refused): boolean {
    const running = this.#running;
    const question = running?.open.get(answer.call);
    if (running === undefined || question?.holder !== incarnation) return false;
    if (answer.kind === "refused") {
      const leases = new Set(question.request.items.flatMap(({ runs }) => runs.map(({ lease }) => lease)));
      this.#options.counters.add(`refused_${answer.code}`);
      this.#options.onSlotsRefused(incarnation, leases, `${answer.code}: ${answer.detail}`);
      if (this.#running === running) this.#end(running, { kind: "lost" });
      return true;
    }
    running.open.delete(answer.call);
    this.#pace(question);
    try {
      this.#put(running, question, answer);
    } catch (error) {
      // The link checks shapes; what is wrong here is a lie.
      if (!(error instanceof RangeError)) throw error;
      this.#options.onHolderLost(incarnation, error.message);
      if (this.#running === running) this.#end(running, { kind: "lost" });
      return true;
    }
    if (running.open.size === 0 && running.waiting !== undefined) {
      const waitedMs = this.#options.ports.now() - running.waiting.sinceMs;
      running.waitMs += waitedMs;
      this.#options.counters.add("remote_layer_waits");
      this.#options.counters.add("remote_layer_wait_seconds", waitedMs / 1000);
      running.waiting = undefined;
      this.#advance(running);
    }
    return true;
  }

  /** Computes on until the step waits, is done, or others get a turn. */
  #advance(running: RunningStep): void {
    while (this.#running === running) {
      let stop: StepStop;
      try {
        stop = running.step.next(this.#options.slice());
      } catch (error) {
        return this.#end(running, { kind: "failed", error });
      }
      switch (stop.kind) {
        case "queries":
          this.#ask(running, stop.layer);
          // What was sent leaves with the turn: computing on at once would let the holders wait for the local attention.
          return this.#options.ports.defer(() => this.#advance(running));
        case "partials":
          if (running.open.size === 0) break;
          running.waiting = { layer: stop.layer, sinceMs: this.#options.ports.now() };
          return;
        case "slice":
          return this.#options.ports.defer(() => this.#advance(running));
        case "done":
          return this.#end(running, { kind: "ran", output: stop.output });
        default:
          stop satisfies never;
      }
    }
  }

  #end(running: RunningStep, outcome: StepOutcome): void {
    if (this.#running !== running) return;
    this.#running = undefined;
    if (outcome.kind === "ran") this.#time(running);
    else running.step.abandon();
    running.open.clear();
    running.done(outcome);
  }

  #time({ startMs, batch, ranges, waitMs }: Pick<RunningStep, "startMs" | "batch" | "ranges" | "waitMs">): void {
    const elsewhere = (index: number) =>
      ranges.reduce((sum, { index: at, segments }) => at === index ? sum + segments.to - segments.from : sum, 0);
    this.#options.onStep({
      batch: batch.length,
      tokens: batch.reduce((sum, { tokens }) => sum + tokens.length, 0),
      contextTokens: batch.reduce((sum, { tokens, position }, index) => {
        const here = position - elsewhere(index) * this.#segmentTokens;
        return sum + tokens.length * here + tokens.length * (tokens.length + 1) / 2;
      }, 0),
      ms: this.#options.ports.now() - startMs,
      remote: ranges.length > 0,
      waitMs,
    });
  }

  /** Sends the queries of a layer: one message for each holder, more only where a message would be too much work. */
  #ask(running: RunningStep, layer: number): void {
    running.assemblies.clear();
    const holders = new Map<string, Draft>();
    for (const range of running.ranges) {
      const sequence = running.batch[range.index];
      const queries = running.step.queries(range.index);
      const tokens = sequence.tokens.length;
      const width = queries.length / tokens;
      const { from, to } = range.segments;
      const tokenWork = 2 * (to - from) * this.#segmentTokens * width;
      const tokenBytes = 4 * (width + this.#layout.heads) * segmentNodes(from, to).length;
      const mostWork = this.#messageWork.get(range.holder) ?? MESSAGE_WORK;
      for (let token = 0; token < tokens;) {
        let draft = holders.get(range.holder);
        const room = Math.max(
          1,
          Math.min(
            Math.floor((mostWork - (draft?.work ?? 0)) / tokenWork),
            Math.floor((MESSAGE_BYTES - (draft?.bytes ?? 0)) / tokenBytes),
          ),
        );
        const count = Math.min(tokens - token, room);
        if (
          draft !== undefined &&
          (draft.work + count * tokenWork > mostWork || draft.bytes + count * tokenBytes > MESSAGE_BYTES)
        ) {
          this.#send(running, range.holder, { layer, ...draft });
          draft = undefined;
        }
        draft ??= { items: [], parts: [], work: 0, bytes: 0 };
        holders.set(range.holder, draft);
        draft.items.push({
          segment: range.segments.from,
          runs: range.runs,
          position: sequence.position + token,
          tokens: count,
          queries: queries.subarray(token * width, (token + count) * width),
        });
        draft.parts.push({ range, token });
        draft.work += count * tokenWork;
        draft.bytes += count * tokenBytes;
        token += count;
        if (token < tokens) {
          this.#send(running, range.holder, { layer, ...draft });
          holders.delete(range.holder);
        }
        // A failed send ends the step.
        if (this.#running !== running) return;
      }
    }
    for (const [holder, draft] of holders) {
      if (this.#running === running) this.#send(running, holder, { layer, ...draft });
    }
    this.#options.counters.add("remote_layers");
  }

  #send(
    running: RunningStep,
    holder: string,
    draft: {
      readonly layer: number;
      readonly items: readonly AttendItem[];
      readonly parts: Question["parts"];
      readonly work: number;
    },
  ): void {
    const { ports, peers, partialMs } = this.#options;
    const call = peers.nextCall();
    const request: AttendRequest = { kind: "attend", call, layer: draft.layer, items: draft.items };
    const sentMs = ports.now();
    const timeoutMs = partialMs + draft.work / SLOWEST_WORK_PER_MS;
    const question: Question = {
      holder,
      work: draft.work,
      request,
      parts: draft.parts,
      sentMs,
      timeoutMs,
      dueMs: sentMs + timeoutMs,
      retried: false,
    };
    running.open.set(call, question);
    this.#transmit(question);
    this.#watchUntil(question.dueMs);
  }

  /** Learns from an answer how much a message to its holder may ask for. Small messages say nothing. */
  #pace({ holder, work, sentMs, retried }: Question): void {
    const most = this.#messageWork.get(holder) ?? MESSAGE_WORK;
    if (work < most / 2) return;
    const tookMs = this.#options.ports.now() - sentMs;
    if (tookMs < FAST_MS) this.#messageWork.set(holder, Math.min(MOST_MESSAGE_WORK, 2 * most));
    else if (tookMs > SLOW_MS || retried) this.#messageWork.set(holder, Math.max(MESSAGE_WORK, most / 2));
  }

  /** Sends a question on the holder's link; without one the link may come back and bring it, see {@linkcode reached}. */
  #transmit(question: Question): void {
    const link = this.#options.peers.link(question.holder);
    if (link === undefined) return;
    try {
      link.attention.send(question.request);
    } catch (error) {
      // `closed` follows.
      if (!(error instanceof PeerError)) throw error;
    }
  }

  /** Asks again what a holder has not answered: its link was open again. */
  reached(incarnation: string): void {
    const running = this.#running;
    if (running === undefined) return;
    for (const question of running.open.values()) {
      if (question.holder !== incarnation) continue;
      this.#options.counters.add("retries");
      this.#transmit(question);
    }
  }

  /** Looks at the open questions at that time, or earlier. */
  #watchUntil(dueMs: number): void {
    if (this.#watch !== undefined && this.#watch.dueMs <= dueMs) return;
    this.#watch?.timer.cancel();
    const { ports } = this.#options;
    const timer = ports.timer(Math.max(0, dueMs - ports.now()), () => {
      this.#watch = undefined;
      this.#checkLate();
    });
    this.#watch = { timer, dueMs };
  }

  /** Asks late questions again, once; a holder that is late twice is given up. */
  #checkLate(): void {
    const running = this.#running;
    if (running === undefined) return;
    const nowMs = this.#options.ports.now();
    for (const question of [...running.open.values()]) {
      if (question.dueMs > nowMs) continue;
      if (question.retried) {
        this.#options.onHolderLost(question.holder, `no partials in twice ${Math.round(question.timeoutMs)} ms`);
        if (this.#running === running) this.#end(running, { kind: "lost" });
        return;
      }
      question.retried = true;
      question.dueMs = nowMs + question.timeoutMs;
      this.#options.counters.add("retries");
      this.#transmit(question);
    }
    let firstMs = Infinity;
    for (const { dueMs } of running.open.values()) firstMs = Math.min(firstMs, dueMs);
    if (firstMs < Infinity) this.#watchUntil(firstMs);
  }

  /** Hands the partials of an answer to the device, once all query tokens of a node are there. */
  #put(running: RunningStep, question: Question, { items }: AttendReply): void {
    const { heads } = this.#layout;
    if (items.length !== question.parts.length) {
      throw new RangeError(`Cannot use partials: wanted ${question.parts.length} items, got ${items.length}`);
    }
    this.#options.counters.add(
      "remote_attention_seconds",
      (this.#options.ports.now() - question.sentMs) / 1000,
    );
    for (const [at, nodes] of items.entries()) {
      const { range, token } = question.parts[at];
      const total = running.batch[range.index].tokens.length;
      const { tokens } = question.request.items[at];
      for (const { first, segments, o, lse } of nodes) {
        const node = { first, segments };
        if (tokens === total) {
          running.step.put(range.index, node, { o, lse });
          continue;
        }
        const key = `${range.index}/${first}`;
        const width = o.length / tokens;
        let assembly = running.assemblies.get(key);
        if (assembly === undefined) {
          assembly = { o: new Float32Array(total * width), lse: new Float32Array(total * heads), missing: total };
          running.assemblies.set(key, assembly);
        }
        assembly.o.set(o, token * width);
        assembly.lse.set(lse, token * heads);
        assembly.missing -= tokens;
        if (assembly.missing > 0) continue;
        running.assemblies.delete(key);
        running.step.put(range.index, node, assembly);
      }
    }
  }
}

/** Cuts the segments of a sequence that lie elsewhere into runs of consecutive segments at one holder. */
function heldRanges({ slots }: RunSequence, index: number): HeldRange[] {
  const ranges: { holder: string; from: number; slots: BorrowedSlot[] }[] = [];
  for (const { segment, slot } of slots) {
    const last = ranges.at(-1);
    const holder = slot.creditor.incarnation;
    if (last !== undefined && last.holder === holder && last.from + last.slots.length === segment) {
      last.slots.push(slot);
    } else {
      ranges.push({ holder, from: segment, slots: [slot] });
    }
  }
  return ranges.map(({ holder, from, slots }) => ({
    index,
    holder,
    segments: { from, to: from + slots.length },
    runs: slotRuns(slots),
  }));
}

/** Joins consecutive slots of one lease. */
export function slotRuns(slots: readonly BorrowedSlot[]): SlotRun[] {
  const runs: SlotRun[] = [];
  for (const { lease, stamp, slot } of slots) {
    const last = runs.at(-1);
    if (last !== undefined && last.lease === lease && last.from + last.count === slot) {
      runs[runs.length - 1] = { ...last, count: last.count + 1 };
    } else {
      runs.push({ lease, stamp, from: slot, count: 1 });
    }
  }
  return runs;
}
