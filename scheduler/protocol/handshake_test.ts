import { assert, assertEquals, assertThrows } from "@std/assert";
import { PeerError } from "../links/link.ts";
import { suiteCard } from "../../tests/conformance/link_suite.ts";
import type { Frame } from "./frame.ts";
import { DEFAULT_FRAME_LIMITS } from "./frame.ts";
import { FrameReader } from "./frame_reader.ts";
import { AcceptorHandshake, DiallerHandshake, DuplicateLinkError, type ProvenPeer } from "./handshake.ts";
import type { SessionKeys } from "./session_keys.ts";

const KEY = new Uint8Array(32).fill(1);
const OTHER_KEY = new Uint8Array(32).fill(2);
const LINK = new Uint8Array(16).fill(9);

function bytes(fill: number): Uint8Array {
  return new Uint8Array(32).fill(fill);
}

/** Hands frames from one side to the other. */
class Wire {
  readonly #reader = new FrameReader({ lane: "hello", maxPayloadBytes: DEFAULT_FRAME_LIMITS.hello });

  frame(sent: Uint8Array): Frame {
    const frames: Frame[] = [];
    this.#reader.push(sent, (frame) => frames.push({ ...frame, payload: frame.payload.slice() }));
    assertEquals(frames.length, 1);
    return frames[0];
  }
}

interface Sides {
  readonly key?: Uint8Array;
  readonly acceptorKey?: Uint8Array;
  readonly nonces?: readonly [number, number];
}

function begin({ key, acceptorKey = key, nonces = [3, 4] }: Sides) {
  const dialler = new DiallerHandshake({ card: suiteCard(1), key, nonce: bytes(nonces[0]) });
  const acceptor = new AcceptorHandshake({ card: suiteCard(2), key: acceptorKey, nonce: bytes(nonces[1]) });
  return { dialler, acceptor, up: new Wire(), down: new Wire() };
}

function sent(step: { readonly kind: string; readonly frame?: Uint8Array }): Uint8Array {
  assert(step.kind === "send" && step.frame, step.kind);
  return step.frame;
}

/** Runs a whole hello. */
function run(sides: Sides): { dialled: ProvenPeer; accepted: { card: unknown; keys: SessionKeys } } {
  const { dialler, acceptor, up, down } = begin(sides);
  const challenge = sent(acceptor.receive(up.frame(dialler.start())));
  const proof = sent(dialler.receive(down.frame(challenge)));
  const proven = acceptor.receive(up.frame(proof));
  assert(proven.kind === "proven");
  const { frame, keys } = acceptor.accept(LINK);
  const ready = dialler.receive(down.frame(frame));
  assert(ready.kind === "ready");
  assertEquals(ready.link, LINK);
  return { dialled: ready.peer, accepted: { card: proven.card, keys } };
}

function exported(keys: SessionKeys): (string | undefined)[] {
  return (["attention", "control", "kv"] as const).flatMap((lane) =>
    (["dialler", "acceptor"] as const).map((side) => keys(lane, side)?.export().toString("hex"))
  );
}

Deno.test("The hello gives both sides the other's card and the same six different keys", () => {
  const { dialled, accepted } = run({ key: KEY });
  assertEquals(dialled.card, suiteCard(2));
  assertEquals(accepted.card, suiteCard(1));
  const keys = exported(dialled.keys);
  assertEquals(keys, exported(accepted.keys));
  assertEquals(new Set(keys).size, 6);
  assert(keys.every((key) => key?.length === 64));
});

Deno.test("The hello gives other keys for another nonce and none without a cluster key", () => {
  const keys = [run({ key: KEY }), run({ key: KEY, nonces: [5, 4] }), run({ key: KEY, nonces: [3, 5] })]
    .flatMap(({ dialled }) => exported(dialled.keys));
  assertEquals(new Set(keys).size, 18);
  assertEquals(new Set(exported(run({}).dialled.keys)), new Set([undefined]));
});

Deno.test("The hello binds the keys to the incarnations", () => {
  const restarted = suiteCard(1, { incarnation: "f".repeat(32) });
  const dialler = new DiallerHandshake({ card: restarted, key: KEY, nonce: bytes(3) });
  const { acceptor, up, down } = begin({ key: KEY });
  const proof = sent(dialler.receive(down.frame(sent(acceptor.receive(up.frame(dialler.start()))))));
  acceptor.receive(up.frame(proof));
  const after = exported(acceptor.accept(LINK).keys);
  for (const key of exported(run({ key: KEY }).accepted.keys)) assert(!after.includes(key));
});

Deno.test("AcceptorHandshake refuses a dialler with another key and says only that", () => {
  const { dialler, acceptor, up, down } = begin({ key: KEY, acceptorKey: OTHER_KEY });
  const proof = sent(dialler.receive(down.frame(sent(acceptor.receive(up.frame(dialler.start()))))));
  const error = assertThrows(() => acceptor.receive(up.frame(proof)), PeerError, "does not prove");
  assertEquals(error.code, "auth");
  const answer = acceptor.answer(error);
  assert(answer);
  assertEquals(assertThrows(() => dialler.receive(down.frame(answer)), PeerError, "key is another").code, "auth");
  assertThrows(() => acceptor.accept(LINK), ReferenceError);
});

