/**
 * Requests that came in here: the front's side of routing.
 *
 * The front keeps every token it has passed on. When a home is lost, or hands a request back because it leaves, the front
 * has the request run elsewhere from the prompt and those tokens; all state of sampling follows from them, so the client
 * sees a pause.
 *
 * @module
 */
import type { ClusterView, RequestView } from "../../plugins/types.ts";
import type { PolicyHost } from "../../scheduler/policy.ts";
import type { MemberCard } from "../../scheduler/protocol/member.ts";
import type { ControlMessage } from "../../scheduler/protocol/messages.ts";
import type { Engine } from "../engine/engine.ts";
import { CapacityError, type EngineRequest, type RequestEvent } from "../engine/request.ts";
import type { Counters } from "./counters.ts";
import { Hosting } from "./hosting.ts";
import type { Peers } from "./peers.ts";
import type { MemberPorts } from "./ports.ts";
import { decodeEvent, encodeRequest } from "./wire_request.ts";

/** Makes a {@linkcode Router}. */
export interface RouterOptions {
  /** Outside. */
  readonly ports: MemberPorts;
  /** Links. */
  readonly peers: Peers;
  /** Counters. */
  readonly counters: Counters;
  /** Runs requests here. */
  readonly engine: Engine;
  /** Picks the home. */
  readonly policy: PolicyHost;
  /** What is known of the cluster. */
  readonly view: () => ClusterView;
  /** Whether this member is leaving: it runs nothing any more. */
  readonly leaving: () => boolean;
  /** Requests were added: the engine has work. */
  readonly onWork: () => void;
}

/** Whoever sent a request. */
export interface RequestListener {
  /** An event; `end` is the last one. */
  event(event: RequestEvent): void;
  /** Nobody runs it; no event has come and none will. */
  rejected(error: Error): void;
}

/** Homes a request may have before it is given up. */
const MOST_RESTARTS = 8;

/** Where a request runs. */
type Home =
  | { readonly kind: "none" }
  | { readonly kind: "local"; readonly id: string }
  | { readonly kind: "remote"; readonly incarnation: string; readonly call: number };

/** A request that came in here. */
interface Fronted {
  readonly request: EngineRequest;
  readonly listener: RequestListener;
  readonly tokens: number[][];
  readonly ended: boolean[];
  /** Homes tried for the present run. */
  readonly tried: Set<string>;
  home: Home;
  started: boolean;
  promptSent: boolean;
  nextEvent: number;
  restarts: number;
  refusal?: Error;
}

/** Messages a router takes. */
export type RoutingMessage = Extract<
  ControlMessage,
  { readonly kind: "submit" | "accepted" | "rejected" | "events" | "cancel" | "handed-back" }
>;

/** Fronts and hosts requests. */
export class Router {
  readonly #options: RouterOptions;
  readonly #fronted = new Map<string, Fronted>();
  readonly #remote = new Map<number, Fronted>();
  readonly #hosting: Hosting;

  /** Routes between the engine here and the peers. */
  constructor(options: RouterOptions) {
    this.#options = options;
    this.#hosting = new Hosting(options);
  }

  /** Requests that came in here and have not ended. */
  get fronted(): number {
    return this.#fronted.size;
  }

  /** Requests that run here for others. */
  get hosted(): number {
    return this.#hosting.size;
  }

  /** Requests from here that run at a member, by incarnation. */
  get forwarded(): ReadonlyMap<string, number> {
    const counts = new Map<string, number>();
    for (const { home } of this.#fronted.values()) {
      if (home.kind === "remote") counts.set(home.incarnation, (counts.get(home.incarnation) ?? 0) + 1);
    }
    return counts;
  }

