/**
 * One benchmark run: opens everybody, runs the rows, puts the result together.
 *
 * @module
 */
import { cacheDirectory } from "../runtime/hub/cache_directory.ts";
import { readHubEnvironment } from "../runtime/hub/hub_environment.ts";
import { ModelHub } from "../runtime/hub/model_hub.ts";
import { ProgressBar } from "../runtime/hub/progress.ts";
import { openModel } from "../runtime/model/open_model.ts";
import { type Ceilings, openCeilings } from "./ceilings.ts";
import { type Contestant, OURS } from "./contestant.ts";
import { openEngineContestant } from "./engine_contestant.ts";
import { readCommit, readHardware, readLoad } from "./hardware.ts";
import { judge } from "./judge.ts";
import { batchCeiling, decodeCeiling, type ModelWork, modelWork, prefillCeiling } from "./model_work.ts";
import type { BenchOptions, PeerName } from "./options.ts";
import { openLlamaBench } from "./peers/llama_bench.ts";
import { openLlamaServer } from "./peers/llama_server.ts";
import { openNodeLlamaCpp } from "./peers/node_llama_cpp.ts";
import type { PeerOptions } from "./peers/peer_options.ts";
import { openWllama } from "./peers/wllama.ts";
import { readPrompts } from "./prompts.ts";
import { type BenchResult, RESULT_VERSION, type RowResult } from "./result.ts";
import { type CeilingId, DECODED_TOKENS, type Row, type RowId } from "./rows.ts";
import { BareServerContestant, hasCommandLine, ServerContestant } from "./server_contestant.ts";
import { summarize, type Summary } from "./statistics.ts";
import { takeTurns } from "./turns.ts";

/** Path of the model that `name` names, fetched into the cache where needed. */
async function findModel(name: string, log: (line: string) => void): Promise<string> {
  const env = (variable: string) => Deno.env.get(variable);
  const hub = new ModelHub({
    ...readHubEnvironment(env),
    cacheDirectory: cacheDirectory({ env }),
    reporter: new ProgressBar({ terminal: false, write: (text) => log(text.trimEnd()) }),
  });
  return (await hub.find(name)).path;
}

/** Opens a peer. @throws {Error} when it cannot be had. */
function openPeer(name: PeerName, options: BenchOptions, shared: PeerOptions): Promise<Contestant> {
  switch (name) {
    case "node-llama-cpp":
      return openNodeLlamaCpp(shared);
    case "wllama":
      return openWllama(shared);
    case "llama-bench":
      return openLlamaBench(options.llamaBench ?? name, shared);
    case "llama-server":
      return openLlamaServer(options.llamaServer ?? name, shared);
    default:
      return name satisfies never;
  }
}

/** Rate that the ceilings' medians allow for a row; undefined for rows without. */
function ceilingRate(id: RowId, work: ModelWork, rate: (ceiling: CeilingId) => number): number | undefined {
  // The mean context of the generated tokens lies half of them behind the prompt.
  const decode = (tokens: number) => decodeCeiling(work, tokens + DECODED_TOKENS / 2, { bytesPerSecond: rate("read") });
  const prefill = (tokens: number) => prefillCeiling(work, tokens, { dotMacs: rate("dot"), f32Macs: rate("f32") });
  switch (id) {
    case "decode-128":
      return decode(128);
    case "decode-2000":
      return decode(2000);
    case "prefill-512":
      return prefill(512);
    case "prefill-2000":
      return prefill(2000);
    case "batch-8":
      return batchCeiling(work, { dotMacs: rate("dot") });
    case "first-token":
    case "warm-start":
    case "memory":
    case "health":
      return undefined;
    default:
      return id satisfies never;
  }
}

/** Who hears about the progress of a run. */
export interface RunListener {
  /** Takes a line for people. */
  readonly log: (line: string) => void;
  /** Takes the result so far, after each row, so that an interrupted run is not lost. */
  readonly save: (result: BenchResult) => void;
}

