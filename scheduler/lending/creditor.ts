/**
 * The creditor's side of lending. Every touch of lent memory is checked here, where the memory is.
 *
 * The life of a lease: granted (its blocks are reserved at once, or the answer is no), filled slot by slot, renewed,
 * given back slot by slot, and over when its last slot is, or it runs out, or it is revoked. Blocks that come back wait
 * in quarantine until nothing in flight can touch them.
 *
 * The file is long because every verb and every check of it stands on this one page; what they work on has files of its
 * own (`creditor_book.ts`, `creditor_lease.ts`, `creditor_quarantine.ts`, `creditor_recall.ts`).
 *
 * @module
 */
import type { BlockId, BlockPool } from "../block_pool.ts";
import { EpochGuard } from "../gmanager/epoch_guard.ts";
import type { KvFormat, MemberIdentity } from "../protocol/member.ts";
import type { LeaseReport, RefusalCode, SlotRun } from "../protocol/messages.ts";
import { LeaseBook } from "./creditor_book.ts";
import { GentleFill } from "./creditor_fill.ts";
import { formatDifferences } from "./creditor_format.ts";
import { Lease, sameMember, type SlotUse } from "./creditor_lease.ts";
import { Quarantine } from "./creditor_quarantine.ts";
import { Recalls } from "./creditor_recall.ts";
import type {
  CreditorCounts,
  CreditorOptions,
  GrantAnswer,
  GrantRequest,
  RecallRequest,
  RefusedLease,
  RevokedLease,
  TouchAnswer,
} from "./creditor_types.ts";
import type { LendView } from "./lend_limit.ts";

/** Share of the recall time that a debtor is told; the rest is for the way there and back. */
const TOLD_SHARE = 0.9;

/** Grants leases over a block pool, checks every use of them, and takes their blocks back. */
export class Creditor {
  readonly #options: CreditorOptions;
  readonly #ttlMs: number;
  readonly #epochs: EpochGuard;
  readonly #fill: GentleFill;
  readonly #book: LeaseBook;
  readonly #recalls = new Recalls();
  readonly #counters: Record<string, number> = {};
  #pool: BlockPool;
  #blocksPerSegment: number;
  #quarantine: Quarantine;
  #leaving = false;

  /**
   * Makes a creditor that has lent nothing.
   *
   * @throws {RangeError} when a setting is outside its range.
   */
  constructor(options: CreditorOptions) {
    const { self, ttlMs = 10_000, maxLeases = 4_096 } = options;
    if (!(ttlMs > 0)) throw new RangeError(`Cannot lend: wanted ttlMs above 0, got ${ttlMs}`);
    checkBlocksPerSegment(options.blocksPerSegment);
    this.#options = options;
    this.#ttlMs = ttlMs;
    this.#book = new LeaseBook({ incarnation: self.incarnation, maxLeases });
    this.#epochs = options.epochs ?? new EpochGuard();
    this.#fill = new GentleFill({ ...options.fill, now: options.now });
    this.#pool = options.pool;
    this.#blocksPerSegment = options.blocksPerSegment;
    this.#quarantine = new Quarantine(options.pool);
  }

  /** What is lent now. */
  get counts(): CreditorCounts {
    let segments = 0;
    let filled = 0;
    for (const lease of this.#book) {
      segments += lease.live;
      filled += lease.filled;
    }
    return {
      leases: this.#book.size,
      segments,
      filled,
      lentBlocks: segments * this.#blocksPerSegment,
      quarantinedBlocks: this.#quarantine.size,
      holds: this.#quarantine.held,
    };
  }

  /** Counters by name, they only rise: `granted`, `refused.CODE`, `ended.REASON`, `recalledSegments`. */
  get counters(): Readonly<Record<string, number>> {
    return this.#counters;
  }

  /** Blocks that it would lend now, whole segments; 0 while it is leaving or fills too fast. */
  get lendable(): number {
    return this.#fill.waitMs() > 0 ? 0 : this.#wholeLendable();
  }