  /**
   * Takes a request from a client. It runs where the policy says; the answer comes to `listener`, never from inside this
   * call.
   *
   * @throws {RangeError} when the id is that of a live request.
   */
  submit(request: EngineRequest, listener: RequestListener): void {
    if (this.#fronted.has(request.id)) {
      throw new RangeError(`Cannot run request ${request.id}: wanted a new id, a request of that id is live`);
    }
    // Drawn here, so that another home would draw the same tokens.
    const seed = request.sampling?.seed ?? Math.floor(this.#options.ports.random() * 2 ** 32);
    const n = request.n ?? 1;
    const fronted: Fronted = {
      request: { ...request, prompt: Int32Array.from(request.prompt), sampling: { ...request.sampling, seed } },
      listener,
      tokens: Array.from({ length: n }, () => []),
      ended: new Array<boolean>(n).fill(false),
      tried: new Set(),
      home: { kind: "none" },
      started: false,
      promptSent: false,
      nextEvent: 0,
      restarts: 0,
    };
    this.#fronted.set(request.id, fronted);
    this.#route(fronted);
  }

  /** The client is gone. */
  cancel(id: string): void {
    const fronted = this.#fronted.get(id);
    if (fronted === undefined) return;
    if (fronted.home.kind === "local") return this.#options.engine.cancel(fronted.home.id);
    this.#leaveHome(fronted);
    this.#finish(fronted, { kind: "cancelled" });
  }

  /** A peer says something. */
  take(from: MemberCard, message: RoutingMessage): void {
    switch (message.kind) {
      case "submit":
        this.#hosting.submit(from, message);
        break;
      case "cancel":
        this.#hosting.cancel(from, message.call);
        break;
      case "accepted":
        break;
      case "rejected": {
        const fronted = this.#remoteOf(from, message.call);
        if (fronted === undefined) break;
        const { message: text, code } = message;
        const status = message.status === 429 || message.status === 503 ? message.status : 400;
        fronted.refusal = new CapacityError(text, { status, code });
        this.#forget(fronted);
        this.#route(fronted);
        break;
      }
      case "events": {
        const fronted = this.#remoteOf(from, message.call);
        if (fronted !== undefined) this.#events(fronted, message);
        break;
      }
      case "handed-back": {
        const fronted = this.#remoteOf(from, message.call);
        if (fronted !== undefined) this.#restart(fronted);
        break;
      }
      default:
        message satisfies never;
    }
  }

  /** A member is lost: what it ran runs elsewhere, what it asked for ends. */
  lost(incarnation: string): void {
    this.#hosting.lost(incarnation);
    for (const fronted of [...this.#fronted.values()]) {
      if (fronted.home.kind === "remote" && fronted.home.incarnation === incarnation) this.#restart(fronted);
    }
  }

  /**
   * The link to a member is open, for the first time or again: what went over the last one may be lost, and the member may
   * have given up meanwhile what it ran for this one. That runs anew.
   */
  reached(incarnation: string): void {
    for (const fronted of [...this.#fronted.values()]) {
      if (fronted.home.kind === "remote" && fronted.home.incarnation === incarnation) this.#restart(fronted);
    }
  }

  /** Hands everything that runs here to others. */
  handOver(): void {
    this.#hosting.handBack();
    for (const fronted of [...this.#fronted.values()]) {
      if (fronted.home.kind === "local" && this.#candidates(fronted).length > 0) this.#restart(fronted);
    }
  }

  /** Members that may run a request, best first. */
  #candidates(fronted: Fronted): string[] {
    const { policy, view: viewOf, leaving, peers } = this.#options;
    const view = viewOf();
    const { name, full, usable } = view.members;
    const possible = name.map((_, index) => index).filter((index) =>
      full[index] === 1 && !fronted.tried.has(name[index]) &&
      (index === view.self ? !leaving() : usable[index] === 1 && peers.named(name[index]) !== undefined)
    );
    const { id, prompt, maxTokens, priority = 0, tenant = "" } = fronted.request;
    const request: RequestView = { id, promptTokens: prompt.length, maxTokens, priority, tenant };
    return policy.route(request, view, possible).map((index) => name[index]);
  }

  #route(fronted: Fronted): void {
    const { peers, view: viewOf } = this.#options;
    const [best] = this.#candidates(fronted);
    if (best === undefined) return this.#refuse(fronted);
    fronted.tried.add(best);
    const view = viewOf();
    if (view.members.name[view.self] === best) return this.#runHere(fronted);
    const link = peers.named(best);
    if (link === undefined) return this.#route(fronted);
    const call = peers.nextCall();
    const { incarnation } = link.peer;
    fronted.home = { kind: "remote", incarnation, call };
    fronted.nextEvent = 0;
    this.#remote.set(call, fronted);
    this.#options.counters.add("requests_forwarded");
    // A link that closes meanwhile is noticed as a lost peer.
    peers.tell(incarnation, { kind: "submit", call, request: { json: encodeRequest(this.#resumed(fronted)) } });
  }

  #runHere(fronted: Fronted): void {
    // An id of its own: the last run of the same request may still be ending.
    const { request, restarts } = fronted;
    const id = restarts === 0 ? request.id : `${request.id}#${restarts}`;
    fronted.home = { kind: "local", id };
    try {
      this.#options.engine.add({ ...this.#resumed(fronted), id }, (event) => {
        if (fronted.home.kind === "local" && fronted.home.id === id) this.#deliver(fronted, event);
      });
      this.#options.onWork();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      fronted.home = { kind: "none" };
      fronted.refusal = error;
      // What is wrong with the request itself is wrong everywhere.
      if (error instanceof CapacityError) this.#route(fronted);
      else this.#refuse(fronted);
    }
  }

  #resumed(fronted: Fronted): EngineRequest {
    return fronted.started ? { ...fronted.request, resumed: fronted.tokens } : fronted.request;
  }

  #restart(fronted: Fronted): void {
    this.#leaveHome(fronted);
    fronted.tried.clear();
    fronted.refusal = undefined;
    if (++fronted.restarts > MOST_RESTARTS) return this.#refuse(fronted);
    this.#options.counters.add("restarts");
    this.#route(fronted);
  }

  /** Ends the run at the present home without telling the client. */
  #leaveHome(fronted: Fronted): void {
    const { home } = fronted;
    this.#forget(fronted);
    if (home.kind === "local") this.#options.engine.cancel(home.id);
    if (home.kind === "remote") this.#options.peers.tell(home.incarnation, { kind: "cancel", call: home.call });
  }

  #forget(fronted: Fronted): void {
    if (fronted.home.kind === "remote") this.#remote.delete(fronted.home.call);
    fronted.home = { kind: "none" };
  }

