/**
 * The real outside of a member: this process's clock, timers and sockets.
 *
 * @module
 */
import { openHttp2Network } from "../../scheduler/links/http2_network.ts";
import type { MemberCard } from "../../scheduler/protocol/member.ts";
import type { ClusterOptions } from "./options.ts";
import type { MemberPorts, Timer } from "./ports.ts";
import { SocketTurns } from "./open_socket_turns.ts";

/** Ports that are open. Disposing of them closes the network. */
export type OpenPorts = MemberPorts & Disposable;

/** What the network tells peers about this member. */
export interface OpenPortsOptions {
  /** Its place in the cluster. */
  readonly cluster: ClusterOptions;
  /** Its card as it is now; called once the ports are open. */
  readonly card: () => MemberCard;
  /** Highest epoch it has seen. */
  readonly epoch: () => number;
  /** Takes a line of the log. */
  readonly log: (message: string) => void;
}

/**
 * Opens the cluster port and what else a member runs on. The caller disposes of it.
 *
 * @throws {Error} when the address cannot be bound, or is reached from outside with neither key nor certificates.
 */
export async function openPorts(options: OpenPortsOptions): Promise<OpenPorts> {
  const { cluster, card, epoch, log } = options;
  const timer = (ms: number, fire: () => void): Timer => {
    const id = setTimeout(fire, ms);
    return { cancel: () => clearTimeout(id) };
  };
  const now = () => performance.now();
  using opened = new DisposableStack();
  const turns = opened.use(await SocketTurns.open());
  const network = opened.use(
    await openHttp2Network({
      card,
      epoch,
      host: cluster.host ?? "127.0.0.1",
      port: cluster.port ?? 0,
      advertise: cluster.advertise,
      key: cluster.key,
      tls: cluster.tls,
    }),
  );
  const stack = opened.move();
  return {
    now,
    random: Math.random,
    timer,
    defer: (work) => turns.defer(work),
    network,
    log,
    [Symbol.dispose]: () => stack.dispose(),
  };
}

/** A name nobody has chosen, and an incarnation. */
export function newIdentity(name?: string): { readonly name: string; readonly incarnation: string } {
  const incarnation = crypto.getRandomValues(new Uint8Array(16)).toHex();
  return { name: name ?? `member-${incarnation.slice(0, 6)}`, incarnation };
}
