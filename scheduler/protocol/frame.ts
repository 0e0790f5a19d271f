/**
 * Frames: what the bytes between two members are. Little-endian, 4-byte aligned from the start of the frame.
 *
 * ```text
 * offset size
 *      0    4  magic "ILLM"
 *      4    1  version of the protocol
 *      5    1  lane: 0 attention, 1 control, 2 kv, 3 hello
 *      6    1  type, see FRAME_TYPES; each belongs to lanes
 *      7    1  flags: bit 0 a tag follows the payload; the others are 0
 *      8    8  epoch, u64 below 2^53: highest epoch of a gManager that the sender has seen
 *     16    8  counter, u64 below 2^53: 0, 1, 2, … for each stream and direction
 *     24    4  length of the payload
 *     28    4  0
 *     32    -  payload
 *      -   16  tag: first half of HMAC-SHA256 over header and payload, see session_keys.ts
 * ```
 *
 * @module
 */
import type { Lane } from "./messages.ts";

/** Bytes of a frame before its payload. */
export const FRAME_HEADER_BYTES = 32;

/** Bytes of a frame's tag. */
export const FRAME_TAG_BYTES = 16;

/** The magic, "ILLM", as a little-endian number. */
export const FRAME_MAGIC = 0x4d4c4c49;

/** Flag: a tag follows the payload. */
export const FRAME_TAGGED = 1;

/** A lane of a link, or the hello before it opens. */
export type FrameLane = Lane | "hello";

/** Lanes by number. */
export const FRAME_LANES: readonly FrameLane[] = ["attention", "control", "kv", "hello"];

/** Numbers of the types of frames. */
export const FRAME_TYPES = {
  /** Hello, dialler first. */
  hello: 1,
  challenge: 2,
  proof: 3,
  ready: 4,
  refuse: 5,
  /** First frame of the attention and kv streams. */
  attach: 6,
  /** Acceptor to dialler on the control stream: all streams are attached. */
  open: 7,
  /** Control stream, both ways: nothing but a sign of life. */
  alive: 8,
  attend: 16,
  partials: 17,
  refused: 18,
  /** A control message as JSON. */
  control: 32,
  piece: 48,
  commit: 49,
  written: 50,
  read: 51,
  sent: 52,
} as const;

/** Name of a type of frame. */
export type FrameTypeName = keyof typeof FRAME_TYPES;

const NAMES: ReadonlyMap<number, FrameTypeName> = new Map(
  (Object.keys(FRAME_TYPES) as FrameTypeName[]).map((name) => [FRAME_TYPES[name], name]),
);

const LANES_OF: Readonly<Record<FrameTypeName, readonly FrameLane[]>> = {
  hello: ["hello"],
  challenge: ["hello"],
  proof: ["hello"],
  ready: ["hello"],
  refuse: ["hello"],
  attach: ["attention", "kv"],
  open: ["control"],
  alive: ["control"],
  attend: ["attention"],
  partials: ["attention"],
  refused: ["attention", "kv"],
  control: ["control"],
  piece: ["kv"],
  commit: ["kv"],
  written: ["kv"],
  read: ["kv"],
  sent: ["kv"],
};

/** Name of type number `type` where `lane` carries it. */
export function frameTypeName(lane: FrameLane, type: number): FrameTypeName | undefined {
  const name = NAMES.get(type);
  return name !== undefined && LANES_OF[name].includes(lane) ? name : undefined;
}

/** One frame whose header and tag were checked. */
export interface Frame {
  /** Type. */
  readonly type: FrameTypeName;
  /** Highest epoch that the sender has seen. */
  readonly epoch: number;
  /** Payload; a view, valid until the reader is given more. */
  readonly payload: Uint8Array;
}

/** Largest payload of each lane, bytes. */
export interface FrameLimits {
  /** Default 64 MiB. */
  readonly attention: number;
  /** Default 16 MiB. */
  readonly control: number;
  /** Default 16 KiB and the head of a piece. */
  readonly kv: number;
  /** Default 16 KiB. */
  readonly hello: number;
}

/** Most bytes of KV that one piece carries. */
export const MAX_PIECE_BYTES: number = 16 * 1024;

/** Bytes of a piece's payload before its KV. */
export const PIECE_HEAD_BYTES = 40;

/** Limits that fit every message the protocol knows. */
export const DEFAULT_FRAME_LIMITS: FrameLimits = {
  attention: 64 * 2 ** 20,
  control: 16 * 2 ** 20,
  kv: MAX_PIECE_BYTES + PIECE_HEAD_BYTES,
  hello: 16 * 1024,
};
