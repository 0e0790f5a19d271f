/**
 * A long-context LLM server as a library: run requests on an engine, or use DistAttention by itself.
 *
 * @example Chat with a model
 * ```ts
 * import { findModel, openEngine, openTextCodec } from "@infinite-llm/runtime";
 *
 * const modelPath = await findModel(); // SmolLM2-135M-Instruct, from the cache or fetched; or any path or hf: name
 * await using text = await openTextCodec({ modelPath });
 * await using engine = await openEngine({ modelPath }, { text });
 * const prompt = await text.encodeChat([{ role: "user", content: "Why is the sky blue?" }]);
 * for await (const event of engine.generate({ id: "1", prompt, maxTokens: 64, sampling: { temperature: 0 } })) {
 *   if (event.kind === "token") console.log(event.text);
 * }
 * ```
 *
 * @example Attend to two halves of a context and merge the partials
 * ```ts
 * import { assertAlmostEquals } from "@std/assert";
 * import { attendPartial, mergePartials } from "@infinite-llm/runtime";
 *
 * const shape = { heads: 2, kvHeads: 1, headDim: 4 };
 * const values = (count: number) => Float32Array.from({ length: count }, (_, i) => Math.sin(i));
 * const [q, k, v] = [values(8), values(512 * 4), values(512 * 4)];
 * const whole = attendPartial({ ...shape, q, k, v });
 * const half = (from: number, to: number) =>
 *   attendPartial({ ...shape, q, k: k.subarray(from * 4, to * 4), v: v.subarray(from * 4, to * 4), start: from });
 * const merged = mergePartials([half(0, 256), half(256, 512)]);
 * assertAlmostEquals(merged.o[0], whole.o[0], 1e-6);
 * ```
 *
 * @module
 */
export { attendPartial, type AttendPartialOptions } from "./kernels/attend_partial/launch.ts";
export type { AttendPartialInput } from "./kernels/attend_partial/spec.ts";
export { type MergeOptions, mergePartials } from "./kernels/merge_partials/launch.ts";
export {
  type AttentionPartial,
  SEGMENT_TOKENS,
  type SegmentNode,
  segmentNodes,
} from "./kernels/merge_partials/spec.ts";
export type { ActivationType, DType, HostKvType, KvType } from "./kernels/dtype.ts";
export type { KernelExports } from "./kernels/wasm/lib/exports.ts";
export type { ThreadStart } from "./kernels/wasm/thread_worker.ts";
export type { ComputeThread, ThreadStarter } from "./kernels/wasm/threads.ts";
export { openWasm, type WasmOptions, WasmRuntime } from "./kernels/wasm/instance.ts";

export { openModel } from "./runtime/model/open_model.ts";
export type {
  LayerWeights,
  ModelConfig,
  ModelWeights,
  OpenModel,
  RopeConfig,
  TextAssets,
  WeightTensor,
} from "./runtime/model/model.ts";
export { findModel, type FindModelOptions } from "./runtime/hub/find_model.ts";
export type { TransferReporter } from "./runtime/hub/progress.ts";
export { ModelFileError } from "./runtime/weights/model_file_error.ts";

export type { ChatMessage, RenderOptions, TextCodec, TokenTable } from "./runtime/text/codec.ts";
export { TemplateError } from "./runtime/text/codec.ts";
export { createTextCodec } from "./runtime/text/text_codec.ts";
export type { ModelText } from "./runtime/text/text_protocol.ts";
export { openTextCodec } from "./runtime/text/worker_codec.ts";

