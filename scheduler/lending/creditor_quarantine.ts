/**
 * Lent blocks that were given back, until nothing in flight can touch them.
 *
 * @module
 */
import type { BlockId, BlockPool } from "../block_pool.ts";

/** The quarantine of one pool: holds fence work in flight, {@linkcode settle} frees what nothing holds. */
export class Quarantine {
  readonly #pool: BlockPool;
  /** Holds on each block, lent or quarantined. */
  readonly #holds: Uint32Array;
  #blocks: BlockId[] = [];
  #held = 0;

  /** Makes the empty quarantine of `pool`. */
  constructor(pool: BlockPool) {
    this.#pool = pool;
    this.#holds = new Uint32Array(pool.total);
  }

  /** Blocks in quarantine. */
  get size(): number {
    return this.#blocks.length;
  }

  /** Holds that have not been disposed. */
  get held(): number {
    return this.#held;
  }

  /** Puts lent blocks into quarantine; their content is given up. */
  add(blocks: readonly BlockId[]): void {
    this.#pool.quarantine(blocks);
    for (const block of blocks) this.#blocks.push(block);
  }

  /** Keeps `blocks` from being freed until the hold is disposed, whatever becomes of their lease. */
  hold(blocks: readonly BlockId[]): Disposable {
    for (const block of blocks) this.#holds[block]++;
    this.#held++;
    let open = true;
    return {
      [Symbol.dispose]: () => {
        if (!open) return;
        open = false;
        this.#held--;
        for (const block of blocks) this.#holds[block]--;
      },
    };
  }

  /** Frees what nothing holds. @returns blocks freed. */
  settle(): number {
    if (this.#blocks.length === 0) return 0;
    const settled = this.#blocks.filter((block) => this.#holds[block] === 0);
    this.#blocks = this.#blocks.filter((block) => this.#holds[block] > 0);
    this.#pool.settle(settled);
    return settled.length;
  }

  /**
   * Checks that the pool quarantines exactly these blocks.
   *
   * @throws {Error} with the arithmetic that does not hold.
   */
  checkIntegrity(): void {
    const { quarantined } = this.#pool.counts;
    if (new Set(this.#blocks).size !== quarantined || this.#blocks.length !== quarantined) {
      throw new Error(`Quarantine is broken: listed ${this.#blocks.length} != pool's ${quarantined}`);
    }
    const wrong = this.#blocks.find((block) => this.#pool.state(block) !== "quarantined");
    if (wrong !== undefined) {
      throw new Error(`Quarantine is broken: listed block ${wrong} is ${this.#pool.state(wrong)}`);
    }
  }
}
