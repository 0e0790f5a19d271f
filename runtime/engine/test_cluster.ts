/**
 * The other members of a cluster as an engine under test sees them: holders with so many slots, that grant, refuse, take
 * copies, compute partials and get lost. Nothing happens by itself; a test says what comes next.
 *
 * @module
 */
import { deepStrictEqual, ok } from "node:assert/strict";
import { type BorrowedSlot, slotKey } from "../../scheduler/lending/borrowed.ts";
import type { MemoryDemand, SegmentMove } from "../../scheduler/lending/cluster_memory.ts";
import { segmentNodes } from "../../kernels/merge_partials/spec.ts";
import type { DeviceStep, StepHints } from "../device/device.ts";
import type { EngineOptions } from "./engine.ts";
import type { RunSequence, StepOutcome, StepRunner } from "./step_runner.ts";
import { TestEngine } from "./test_engine.ts";
import type { TestDeviceOptions } from "./test_device.ts";

/** Tokens of a segment in tests: two blocks of the test device. */
export const TEST_SEGMENT = 8;

interface PendingStep {
  readonly batch: readonly RunSequence[];
  readonly step: DeviceStep;
  readonly done: (outcome: StepOutcome) => void;
  /** Tokens of every absent segment when the step began, by slot. */
  readonly seen: ReadonlyMap<string, Float32Array>;
}

/** One holder. */
interface TestHolder {
  readonly name: string;
  incarnation: string;
  readonly capacity: number;
  /** Slots granted and not given back, by key; those that were filled have content. */
  readonly slots: Map<string, Float32Array | undefined>;
}

/** An engine and holders that lend to it. */
export class TestCluster implements StepRunner {
  readonly test: TestEngine;
  readonly holders: readonly TestHolder[];
  /** Moves that the engine handed out and that were not ended. */
  readonly moves: SegmentMove[] = [];
  /** Whether steps end at once. */
  sync = true;
  /** Segments of moves that were verified. */
  moved = 0;
  readonly #lost = new Set<string>();
  #pending: PendingStep | undefined;
  #nextLease = 1;

  constructor(options: TestDeviceOptions & Partial<EngineOptions> & { readonly holders: readonly number[] }) {
    this.holders = options.holders.map((capacity, i) => ({
      name: `holder-${i}`,
      incarnation: `${i}`,
      capacity,
      slots: new Map(),
    }));
    this.test = new TestEngine({
      segmentTokens: TEST_SEGMENT,
      growthTokens: 12,
      runner: this,
      reach: () => this.free,
      onRelease: (slots) => this.#takeBack(slots),
      ...options,
    });
  }

  /** Slots that could be granted. */
  get free(): number {
    return this.holders.reduce((sum, { capacity, slots }) => sum + capacity - slots.size, 0);
  }

  /** Slots granted and not given back. */
  get granted(): number {
    return this.holders.reduce((sum, { slots }) => sum + slots.size, 0);
  }

  /** A step is under way. */
  get stepping(): boolean {
    return this.#pending !== undefined;
  }

