/**
 * What the wires of a simulated world do to messages.
 *
 * @module
 */

/** Faults of all links; probabilities are per message unless said otherwise. */
export interface Weather {
  /** Least delay, ms. */
  readonly delayMs: number;
  /** Mean of what comes on top, ms. */
  readonly jitterMs: number;
  /**
   * `stream`: messages of one lane arrive in order, once, or the link closes, as links promise. `datagram`: each is
   * repeated or overtaken on its own, or lost some time before its link closes, and may still come when its receiver has
   * been started anew; handlers bear that too.
   */
  readonly mode: "stream" | "datagram";
  /** A datagram is lost, and soon its link with it. */
  readonly loss: number;
  /** A datagram comes twice. */
  readonly duplicate: number;
  /** A datagram comes much later. */
  readonly late: number;
  /** How much later, ms. */
  readonly lateMs: number;
  /** A dial is turned down. */
  readonly refuse: number;
  /** A byte of a kv piece is another. */
  readonly corrupt: number;
  /** A partial is not a number, or an answer misses one. */
  readonly lie: number;
}

/** Nothing goes wrong. */
export const CALM: Weather = {
  delayMs: 0.05,
  jitterMs: 0.05,
  mode: "stream",
  loss: 0,
  duplicate: 0,
  late: 0,
  lateMs: 0,
  refuse: 0,
  corrupt: 0,
  lie: 0,
};
