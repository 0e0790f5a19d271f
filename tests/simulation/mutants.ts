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
    withinSeeds: 20,
  },
  {
    name: "blocks of a cancelled sequence are free while its step runs",
    file: "scheduler/lending/scheduler_memory.ts",
    find: "if (this.#flying.has(sequence)) {",
    replace: "if (this.#flying.size < 0) {",
    withinSeeds: 300,
  },
  {
    name: "tables flip in the middle of a step",
    file: "scheduler/lending/segment_moves.ts",
    find: "if (this.#stepUnderWay) this.#ended.push({ id, verified });",
    replace: "if (this.#active.size < 0) this.#ended.push({ id, verified });",
    withinSeeds: 300,
  },
  {
    name: "the expiry heap forgets to move a renewed lease",
    file: "scheduler/lending/creditor_expiry.ts",
    find: "      entry.atMs = atMs;\n    }\n    this.#settle(entry);",
    replace: "      entry.atMs = atMs;\n      return;\n    }\n    this.#settle(entry);",
    withinSeeds: 100,
  },
  {
    name: "nobody reaps leases that ran out",
    file: "runtime/cluster/lender.ts",
    find: "this.#tellRevoked(creditor.expire());",
    replace: "",
    withinSeeds: 100,
  },
  {
    name: "quarantine never ends",
    file: "scheduler/lending/creditor_quarantine.ts",
    find: "const settled = this.#blocks.filter((block) => this.#holds[block] === 0);",
    replace: "const settled: BlockId[] = [];",
    withinSeeds: 20,
  },
  {
    name: "blocks given back skip the quarantine of those that hold them",
    file: "scheduler/lending/creditor_quarantine.ts",
    find: "for (const block of blocks) this.#holds[block]++;",
    replace: "",
    withinSeeds: 300,
  },
  {
    name: "a hold on lent blocks is never let go",
    file: "runtime/cluster/lender.ts",
    find: "hold[Symbol.dispose]();",
    replace: "",
    withinSeeds: 300,
  },
  {
    name: "epochs go down",
    file: "scheduler/gmanager/epoch_guard.ts",
    find: "if (!isEpoch(epoch) || epoch <= this.#highest) return false;",
    replace: "if (!isEpoch(epoch) || epoch === this.#highest) return false;",
    withinSeeds: 100,
  },
  {
    name: "the digest of what arrives at a holder is not compared",
    file: "runtime/cluster/lender.ts",
    find: "!entry.writer.matches(digest)",
    replace: "digest.length === 0",
    withinSeeds: 100,
  },
  {
    name: "the digest of what comes home is not compared",
    file: "runtime/cluster/mover.ts",
    find: 'answer.kind === "sent" && target.writer.matches(answer.digest)',
    replace: 'answer.kind === "sent"',
    withinSeeds: 1000,
  },
  {
    name: "release forgets the reference count",
    file: "scheduler/lending/borrowed_segments.ts",
    find: "if (entry === undefined || --entry.references > 0) continue;",
    replace: "if (entry === undefined || --entry.references >= 0) continue;",
    withinSeeds: 20,
  },
  {
    name: "a slot is given back while another sequence uses it",
    file: "scheduler/lending/borrowed_segments.ts",
    find: "if (entry === undefined || --entry.references > 0) continue;",
    replace: "if (entry === undefined || --entry.references > 1) continue;",
    withinSeeds: 100,
  },
  {
    name: "a segment counts as repaired with its first chunk",
    file: "scheduler/segment_places.ts",
    find: "this.mend(segment, end - segment * this.#segmentTokens, atMs);",
    replace: "this.mend(segment, this.#segmentTokens, atMs);",
    withinSeeds: 300,
  },
  {
    name: "repair is one token short",
    file: "scheduler/segment_places.ts",
    find: "return { position, tokens: end * this.#segmentTokens - position };",
    replace: "return { position: position + 1, tokens: end * this.#segmentTokens - position - 1 };",
    withinSeeds: 300,
  },
  {
    name: "what lies elsewhere is attended to but for its last segment",
    file: "scheduler/segment_places.ts",
    find: "all.slots.filter(({ segment }) => segment < end)",
    replace: "all.slots.filter(({ segment }) => segment < end - 1)",
    withinSeeds: 300,
  },
  {
    name: "segments of lost creditors stay in the tables",
    file: "scheduler/lending/scheduler_memory.ts",
    find: 'sequence.advance({ kind: "lose", segment });',
    replace: "",
    withinSeeds: 300,
  },
  {
    name: "moves go on after their creditor is lost",
    file: "scheduler/lending/segment_moves.ts",
    find: "if (lost) this.#land(id, false);",
    replace: "if (lost && id < 0) this.#land(id, false);",
    withinSeeds: 300,
  },
  {
    name: "moved segments keep their old blocks",
    file: "scheduler/block_tables.ts",
    find: '    this.releaseBlocks(blocks);\n    if (place?.kind === "borrowed")',
    replace: '    if (place?.kind === "borrowed")',
    withinSeeds: 20,
  },
  {
    name: "a cached prefix is used without a reference",
    file: "scheduler/block_tables.ts",
    find: "for (const block of prefix.local) this.#pool.share(block);",
    replace: "",
    withinSeeds: 20,
  },
  {
    name: "blocks are published before they are full",
    file: "scheduler/block_tables.ts",
    find: "const full = Math.floor(to / this.blockTokens);",
    replace: "const full = Math.ceil(to / this.blockTokens);",
    withinSeeds: 50,
  },
  {
    name: "events that came before are handed on again",
    file: "runtime/cluster/router.ts",
    find: "if (first + at < fronted.nextEvent) continue;",
    replace: "",
    withinSeeds: 300,
  },
  {
    name: "a gap in the events is not noticed",
    file: "runtime/cluster/router.ts",
    find: "if (first + at > fronted.nextEvent) return this.#restart(fronted);",
    replace: "",
    withinSeeds: 300,
  },
  {
    name: "a request that runs anew emits its tokens again",
    file: "runtime/cluster/router.ts",
    find: "return fronted.started ? { ...fronted.request, resumed: fronted.tokens } : fronted.request;",
    replace: "return fronted.request;",
    withinSeeds: 300,
  },
  {
    name: "requests of a lost home are forgotten",
    file: "runtime/cluster/router.ts",
    find: "lost(incarnation: string): void {\n    this.#hosting",
    replace: "lost(incarnation: string): void {\n    if (incarnation.length > 0) return;\n    this.#hosting",
    withinSeeds: 300,
  },
  {
    name: "the cap on lent blocks is ignored",
    file: "scheduler/lending/creditor.ts",
    find: "if (view.lent + view.quarantined + wanted > most) {",
    replace: "if (wanted > view.total) {",
    withinSeeds: 300,
  },
  {
    name: "ranges that do not follow on each other become one",
    file: "runtime/cluster/attention_client.ts",
    find: "last.from + last.slots.length === segment",
    replace: "last.from + last.slots.length <= segment",
    withinSeeds: 100,
  },
  {
    name: "slots that do not follow on each other become one run",
    file: "runtime/cluster/attention_client.ts",
    find: "last.lease === lease && last.from + last.count === slot",
    replace: "last.lease === lease && last.from + last.count <= slot",
    withinSeeds: 300,
  },
  {
    name: "an answer is waited for after it came",
    file: "runtime/cluster/attention_client.ts",
    find: "running.open.delete(answer.call);",
    replace: "",
    withinSeeds: 20,
  },
  {
    name: "messages for another run of the member are taken",
    file: "runtime/cluster/member.ts",
    find: "if (to.incarnation !== this.#options.card.incarnation || from.incarnation !== peer.incarnation) {",
    replace: "if (to.incarnation.length === 0 && from.incarnation === peer.name) {",
    withinSeeds: 1000,
  },
  {
    name: "a gap in the heartbeats is not noticed",
    file: "scheduler/gmanager/gmanager_state.ts",
    find: "const fits = base === undefined || (member.whole && base <= member.heartbeat.version);",
    replace: "const fits = true;",
    withinSeeds: 1000,
  },
];