  #remoteOf(from: MemberCard, call: number): Fronted | undefined {
    const fronted = this.#remote.get(call);
    return fronted?.home.kind === "remote" && fronted.home.incarnation === from.incarnation ? fronted : undefined;
  }

  #events(fronted: Fronted, { call, first, events }: Extract<RoutingMessage, { readonly kind: "events" }>): void {
    for (const [at, json] of events.entries()) {
      // The home may be left while its events are handed on.
      if (fronted.home.kind !== "remote" || fronted.home.call !== call) return;
      if (first + at < fronted.nextEvent) continue;
      if (first + at > fronted.nextEvent) return this.#restart(fronted);
      fronted.nextEvent++;
      let event: RequestEvent;
      try {
        event = decodeEvent(json);
      } catch {
        return this.#restart(fronted);
      }
      this.#deliver(fronted, event);
    }
  }

  /** Hands an event on unless an earlier home's run had brought it. */
  #deliver(fronted: Fronted, event: RequestEvent): void {
    switch (event.kind) {
      case "prompt":
        if (fronted.promptSent) return;
        fronted.promptSent = true;
        break;
      case "token":
        if (fronted.ended[event.index] ?? true) return;
        fronted.tokens[event.index].push(...event.ids);
        fronted.started = true;
        break;
      case "choice-end":
        if (fronted.ended[event.index] ?? true) return;
        fronted.ended[event.index] = true;
        break;
      case "end":
        this.#forget(fronted);
        this.#fronted.delete(fronted.request.id);
        break;
      default:
        event satisfies never;
    }
    fronted.listener.event(event);
  }

  /** Nobody runs it. */
  #refuse(fronted: Fronted): void {
    const error = fronted.refusal ??
      new CapacityError(`Cannot run request ${fronted.request.id}: no member of the cluster can take it now`, {
        status: 503,
        code: "no_home",
        retryAfterSeconds: 1,
      });
    if (!fronted.started && !fronted.promptSent && fronted.restarts === 0) {
      this.#fronted.delete(fronted.request.id);
      this.#options.ports.defer(() => fronted.listener.rejected(error));
      return;
    }
    this.#options.counters.add("requests_lost");
    this.#finish(fronted, { kind: "error", message: error.message });
  }

  #finish(
    fronted: Fronted,
    why: { readonly kind: "cancelled" } | { readonly kind: "error"; readonly message: string },
  ): void {
    this.#forget(fronted);
    this.#fronted.delete(fronted.request.id);
    const { request, listener, tokens } = fronted;
    this.#options.ports.defer(() => {
      fronted.ended.forEach((ended, index) => {
        if (!ended) listener.event({ kind: "choice-end", index, reason: why.kind, text: "" });
      });
      const completionTokens = tokens.reduce((sum, ids) => sum + ids.length, 0);
      listener.event({
        kind: "end",
        usage: { promptTokens: request.prompt.length, cachedTokens: 0, completionTokens },
        timing: { queuedMs: 0, prefillMs: 0, decodeMs: 0 },
        error: why.kind === "error" ? { message: why.message, code: "home_lost", status: 503 } : undefined,
      });
    });
  }
}
