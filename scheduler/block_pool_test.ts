import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { type BlockId, BlockPool } from "./block_pool.ts";

Deno.test("BlockPool.allocate() hands out every block once, then refuses", () => {
  const pool = new BlockPool(3);
  const blocks = [pool.allocate(), pool.allocate(), pool.allocate()];
  assertEquals(new Set(blocks).size, 3);
  assertEquals(pool.available, 0);
  assertThrows(() => pool.allocate(), RangeError, "all 3 are owned");
  pool.checkIntegrity([blocks]);
});

Deno.test("BlockPool.release() keeps a published block findable and frees any other", () => {
  const pool = new BlockPool(2);
  const [named, nameless] = [pool.allocate(), pool.allocate()];
  assert(pool.publish(named, "a"));
  pool.release(named);
  pool.release(nameless);
  assertEquals(pool.counts, { total: 2, free: 1, owned: 0, cached: 1, lent: 0, quarantined: 0 });
  assertEquals(pool.find("a"), named);
  assertEquals(pool.generation(named), 0);
  assertEquals(pool.generation(nameless), 1);
});

Deno.test("BlockPool.allocate() evicts the least recently used cached block when none is free", () => {
  const pool = new BlockPool(2);
  const [first, second] = [pool.allocate(), pool.allocate()];
  pool.publish(first, "first");
  pool.publish(second, "second");
  pool.release(first);
  pool.release(second);
  pool.share(first);
  pool.release(first);
  assertEquals(pool.allocate(), second);
  assertEquals(pool.find("second"), undefined);
  assertEquals(pool.find("first"), first);
  assertEquals(pool.generation(second), 1);
});

Deno.test("BlockPool.share() lets several owners hold a block until the last one releases it", () => {
  const pool = new BlockPool(1);
  const block = pool.allocate();
  pool.publish(block, "a");
  pool.share(block);
  pool.release(block);
  assertEquals(pool.counts.owned, 1);
  pool.release(block);
  assertEquals(pool.counts.cached, 1);
  pool.share(block);
  assertEquals([pool.references(block), pool.counts.owned], [1, 1]);
});

Deno.test("BlockPool.publish() keeps the first of two blocks with the same content", () => {
  const pool = new BlockPool(2);
  const [first, second] = [pool.allocate(), pool.allocate()];
  assertEquals([pool.publish(first, "a"), pool.publish(second, "a"), pool.publish(first, "a")], [true, false, true]);
  pool.release(second);
  assertEquals(pool.counts, { total: 2, free: 1, owned: 1, cached: 0, lent: 0, quarantined: 0 });
  assertEquals(pool.find("a"), first);
});

Deno.test("BlockPool.lend() takes free blocks first, then the least recently used cached ones", () => {
  const pool = new BlockPool(4);
  const [first, second] = [pool.allocate(), pool.allocate()];
  pool.publish(first, "first");
  pool.publish(second, "second");
  pool.release(first);
  pool.release(second);
  const lent = pool.lend(3);
  assertEquals(lent.includes(first), true);
  assertEquals([pool.find("first"), pool.find("second")], [undefined, second]);
  assertEquals(pool.counts, { total: 4, free: 0, owned: 0, cached: 1, lent: 3, quarantined: 0 });
  assertEquals(pool.generation(first), 1, "what was cached there is gone");
  pool.checkIntegrity([]);
});

Deno.test("BlockPool.lend() gives blocks that were settled together as one ascending run", () => {
  const pool = new BlockPool(8);
  const runs = [pool.lend(4), pool.lend(4)];
  assertEquals(runs, [[0, 1, 2, 3], [4, 5, 6, 7]]);
  pool.quarantine(runs.flat());
  pool.settle(runs[1].toReversed());
  pool.settle(runs[0]);
  assertEquals([pool.lend(4), pool.lend(4)], runs);
});

Deno.test("BlockPool.quarantine() keeps a lent block from everybody until it is settled", () => {
  const pool = new BlockPool(2);
  const [block] = pool.lend(1);
  assertEquals(pool.generation(block), 0);
  pool.quarantine([block]);
  assertEquals(pool.generation(block), 1);
  assertEquals(pool.counts, { total: 2, free: 1, owned: 0, cached: 0, lent: 0, quarantined: 1 });
  pool.allocate();
  assertThrows(() => pool.allocate(), RangeError, "all 2 are owned or quarantined");
  pool.settle([block]);
  assertEquals(pool.allocate(), block);
  pool.checkIntegrity();
});

