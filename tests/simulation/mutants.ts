/**
 * Bugs to plant, one at a time, to see that the simulation would find them. Each is a change to the text of one source
 * file; `withinSeeds` is the number of seeds, counted from 1, in which it must be found.
 *
 * @module
 */

/** A planted bug. */
export interface Mutant {
  /** What it does wrong. */
  readonly name: string;
  /** File, from the root of the repository. */
  readonly file: string;
  /** Text that is there exactly once. */
  readonly find: string;
  /** Text in its place. */
  readonly replace: string;
  /** Seeds within which a run must fail. */
  readonly withinSeeds: number;
}

/** The planted bugs. */
export const MUTANTS: readonly Mutant[] = [
  {
    name: "partials merge without rescaling",
    file: "kernels/merge_partials/reference.ts",
    find: "full.map((part) => Math.exp(part.lse[row] - max))",
    replace: "full.map(() => 1)",
    withinSeeds: 10,
  },
  {
    name: "blocks of a cancelled sequence are free while its step runs",
    file: "scheduler/lending/scheduler_memory.ts",
    find: "if (this.#flying.has(sequence)) {",
    replace: "if (this.#flying.size < 0) {",
    withinSeeds: 140,
  },
  {
    name: "tables flip in the middle of a step",
    file: "scheduler/lending/segment_moves.ts",
    find: "if (this.#stepUnderWay) this.#ended.push({ id, verified });",
    replace: "if (this.#active.size < 0) this.#ended.push({ id, verified });",
    withinSeeds: 10,
  },
  {
    name: "nobody reaps leases that ran out",
    file: "runtime/cluster/lender.ts",
    find: "this.#tellRevoked(creditor.expire());",
    replace: "",
    withinSeeds: 25,
  },
  {
    name: "quarantine never ends",
    file: "scheduler/lending/creditor_quarantine.ts",
    find: "const settled = this.#blocks.filter((block) => this.#holds[block] === 0);",
    replace: "const settled: BlockId[] = [];",
    withinSeeds: 10,
  },
  {
    name: "a hold on lent blocks is let go and was never taken",
    file: "scheduler/lending/creditor_quarantine.ts",
    find: "for (const block of blocks) this.#holds[block]++;",
    replace: "",
    withinSeeds: 400,
  },
  {
    name: "a hold on lent blocks is never let go",
    file: "runtime/cluster/lender.ts",
    find: "hold[Symbol.dispose]();",
    replace: "",
    withinSeeds: 400,
  },
  {
    name: "epochs go down",
    file: "scheduler/gmanager/epoch_guard.ts",
    find: "if (!isEpoch(epoch) || epoch <= this.#highest) return false;",
    replace: "if (!isEpoch(epoch) || epoch === this.#highest) return false;",
    withinSeeds: 10,
  },
  {
    name: "the digest of what arrives at a holder is not compared",
    file: "runtime/cluster/lender.ts",
    find: "!entry.writer.matches(digest)",
    replace: "digest.length === 0",
    withinSeeds: 10,
  },
  {
    name: "release forgets the reference count",
    file: "scheduler/lending/borrowed_segments.ts",
    find: "if (entry === undefined || --entry.references > 0) continue;",
    replace: "if (entry === undefined || --entry.references >= 0) continue;",
    withinSeeds: 10,
  },
  {
    name: "a slot is given back while another sequence uses it",
    file: "scheduler/lending/borrowed_segments.ts",
    find: "if (entry === undefined || --entry.references > 0) continue;",
    replace: "if (entry === undefined || --entry.references > 1) continue;",
    withinSeeds: 10,
  },
  {
    name: "a segment counts as repaired with its first chunk",
    file: "scheduler/segment_places.ts",
    find: "this.mend(segment, end - segment * this.#segmentTokens, atMs);",
    replace: "this.mend(segment, this.#segmentTokens, atMs);",
    withinSeeds: 25,
  },
  {
    name: "repair is one token short",
    file: "scheduler/segment_places.ts",
    find: "return { position, tokens: end * this.#segmentTokens - position };",
    replace: "return { position: position + 1, tokens: end * this.#segmentTokens - position - 1 };",
    withinSeeds: 25,
  },
  {
    name: "segments of lost creditors stay in the tables",
    file: "scheduler/lending/scheduler_memory.ts",
    find: 'sequence.advance({ kind: "lose", segment });',
    replace: "",
    withinSeeds: 25,
  },
  {
    name: "moves go on after their creditor is lost",
    file: "scheduler/lending/segment_moves.ts",
    find: "if (lost) this.#land(id, false);",
    replace: "if (lost && id < 0) this.#land(id, false);",
    withinSeeds: 30,
  },
  {
    name: "moved segments keep their old blocks",
    file: "scheduler/block_tables.ts",
    find: '    this.releaseBlocks(blocks);\n    if (place?.kind === "borrowed")',
    replace: '    if (place?.kind === "borrowed")',
    withinSeeds: 10,
  },
  {
    name: "a cached prefix is used without a reference",
    file: "scheduler/block_tables.ts",
    find: "for (const block of prefix.local) this.#pool.share(block);",
    replace: "",
    withinSeeds: 20,
  },
  {
    name: "events that came before are handed on again",
    file: "runtime/cluster/router.ts",
    find: "if (first + at < fronted.nextEvent) continue;",
    replace: "",
    withinSeeds: 65,
  },
  {
    name: "a gap in the events is not noticed",
    file: "runtime/cluster/router.ts",
    find: "if (first + at > fronted.nextEvent) return this.#restart(fronted);",
    replace: "",
    withinSeeds: 60,
  },
  {
    name: "a request that runs anew emits its tokens again",
    file: "runtime/cluster/router.ts",
    find: "return fronted.started ? { ...fronted.request, resumed: fronted.tokens } : fronted.request;",
    replace: "return fronted.request;",
    withinSeeds: 55,
  },
  {
    name: "requests of a lost home are forgotten",
    file: "runtime/cluster/router.ts",
    find: "lost(incarnation: string): void {\n    this.#hosting",
    replace: "lost(incarnation: string): void {\n    if (incarnation.length > 0) return;\n    this.#hosting",
    withinSeeds: 255,
  },
  {
    name: "ranges that do not follow on each other become one",
    file: "runtime/cluster/attention_client.ts",
    find: "last.from + last.slots.length === segment",
    replace: "last.from + last.slots.length <= segment",
    withinSeeds: 15,
  },
  {
    name: "slots that do not follow on each other become one run",
    file: "runtime/cluster/attention_client.ts",
    find: "last.lease === lease && last.from + last.count === slot",
    replace: "last.lease === lease && last.from + last.count <= slot",
    withinSeeds: 350,
  },
  {
    name: "an answer is waited for after it came",
    file: "runtime/cluster/attention_client.ts",
    find: "running.open.delete(answer.call);",
    replace: "",
    withinSeeds: 10,
  },
  {
    name: "granted blocks are not reserved",
    file: "scheduler/block_pool.ts",
    find: "const blocks = this.#free.splice(this.#free.length - count).sort((a, b) => a - b);",
    replace: "const blocks = this.#free.slice(this.#free.length - count).sort((a, b) => a - b);",
    withinSeeds: 10,
  },
  {
    name: "a move changes tables that do not have its source",
    file: "scheduler/lending/segment_moves.ts",
    find: "if (!there) return false;",
    replace: "",
    withinSeeds: 25,
  },
  {
    name: "a move that ended counts as under way",
    file: "scheduler/lending/segment_moves.ts",
    find: "if (reserved !== undefined) reserved.reservation.moving--;",
    replace: "",
    withinSeeds: 10,
  },
  {
    name: "the first segment of a sequence is never marked as lost",
    file: "scheduler/lending/scheduler_memory.ts",
    find: "if (!isLost(slot)) continue;",
    replace: "if (!isLost(slot) || segment === 0) continue;",
    withinSeeds: 25,
  },
  {
    name: "a sequence that ends keeps its reservation",
    file: "scheduler/lending/scheduler_memory.ts",
    find: "    } else this.tables.release(references);\n    this.#borrowed.drop(this.#reservations.take(sequence));",
    replace: "    } else this.tables.release(references);",
    withinSeeds: 10,
  },
  {
    name: "a lost slot is still found by its content",
    file: "scheduler/lending/borrowed_segments.ts",
    find: "if (digest !== undefined) this.#index.delete(digest);",
    replace: "",
    withinSeeds: 60,
  },
  {
    name: "a slot out of use is still found by its content",
    file: "scheduler/lending/borrowed_segments.ts",
    find: "if (entry.digest !== undefined) this.#index.delete(entry.digest);\n    entry.digest = undefined;",
    replace: "",
    withinSeeds: 10,
  },
  {
    name: "a lost segment counts as whole once it has blocks",
    file: "scheduler/block_tables.ts",
    find: "done: found.length * this.blockTokens, atMs });",
    replace: "done: sequence.segmentTokens, atMs });",
    withinSeeds: 25,
  },
  {
    name: "a token of a lost home's run is not remembered",
    file: "runtime/cluster/router.ts",
    find: "fronted.tokens[event.index].push(...event.ids);",
    replace: "",
    withinSeeds: 55,
  },
  {
    name: "the end of a choice is not remembered",
    file: "runtime/cluster/router.ts",
    find: "        fronted.ended[event.index] = true;\n",
    replace: "",
    withinSeeds: 165,
  },
  {
    name: "events of a run that was left are handed on",
    file: "runtime/cluster/router.ts",
    find: 'if (fronted.home.kind === "local" && fronted.home.id === id) this.#deliver(fronted, event);',
    replace: "this.#deliver(fronted, event);",
    withinSeeds: 70,
  },
  {
    name: "partials are taken for the answer to another question",
    file: "runtime/cluster/attention_client.ts",
    find: "const question = running?.open.get(answer.call);",
    replace: "const question = running?.open.values().next().value;",
    withinSeeds: 15,
  },
  {
    name: "a lost step is not abandoned",
    file: "runtime/cluster/attention_client.ts",
    find: "else running.step.abandon();",
    replace: "",
    withinSeeds: 25,
  },
  {
    name: "what a lost step had begun counts as computed",
    file: "runtime/engine/engine.ts",
    find: "        this.#lostSteps++;",
    replace: "        this.#lostSteps++;\n        for (const entry of plan.entries) this.#scheduler.commit(entry);",
    withinSeeds: 25,
  },
  {
    name: "only the last of a holder's lost slots is lost",
    file: "scheduler/lending/borrowed_segments.ts",
    find: "if (uses > 0) this.#used--;\n      lost.push(slot);",
    replace: "if (uses > 0) this.#used--;\n      lost[0] = slot;",
    withinSeeds: 15,
  },
  {
    name: "segments at different holders are asked of one",
    file: "runtime/cluster/attention_client.ts",
    find: "last !== undefined && last.holder === holder && last.from",
    replace: "last !== undefined && last.from",
    withinSeeds: 15,
  },
];