  run(batch: readonly RunSequence[], done: (outcome: StepOutcome) => void, hints?: StepHints): void {
    ok(this.#pending === undefined, "two steps at a time");
    const seen = new Map<string, Float32Array>();
    for (const { absent = [], slots } of batch) {
      deepStrictEqual(
        slots.map(({ segment }) => segment),
        absent.flatMap(({ from, to }) => Array.from({ length: to - from }, (_, i) => from + i)),
      );
      for (const { slot } of slots) seen.set(slotKey(slot), this.#content(slot));
    }
    let step: DeviceStep;
    try {
      step = this.test.device.begin(batch, hints);
    } catch (error) {
      done({ kind: "failed", error });
      return;
    }
    this.#pending = { batch, step, done, seen };
    if (this.sync) this.finishStep();
  }

  /** Ends the step under way. With `late`, what was lost meanwhile had not been read. */
  finishStep(late = true): void {
    const pending = this.#pending;
    ok(pending !== undefined, "no step is under way");
    this.#pending = undefined;
    const { batch, step, done, seen } = pending;
    const all = batch.flatMap(({ slots }) => slots);
    for (const { slot } of all) ok(this.#lost.has(slotKey(slot)) || this.#content(slot) !== undefined);
    if (late && all.some(({ slot }) => this.#lost.has(slotKey(slot)))) {
      step.abandon();
      return done({ kind: "lost" });
    }
    let stop = step.next();
    if (stop.kind === "queries") {
      batch.forEach((sequence, index) => putPartials(step, { sequence, index, seen }));
      stop = step.next();
    }
    ok(stop.kind === "done", `the step stopped at ${stop.kind}`);
    done({ kind: "ran", output: stop.output });
  }

  /** Starts a step; with {@linkcode sync} also ends it. @returns whether there was anything, undefined when it goes on. */
  step(): boolean | undefined {
    let worked: boolean | undefined;
    this.test.engine.run((found) => worked = found);
    return worked;
  }

  /** Grants a demand from the first holders with room, all or nothing. @returns whether there was room. */
  grant({ sequence, segments }: MemoryDemand): boolean {
    const slots = this.lend(segments);
    if (slots === undefined) return false;
    this.test.engine.memory.grant(sequence, slots);
    return true;
  }

  /** Reserves slots. */
  lend(segments: number, from = this.holders): BorrowedSlot[] | undefined {
    if (from.reduce((sum, { capacity, slots }) => sum + capacity - slots.size, 0) < segments) return undefined;
    const slots: BorrowedSlot[] = [];
    for (const { name, incarnation, capacity, slots: taken } of from) {
      const lease = this.#nextLease++;
      for (let slot = 0; slots.length < segments && taken.size < capacity; slot++) {
        const one = { creditor: { name, incarnation }, lease, stamp: lease, slot };
        taken.set(slotKey(one), undefined);
        slots.push(one);
      }
    }
    return slots;
  }

  /** Takes slots back that the engine never got. */
  forget(slots: readonly BorrowedSlot[]): void {
    this.#takeBack(slots);
  }

  /** Takes the next move over, if there is one. */
  startMove(): boolean {
    const move = this.test.engine.memory.nextMove();
    if (move !== undefined) this.moves.push(move);
    return move !== undefined;
  }

  /** Ends a move: copies now, so that a source that was given up too early shows, and tells the engine. */
  finishMove(index: number, verified = true): void {
    const [{ id, from, to }] = this.moves.splice(index, 1);
    const content = this.#read(from);
    if (verified) this.#write(to, content);
    this.moved += +verified;
    this.test.engine.memory.finishMove(id, verified);
  }

  /** A holder dies and is there again, empty. */
  kill(holder: TestHolder): number {
    const { incarnation } = holder;
    const keys = [...holder.slots.keys()];
    for (const key of keys) this.#lost.add(key);
    holder.slots.clear();
    holder.incarnation = `${incarnation}+`;
    const lost = this.test.engine.memory.lose(incarnation);
    this.#dropMoves();
    return lost;
  }

  /** A holder takes one lease back. */
  revoke(slot: BorrowedSlot): number {
    const { creditor: { incarnation }, lease } = slot;
    for (const { slots } of this.holders) {
      for (const key of [...slots.keys()].filter((key) => key.includes(`/${incarnation}/${lease}/`))) {
        slots.delete(key);
        this.#lost.add(key);
      }
    }
    const lost = this.test.engine.memory.lose(incarnation, new Set([lease]));
    this.#dropMoves();
    return lost;
  }

  /** Answers what is asked and carries out what is to be moved. */
  serve(): void {
    const { memory } = this.test.engine;
    for (const demand of memory.demands()) if (!this.grant(demand)) memory.refuse(demand.sequence);
    while (this.startMove());
    while (this.moves.length > 0) this.finishMove(0);
  }

  /** Runs and serves until nothing is left; afterwards nothing is owned and every slot was given back. */
  drain(): void {
    const { engine } = this.test;
    for (let steps = 0; engine.busy || this.stepping; steps++) {
      if (this.stepping) this.finishStep();
      else this.step();
      this.serve();
      // Demands that were refused come again, and patience ends.
      this.test.nowMs += 50;
      engine.checkIntegrity();
      ok(steps <= 3_000, "the engine never comes to an end");
    }
    this.serve();
    this.checkEmpty();
  }

  /** Checks that nothing is left over. */
  checkEmpty(): void {
    const { engine } = this.test;
    engine.checkIntegrity();
    const { total, free, owned, cached, lent, quarantined, borrowed } = engine.stats().blocks;
    deepStrictEqual([owned, borrowed, free + cached + lent + quarantined], [0, 0, total]);
    deepStrictEqual([this.granted, engine.memory.borrowed().size, engine.memory.demands().length], [0, 0, 0]);
  }

  #content(slot: BorrowedSlot): Float32Array {
    const content = this.#holderOf(slot)?.slots.get(slotKey(slot));
    ok(content !== undefined, `slot ${slotKey(slot)} is used, it was given back or never filled`);
    return content;
  }

  #holderOf(slot: BorrowedSlot): TestHolder | undefined {
    return this.holders.find(({ slots }) => slots.has(slotKey(slot)));
  }

  #takeBack(slots: readonly BorrowedSlot[]): void {
    for (const slot of slots) {
      ok(this.#holderOf(slot)?.slots.delete(slotKey(slot)), `${slotKey(slot)} given back twice`);
    }
  }

  #dropMoves(): void {
    const gone = (end: SegmentMove["from"]) => end.kind === "slot" && this.#lost.has(slotKey(end.slot));
    const kept = this.moves.filter(({ from, to }) => !gone(from) && !gone(to));
    this.moves.splice(0, this.moves.length, ...kept);
  }

  #read(from: SegmentMove["from"]): Float32Array {
    if (from.kind === "slot") return this.#content(from.slot);
    const { device } = this.test;
    return Float32Array.from(
      from.blocks.flatMap((block) => [...new Int32Array(device.readBlock(block).slice().buffer)]),
    );
  }

  #write(to: SegmentMove["to"], content: Float32Array): void {
    if (to.kind === "slot") {
      const holder = this.#holderOf(to.slot);
      ok(holder !== undefined, `slot ${slotKey(to.slot)} is written, it was given back`);
      holder.slots.set(slotKey(to.slot), content);
      return;
    }
    const each = content.length / to.blocks.length;
    to.blocks.forEach((block, i) =>
      this.test.device.writeBlock(
        block,
        new Uint8Array(Int32Array.from(content.slice(i * each, (i + 1) * each)).buffer),
      )
    );
  }
}

function putPartials(
  step: DeviceStep,
  part: {
    readonly sequence: RunSequence;
    readonly index: number;
    readonly seen: ReadonlyMap<string, Float32Array>;
  },
): void {
  const { sequence: { absent = [], slots }, index, seen } = part;
  const contents = new Map(slots.map(({ segment, slot }) => [segment, seen.get(slotKey(slot)) ?? new Float32Array()]));
  for (const { from, to } of absent) {
    for (const node of segmentNodes(from, to)) {
      const o = new Float32Array(node.segments * TEST_SEGMENT);
      for (let i = 0; i < node.segments; i++) {
        o.set(contents.get(node.first + i) ?? [], i * TEST_SEGMENT);
      }
      step.put(index, node, { o, lse: Float32Array.of(o.length) });
    }
  }
}
