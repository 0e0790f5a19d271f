import { assertEquals } from "@std/assert";
import { Pool } from "./pool.ts";
import type { PoolChild } from "./pool_child.ts";

const ANNOUNCE = `console.log("Listening on nothing");
console.log(JSON.stringify({ kind: "ready", pid: Deno.pid, url: "", name: "x", role: "full", clusterUrl: "http://c" }));`;
const UNTIL_INPUT_ENDS = `for await (const _ of Deno.stdin.readable);`;

/** A pool whose children run the program in their first argument, and what it tells. */
function makePool(): {
  readonly pool: Pool;
  readonly told: string[];
  readonly happens: (what: string) => Promise<void>;
} {
  const told: string[] = [];
  const waiting = new Map<string, () => void>();
  const pool = new Pool({
    spawn: ([program]) =>
      new Deno.Command(Deno.execPath(), {
        args: ["eval", "--quiet", program],
        stdin: "piped",
        stdout: "piped",
        stderr: "piped",
      }).spawn(),
    onEvent: (event) => {
      const detail = event.kind === "line" ? ` ${event.line}` : event.kind === "ended" ? ` ${event.child.ending}` : "";
      const what = `${event.child.spec.name} ${event.kind}${detail}`;
      told.push(what);
      waiting.get(what)?.();
    },
  });
  const happens = (what: string) =>
    told.includes(what) ? Promise.resolve() : new Promise<void>((resolve) => waiting.set(what, resolve));
  return { pool, told, happens };
}

function add(pool: Pool, name: string, program: string, role: "full" | "holder" = "full"): PoolChild {
  return pool.add({ name, role, args: [program] });
}

Deno.test("Pool.add() tells when a child is ready, what it says and how it ended", async () => {
  const { pool, told } = makePool();
  const child = add(pool, "a", `${ANNOUNCE} console.error("hello"); Deno.exit(3);`);
  assertEquals((await child.ready)?.clusterUrl, "http://c");
  await pool.ended();
  assertEquals(told.toSorted(), ["a ended status 3", "a line hello", "a ready"]);
  assertEquals([child.state, child.asked], ["ended", false]);
});

Deno.test("PoolChild.ready is undefined for a child that ends before", async () => {
  const { pool } = makePool();
  const child = add(pool, "a", `console.log('{"kind":"ready"}'); console.error("no memory");`);
  assertEquals([child.state, await child.ready], ["starting", undefined]);
  await pool.ended();
});

Deno.test("Pool.stop() ends the first child before other full ones and these before holders", async () => {
  const { pool, told, happens } = makePool();
  const program = `${ANNOUNCE} ${UNTIL_INPUT_ENDS}`;
  add(pool, "first", program);
  add(pool, "holder", program, "holder");
  add(pool, "second", program);
  await Promise.all(["first", "holder", "second"].map((name) => happens(`${name} ready`)));
  assertEquals(await pool.stop(30_000), true);
  assertEquals(told.filter((what) => what.includes("ended")), [
    "first ended status 0",
    "second ended status 0",
    "holder ended status 0",
  ]);
});

Deno.test("Pool.stop() kills what does not end in time, and tells that not all ended well", async () => {
  const { pool, told, happens } = makePool();
  add(pool, "deaf", `${ANNOUNCE} setInterval(() => {}, 1000);`);
  add(pool, "gone", ANNOUNCE);
  await Promise.all([happens("deaf ready"), happens("gone ended status 0")]);
  assertEquals(await pool.stop(50), false);
  assertEquals(told.at(-1), "deaf ended SIGKILL");
});

Deno.test("Pool.kill() ends every child, also one that has ended", async () => {
  const { pool, told, happens } = makePool();
  add(pool, "a", `${ANNOUNCE} ${UNTIL_INPUT_ENDS}`);
  add(pool, "b", ANNOUNCE);
  await Promise.all([happens("a ready"), happens("b ended status 0")]);
  pool.kill();
  await pool.ended();
  assertEquals(told.at(-1), "a ended SIGKILL");
});