Deno.test("BlockPool refuses to touch lent and quarantined blocks in any other way", () => {
  const pool = new BlockPool(4);
  const [block, away] = pool.lend(2);
  pool.quarantine([away]);
  for (const [taken, state] of [[block, "lent"], [away, "quarantined"]] as const) {
    assertThrows(() => pool.share(taken), RangeError, `it is ${state}`);
    assertThrows(() => pool.publish(taken, "a"), RangeError, "it has no reference");
    assertThrows(() => pool.release(taken), RangeError, "it has none");
  }
  assertThrows(() => pool.settle([block]), RangeError, "wanted it quarantined, it is lent");
  assertThrows(() => pool.quarantine([block, away]), RangeError, "wanted it lent, it is quarantined");
  assertThrows(() => pool.quarantine([block, block]), RangeError, "wanted each once");
  assertThrows(() => pool.quarantine([9 as BlockId]), RangeError, "it is outside the pool");
  assertThrows(() => pool.lend(3), RangeError, "wanted 0 to 2");
  assertThrows(() => pool.lend(0.5), RangeError, "Cannot lend 0.5 blocks");
  assertEquals(pool.counts, { total: 4, free: 2, owned: 0, cached: 0, lent: 1, quarantined: 1 });
  pool.checkIntegrity([]);
});

Deno.test("BlockPool refuses what would break it", async (t) => {
  const pool = new BlockPool(2);
  const block = pool.allocate();
  pool.publish(block, "a");
  const other = 1 - block as BlockId;
  await t.step("a pool without blocks", () => {
    assertThrows(() => new BlockPool(0), RangeError, "got 0");
  });
  await t.step("a second release", () => {
    assertThrows(() => pool.release(other), RangeError, "it has none");
  });
  await t.step("a release of a block outside the pool", () => {
    assertThrows(() => pool.release(7 as BlockId), RangeError, "Cannot release block 7");
  });
  await t.step("sharing a free block", () => {
    assertThrows(() => pool.share(other), RangeError, "it is free");
  });
  await t.step("publishing a free block", () => {
    assertThrows(() => pool.publish(other, "b"), RangeError, "it has no reference");
  });
  await t.step("publishing under a second digest", () => {
    assertThrows(() => pool.publish(block, "b"), RangeError, "wanted digest a again, got b");
  });
});

Deno.test("BlockPool.checkIntegrity() names a reference that no table holds", () => {
  const pool = new BlockPool(2);
  const block = pool.allocate();
  pool.checkIntegrity();
  assertThrows(() => pool.checkIntegrity([]), Error, `block ${block} is in 0 tables, it has 1 references`);
  assertThrows(() => pool.checkIntegrity([[block, block]]), Error, "is in 2 tables");
});

/** The obvious model: who holds what, and which contents are cached in order of release. */
interface Model {
  readonly total: number;
  readonly held: Map<BlockId, number>;
  readonly names: Map<BlockId, string>;
  cached: BlockId[];
  lent: BlockId[];
  quarantined: BlockId[];
}

function freeOf({ total, held, cached, lent, quarantined }: Readonly<Model>): number {
  return total - held.size - cached.length - lent.length - quarantined.length;
}

type PoolCommand = fc.Command<Model, BlockPool>;

function verify(model: Model, pool: BlockPool): void {
  const tables = [...model.held].map(([block, references]) => new Array<BlockId>(references).fill(block));
  pool.checkIntegrity(tables);
  assertEquals(pool.counts, {
    total: model.total,
    free: freeOf(model),
    owned: model.held.size,
    cached: model.cached.length,
    lent: model.lent.length,
    quarantined: model.quarantined.length,
  });
  for (const [block, name] of model.names) assertEquals(pool.find(name), block);
}

class Allocate implements PoolCommand {
  check(model: Readonly<Model>): boolean {
    return freeOf(model) + model.cached.length > 0;
  }
  run(model: Model, pool: BlockPool): void {
    const full = freeOf(model) === 0;
    const block = pool.allocate();
    if (full) {
      assertEquals(block, model.cached.shift());
      model.names.delete(block);
    }
    const { held, cached, lent, quarantined } = model;
    assert(!held.has(block) && ![cached, lent, quarantined].some((taken) => taken.includes(block)));
    model.held.set(block, 1);
    verify(model, pool);
  }
  toString = () => "allocate";
}