export type {
  AttendRange,
  Device,
  DeviceInfo,
  DeviceOptions,
  DeviceStep,
  FollowingStep,
  KvLayout,
  KvStore,
  NextToken,
  NodePartial,
  NodeWork,
  SegmentRange,
  StepHints,
  StepOutput,
  StepSequence,
  StepStop,
} from "./runtime/device/device.ts";
export { type DeviceChoice, openDevice, type OpenDeviceOptions } from "./runtime/device/open_device.ts";
export type { CudaDeviceOptions } from "./runtime/device/cuda_device.ts";
export type { WeightForm } from "./runtime/device/cuda_kept.ts";
export type { KeptForm } from "./runtime/device/cuda_matrix.ts";
export { CudaLibraries, type FoundLibrary, type LibraryName } from "./ffi/cuda/libraries.ts";
export type { SearchPathOptions } from "./ffi/cuda/search_path.ts";
export type { KvSize } from "./runtime/device/kv_size.ts";
export type { HolderDevice } from "./runtime/device/open_holder_store.ts";
export type { WasmDeviceOptions } from "./runtime/device/wasm_device.ts";
export type { SampleMode } from "./kernels/sample/spec.ts";

export { Engine, type EngineOptions } from "./runtime/engine/engine.ts";
export type { EngineText, OpenEngineOptions } from "./runtime/engine/engine_protocol.ts";
export type { RunSequence, RunSlot, StepOutcome, StepRunner } from "./runtime/engine/step_runner.ts";
export { LocalEngine } from "./runtime/engine/local_engine.ts";
export { openEngine, type OpenEngineContext } from "./runtime/engine/worker_engine.ts";
export {
  type BlockStats,
  CapacityError,
  type EngineHandle,
  type EngineInfo,
  type EngineRequest,
  type EngineStats,
  type FinishReason,
  type RequestEvent,
  type SamplingParams,
  type TokenLogprob,
  type Usage,
} from "./runtime/engine/request.ts";

export { type KeyDigest, loadApiKeys } from "./runtime/server/api_keys.ts";
export type { ServerLimits } from "./runtime/server/limits.ts";
export {
  createLogger,
  type LogFields,
  type Logger,
  type LoggerOptions,
  type LogLevel,
} from "./runtime/server/logger.ts";
export { type RunningServer, type ServerOptions, startServer, type TlsFiles } from "./runtime/server/server.ts";

export { type OpenedMember, openHolder } from "./runtime/cluster/open_holder.ts";
export { openManager } from "./runtime/cluster/open_manager.ts";
export type { ClusterOptions, ClusterTimings } from "./runtime/cluster/options.ts";
export type { LinkTls } from "./scheduler/links/hello_context.ts";
export type {
  ClusterCommand,
  ClusterControl,
  ClusterReport,
  CommandResult,
  ReportedLease,
  ReportedMember,
  ReportedRange,
  ReportedSequence,
} from "./runtime/cluster/report.ts";

export { PluginError } from "./plugins/error.ts";
export type { CheckedStepPlan } from "./plugins/answers.ts";
export type { BreakerOptions } from "./plugins/breaker.ts";
export { SchedulerHost, type SchedulerHostOptions } from "./plugins/host.ts";
export type { CheckedMove, CheckedPlacement } from "./plugins/memory_answers.ts";
export { MemoryHost } from "./plugins/memory_host.ts";
export type { PolicyHostOptions } from "./plugins/policy_guard.ts";
export type { MemoryPlugin, SchedulerPlugin } from "./plugins/types.ts";
export type { MemoryPolicyHost, Placement, PlannedMove } from "./scheduler/memory_policy.ts";
export type { PolicyHost, PolicyPlan } from "./scheduler/policy.ts";
export type { BlockCounts, BlockId, BlockPool, BlockState } from "./scheduler/block_pool.ts";
export type { BorrowedSlot } from "./scheduler/lending/borrowed.ts";
export type {
  ClusterMemory,
  HeldSegment,
  MemoryDemand,
  PlacedRange,
  PlacedSequence,
  SegmentMove,
} from "./scheduler/lending/cluster_memory.ts";
export type { MemberIdentity, MemberRole } from "./scheduler/protocol/member.ts";
export type { BlockReport, LoadReport, MoveReport, PerformanceReport } from "./scheduler/protocol/messages.ts";
