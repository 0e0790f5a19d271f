/**
 * Makes the use of freed blocks visible.
 *
 * @module
 */
import type { BlockId, BlockPool } from "../../scheduler/block_pool.ts";
import type { ToyStore } from "./toy_store.ts";

/**
 * Poisons blocks of `store` whenever `pool` gives their content up for good or hands them out anew. Blocks in quarantine
 * keep theirs: work in flight may still read it.
 */
export function poisonFreed(pool: BlockPool, store: ToyStore): void {
  const poison = (blocks: readonly BlockId[]) => {
    for (const block of blocks) store.poison(block);
  };
  const { allocate, lend, release, settle } = {
    allocate: pool.allocate.bind(pool),
    lend: pool.lend.bind(pool),
    release: pool.release.bind(pool),
    settle: pool.settle.bind(pool),
  };
  pool.allocate = () => {
    const block = allocate();
    poison([block]);
    return block;
  };
  pool.lend = (count) => {
    const blocks = lend(count);
    poison(blocks);
    return blocks;
  };
  pool.release = (block) => {
    const generation = pool.generation(block);
    release(block);
    if (pool.generation(block) !== generation) poison([block]);
  };
  pool.settle = (blocks) => {
    settle(blocks);
    poison(blocks);
  };
}
