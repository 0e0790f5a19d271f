/**
 * Payloads of the attention lane. Everything is a multiple of 4 bytes, numbers of attention are f32.
 *
 * ```text
 * attend    call u64, layer u32, items u32,
 *           items × (segment u32, position u32, tokens u32, runs u32, runs × slot run),
 *           items × queries [tokens, heads * headDim]
 * partials  call u64, layer u32, items u32,
 *           items × (nodes u32, rows u32, nodes × (first u32, segments u32)),
 *           items × nodes × (o [rows, headDim], lse [rows]), rows = tokens * heads
 * ```
 *
 * @module
 */
import type { FrameTypeName } from "./frame.ts";
import type { FrameWriter } from "./frame_writer.ts";
import type { KvFormat } from "./member.ts";
import type { AttendItem, AttendReply, AttendRequest, AttentionMessage, SlotRun, WirePartial } from "./messages.ts";
import { PayloadReader } from "./payload_reader.ts";
import { decodeRefused, encodeRefused } from "./refused_codec.ts";
import { nodeSegments } from "./segment_nodes.ts";
import { decodeSlotRun, encodeSlotRun, SLOT_RUN_BYTES } from "./slot_run_codec.ts";

const ITEM_BYTES = 16;
const NODE_BYTES = 8;

/** Segments lie below this: the merge tree is cut by 32-bit numbers. */
const MAX_SEGMENT = 2 ** 31;

/** What shapes attention on a link. */
export type AttentionFormat = Pick<KvFormat, "layers" | "heads" | "headDim" | "segmentTokens">;

/** Writes a message of the attention lane and returns the type of its frame. @throws {RangeError} when it contradicts itself. */
export function encodeAttention(writer: FrameWriter, message: AttentionMessage): FrameTypeName {
  switch (message.kind) {
    case "attend":
      encodeAttend(writer, message);
      break;
    case "partials":
      encodePartials(writer, message);
      break;
    case "refused":
      encodeRefused(writer, message);
      break;
    default:
      message satisfies never;
  }
  return message.kind;
}

/**
 * Reads a message of the attention lane. Its arrays are views of `payload` where that is aligned to 4 bytes.
 *
 * @param format Format of the KV both sides attend to; without one, nothing can be attended to.
 * @throws {MessageError} when the message contradicts the format or itself, or a number is not finite.
 * @throws {PeerError} when there is no message.
 */
export function decodeAttention(
  type: FrameTypeName,
  payload: Uint8Array,
  format: AttentionFormat | undefined,
): AttentionMessage {
  const reader = new PayloadReader(payload, type);
  switch (type) {
    case "attend":
      return decodeAttend(reader, format);
    case "partials":
      return decodePartials(reader, format);
    case "refused":
      return decodeRefused(payload);
    default:
      throw reader.error("it does not belong to the attention lane");
  }
}

function encodeAttend(writer: FrameWriter, { call, layer, items }: AttendRequest): void {
  let bytes = 16;
  for (const item of items) bytes += ITEM_BYTES + item.runs.length * SLOT_RUN_BYTES + item.queries.byteLength;
  writer.begin(bytes);
  writer.u64(call);
  writer.u32(layer);
  writer.u32(items.length);
  for (const { segment, position, tokens, runs } of items) {
    writer.u32(segment);
    writer.u32(position);
    writer.u32(tokens);
    writer.u32(runs.length);
    for (const run of runs) encodeSlotRun(writer, run);
  }
  for (const { queries } of items) writer.floats(queries);
}

function decodeAttend(reader: PayloadReader, format: AttentionFormat | undefined): AttendRequest {
  const call = reader.call();
  const layer = reader.u32();
  const count = reader.u32();
  if (format === undefined) throw reader.error("wanted a KV format, this link has none", "wrong_format");
  checkCounts(reader, { layer, count, itemBytes: ITEM_BYTES, format });
  const heads: Omit<AttendItem, "queries">[] = [];
  for (let i = 0; i < count; i++) {
    const segment = reader.u32();
    const position = reader.u32();
    const tokens = reader.u32();
    const runs = decodeRuns(reader);
    let end = segment;
    for (const run of runs) end += run.count;
    if (tokens < 1) throw reader.error(`wanted at least one query in item ${i}, got ${tokens}`);
    if (end > MAX_SEGMENT || end * format.segmentTokens > position) {
      throw reader.error(`wanted segments [${segment}, ${end}) of item ${i} below position ${position}`);
    }
    heads.push({ segment, runs, position, tokens });
  }
  const width = format.heads * format.headDim;
  const items: AttendItem[] = [];
  for (const { segment, runs, position, tokens } of heads) {
    const queries = reader.floats(tokens * width);
    if (!allFinite(queries)) throw reader.error("wanted finite queries, got NaN or an infinity", "not_finite");
    items.push({ segment, runs, position, tokens, queries });
  }
  reader.end();
  return { kind: "attend", call, layer, items };
}

function decodeRuns(reader: PayloadReader): SlotRun[] {
  const count = reader.u32();
  if (count < 1 || count * SLOT_RUN_BYTES > reader.left) {
    throw reader.error(`wanted 1 to ${Math.floor(reader.left / SLOT_RUN_BYTES)} runs, got ${count}`);
  }
  const runs: SlotRun[] = [];
  for (let i = 0; i < count; i++) runs.push(decodeSlotRun(reader));
  return runs;
}

