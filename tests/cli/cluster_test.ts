import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fileURLToPath } from "node:url";
import { runCli, RunningCli } from "./cli_process.ts";

const PROGRAM = fileURLToPath(new URL("./stand_in_pool.ts", import.meta.url));

function pool(args: readonly string[], env: Readonly<Record<string, string>> = {}): RunningCli {
  return new RunningCli(args, { program: PROGRAM, env });
}

/** Process id and address of an instance that is ready. */
async function instance(cli: RunningCli, name: string): Promise<{ readonly pid: number; readonly url: string }> {
  const [, pid, url] = await cli.match(new RegExp(`${name} is ready: \\w+, process (\\d+), (\\S+)\n`));
  return { pid: Number(pid), url };
}

async function answers(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/health`);
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}

Deno.test("cli.ts cluster starts instances and holders, shows them, and stops them in order on one signal", async () => {
  await using cli = pool(["--instances", "2", "--holders", "1", "--kv-tokens", "1024"]);
  const [, url] = await cli.match(/\nListening on (http:\S+), the public address of the cluster\n/);
  for (const name of ["instance-1", "instance-2", "holder-1"]) await instance(cli, name);
  assertEquals((await (await fetch(`${url}/cluster`)).json()).from, "instance-1");
  await cli.match(/\nINSTANCE +ROLE +STATE +OWN +LENT +BORROWED +TOTAL +SEQUENCES +TOKENS\/S\n/);
  await cli.match(/\ninstance-1 +full +ready +14 +0 +8 +16 +3 +12\.3\n/);
  assertMatch(cli.output, /\[instance-1\] joins 0\n[^]*\[instance-2\] joins 1\n/);
  cli.signal("SIGINT");
  const { status, output, errors } = await cli.end();
  assertEquals([status, errors], [0, ""]);
  const order = [...output.matchAll(/^(\S+) has ended: status 0$/gm)].map(([, name]) => name);
  assertEquals(order, ["instance-1", "instance-2", "holder-1"], output);
});

Deno.test("cli.ts cluster shows an instance that dies and goes on without it", async () => {
  await using cli = pool(["--instances", "2"]);
  Deno.kill((await instance(cli, "instance-2")).pid, "SIGKILL");
  await cli.match(/\ninstance-2 has ended by itself: SIGKILL\n/);
  assert(await answers((await instance(cli, "instance-1")).url));
  cli.signal("SIGTERM");
  const { status, output } = await cli.end();
  assertEquals(status, 0, output);
  assertStringIncludes(output, "instance-1 has ended: status 0");
});

Deno.test("cli.ts cluster ends with 1 when its first instance does not start, or when none is left", async () => {
  await using failing = pool(["--instances", "2"], { STAND_IN_FAILS: "instance-1" });
  const failed = await failing.end();
  assertEquals([failed.status, failed.errors], [
    1,
    "infinite-llm: Cannot start the cluster: its first instance has ended, see above\n",
  ]);
  assertStringIncludes(failed.output, "[instance-1] infinite-llm: Cannot start: no memory\n");
  assert(!failed.output.includes("[instance-2]"));

  await using dying = pool(["--instances", "2"], { STAND_IN_FAILS: "instance-2" });
  await dying.match(/\ninstance-2 has ended by itself: status 1\n/);
  Deno.kill((await instance(dying, "instance-1")).pid, "SIGKILL");
  const { status, errors } = await dying.end();
  assertEquals([status, errors], [1, "infinite-llm: Cannot go on: every instance has ended\n"]);
});

Deno.test("cli.ts cluster kills its instances at the second signal", async () => {
  await using cli = pool(["--instances", "2"], { STAND_IN_DEAF: "instance-1,instance-2" });
  const urls = [(await instance(cli, "instance-1")).url, (await instance(cli, "instance-2")).url];
  cli.signal("SIGINT");
  await cli.match(/\[instance-1\] instance-1 is asked to stop\n/);
  assertEquals(await Promise.all(urls.map(answers)), [true, true]);
  cli.signal("SIGINT");
  assertEquals((await cli.end()).status, 130);
  // A killed process may take a moment to close its port.
  for (let i = 0; i < 200 && (await Promise.all(urls.map(answers))).includes(true); i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assertEquals(await Promise.all(urls.map(answers)), [false, false]);
});

Deno.test("cli.ts cluster says what its command line lacks", async () => {
  const cases: [string[], string][] = [
    [["cluster"], "Cannot start a cluster: wanted --instances N, got none; cluster status shows a running one"],
    [["cluster", "stats"], "did you mean cluster status?"],
    [["serve", "--role", "holder"], "Cannot use --role holder without a cluster"],
    [["serve", "m.gguf", "--role", "holder", "--join", "http://127.0.0.1:1"], "Cannot start a holder with a model"],
    [["gmanager"], "Cannot start a gManager: wanted --listen HOST:PORT"],
    [["ps", "--url", "http://user:canary@127.0.0.1:1"], "Cannot use --url: wanted http://HOST:PORT"],
  ];
  for (const [args, says] of cases) {
    const { status, errors } = await runCli(args);
    assertEquals(status, 2, errors);
    assertStringIncludes(errors, says);
    assert(!errors.includes("canary"));
  }
});
