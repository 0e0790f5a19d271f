/**
 * Bounds of links over the network, each with a name.
 *
 * @module
 */
import { DEFAULT_FRAME_LIMITS, type FrameLimits } from "../protocol/frame.ts";

/** Bounds of links over the network. */
export interface LinkLimits {
  /** Largest payload a peer may send on each lane, bytes. */
  readonly frame: FrameLimits;
  /** Bytes that may wait to be sent on each lane; more closes the link, the peer is too slow. */
  readonly backlog: { readonly attention: number; readonly control: number; readonly kv: number };
  /** From the first byte to an open link, for both sides, ms. */
  readonly helloMs: number;
  /** From a dial to its link, everything included, ms. */
  readonly dialMs: number;
  /** Accepted connections that have not become a link yet; more are turned away. */
  readonly openHellos: number;
  /** Connections at once; two a link. */
  readonly connections: number;
  /** A link whose peer sends nothing for so long is closed, ms. Each side sends a sign of life four times as often. */
  readonly silenceMs: number;
  /** What was sent before a link was closed may take so long to leave, ms. */
  readonly lingerMs: number;
}

/** Limits that fit a cluster of some hundred members. */
export const DEFAULT_LINK_LIMITS: LinkLimits = {
  frame: DEFAULT_FRAME_LIMITS,
  backlog: { attention: 256 * 2 ** 20, control: 64 * 2 ** 20, kv: 256 * 2 ** 20 },
  helloMs: 2_000,
  dialMs: 5_000,
  openHellos: 64,
  connections: 1024,
  silenceMs: 20_000,
  lingerMs: 500,
};

/** Runs a task after `ms`; the result takes it back. */
export type SetTimer = (task: () => void, ms: number) => () => void;
