/**
 * Members of a cluster as processes of their own, started, asked, harmed and stopped. Only what was started here is ever
 * signalled, by its process id; whatever is still alive when a cluster is disposed of is killed.
 *
 * @module
 */
import { type Announcement, readAnnouncement } from "../../runtime/cli/announcement.ts";
import type { ClusterCommand, ClusterReport } from "../../runtime/cluster/report.ts";
import { type CliResult, RunningCli } from "../cli/cli_process.ts";
import { startTcpProxy, type TcpProxy } from "../faults/tcp_proxy.ts";
import { type Answer, ask, type Question } from "./answers.ts";
import { eventually, within } from "./deadline.ts";

/** How to start a member. */
export interface MemberSettings {
  /** Name. */
  readonly name: string;
  /** `full` or `holder`. @default {"full"} */
  readonly role?: "full" | "holder";
  /** KV cache of an instance, tokens. @default {1024} */
  readonly kvTokens?: number;
  /** Memory of a holder, as `--kv-memory` takes it. @default {"64MiB"} */
  readonly kvMemory?: string;
  /** Members whose cluster ports it dials; without any it starts a cluster. */
  readonly join?: readonly MemberProcess[];
  /** Whether others reach it through a proxy that can harm what passes. @default {false} */
  readonly proxied?: boolean;
  /** Model, another one than the cluster's. */
  readonly model?: string;
  /** More flags. */
  readonly flags?: readonly string[];
  /** Program to run instead of `cli.ts`. */
  readonly program?: string;
}

/** Most time a member may take to be ready, ms: a model is loaded on a machine that may be busy. */
const READY_MS = 60_000;
/** Most time a report or a command may take, ms. */
const CALL_MS = 10_000;
/** Most time a member that was asked to stop may take, ms. */
const STOP_MS = 45_000;

/** A running member. */
export class MemberProcess implements AsyncDisposable {
  /** What it was started with. */
  readonly settings: MemberSettings;
  /** Stands before its cluster port. */
  readonly proxy: TcpProxy | undefined;
  /** Its cluster port, behind the proxy if there is one; 0 when the system chose it. */
  readonly clusterPort: number;
  readonly #cli: RunningCli;
  readonly #announced: Promise<Announcement>;
  #ready: Announcement | undefined;
  #ended = false;
  #stopped = false;
  #killed = false;

