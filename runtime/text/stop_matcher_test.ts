import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { StopMatcher } from "./stop_matcher.ts";

interface Outcome {
  readonly text: string;
  readonly stop?: string;
}

/** Looks at every prefix of the text: the first that ends with a stop string decides, by its longest one. */
function naive(stops: readonly string[], text: string, includeStop: boolean): Outcome {
  for (let end = 1; end <= text.length; end++) {
    const prefix = text.slice(0, end);
    const [stop] = stops.filter((s) => prefix.endsWith(s)).sort((a, b) => b.length - a.length);
    if (stop !== undefined) return { text: includeStop ? prefix : prefix.slice(0, end - stop.length), stop };
  }
  return { text };
}

function run(matcher: StopMatcher, parts: readonly string[]): Outcome {
  let text = "";
  let stop: string | undefined;
  for (const part of parts) {
    const match = matcher.push(part);
    text += match.text;
    stop ??= match.stop;
  }
  text += matcher.flush();
  return stop === undefined ? { text } : { text, stop };
}

const letters = fc.constantFrom("a", "b", "c", "é", "😀", "😁");

Deno.test("StopMatcher.push() agrees with looking at every prefix, however the text is cut", () => {
  const stops = fc.array(fc.string({ unit: letters, minLength: 1, maxLength: 4 }), { maxLength: 4 });
  const parts = fc.array(fc.string({ unit: letters, maxLength: 4 }), { maxLength: 10 });
  fc.assert(
    fc.property(stops, parts, fc.boolean(), (stops, parts, includeStop) => {
      const outcome = run(new StopMatcher(stops, { includeStop }), parts);
      assertEquals(outcome, naive(stops, parts.join(""), includeStop));
    }),
    { numRuns: 3000 },
  );
});

Deno.test("StopMatcher.push() holds back exactly the text that can still become a stop string", () => {
  const stops = fc.array(fc.string({ unit: letters, minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 4 });
  const parts = fc.array(fc.string({ unit: letters, maxLength: 3 }), { maxLength: 8 });
  fc.assert(
    fc.property(stops, parts, (stops, parts) => {
      const matcher = new StopMatcher(stops, { includeStop: false });
      let seen = "", out = "";
      for (const part of parts) {
        const match = matcher.push(part);
        if (match.stop !== undefined) return;
        seen += part;
        out += match.text;
        let held = 0;
        for (let length = 1; length <= seen.length; length++) {
          const tail = seen.slice(seen.length - length);
          if (stops.some((stop) => stop.length > length && stop.startsWith(tail))) held = length;
        }
        assertEquals(out, seen.slice(0, seen.length - held));
      }
    }),
    { numRuns: 2000 },
  );
});

Deno.test("StopMatcher.push() lets the stop string that ends first win, and of two at one place the longer", () => {
  assertEquals(run(new StopMatcher(["abcd", "bc"], { includeStop: false }), ["abcd"]), { text: "a", stop: "bc" });
  assertEquals(run(new StopMatcher(["c", "abc"], { includeStop: false }), ["xab", "cd"]), { text: "x", stop: "abc" });
});

Deno.test("StopMatcher.push() drops everything after a match", () => {
  const matcher = new StopMatcher(["END"], { includeStop: true });
  assertEquals(matcher.push("one E"), { text: "one " });
  assertEquals(matcher.push("ND two"), { text: "END", stop: "END" });
  assertEquals(matcher.push("three"), { text: "" });
  assertEquals(matcher.flush(), "");
});

Deno.test("StopMatcher.push() passes text through when there is no stop string", () => {
  assertEquals(new StopMatcher([], { includeStop: false }).push("anything"), { text: "anything" });
});

Deno.test("new StopMatcher() refuses an empty stop string and half a character", () => {
  for (const stop of ["", "\ud83d"]) {
    assertThrows(() => new StopMatcher(["ok", stop], { includeStop: false }), RangeError, "Cannot use stop string");
  }
});
