/**
 * The face of a member for those who wait for it with promises.
 *
 * @module
 */
import type { Member } from "./member.ts";
import type { ClusterCommand, ClusterControl, ClusterReport, CommandResult } from "./report.ts";

/** Controls a member on this thread. */
export class MemberControl implements ClusterControl {
  /** See {@linkcode ClusterControl.leaveAsked}. */
  readonly leaveAsked: Promise<void>;
  readonly #member: Member;

  /** Controls `member`. */
  constructor(member: Member, leaveAsked: Promise<void>) {
    this.#member = member;
    this.leaveAsked = leaveAsked;
  }

  /** See {@linkcode ClusterControl.report}. */
  report(): Promise<ClusterReport> {
    return new Promise((resolve) => this.#member.report(resolve));
  }

  /** See {@linkcode ClusterControl.operate}. */
  operate(command: ClusterCommand): Promise<CommandResult> {
    return new Promise((resolve) => this.#member.operate(command, resolve));
  }

  /** See {@linkcode ClusterControl.leave}. */
  leave(timeoutMs: number): Promise<void> {
    return new Promise((done) => this.#member.leave({ timeoutMs, done }));
  }
}