Deno.test("Both sides refuse a peer that has a key where they have none, or none where they have one", () => {
  for (
    const [key, acceptorKey, wanted] of [[KEY, undefined, "no cluster key, got"], [
      undefined,
      KEY,
      "a cluster key, got",
    ]] as const
  ) {
    const dialler = new DiallerHandshake({ card: suiteCard(1), key, nonce: bytes(3) });
    const acceptor = new AcceptorHandshake({ card: suiteCard(2), key: acceptorKey, nonce: bytes(4) });
    const hello = new Wire().frame(dialler.start());
    const error = assertThrows(() => acceptor.receive(hello), PeerError, `wanted a peer with ${wanted}`);
    const answer = acceptor.answer(error);
    assert(answer);
    const told = assertThrows(() => dialler.receive(new Wire().frame(answer)), PeerError, "cluster key");
    assertEquals([error.code, told.code], ["auth", "auth"]);
  }
});

Deno.test("DiallerHandshake refuses an acceptor that does not know the key", () => {
  const { dialler, acceptor, up, down } = begin({ key: KEY });
  const proof = sent(dialler.receive(down.frame(sent(acceptor.receive(up.frame(dialler.start()))))));
  acceptor.receive(up.frame(proof));
  const frame = down.frame(acceptor.accept(LINK).frame);
  for (const at of [0, 31, 32, 47, 48, frame.payload.length - 1]) {
    const payload = frame.payload.slice();
    payload[at] ^= 1;
    const { dialler, acceptor, up, down } = begin({ key: KEY });
    dialler.receive(down.frame(sent(acceptor.receive(up.frame(dialler.start())))));
    const error = assertThrows(() => dialler.receive({ ...frame, payload }), PeerError, "does not prove");
    assertEquals(error.code, "auth", `byte ${at}`);
  }
});

Deno.test("AcceptorHandshake refuses a proof of an earlier hello", () => {
  const first = begin({ key: KEY, nonces: [3, 4] });
  const hello = first.dialler.start();
  const proof = sent(first.dialler.receive(first.down.frame(sent(first.acceptor.receive(first.up.frame(hello))))));
  const second = begin({ key: KEY, nonces: [3, 5] });
  second.acceptor.receive(second.up.frame(hello));
  assertEquals(assertThrows(() => second.acceptor.receive(second.up.frame(proof)), PeerError).code, "auth");
});

Deno.test("AcceptorHandshake refuses its own proof sent back to it", () => {
  const { dialler, acceptor, up, down } = begin({ key: KEY });
  const challenge = sent(acceptor.receive(up.frame(dialler.start())));
  acceptor.receive(up.frame(sent(dialler.receive(down.frame(challenge)))));
  const ready = down.frame(acceptor.accept(LINK).frame);
  const card = ready.payload.subarray(48);
  const reflected = new Uint8Array([...ready.payload.subarray(0, 32), ...card]);
  const other = begin({ key: KEY });
  other.acceptor.receive(other.up.frame(other.dialler.start()));
  const error = assertThrows(
    () => other.acceptor.receive({ type: "proof", epoch: 0, payload: reflected }),
    PeerError,
  );
  assertEquals(error.code, "auth");
});

Deno.test("AcceptorHandshake reads no card before the proof fits", () => {
  const { dialler, acceptor, up } = begin({ key: KEY });
  acceptor.receive(up.frame(dialler.start()));
  const payload = new TextEncoder().encode(`${"x".repeat(32)}{"not": "a card"`);
  const error = assertThrows(() => acceptor.receive({ type: "proof", epoch: 0, payload }), PeerError);
  assertEquals(error.code, "auth");
});

Deno.test("The hello takes its frames in order, once", () => {
  const { dialler, acceptor, up, down } = begin({ key: KEY });
  const proofFirst: Frame = { type: "proof", epoch: 0, payload: new Uint8Array(64) };
  assertThrows(() => acceptor.receive(proofFirst), PeerError, "wanted hello, got proof");
  const proof = sent(dialler.receive(down.frame(sent(acceptor.receive(up.frame(dialler.start()))))));
  const frame = up.frame(proof);
  acceptor.receive(frame);
  assertThrows(() => acceptor.receive(frame), PeerError, "wanted no more of the hello");
  assertThrows(
    () => dialler.receive({ type: "challenge", epoch: 0, payload: new Uint8Array(36) }),
    PeerError,
    "wanted ready",
  );
});

Deno.test("A refusal by name reaches the dialler with its reason, and only with a proof", () => {
  for (
    const [code, kind, wanted] of [["refused", PeerError, "got Y"], [
      "duplicate",
      DuplicateLinkError,
      "already",
    ]] as const
  ) {
    const { dialler, acceptor, up, down } = begin({ key: KEY });
    const proof = sent(dialler.receive(down.frame(sent(acceptor.receive(up.frame(dialler.start()))))));
    acceptor.receive(up.frame(proof));
    const refusal = down.frame(acceptor.refuse(code, { why: "Cannot link a with b: wanted X, got Y" }));
    const forged = { ...refusal, payload: refusal.payload.slice() };
    forged.payload[forged.payload.length - 1] ^= 1;
    assertEquals(assertThrows(() => dialler.receive(forged), PeerError, "does not prove who").code, "auth");
    const error = assertThrows(() => dialler.receive(refusal), kind, wanted);
    assertEquals(error.code, "refused");
    if (error instanceof DuplicateLinkError) assertEquals(error.incarnation, "Cannot link a with b: wanted X, got Y");
  }
});