  /** Blocks that it will lend when it may fill on, whole segments; 0 unless it fills too fast. */
  get filling(): number {
    return this.#fill.waitMs() > 0 ? this.#wholeLendable() : 0;
  }

  /** Time on the creditor's clock at which {@linkcode expire} has something to do next; undefined when there is none. */
  get nextExpiryMs(): number | undefined {
    const times = [this.#book.next?.atMs, this.#recalls.first?.deadlineMs].filter((time) => time !== undefined);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** Grants nothing from now on. Leases go on. */
  leave(): void {
    this.#leaving = true;
  }

  /**
   * Lends from other memory: what a holder does when it binds its memory to another format.
   *
   * @throws {RangeError} when anything is lent, in quarantine or held.
   */
  rebind(memory: { readonly pool: BlockPool; readonly blocksPerSegment: number }): void {
    checkBlocksPerSegment(memory.blocksPerSegment);
    if (!this.#idle()) {
      const { leases, quarantinedBlocks, holds } = this.counts;
      throw new RangeError(
        `Cannot rebind lent memory: wanted nothing lent, got ${leases} leases, ${quarantinedBlocks} blocks in quarantine, ${holds} holds`,
      );
    }
    this.#pool = memory.pool;
    this.#blocksPerSegment = memory.blocksPerSegment;
    this.#quarantine = new Quarantine(memory.pool);
  }

  /**
   * Reserves slots at once, or refuses; first come, first served. The same call of the same debtor gets the same lease
   * again, and nothing once that lease is over.
   */
  grant(debtor: MemberIdentity, request: GrantRequest): GrantAnswer {
    const answer = this.#grant(debtor, request);
    this.#count(answer.kind === "granted" ? "granted" : `refused.${answer.code}`);
    return answer;
  }

  /**
   * Checks a use of lent slots and says where they lie: `read` only what was filled, `write` only what was not,
   * `commit` either, so that a repeated commit finds what it wrote.
   *
   * @throws {Error} when a block of the lease has changed hands meanwhile: an invariant is broken.
   */
  touch(debtor: MemberIdentity, run: SlotRun, use: SlotUse): TouchAnswer {
    const lease = this.#find(debtor, run);
    if (lease instanceof Lease) {
      const problem = lease.problem(run, use);
      if (problem === undefined) return { kind: "blocks", blocks: lease.blocksOf(run) };
      this.#count("refused.bad_slot");
      return refused("bad_slot", problem);
    }
    this.#count(`refused.${lease.code}`);
    return lease;
  }

  /** Marks slots whose content was verified as filled. Idempotent; checked like a `commit`. */
  fill(debtor: MemberIdentity, run: SlotRun): { readonly kind: "filled" } | RefusedLease {
    const answer = this.touch(debtor, run, "commit");
    if (answer.kind === "refused") return answer;
    this.#book.get(run.lease)?.fill(run);
    return { kind: "filled" };
  }

  /**
   * Fences work in flight that was allowed to touch slots: until the hold is disposed and {@linkcode settle} is called,
   * their blocks go to nobody else, whatever becomes of the lease.
   *
   * @throws {RangeError} when the slots are not live; touch them first.
   */
  hold(run: SlotRun): Disposable {
    const lease = this.#book.get(run.lease);
    const problem = lease?.terms.stamp === run.stamp ? lease.problem(run, "commit") : "wanted a live lease";
    if (lease === undefined || problem !== undefined) {
      throw new RangeError(`Cannot hold slots of lease ${run.lease}: ${problem}`);
    }
    return this.#quarantine.hold(lease.blocksOf(run));
  }

  /** Frees the blocks in quarantine that nothing holds. Call it when no earlier work can touch them. @returns blocks freed. */
  settle(): number {
    return this.#quarantine.settle();
  }

  /** Lets leases run for another `ttlMs`. @returns those that are not the debtor's live ones: it must not use them. */
  renew(debtor: MemberIdentity, leases: readonly number[]): number[] {
    const nowMs = this.#options.now();
    return leases.filter((id) => {
      const lease = this.#book.get(id);
      if (lease === undefined || !sameMember(lease.terms.debtor, debtor) || this.#book.expiryOf(lease) <= nowMs) {
        return true;
      }
      this.#book.extend(lease, nowMs + this.#ttlMs);
      return false;
    });
  }

  /** Takes slots back. What is unknown, somebody else's, freed already or not in the lease is ignored. @returns slots freed. */
  release(debtor: MemberIdentity, runs: readonly SlotRun[]): number {
    let segments = 0;
    for (const run of runs) {
      const lease = this.#book.get(run.lease);
      if (lease === undefined || lease.terms.stamp !== run.stamp) continue;
      if (!sameMember(lease.terms.debtor, debtor) || !lease.covers(run)) continue;
      segments += this.#free(lease, run);
      if (lease.live === 0) this.#end(lease, "released");
    }
    return segments;
  }

  /** Ends every lease of an incarnation that is gone. */
  forget(incarnation: string): readonly RevokedLease[] {
    return this.#book.of(incarnation).map((lease) => this.#revoke(lease, "gone"));
  }

  /** Ends leases; unknown ones are ignored. */
  revoke(...leases: readonly number[]): readonly RevokedLease[] {
    return leases.flatMap((id) => {
      const lease = this.#book.get(id);
      return lease === undefined ? [] : [this.#revoke(lease, "revoked")];
    });
  }

  /**
   * Ends leases that ran out. Ends leases, oldest first, of debtors that did not give back in time what was called back,
   * where that is still needed. Tell the debtors.
   */
  expire(): readonly RevokedLease[] {
    const nowMs = this.#options.now();
    const revoked: RevokedLease[] = [];
    for (let next = this.#book.next; next !== undefined && next.atMs <= nowMs; next = this.#book.next) {
      revoked.push(this.#revoke(next.lease, "expired"));
    }
    for (let due = this.#recalls.first; due !== undefined; due = this.#recalls.first) {
      if (this.#options.limit.wanted(this.#view()) === 0) this.#recalls.clear();
      else if (due.deadlineMs > nowMs) break;
      else revoked.push(this.#revoke(this.#book.of(due.debtor.incarnation)[0], "recalled"));
    }
    this.#book.forgetEnded(nowMs - this.#ttlMs);
    return revoked;
  }

  /**
   * What to call back now for own sequences that wait for blocks; what was called back already is not asked for again.
   * The debtor with the most segments is asked first, since that disturbs the fewest, and of equal ones the one with the
   * oldest lease. Whoever does not give back in time loses leases, see {@linkcode expire}.
   */
  recall(): readonly RecallRequest[] {
    const { limit, now } = this.#options;
    const wanted = Math.ceil(limit.wanted(this.#view()) / this.#blocksPerSegment);
    if (wanted === 0) this.#recalls.clear();
    let missing = wanted - this.#recalls.outstanding;
    if (missing <= 0) return [];
    const requests: RecallRequest[] = [];
    for (const { debtor, segments } of this.#book.debtors()) {
      const asked = Math.min(missing, segments - this.#recalls.owed(debtor.incarnation));
      if (asked <= 0) continue;
      missing -= asked;
      this.#recalls.add(debtor, { segments: asked, deadlineMs: now() + limit.recallMs });
      this.#count("recalledSegments", asked);
      const leases = this.#book.of(debtor.incarnation).map((lease) => lease.terms.lease);
      requests.push({ debtor, segments: asked, withinMs: Math.floor(limit.recallMs * TOLD_SHARE), leases });
      if (missing === 0) break;
    }
    return requests;
  }

  /** Live leases, oldest first. */
  leases(): LeaseReport[] {
    const nowMs = this.#options.now();
    return Array.from(this.#book, (lease) => ({
      lease: lease.terms.lease,
      debtor: lease.terms.debtor.name,
      segments: lease.live,
      expiresMs: Math.max(0, this.#book.expiryOf(lease) - nowMs),
    }));
  }

  /**
   * Checks leases, quarantine and pool against each other.
   *
   * @throws {Error} with the arithmetic that does not hold.
   */
  checkIntegrity(): void {
    this.#pool.checkIntegrity();
    this.#quarantine.checkIntegrity();
    this.#book.checkIntegrity();
    const blocks = new Set<BlockId>();
    for (const lease of this.#book) {
      for (const block of lease.liveBlocks()) {
        if (blocks.has(block)) throw new Error(`Creditor is broken: block ${block} is in two leases`);
        blocks.add(block);
      }
    }
    const { lent } = this.#pool.counts;
    if (blocks.size !== lent || this.counts.lentBlocks !== lent) {
      throw new Error(`Creditor is broken: blocks of leases ${blocks.size} != lent ${lent}`);
    }
    for (const { debtor, segments } of this.#book.debtors()) {
      const owed = this.#recalls.owed(debtor.incarnation);
      if (owed > segments) throw new Error(`Creditor is broken: ${debtor.name} owes ${owed} segments of ${segments}`);
    }
    if (this.#recalls.outstanding > this.counts.segments) {
      throw new Error(`Creditor is broken: called back ${this.#recalls.outstanding} > lent ${this.counts.segments}`);
    }
  }

  #grant(debtor: MemberIdentity, request: GrantRequest): GrantAnswer {
    const { self, limit } = this.#options;
    const { call, sequence, segments } = request;
    if (debtor.name === self.name || debtor.incarnation === self.incarnation) {
      return refused("unable", `wanted another member, ${debtor.name} would borrow from itself`);
    }
    if (!Number.isSafeInteger(call) || !Number.isSafeInteger(segments) || segments < 1) {
      return refused("bad_shape", `wanted a call and at least 1 segment, got call ${call}, segments ${segments}`);
    }
    const stale = this.#epochs.check(request.epoch);
    if (stale !== undefined) return stale;
    const known = this.#book.ofCall(debtor, call);
    if (known instanceof Lease) return this.#grantAgain(known, request);
    if (known !== undefined) return refused("unknown_lease", `call ${call} got lease ${known.over}, which is over`);
    if (this.#leaving) return refused("leaving", `${self.name} is leaving`);
    const format = this.#checkFormat(request.format);
    if (format !== undefined) return format;
    const full = this.#checkSpace(segments);
    if (full !== undefined) return full;
    const free = limit.lendable(this.#view());
    const blocks = this.#pool.lend(segments * this.#blocksPerSegment);
    const lease = this.#book.open(
      { debtor: { name: debtor.name, incarnation: debtor.incarnation }, call, sequence, epoch: request.epoch },
      {
        pool: this.#pool,
        blocks,
        blocksPerSegment: this.#blocksPerSegment,
        expiresMs: this.#options.now() + this.#ttlMs,
      },
    );
    this.#fill.granted(blocks.length, free);
    return { kind: "granted", run: lease.run, ttlMs: this.#ttlMs };
  }

  #wholeLendable(): number {
    if (this.#leaving || this.#book.full) return 0;
    const blocks = this.#options.limit.lendable(this.#view());
    return blocks - blocks % this.#blocksPerSegment;
  }

  #grantAgain(lease: Lease, { call, sequence, segments }: GrantRequest): GrantAnswer {
    if (lease.terms.sequence !== sequence || lease.segments !== segments) {
      return refused(
        "bad_shape",
        `wanted call ${call} again for ${lease.segments} segments of ${lease.terms.sequence}, got ${segments} of ${sequence}`,
      );
    }
    // What is left, not ttlMs: the debtor counts from this answer on.
    const ttlMs = this.#book.expiryOf(lease) - this.#options.now();
    if (ttlMs <= 0) return refused("expired", `lease ${lease.terms.lease} of call ${call} ran out`);
    return { kind: "granted", run: lease.run, ttlMs };
  }

  #checkFormat(format: KvFormat): RefusedLease | undefined {
    const { format: boundFormat, acceptFormat } = this.#options;
    const bound = boundFormat();
    const differences = bound === undefined ? undefined : formatDifferences(bound, format);
    if (differences === "") return undefined;
    if (acceptFormat === undefined || !this.#idle()) {
      return refused("wrong_format", differences ?? "wanted memory of a format, none is bound here");
    }
    const no = acceptFormat(format);
    if (no !== undefined) return refused(no.code, no.detail);
    const now = boundFormat();
    if (now === undefined || formatDifferences(format, now) !== "") {
      throw new Error("Creditor is broken: the format that was accepted is not bound");
    }
    return undefined;
  }

  #checkSpace(segments: number): RefusedLease | undefined {
    if (this.#book.full) return refused("over_cap", `wanted fewer leases, all ${this.#book.size} are granted`);
    const wanted = segments * this.#blocksPerSegment;
    const view = this.#view();
    const most = this.#options.limit.most(view.total);
    if (view.lent + view.quarantined + wanted > most) {
      return refused(
        "over_cap",
        `wanted at most ${most} blocks lent, got ${wanted} more than ${view.lent + view.quarantined}`,
      );
    }
    if (wanted > this.#options.limit.lendable(view)) {
      return refused(
        "no_space",
        `wanted ${wanted} free blocks, got ${view.available}, ${this.#options.limit.waitingBlocks} of them waited for`,
      );
    }
    const waitMs = this.#fill.waitMs();
    if (waitMs > 0) return refused("over_cap", `wanted to fill slowly as a newcomer, room again in ${waitMs} ms`);
    return undefined;
  }

  /** The live lease that `run` names, if it is the debtor's. */
  #find(debtor: MemberIdentity, run: SlotRun): Lease | RefusedLease {
    const lease = this.#book.get(run.lease);
    if (lease === undefined) return refused("unknown_lease", `lease ${run.lease} is not live here`);
    const { name, incarnation } = lease.terms.debtor;
    if (name !== debtor.name) return refused("wrong_debtor", `wanted lease ${run.lease} of ${debtor.name}, it is not`);
    if (incarnation !== debtor.incarnation) {
      return refused("unknown_lease", `lease ${run.lease} is of another incarnation of ${name}`);
    }
    if (lease.terms.stamp !== run.stamp) return refused("stale_stamp", `lease ${run.lease} has another stamp`);
    const lateMs = this.#options.now() - this.#book.expiryOf(lease);
    if (lateMs >= 0) return refused("expired", `lease ${run.lease} ran out ${lateMs} ms ago`);
    return lease;
  }

  #free(lease: Lease, run: SlotRun): number {
    const blocks = lease.free(run);
    this.#quarantine.add(blocks);
    const segments = blocks.length / this.#blocksPerSegment;
    this.#recalls.paid(lease.terms.debtor.incarnation, segments);
    return segments;
  }

  #revoke(lease: Lease, reason: RevokedLease["reason"]): RevokedLease {
    const { lease: id, debtor, sequence } = lease.terms;
    const segments = this.#free(lease, lease.run);
    this.#end(lease, reason);
    return { lease: id, debtor, sequence, segments, reason };
  }

  #end(lease: Lease, reason: RevokedLease["reason"] | "released"): void {
    this.#book.close(lease, this.#options.now());
    this.#count(`ended.${reason}`);
  }

  #idle(): boolean {
    return this.#book.size === 0 && this.#quarantine.size === 0 && this.#quarantine.held === 0;
  }

  #view(): LendView {
    const { total, lent, quarantined } = this.#pool.counts;
    return { total, available: this.#pool.available, lent, quarantined };
  }

  #count(name: string, by: number = 1): void {
    this.#counters[name] = (this.#counters[name] ?? 0) + by;
  }
}

function refused(code: RefusalCode, detail: string): RefusedLease {
  return { kind: "refused", code, detail };
}

function checkBlocksPerSegment(blocks: number): void {
  if (!Number.isInteger(blocks) || blocks < 1) {
    throw new RangeError(`Cannot lend: wanted whole blocks in a segment, at least 1, got ${blocks}`);
  }
}
