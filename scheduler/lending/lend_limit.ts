/**
 * How much of its memory an instance lends, and how much it calls back: lending never starves the lender.
 *
 * @module
 */

/** A cap that an operator sets. */
export type LendCap =
  /** At most so many blocks. */
  | { readonly kind: "blocks"; readonly blocks: number }
  /** At most so large a share of the pool, 0 to 1. */
  | { readonly kind: "share"; readonly share: number };

/** Settings of {@linkcode LendLimit}. */
export interface LendLimitOptions {
  /** Clock, ms; never goes back. */
  readonly now: () => number;
  /** Cap; without one everything but a reserve that follows the instance's own recent use is lent. */
  readonly cap?: LendCap;
  /** Reserve on top of the recent peak of own use, as a share of that peak. @default 0.25 */
  readonly headroomShare?: number;
  /** Reserve of an idle instance, as a share of its pool; rounded down to whole `unitBlocks`. @default 1/32 */
  readonly idleShare?: number;
  /** Blocks of one segment. @default 1 */
  readonly unitBlocks?: number;
  /** Time for which a peak of own use counts in full. @default 30_000 */
  readonly windowMs?: number;
  /** Time in which an older peak loses half of its weight. @default 15_000 */
  readonly halfLifeMs?: number;
  /** Time within which called back blocks are home. @default 2_000 */
  readonly recallMs?: number;
}

/** What a pool has, in blocks. */
export interface LendView {
  /** Blocks in all. */
  readonly total: number;
  /** Free and cached blocks. */
  readonly available: number;
  /** Blocks lent. */
  readonly lent: number;
  /** Blocks on their way back: nobody uses them, but they are not free yet. */
  readonly quarantined: number;
}

interface Peak {
  /** Until when so many blocks were in use. */
  readonly atMs: number;
  readonly blocks: number;
}

/** A window is noted in so many parts; of each only the largest peak is kept. */
const WINDOW_PARTS = 32;

/** Cap on lent blocks from a setting or from own recent use, and the demand that calls blocks back. */
export class LendLimit {
  /** Time within which called back blocks are home. */
  readonly recallMs: number;
  readonly #now: () => number;
  readonly #cap?: LendCap;
  readonly #headroomShare: number;
  readonly #idleShare: number;
  readonly #unitBlocks: number;
  readonly #windowMs: number;
  readonly #halfLifeMs: number;
  /** Oldest and largest first, since a later peak as large replaces a peak. */
  #peaks: readonly Peak[] = [];
  #own = 0;
  #waitingBlocks = 0;

  /**
   * Makes the limit of an idle instance.
   *
   * @throws {RangeError} when a setting is outside its range.
   */
  constructor(options: LendLimitOptions) {
    const {
      now,
      cap,
      headroomShare = 0.25,
      idleShare = 1 / 32,
      unitBlocks = 1,
      windowMs = 30_000,
      halfLifeMs = 15_000,
      recallMs = 2_000,
    } = options;
    if (cap?.kind === "blocks") checkSetting("cap.blocks", cap.blocks, { whole: true });
    if (cap?.kind === "share") checkSetting("cap.share", cap.share, { most: 1 });
    checkSetting("headroomShare", headroomShare, {});
    checkSetting("idleShare", idleShare, { most: 1 });
    checkSetting("unitBlocks", unitBlocks, { whole: true, least: 1 });
    checkSetting("windowMs", windowMs, {});
    checkSetting("halfLifeMs", halfLifeMs, { least: 1 });
    checkSetting("recallMs", recallMs, {});
    this.#now = now;
    this.#cap = cap;
    this.#headroomShare = headroomShare;
    this.#idleShare = idleShare;
    this.#unitBlocks = unitBlocks;
    this.#windowMs = windowMs;
    this.#halfLifeMs = halfLifeMs;
    this.recallMs = recallMs;
  }

  /** Blocks that own sequences wait for, as last observed. */
  get waitingBlocks(): number {
    return this.#waitingBlocks;
  }

  /**
   * Takes note of the instance's own load. Call it whenever that changes; what was observed last holds until then.
   *
   * @throws {RangeError} when a count is not a whole number.
   */
  observe(load: {
    /** Blocks in the tables of own sequences. */
    readonly own: number;
    /** Blocks that own sequences wait for and that this pool could give them. */
    readonly waitingBlocks: number;
  }): void {
    checkSetting("own", load.own, { whole: true });
    checkSetting("waitingBlocks", load.waitingBlocks, { whole: true });
    const before = this.#own;
    this.#own = load.own;
    this.#waitingBlocks = load.waitingBlocks;
    if (load.own >= before) return;
    const part = Math.max(1, this.#windowMs / WINDOW_PARTS);
    const atMs = Math.ceil(this.#now() / part) * part;
    const kept = this.#peaks.filter((peak) => peak.blocks > before && this.#weigh(peak) > 0);
    this.#peaks = kept.at(-1)?.atMs === atMs ? kept : [...kept, { atMs, blocks: before }];
  }

  /** Blocks of a pool of `total` that are kept for own use now; 0 where a cap is set. */
  reserve(total: number): number {
    if (this.#cap !== undefined) return 0;
    const idle = Math.floor(total * this.#idleShare / this.#unitBlocks) * this.#unitBlocks;
    return Math.min(total, Math.max(idle, Math.ceil(this.#recentUse() * (1 + this.#headroomShare))));
  }

  /** Most blocks of a pool of `total` that may be away at once, lent or quarantined. */
  most(total: number): number {
    switch (this.#cap?.kind) {
      case "blocks":
        return Math.min(total, this.#cap.blocks);
      case "share":
        return Math.floor(total * this.#cap.share);
      case undefined:
        return total - this.reserve(total);
    }
  }

  /** Blocks that may be lent now: under the cap, and not those that own sequences wait for. */
  lendable({ total, available, lent, quarantined }: LendView): number {
    return Math.max(0, Math.min(this.most(total) - lent - quarantined, available - this.#waitingBlocks));
  }

  /**
   * Lent blocks to call back: those that own sequences wait for and that neither are available nor already come back.
   * Own use that can be met calls nothing back, so that a short peak does not move other members' memory around.
   */
  wanted({ available, lent, quarantined }: LendView): number {
    return Math.max(0, Math.min(lent, this.#waitingBlocks - available - quarantined));
  }

  /** The largest of what is used and waited for now and of the recent peaks, each weighed by its age. */
  #recentUse(): number {
    return Math.max(this.#own + this.#waitingBlocks, ...this.#peaks.map((peak) => this.#weigh(peak)));
  }

  #weigh({ atMs, blocks }: Peak): number {
    const olderMs = Math.max(0, this.#now() - atMs - this.#windowMs);
    // Rounded, so that an old peak is gone one day.
    return Math.round(blocks * 2 ** (-olderMs / this.#halfLifeMs));
  }
}

function checkSetting(
  name: string,
  value: number,
  options: { readonly whole?: boolean; readonly least?: number; readonly most?: number },
): void {
  const { whole = false, least = 0, most = Number.MAX_SAFE_INTEGER } = options;
  if (!(value >= least && value <= most) || (whole && !Number.isInteger(value))) {
    throw new RangeError(
      `Cannot limit lending: wanted ${name} ${whole ? "a whole number " : ""}from ${least} to ${most}, got ${value}`,
    );
  }
}
