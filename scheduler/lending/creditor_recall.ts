/**
 * What a creditor has called back and not got yet.
 *
 * @module
 */
import type { MemberIdentity } from "../protocol/member.ts";

interface Due {
  readonly debtor: MemberIdentity;
  readonly deadlineMs: number;
  /** Segments still owed. */
  segments: number;
}

/** Segments called back, by debtor and deadline. */
export class Recalls {
  /** Earliest deadline first. */
  #due: Due[] = [];

  /** Segments called back and not got yet. */
  get outstanding(): number {
    return this.#due.reduce((sum, { segments }) => sum + segments, 0);
  }

  /** The recall whose deadline comes first. */
  get first(): { readonly debtor: MemberIdentity; readonly deadlineMs: number; readonly segments: number } | undefined {
    return this.#due.at(0);
  }

  /** Segments that a debtor still owes. */
  owed(incarnation: string): number {
    return this.#due.reduce((sum, due) => sum + (due.debtor.incarnation === incarnation ? due.segments : 0), 0);
  }

  /** Calls back; deadlines never go down. */
  add(debtor: MemberIdentity, options: { readonly segments: number; readonly deadlineMs: number }): void {
    this.#due.push({ debtor, ...options });
  }

  /** Takes note that a debtor has given segments back, asked or not: its oldest recall counts first. */
  paid(incarnation: string, segments: number): void {
    if (this.#due.length === 0) return;
    for (const due of this.#due) {
      if (due.debtor.incarnation !== incarnation) continue;
      const paid = Math.min(segments, due.segments);
      due.segments -= paid;
      segments -= paid;
    }
    this.#due = this.#due.filter((due) => due.segments > 0);
  }

  /** Forgets every recall: nothing is needed any more. */
  clear(): void {
    this.#due = [];
  }
}
