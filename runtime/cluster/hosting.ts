/**
 * Requests that run here for other fronts.
 *
 * @module
 */
import type { MemberCard } from "../../scheduler/protocol/member.ts";
import type { ControlMessage } from "../../scheduler/protocol/messages.ts";
import { DEVICE_LOST_CODE } from "../device/device_lost_error.ts";
import type { Engine } from "../engine/engine.ts";
import { CapacityError } from "../engine/request.ts";
import type { Peers } from "./peers.ts";
import type { MemberPorts } from "./ports.ts";
import { decodeRequest } from "./wire_request.ts";

/** Makes {@linkcode Hosting}. */
export interface HostingOptions {
  /** Outside. */
  readonly ports: MemberPorts;
  /** Links. */
  readonly peers: Peers;
  /** Runs requests. */
  readonly engine: Engine;
  /** Whether this member is leaving: it runs nothing any more. */
  readonly leaving: () => boolean;
  /** Requests were added: the engine has work. */
  readonly onWork: () => void;
}

interface Hosted {
  readonly front: string;
  readonly call: number;
  readonly id: string;
  events: string[];
  /** Ends of choices by an error, told together with that. */
  readonly failed: string[];
  sent: number;
}

/** The home's side of routing. */
export class Hosting {
  readonly #options: HostingOptions;
  readonly #hosted = new Map<string, Hosted>();
  #flushing = false;

  /** Runs nothing yet. */
  constructor(options: HostingOptions) {
    this.#options = options;
  }

  /** Requests that run. */
  get size(): number {
    return this.#hosted.size;
  }

  /** A front has a request run here. */
  submit(from: MemberCard, { call, request }: Extract<ControlMessage, { readonly kind: "submit" }>): void {
    const { engine, peers, leaving } = this.#options;
    const id = hostedId(from.incarnation, call);
    if (this.#hosted.has(id)) return;
    const hosted: Hosted = { front: from.incarnation, call, id, events: [], failed: [], sent: 0 };
    try {
      if (leaving()) {
        throw new CapacityError("Cannot run the request: the member is leaving", { status: 503, code: "leaving" });
      }
      engine.add({ ...decodeRequest(request.json), id }, (event) => {
        if (this.#hosted.get(id) !== hosted) return;
        const json = JSON.stringify(event);
        if (event.kind === "choice-end" && event.reason === "error") {
          hosted.failed.push(json);
          return;
        }
        // Others may have a device for it.
        if (event.kind === "end" && event.error?.code === DEVICE_LOST_CODE) return this.#returnOne(hosted);
        hosted.events.push(...hosted.failed.splice(0), json);
        if (event.kind === "end") this.#flushOne(hosted, true);
        else this.#flushSoon();
      });
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const { code, status } = error instanceof CapacityError ? error : { code: "invalid_request", status: 400 };
      peers.tell(from.incarnation, { kind: "rejected", call, message, code, status });
      return;
    }
    this.#hosted.set(id, hosted);
    peers.tell(from.incarnation, { kind: "accepted", call });
    this.#options.onWork();
  }

  /** The front does not want a request any more. */
  cancel(from: MemberCard, call: number): void {
    const hosted = this.#hosted.get(hostedId(from.incarnation, call));
    if (hosted !== undefined) this.#options.engine.cancel(hosted.id);
  }

  /** A front is lost: what it asked for ends. */
  lost(incarnation: string): void {
    for (const hosted of [...this.#hosted.values()]) {
      if (hosted.front === incarnation) this.#options.engine.cancel(hosted.id);
    }
  }

  /** Hands everything back to its front. */
  handBack(): void {
    const { engine, peers } = this.#options;
    for (const { front, call, id } of [...this.#hosted.values()]) {
      this.#hosted.delete(id);
      engine.cancel(id);
      peers.tell(front, { kind: "handed-back", call });
    }
  }

  /** Hands one back that has ended here, with what came before. */
  #returnOne(hosted: Hosted): void {
    this.#flushOne(hosted, true);
    this.#options.peers.tell(hosted.front, { kind: "handed-back", call: hosted.call });
  }

  /** Events of one step travel together. */
  #flushSoon(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    this.#options.ports.defer(() => {
      this.#flushing = false;
      for (const hosted of this.#hosted.values()) this.#flushOne(hosted, false);
    });
  }

  #flushOne(hosted: Hosted, ended: boolean): void {
    if (ended) this.#hosted.delete(hosted.id);
    if (hosted.events.length === 0) return;
    const { events, sent: first, front, call } = hosted;
    hosted.sent += events.length;
    hosted.events = [];
    this.#options.peers.tell(front, { kind: "events", call, first, events });
  }
}

function hostedId(front: string, call: number): string {
  return `${front}/${call}`;
}