/** Runs the rows that were asked for. */
export async function runRows(options: BenchOptions, { log, save }: RunListener): Promise<BenchResult> {
  const date = new Date().toISOString();
  const loadBefore = readLoad();
  const commit = await readCommit();
  const notes: string[] = [];
  const leaveOut = (line: string) => {
    notes.push(line);
    log(`left out: ${line}`);
  };
  const modelPath = await findModel(options.model, log);
  using model = openModel(modelPath);
  const work = modelWork(model, "f16");
  const { pin, warmMs } = options;
  const shared: PeerOptions = { ...options, modelPath, prompts: readPrompts(), work };
  await using open = new AsyncDisposableStack();
  const contestants: Contestant[] = [];
  const needs = (...ids: RowId[]) => options.rows.some(({ id }) => ids.includes(id));

  if (needs("decode-128", "decode-2000", "prefill-512", "prefill-2000", "batch-8")) {
    log("opening our engine");
    contestants.push(open.use(await openEngineContestant({ ...shared, model, pin, warmMs })));
  }
  if (needs("first-token", "warm-start", "memory", "health")) {
    if (hasCommandLine()) {
      contestants.push(open.use(new ServerContestant({ ...shared, pin, warmMs })));
      contestants.push(open.use(new BareServerContestant(options)));
    } else {
      leaveOut("first-token, warm-start, memory, health: there is no cli.ts to start a server with");
    }
  }
  for (const name of options.peers) {
    log(`opening ${name}`);
    try {
      contestants.push(open.use(await openPeer(name, options, shared)));
    } catch (error) {
      leaveOut(`${name}: ${error instanceof Error ? error.message : error}`);
    }
  }
  log("warming up the ceilings");
  const ceilings = open.use(await openCeilings(options.threads));

  const rows: RowResult[] = [];
  const allCeilings = new Map<CeilingId, number[]>();
  const resultSoFar = (): BenchResult => ({
    version: RESULT_VERSION,
    date,
    commit,
    hardware: readHardware(),
    load: { before: loadBefore, after: readLoad() },
    settings: {
      model: model.name,
      digest: model.digest,
      threads: options.threads,
      pin: options.pin,
      repeats: options.repeats,
      warmMs: options.warmMs,
      seed: options.seed,
      decodedTokens: DECODED_TOKENS,
    },
    contestants: Object.fromEntries(describe(contestants)),
    ceilings: Object.fromEntries([...allCeilings].map(([id, samples]) => [id, summarize(samples)])),
    rows,
    notes,
  });
  for (const row of options.rows) {
    if (!contestants.some(({ name, rows }) => name === OURS && rows.includes(row.id))) continue;
    log(row.id);
    const result = await runRow(row, { options, contestants, ceilings, work, allCeilings, leaveOut, log });
    if (result !== undefined) rows.push(result);
    save(resultSoFar());
  }
  return resultSoFar();
}

/** Names with versions; what takes part under one name is joined. */
function describe(contestants: readonly Contestant[]): Map<string, string> {
  const versions = new Map<string, string>();
  for (const { name, version } of contestants) {
    const known = versions.get(name);
    versions.set(name, known === undefined ? version : `${known}; ${version}`);
  }
  return versions;
}

async function runRow(row: Row, run: {
  readonly options: BenchOptions;
  readonly contestants: readonly Contestant[];
  readonly ceilings: Ceilings;
  readonly work: ModelWork;
  readonly allCeilings: Map<CeilingId, number[]>;
  readonly leaveOut: (line: string) => void;
  readonly log: (line: string) => void;
}): Promise<RowResult | undefined> {
  const { contestants, ceilings, failures } = await takeTurns(row, {
    contestants: run.contestants,
    measureCeiling: (id) => run.ceilings.measure(id),
    repeats: run.options.repeats,
    onSample: (name, value) => run.log(`  ${name}: ${value.toFixed(1)} ${row.unit}`),
  });
  for (const [name, reason] of failures) run.leaveOut(`${row.id} of ${name}: ${reason}`);
  for (const [id, samples] of ceilings) run.allCeilings.set(id, [...run.allCeilings.get(id) ?? [], ...samples]);
  const summaries = new Map<string, Summary>([...contestants].map(([name, samples]) => [name, summarize(samples)]));
  const ours = summaries.get(OURS);
  if (ours === undefined) return undefined;
  summaries.delete(OURS);
  const rate = (id: CeilingId) => summarize(ceilings.get(id) ?? []).median;
  return judge(row, {
    ours,
    peers: Object.fromEntries(summaries),
    ceiling: ceilingRate(row.id, run.work, rate),
  });
}