class Publish implements PoolCommand {
  constructor(readonly pick: number, readonly name: string) {}
  check(model: Readonly<Model>): boolean {
    return model.held.size > 0;
  }
  run(model: Model, pool: BlockPool): void {
    const block = [...model.held.keys()][this.pick % model.held.size];
    if (model.names.has(block)) return;
    const taken = [...model.names.values()].includes(this.name);
    assertEquals(pool.publish(block, this.name), !taken);
    if (!taken) model.names.set(block, this.name);
    verify(model, pool);
  }
  toString = () => `publish ${this.pick} ${this.name}`;
}

class Share implements PoolCommand {
  constructor(readonly name: string) {}
  check(): boolean {
    return true;
  }
  run(model: Model, pool: BlockPool): void {
    const block = pool.find(this.name);
    assertEquals(block, [...model.names].find(([, name]) => name === this.name)?.[0]);
    if (block === undefined) return;
    pool.share(block);
    model.cached = model.cached.filter((cached) => cached !== block);
    model.held.set(block, (model.held.get(block) ?? 0) + 1);
    verify(model, pool);
  }
  toString = () => `share ${this.name}`;
}

class Release implements PoolCommand {
  constructor(readonly pick: number) {}
  check(model: Readonly<Model>): boolean {
    return model.held.size > 0;
  }
  run(model: Model, pool: BlockPool): void {
    const [block, references] = [...model.held][this.pick % model.held.size];
    pool.release(block);
    if (references > 1) {
      model.held.set(block, references - 1);
    } else {
      model.held.delete(block);
      if (model.names.has(block)) model.cached.push(block);
    }
    verify(model, pool);
  }
  toString = () => `release ${this.pick}`;
}

class Evict implements PoolCommand {
  check(): boolean {
    return true;
  }
  run(model: Model, pool: BlockPool): void {
    const oldest = model.cached.shift();
    assertEquals(pool.evict(), oldest !== undefined);
    if (oldest !== undefined) model.names.delete(oldest);
    verify(model, pool);
  }
  toString = () => "evict";
}

class Lend implements PoolCommand {
  constructor(readonly count: number) {}
  check(model: Readonly<Model>): boolean {
    return this.count <= freeOf(model) + model.cached.length;
  }
  run(model: Model, pool: BlockPool): void {
    const evicted = model.cached.splice(0, Math.max(0, this.count - freeOf(model)));
    for (const block of evicted) model.names.delete(block);
    const blocks = pool.lend(this.count);
    assertEquals(blocks.length, this.count);
    assertEquals(blocks, blocks.toSorted((a, b) => a - b));
    assertEquals(evicted.filter((block) => !blocks.includes(block)), []);
    const { held, cached, lent, quarantined } = model;
    for (const block of blocks) {
      assert(!held.has(block) && ![cached, lent, quarantined].some((taken) => taken.includes(block)));
    }
    lent.push(...blocks);
    verify(model, pool);
  }
  toString = () => `lend ${this.count}`;
}

class Quarantine implements PoolCommand {
  constructor(readonly count: number) {}
  check(): boolean {
    return true;
  }
  run(model: Model, pool: BlockPool): void {
    const blocks = model.lent.splice(0, this.count);
    const before = blocks.map((block) => pool.generation(block));
    pool.quarantine(blocks);
    assertEquals(blocks.map((block) => pool.generation(block) - 1), before);
    model.quarantined.push(...blocks);
    verify(model, pool);
  }
  toString = () => `quarantine ${this.count}`;
}

class Settle implements PoolCommand {
  constructor(readonly count: number) {}
  check(): boolean {
    return true;
  }
  run(model: Model, pool: BlockPool): void {
    pool.settle(model.quarantined.splice(0, this.count));
    verify(model, pool);
  }
  toString = () => `settle ${this.count}`;
}

Deno.test("BlockPool agrees with a plain model over random commands", () => {
  const name = fc.constantFrom("a", "b", "c", "d", "e");
  const commands = fc.commands([
    fc.constant(new Allocate()),
    fc.tuple(fc.nat(), name).map(([pick, digest]) => new Publish(pick, digest)),
    name.map((digest) => new Share(digest)),
    fc.nat().map((pick) => new Release(pick)),
    fc.constant(new Evict()),
    fc.nat(4).map((count) => new Lend(count)),
    fc.nat(4).map((count) => new Quarantine(count)),
    fc.nat(4).map((count) => new Settle(count)),
  ], { maxCommands: 80, size: "max" });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 8 }), commands, (total, run) => {
      fc.modelRun(() => ({
        model: { total, held: new Map(), names: new Map(), cached: [], lent: [], quarantined: [] },
        real: new BlockPool(total),
      }), run);
    }),
    { numRuns: 300 },
  );
});
