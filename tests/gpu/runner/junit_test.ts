import { assertEquals, assertThrows } from "@std/assert";
import { parseJunit } from "./junit.ts";

const XML = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="deno test" tests="5" failures="1" errors="0" time="0.025">
    <testsuite name="./a_test.ts" tests="5" disabled="1" errors="0" failures="1">
        <testcase name="a &lt;b&gt; &amp; &quot;c&quot; passes" classname="./a_test.ts" time="1.5" line="1" col="6">
        </testcase>
        <testcase name="ignored one" classname="./a_test.ts" time="0.000" line="2" col="6">
            <skipped/>
        </testcase>
        <testcase name="fails" classname="./a_test.ts" time="0.001" line="3" col="6">
            <failure message="no &lt;skipped/&gt;">no</failure>
        </testcase>
        <testcase name="steps" classname="./a_test.ts" time="0.001" line="4" col="6">
        </testcase>
        <testcase name="steps &gt; one" classname="./a_test.ts" time="0.000" line="4" col="43">
        </testcase>
    </testsuite>
</testsuites>
`;

Deno.test("parseJunit() tells passed, failed and skipped tests apart and leaves steps out", () => {
  assertEquals(parseJunit(XML), [
    { file: "./a_test.ts", name: 'a <b> & "c" passes', outcome: "passed", seconds: 1.5 },
    { file: "./a_test.ts", name: "ignored one", outcome: "skipped", seconds: 0 },
    { file: "./a_test.ts", name: "fails", outcome: "failed", seconds: 0.001 },
    { file: "./a_test.ts", name: "steps", outcome: "passed", seconds: 0.001 },
  ]);
});

Deno.test("parseJunit() refuses what a run that was cut off has written", () => {
  assertThrows(() => parseJunit(XML.slice(0, -20)), SyntaxError, "wanted testsuites");
});
