import { assertEquals, assertThrows } from "@std/assert";
import type { RequestEvent } from "../../runtime/engine/request.ts";
import { Ledger, type LedgerEntry } from "./ledger.ts";
import { toyGreedy } from "./toy_model.ts";
import { Violation } from "./violation.ts";

const PROMPT = [5, 6, 7];
const TOKENS = toyGreedy(PROMPT, 3);

function open(ledger: Ledger, mustFinish = false): LedgerEntry {
  return ledger.open({
    request: { id: "r1", prompt: PROMPT, maxTokens: 3, sampling: { temperature: 0 } },
    front: "a",
    atMs: 0,
    mustFinish,
  });
}

function token(...ids: number[]): RequestEvent {
  const text = ids.map((id) => id < 94 ? String.fromCharCode(33 + id) : "").join("");
  return { kind: "token", index: 0, ids, text };
}

function choiceEnd(reason: "length" | "cancelled" | "error" = "length"): RequestEvent {
  return { kind: "choice-end", index: 0, reason, text: "" };
}

function end(completionTokens: number, code?: string): RequestEvent {
  return {
    kind: "end",
    usage: { promptTokens: 3, cachedTokens: 0, completionTokens },
    timing: { queuedMs: 0, prefillMs: 0, decodeMs: 0 },
    error: code === undefined ? undefined : { code, message: "because", status: 500 },
  };
}

Deno.test("Ledger.take() accepts the answer of the model run alone", () => {
  const ledger = new Ledger();
  const entry = open(ledger);
  for (const event of [token(TOKENS[0]), token(TOKENS[1], TOKENS[2]), choiceEnd(), end(3)]) ledger.take(entry, event);
  assertEquals([entry.end, ledger.live.length], ["finished", 0]);
});

Deno.test("Ledger.take() finds tokens that are wrong, repeated, missing or too many", () => {
  const wrong: [string, RequestEvent[]][] = [
    ["I5: token 1", [token(TOKENS[0]), token(TOKENS[0])]],
    ["I5: token 0", [token((TOKENS[0] + 1) % 97)]],
    ["I5: token 3", [token(...TOKENS), token(1)]],
    ["I4: choice 0 of r1 ends with 2 tokens of 3", [token(TOKENS[0], TOKENS[1]), choiceEnd()]],
    ["I4: choice 0 of r1 has text", [{ kind: "token", index: 0, ids: TOKENS, text: "" }, choiceEnd()]],
    ["I4: request r1 states 3 + 2 tokens", [token(...TOKENS), choiceEnd(), end(2)]],
  ];
  for (const [message, events] of wrong) {
    const ledger = new Ledger();
    const entry = open(ledger);
    for (const event of events.slice(0, -1)) ledger.take(entry, event);
    assertThrows(() => ledger.take(entry, events[events.length - 1]), Violation, message);
  }
});

Deno.test("Ledger.take() finds second ends and whatever follows an end", () => {
  const wrong: [string, RequestEvent[]][] = [
    ["I3: request r1 ends, its choice 0 has not", [token(TOKENS[0]), end(1)]],
    ["I3: request r1 gets a choice-end after the end", [token(...TOKENS), choiceEnd(), choiceEnd()]],
    ["I3: request r1 tells end after its finished", [token(...TOKENS), choiceEnd(), end(3), end(3)]],
    ["I3: choice 0 of r1 is cancelled", [choiceEnd("cancelled")]],
  ];
  for (const [message, events] of wrong) {
    const ledger = new Ledger();
    const entry = open(ledger);
    for (const event of events.slice(0, -1)) ledger.take(entry, event);
    assertThrows(() => ledger.take(entry, events[events.length - 1]), Violation, message);
  }
});

Deno.test("Ledger lets a request fail while things go wrong, and not when it must finish", () => {
  const ledger = new Ledger();
  const entry = open(ledger);
  ledger.take(entry, choiceEnd("error"));
  ledger.take(entry, end(0, "home_lost"));
  assertEquals([entry.end, entry.code], ["error", "home_lost"]);
  const must = open(ledger, true);
  ledger.take(must, choiceEnd("error"));
  assertThrows(() => ledger.take(must, end(0, "home_lost")), Violation, "Liveness: request r1 must run");
  assertThrows(() => ledger.rejected(open(ledger, true), new Error("full")), Violation, "it is rejected: full");
  const gone = open(ledger);
  ledger.frontLost("a");
  assertEquals(gone.end, "front-lost");
  assertThrows(() => ledger.take(gone, token(TOKENS[0])), Violation, "from a dead front");
});
