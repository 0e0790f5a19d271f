/**
 * Carries out the faults of a round, and keeps book of who was harmed.
 *
 * @module
 */
import type { ClusterReport } from "../../runtime/cluster/report.ts";
import type { TcpProxy } from "../faults/tcp_proxy.ts";
import { Random } from "../simulation/random.ts";
import type { Harm, LinkHarm, PlannedMember } from "./chaos_plan.ts";
import type { ClusterProcesses, MemberProcess } from "./cluster_processes.ts";
import { pause } from "./deadline.ts";

/** Makes {@linkcode ChaosFaults}. */
export interface ChaosFaultsOptions {
  /** Processes. */
  readonly processes: ClusterProcesses;
  /** Starts a member as the round's members are started. */
  readonly launch: (member: PlannedMember, join: readonly MemberProcess[]) => Promise<MemberProcess>;
  /** Takes a line of what happens. */
  readonly note: (line: string) => void;
}

/** What happened to a member. */
export type Trouble = "killed" | "left" | "paused" | "link" | "evacuated";

/** Faults of one round. */
export class ChaosFaults {
  /** What happened to the members, by name. */
  readonly troubles: Map<string, Set<Trouble>> = new Map();
  readonly #options: ChaosFaultsOptions;
  readonly #members = new Map<string, MemberProcess>();
  /** Members with the gManager's place: the first, and whoever came back there. */
  #manager: MemberProcess;

  /** Harms these. The first carries the gManager. */
  constructor(members: readonly MemberProcess[], options: ChaosFaultsOptions) {
    this.#options = options;
    this.#manager = members[0];
    for (const member of members) this.#members.set(member.name, member);
  }

  /** Members that are alive, each name once. */
  get alive(): readonly MemberProcess[] {
    return [...this.#members.values()].filter(({ ended }) => !ended);
  }

  /** Whether a gManager is alive. */
  get managed(): boolean {
    return !this.#manager.ended;
  }

  /** The member of that name, alive or not. */
  member(name: string): MemberProcess | undefined {
    return this.#members.get(name);
  }

  /** Carries one out; resolves when it is over. */
  async harm(harm: Harm): Promise<void> {
    switch (harm.kind) {
      case "kill":
        return await this.#kill(harm);
      case "pause":
        return await this.#pause(harm);
      case "link":
        return await this.#link(harm);
      case "evacuate":
        return await this.#evacuate(harm);
      case "move":
        return await this.#move(harm.draw);
      case "leave":
        return await this.#leave(harm);
      case "join":
        return await this.#join(harm.member);
      default:
        harm satisfies never;
    }
  }

  async #kill({ member: name, back }: Extract<Harm, { readonly kind: "kill" }>): Promise<void> {
    const member = this.#target(name);
    if (member === undefined) return;
    this.#trouble(name, "killed");
    this.#options.note(`kill ${name}`);
    await member.kill();
    if (!back) return;
    await pause(300);
    // Where it was: others know no other address of the gManager.
    const join = member === this.#manager ? [] : [this.#manager];
    if (join.some(({ ended }) => ended)) return;
    const again = this.#options.processes.relaunch(member, { join });
    await again.ready();
    this.#options.note(`${name} is back`);
    if (member === this.#manager) this.#manager = again;
    this.#members.set(name, again);
  }

  async #pause({ member: name, ms }: Extract<Harm, { readonly kind: "pause" }>): Promise<void> {
    const member = this.#target(name);
    if (member === undefined) return;
    this.#trouble(name, "paused");
    this.#options.note(`pause ${name} for ${ms} ms`);
    member.pause();
    await pause(ms);
    this.#options.note(`resume ${name}`);
    member.resume();
  }