function encodePartials(writer: FrameWriter, { call, layer, items }: AttendReply): void {
  let bytes = 16;
  for (const nodes of items) {
    bytes += NODE_BYTES;
    for (const { o, lse } of nodes) bytes += NODE_BYTES + o.byteLength + lse.byteLength;
  }
  writer.begin(bytes);
  writer.u64(call);
  writer.u32(layer);
  writer.u32(items.length);
  for (const nodes of items) {
    const rows = nodes.length === 0 ? 0 : nodes[0].lse.length;
    const values = nodes.length === 0 ? 0 : nodes[0].o.length;
    writer.u32(nodes.length);
    writer.u32(rows);
    for (const { first, segments, o, lse } of nodes) {
      if (lse.length !== rows || o.length !== values) {
        throw new RangeError(
          `Cannot encode partials of call ${call}: wanted ${values} and ${rows} numbers in every node, got ${o.length} and ${lse.length}`,
        );
      }
      writer.u32(first);
      writer.u32(segments);
    }
  }
  for (const nodes of items) {
    for (const { o, lse } of nodes) {
      writer.floats(o);
      writer.floats(lse);
    }
  }
}

function decodePartials(reader: PayloadReader, format: AttentionFormat | undefined): AttendReply {
  const call = reader.call();
  const layer = reader.u32();
  const count = reader.u32();
  if (format === undefined) throw reader.error("wanted a KV format, this link has none", "wrong_format");
  checkCounts(reader, { layer, count, itemBytes: NODE_BYTES, format });
  const shapes: { readonly rows: number; readonly firsts: readonly number[]; readonly end: number }[] = [];
  for (let i = 0; i < count; i++) shapes.push(decodeNodes(reader, { item: i, heads: format.heads }));
  const items: WirePartial[][] = [];
  for (const { rows, firsts, end } of shapes) {
    const nodes: WirePartial[] = [];
    for (let i = 0; i < firsts.length; i++) {
      const first = firsts[i];
      const o = reader.floats(rows * format.headDim);
      const lse = reader.floats(rows);
      checkPartial(reader, o, lse);
      nodes.push({ first, segments: (i + 1 < firsts.length ? firsts[i + 1] : end) - first, o, lse });
    }
    items.push(nodes);
  }
  reader.end();
  return { kind: "partials", call, layer, items };
}

/** Reads the list of nodes of one item, which must be those that cut its segments. */
function decodeNodes(
  reader: PayloadReader,
  { item, heads }: { readonly item: number; readonly heads: number },
): { rows: number; firsts: number[]; end: number } {
  const count = reader.u32();
  const rows = reader.u32();
  if (count < 1 || count * NODE_BYTES > reader.left) {
    throw reader.error(`wanted 1 to ${Math.floor(reader.left / NODE_BYTES)} nodes in item ${item}, got ${count}`);
  }
  if (rows < 1 || rows % heads !== 0) throw reader.error(`wanted rows of ${heads} heads in item ${item}, got ${rows}`);
  const firsts: number[] = [];
  const sizes: number[] = [];
  let end = -1;
  for (let i = 0; i < count; i++) {
    const first = reader.u32();
    const segments = reader.u32();
    if (i > 0 && first !== end) throw reader.error(`wanted node ${i} of item ${item} to begin at ${end}, got ${first}`);
    firsts.push(first);
    sizes.push(segments);
    end = first + segments;
  }
  if (end > MAX_SEGMENT) throw reader.error(`wanted segments below ${MAX_SEGMENT} in item ${item}, got ${end}`);
  for (let i = 0; i < count; i++) {
    if (sizes[i] !== nodeSegments(firsts[i], end)) {
      throw reader.error(
        `wanted ${nodeSegments(firsts[i], end)} segments from ${firsts[i]} in item ${item}, got ${sizes[i]}`,
      );
    }
  }
  return { rows, firsts, end };
}

function checkCounts(
  reader: PayloadReader,
  of: { readonly layer: number; readonly count: number; readonly itemBytes: number; readonly format: AttentionFormat },
): void {
  if (of.layer >= of.format.layers) {
    throw reader.error(`wanted a layer below ${of.format.layers}, got ${of.layer}`);
  }
  if (of.count < 1 || of.count * of.itemBytes > reader.left) {
    throw reader.error(`wanted 1 to ${Math.floor(reader.left / of.itemBytes)} items, got ${of.count}`);
  }
}

function checkPartial(reader: PayloadReader, o: Float32Array, lse: Float32Array): void {
  if (!allFinite(o)) throw reader.error("wanted finite o, got NaN or an infinity", "not_finite");
  const width = o.length / lse.length;
  for (let row = 0; row < lse.length; row++) {
    const value = lse[row];
    if (value - value === 0) continue;
    if (value !== -Infinity) throw reader.error(`wanted lse below +Infinity, got ${value}`, "not_finite");
    for (let i = row * width; i < (row + 1) * width; i++) {
      if (o[i] !== 0) throw reader.error(`wanted o = 0 where lse is -Infinity, got ${o[i]}`);
    }
  }
}

/** Whether no number is NaN or infinite: the product with 0 of every other number is 0. */
export function allFinite(values: Float32Array): boolean {
  let a = 0, b = 0, c = 0, d = 0;
  const whole = values.length & ~3;
  for (let i = 0; i < whole; i += 4) {
    a += values[i] * 0;
    b += values[i + 1] * 0;
    c += values[i + 2] * 0;
    d += values[i + 3] * 0;
  }
  for (let i = whole; i < values.length; i++) a += values[i] * 0;
  return a + b + c + d === 0;
}
