/**
 * Opens a member with weights: links, policies and an engine over a device.
 *
 * @module
 */
import { MemoryHost } from "../../plugins/memory_host.ts";
import { PLUGIN_API } from "../../plugins/types.ts";
import type { PolicyHost } from "../../scheduler/policy.ts";
import { PerformanceModel } from "../../scheduler/performance/performance_model.ts";
import type { KvFormat, MemberRole } from "../../scheduler/protocol/member.ts";
import { PROTOCOL_VERSION } from "../../scheduler/protocol/messages.ts";
import { type Device, type DeviceInfo, SEGMENT_TOKENS } from "../device/device.ts";
import type { Engine } from "../engine/engine.ts";
import type { EngineHooks } from "./instance.ts";
import { Member, type MemberOptions } from "./member.ts";
import { MemberControl } from "./member_control.ts";
import { memberDigest } from "./open_member_digest.ts";
import { newIdentity, openPorts } from "./open_ports.ts";
import { CLUSTER_TIMINGS, type ClusterOptions } from "./options.ts";

/** How a pool of each kind of device stores a block; those of one name can hold each other's segments. */
const STORED: Readonly<Record<DeviceInfo["kind"], string>> = { reference: "reference", wasm: "units", cuda: "units" };

/** A member that talks; disposing of it stops it and closes its links. */
export interface OpenMember extends Disposable {
  /** The member. */
  readonly member: Member;
  /** Its face. */
  readonly control: MemberControl;
}

/** What a member with weights is made of. */
export interface OpenMemberOptions {
  /** Its place in the cluster. */
  readonly cluster: ClusterOptions;
  /** Computes; stays the caller's. */
  readonly device: Device;
  /** Digest of the model. */
  readonly modelDigest: string;
  /** Makes the engine. */
  readonly engine: (hooks: EngineHooks) => Engine;
  /** Picks homes; stays the caller's. */
  readonly scheduler: PolicyHost;
  /** Most running sequences. */
  readonly maxBatch: number;
  /** Takes a line of the log. */
  readonly log: (message: string) => void;
}

/**
 * Format of the KV that a device lends and borrows. Its blocks are those in which a segment travels: members of the same
 * format may have blocks of other sizes in their own memory.
 */
export function kvFormat(device: Device, modelDigest: string): KvFormat {
  const { kind, activations } = device.info;
  const { layers, heads, kvHeads, headDim, blockTokens: ownTokens, kvType } = device.layout;
  const blockTokens = device.storedTokens ?? ownTokens;
  return {
    modelDigest,
    kvType,
    layout: `${STORED[kind]}/${activations}/1`,
    layers,
    heads,
    kvHeads,
    headDim,
    blockTokens,
    segmentTokens: SEGMENT_TOKENS,
    blockBytes: device.blockBytes / (ownTokens / blockTokens),
  };
}

/**
 * Opens a member and starts it.
 *
 * @throws {Error} when the cluster port cannot be opened.
 * @throws {PluginError} when the memory policy cannot be loaded.
 */
export async function openMember(options: OpenMemberOptions): Promise<OpenMember> {
  const { cluster, device, modelDigest, engine, scheduler, maxBatch } = options;
  return await startMember({
    cluster,
    role: "full",
    kernelDigest: await memberDigest(device.info),
    log: options.log,
    parts: {
      kind: "full",
      device,
      format: kvFormat(device, modelDigest),
      engine,
      scheduler,
      maxBatch,
      model: new PerformanceModel(),
    },
  });
}

/** Opens links and memory policy for parts that are there, and starts the member. */
export async function startMember(
  options: {
    readonly cluster: ClusterOptions;
    readonly role: MemberRole;
    readonly kernelDigest: string;
    readonly parts: MemberOptions["parts"];
    readonly log: (message: string) => void;
  },
): Promise<OpenMember> {
  const { cluster, role, parts, log } = options;
  using opened = new DisposableStack();
  const memoryPolicy = opened.use(
    await MemoryHost.load(cluster.memoryPolicy ?? "builtin:infinite-llm", {
      config: cluster.memoryPolicyOptions,
      now: () => performance.now(),
      random: Math.random,
      log,
    }),
  );
  const identity = newIdentity(cluster.name);
  const leaveAsked = Promise.withResolvers<void>();
  const late: { member?: Member } = {};
  const ports = opened.use(
    await openPorts({
      cluster,
      card: () => {
        if (late.member === undefined) throw new ReferenceError("Cannot show a card: the member is being opened");
        return late.member.card;
      },
      epoch: () => late.member?.epoch ?? 0,
      log,
    }),
  );
  const member = new Member({
    card: {
      ...identity,
      role,
      publicUrl: cluster.publicUrl ?? "",
      pid: Deno.pid,
      protocol: PROTOCOL_VERSION,
      pluginApi: PLUGIN_API,
      kernelDigest: options.kernelDigest,
    },
    parts,
    join: cluster.join ?? [],
    memoryPolicy,
    timings: { ...CLUSTER_TIMINGS, ...cluster.timings },
    lendShare: cluster.lendShare,
    sliceWork: cluster.sliceWork,
    segmentTokens: SEGMENT_TOKENS,
    onLeaveAsked: leaveAsked.resolve,
  }, ports);
  late.member = member;
  opened.adopt(member, (started) => started.stop());
  member.start();
  const kept = opened.move();
  return {
    member,
    control: new MemberControl(member, leaveAsked.promise),
    [Symbol.dispose]: () => kept.dispose(),
  };
}