  async #link({ member: name, ms, harm }: Extract<Harm, { readonly kind: "link" }>): Promise<void> {
    const proxy = this.#target(name)?.proxy;
    if (proxy === undefined) return;
    this.#trouble(name, "link");
    this.#options.note(`links to ${name}: ${JSON.stringify(harm)} for ${ms} ms`);
    harmLink(proxy, harm);
    await pause(ms);
    proxy.set({ latencyMs: 0, jitterMs: 0, bytesPerSecond: Infinity, swallow: [] });
    this.#options.note(`links to ${name} are well again`);
  }

  async #evacuate({ member, ms }: Extract<Harm, { readonly kind: "evacuate" }>): Promise<void> {
    if (this.#target(member) === undefined) return;
    this.#trouble(member, "evacuated");
    await this.#operate(`evacuate ${member}`, (asked) => asked.operate({ kind: "evacuate", member }));
    await pause(ms);
  }

  async #leave({ member: name, how }: Extract<Harm, { readonly kind: "leave" }>): Promise<void> {
    const member = this.#target(name);
    if (member === undefined) return;
    this.#trouble(name, "left");
    if (how === "operator") {
      const asked = await this.#operate(`leave ${name}`, (by) => by.operate({ kind: "leave", member: name }));
      if (!asked) return;
    } else this.#options.note(`SIGTERM ${name}`);
    const { status, errors } = await (how === "operator" ? member.end() : member.stop());
    this.#options.note(`${name} has left: status ${status}`);
    if (status !== 0) throw new Error(`Cannot let ${name} leave: it ended with status ${status}: ${errors}`);
  }

  /** Moves some segments of some sequence from where they lie to another member. */
  async #move(draw: number): Promise<void> {
    const random = new Random(draw);
    let report: ClusterReport | undefined;
    await this.#operate("report", async (asked) => {
      report = await asked.report();
      return { status: 200, message: "" };
    });
    const sequences = report?.sequences.filter(({ ranges }) => ranges.length > 0) ?? [];
    if (report === undefined || sequences.length === 0) return;
    const { id, ranges } = random.pick(sequences);
    const { instance: from } = random.pick(ranges);
    const others = report.members.filter(({ id, role }) => id !== from && role !== "manager");
    if (others.length === 0) return;
    const to = random.pick(others).id;
    const segments = random.integer(1, 2);
    await this.#operate(
      `move ${segments} of ${id} from ${from} to ${to}`,
      (asked) => asked.operate({ kind: "move", sequence: id, segments, from, to }),
    );
  }

  async #join(planned: PlannedMember): Promise<void> {
    if (this.#manager.ended) return;
    const member = await this.#options.launch(planned, [this.#manager]);
    await member.ready();
    this.#options.note(`${planned.name} has joined`);
    this.#members.set(planned.name, member);
  }

  /** Asks somebody who can answer. @returns whether it was done. */
  async #operate(
    what: string,
    act: (asked: MemberProcess) => Promise<{ readonly status: number; readonly message: string }>,
  ): Promise<boolean> {
    const asked = this.alive.find(({ paused, name }) => !paused && !this.troubles.get(name)?.has("left"));
    if (asked === undefined) return false;
    try {
      const { status, message } = await act(asked);
      this.#options.note(`${what}: ${status} ${message}`);
      return status === 200;
    } catch (error) {
      // It may have been killed or stopped meanwhile; else nobody may leave an operator without an answer.
      if (!asked.ended && !asked.paused && !this.#wasPaused(asked.name)) throw error;
      this.#options.note(`${what}: ${error}`);
      return false;
    }
  }

  #wasPaused(name: string): boolean {
    return this.troubles.get(name)?.has("paused") === true;
  }

  #target(name: string): MemberProcess | undefined {
    const member = this.#members.get(name);
    return member === undefined || member.ended || this.troubles.get(name)?.has("left") ? undefined : member;
  }

  #trouble(name: string, trouble: Trouble): void {
    let troubles = this.troubles.get(name);
    if (troubles === undefined) this.troubles.set(name, troubles = new Set());
    troubles.add(trouble);
  }
}

function harmLink(proxy: TcpProxy, harm: LinkHarm): void {
  switch (harm.how) {
    case "cut":
      proxy.cut();
      break;
    case "reset":
      proxy.reset();
      break;
    case "delay":
      proxy.set({ latencyMs: harm.latencyMs, jitterMs: harm.jitterMs });
      break;
    case "narrow":
      proxy.set({ bytesPerSecond: harm.bytesPerSecond });
      break;
    case "half-open":
      proxy.set({ swallow: harm.swallow });
      break;
    case "corrupt":
      proxy.flip(harm);
      break;
    case "truncate":
      proxy.truncate(harm);
      break;
    default:
      harm satisfies never;
  }
}