  /** Takes a program that was started. */
  constructor(
    cli: RunningCli,
    settings: MemberSettings,
    reached: { readonly clusterPort?: number; readonly proxy?: TcpProxy } = {},
  ) {
    this.#cli = cli;
    this.settings = settings;
    this.clusterPort = reached.clusterPort ?? 0;
    this.proxy = reached.proxy;
    this.#announced = cli.match(/^(\{"kind":"ready".*\})$/m).then(([, line]) => {
      const announcement = readAnnouncement(line);
      if (announcement === undefined) throw new Error(`Cannot read the announcement of ${this.name}: got ${line}`);
      this.#ready = announcement;
      return announcement;
    });
    this.#announced.catch(() => {});
  }

  /** Its name. */
  get name(): string {
    return this.settings.name;
  }

  /** Its log so far. */
  get log(): string {
    return this.#cli.errors;
  }

  /** Whether it is gone or asked to go. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Whether {@linkcode kill} was called. */
  get killed(): boolean {
    return this.#killed;
  }

  /** Whether it is stopped by SIGSTOP. */
  get paused(): boolean {
    return this.#stopped;
  }

  /** Where it is reached. @throws {ReferenceError} before {@linkcode ready}. */
  get where(): Announcement {
    if (this.#ready === undefined) throw new ReferenceError(`Cannot reach ${this.name}: it is not ready`);
    return this.#ready;
  }

  /** Waits until it is ready. @throws {Error} with its standard error when it ends before. */
  async ready(): Promise<this> {
    const ended = Promise.withResolvers<never>();
    const announced = this.#announced.catch(async () => {
      const { status, errors } = await this.#cli.end();
      throw new Error(`Cannot start ${this.name}: it ended with status ${status}: ${errors}`);
    });
    await within(READY_MS, `${this.name} to be ready`, Promise.race([announced, ended.promise]));
    return this;
  }

  /** Asks it; see {@linkcode ask}. */
  async ask(
    question: Question,
    options: Parameters<typeof ask>[2],
  ): Promise<Answer> {
    return await ask(this.where.url, question, options);
  }

  /** The cluster as it reports it. */
  async report(): Promise<ClusterReport> {
    return await this.#get("/cluster");
  }

  /** What it counts, as of its last heartbeat. */
  async counters(): Promise<Readonly<Record<string, number>>> {
    const { members } = await this.report();
    return members.find(({ id }) => id === this.name)?.load.counters ?? {};
  }

  /** `max_model_len` of its only model. */
  async maxModelLen(): Promise<number> {
    const { data }: { data: readonly { readonly max_model_len: number }[] } = await this.#get("/v1/models");
    return data[0].max_model_len;
  }

  /** Asks it to steer the cluster. @returns the status and what it said. */
  async operate({ kind, ...fields }: ClusterCommand): Promise<{ readonly status: number; readonly message: string }> {
    const response = await fetch(`${this.where.url}/cluster/${kind}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(fields),
      signal: AbortSignal.timeout(CALL_MS),
    });
    const body: { readonly message?: string; readonly error?: { readonly message: string } } = await response.json();
    return { status: response.status, message: body.message ?? body.error?.message ?? "" };
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#killed = true;
    this.#cli.signal("SIGKILL");
    await within(CALL_MS, `${this.name} to be dead`, this.#cli.end());
  }

  /** Sends a signal that a program of its own has a use for. */
  signal(signal: Deno.Signal): void {
    this.#cli.signal(signal);
  }

  /** SIGSTOP. */
  pause(): void {
    if (this.#ended || this.#stopped) return;
    this.#stopped = true;
    this.#cli.signal("SIGSTOP");
  }

  /** SIGCONT. */
  resume(): void {
    if (!this.#stopped || this.#ended) return;
    this.#stopped = false;
    this.#cli.signal("SIGCONT");
  }

  /** SIGTERM, and waits for the end. */
  async stop(): Promise<CliResult> {
    this.resume();
    this.#ended = true;
    this.#cli.signal("SIGTERM");
    return await within(STOP_MS, `${this.name} to stop`, this.#cli.end());
  }

  /** Waits for an end that something else brings about. */
  async end(): Promise<CliResult> {
    this.#ended = true;
    return await within(STOP_MS, `${this.name} to end`, this.#cli.end());
  }

  /** Waits for a match in what it logs. */
  async logged(pattern: RegExp, ms: number = CALL_MS): Promise<RegExpExecArray> {
    try {
      return await within(ms, `${pattern} in the log of ${this.name}`, this.#cli.matchErrors(pattern));
    } catch (error) {
      throw new Error(`${this.name} did not say it: ${this.#cli.errors}`, { cause: error });
    }
  }

  /** Kills it if it is alive, and waits for its end. @returns what it said. */
  async close(): Promise<CliResult> {
    this.#ended = true;
    await this.#cli[Symbol.asyncDispose]();
    return await this.#cli.end();
  }

  /** See {@linkcode close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #get<T>(path: string): Promise<T> {
    const response = await fetch(`${this.where.url}${path}`, { signal: AbortSignal.timeout(CALL_MS) });
    if (!response.ok) {
      throw new Error(`Cannot get ${path} of ${this.name}: ${response.status} ${await response.text()}`);
    }
    return await response.json();
  }
}

/** Processes of one cluster, and of others beside it. */
export class ClusterProcesses implements AsyncDisposable {
  readonly #model: string;
  readonly #members: MemberProcess[] = [];
  readonly #proxies: TcpProxy[] = [];

  /** Starts none. @param model Path of the model of its instances. */
  constructor(model: string) {
    this.#model = model;
  }

  /** Every member that was started. */
  get started(): readonly MemberProcess[] {
    return this.#members;
  }

  /** Members that have not ended. */
  get alive(): readonly MemberProcess[] {
    return this.#members.filter(({ ended }) => !ended);
  }

  /** Starts a member; {@linkcode MemberProcess.ready} waits for it. */
  async launch(settings: MemberSettings): Promise<MemberProcess> {
    if (settings.proxied !== true) return this.#launch(settings, { clusterPort: 0 });
    // The port must be known before the member starts: what others are told is the proxy's.
    const clusterPort = freePort();
    const proxy = await startTcpProxy({ target: clusterPort });
    this.#proxies.push(proxy);
    return this.#launch(settings, { clusterPort, proxy });
  }

  /** Starts a member in the place of one that has ended: the same name, memory and address, other members to join. */
  relaunch(
    { settings, clusterPort, proxy }: MemberProcess,
    { join }: { readonly join: readonly MemberProcess[] },
  ): MemberProcess {
    return this.#launch({ ...settings, join }, { clusterPort, proxy });
  }

  #launch(
    settings: MemberSettings,
    place: { readonly clusterPort: number; readonly proxy?: TcpProxy },
  ): MemberProcess {
    const { name, role = "full", kvTokens = 1024, kvMemory = "64MiB", join = [], flags = [] } = settings;
    const { clusterPort, proxy } = place;
    const memory = role === "full"
      ? ["--model", settings.model ?? this.#model, "--kv-tokens", String(kvTokens)]
      : ["--role", "holder", "--kv-memory", kvMemory];
    const cli = new RunningCli([
      "serve",
      ...memory,
      ...[
        "--port",
        "0",
        "--threads",
        "1",
        "--name",
        name,
        "--cluster-listen",
        `127.0.0.1:${clusterPort}`,
        "--announce",
      ],
      ...join.flatMap(({ where }) => ["--join", where.clusterUrl]),
      ...(proxy === undefined ? [] : ["--advertise", `http://127.0.0.1:${proxy.port}`]),
      ...flags,
    ], { input: "", program: settings.program });
    const member = new MemberProcess(cli, settings, place);
    this.#members.push(member);
    return member;
  }

  /** Starts a member and waits until it is ready. */
  async start(settings: MemberSettings): Promise<MemberProcess> {
    return await (await this.launch(settings)).ready();
  }

  /** Starts one instance that is in no cluster. */
  async startAlone(settings: { readonly name: string; readonly kvTokens: number }): Promise<MemberProcess> {
    const { name, kvTokens } = settings;
    const cli = new RunningCli([
      ...["serve", "--model", this.#model, "--kv-tokens", String(kvTokens), "--port", "0"],
      ...["--threads", "1", "--announce"],
    ], { input: "" });
    const member = new MemberProcess(cli, { name, kvTokens });
    this.#members.push(member);
    return await member.ready();
  }

  /** Waits until every member that is alive sees exactly these, all alive. @returns their reports. */
  async settled(ms: number, members: readonly MemberProcess[] = this.alive): Promise<ClusterReport[]> {
    const names = members.map(({ name }) => name).sort();
    let seen = "";
    return await eventually(async () => {
      const reports = await Promise.all(members.map((member) => member.report()));
      seen = reports.map((report) => describeReport(report)).join("; ");
      const all = reports.every(({ members }) =>
        members.every(({ state }) => state === "alive") &&
        members.map(({ id }) => id).sort().join() === names.join()
      );
      return all ? reports : undefined;
    }, { what: `${names.join(", ")} to see each other`, ms, seen: () => seen });
  }

  /** Waits until a prompt and output of `tokens` are accepted at `member`: what others lend is known there. */
  async reaches(
    member: MemberProcess,
    { tokens, ms }: { readonly tokens: number; readonly ms: number },
  ): Promise<void> {
    let seen = 0;
    await eventually(async () => {
      seen = (await member.report()).reachableModelLen;
      return seen >= tokens ? true : undefined;
    }, { what: `${member.name} to reach ${tokens} tokens`, ms, seen: () => `: it reaches ${seen}` });
  }

  /**
   * Waits until no member owns, lends, borrows or quarantines a block and no lease is left.
   *
   * @throws {Error} with what is left after `ms`.
   */
  async empty(ms: number, members: readonly MemberProcess[] = this.alive): Promise<void> {
    let seen = "";
    await eventually(async () => {
      const reports = await Promise.all(members.map((member) => member.report()));
      const left = reports.flatMap(({ from, members, leases, sequences }) => [
        ...members.filter(({ blocks }) => blocks.own + blocks.lent + blocks.borrowed + blocks.quarantined > 0)
          .map(({ id, blocks: { own, lent, borrowed, quarantined } }) =>
            `${from} sees ${id} with own ${own}, lent ${lent}, borrowed ${borrowed}, quarantined ${quarantined}`
          ),
        ...leases.map(({ id, debtor }) => `${from} sees lease ${id} of ${debtor}`),
        ...sequences.map(({ id }) => `${from} sees sequence ${id}`),
      ]);
      seen = left.join("; ");
      return left.length === 0 ? true : undefined;
    }, { what: "every block to be given back", ms, seen: () => seen });
  }

  /** Kills what is alive. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#members.map((member) => member[Symbol.asyncDispose]()));
    await Promise.all(this.#proxies.map((proxy) => proxy[Symbol.asyncDispose]()));
  }
}

/** A report in one line. */
export function describeReport({ from, manager, members, leases, sequences }: ClusterReport): string {
  const each = members.map(({ id, state, blocks: { total, own, lent, borrowed, quarantined } }) =>
    `${id} ${state} ${total}/${own}/${lent}/${borrowed}/${quarantined}`
  );
  return `${from} (manager ${manager ?? "none"}): ${
    each.join(", ")
  }, ${leases.length} leases, ${sequences.length} sequences`;
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
