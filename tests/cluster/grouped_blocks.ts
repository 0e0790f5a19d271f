/**
 * Devices and stores whose blocks are several of another one's, end to end: what a member on a GPU is to members whose blocks
 * are smaller, without a GPU.
 *
 * @module
 */
import type {
  AttendRange,
  Device,
  DeviceInfo,
  KvLayout,
  KvStore,
  NodeWork,
  StepSequence,
} from "../../runtime/device/device.ts";

/** The blocks of the inner store that blocks are made of. */
function expand(blocks: ArrayLike<number>, group: number): number[] {
  return Array.from(blocks).flatMap((block) => Array.from({ length: group }, (_, i) => block * group + i));
}

/** Blocks that hold `tokens` tokens; a step names no more. */
function whole(
  blocks: ArrayLike<number>,
  { group, count }: { readonly group: number; readonly count: number },
): number[] {
  return expand(blocks, group).slice(0, count);
}

/** A store over another one, which it takes over. Bytes of a block are those of the inner blocks, one after the other. */
export class GroupedStore<Inner extends KvStore = KvStore> implements KvStore {
  /** See {@linkcode KvStore.layout}. */
  readonly layout: KvLayout;
  /** See {@linkcode KvStore.blocks}. */
  readonly blocks: number;
  /** See {@linkcode KvStore.blockBytes}. */
  readonly blockBytes: number;
  /** See {@linkcode KvStore.storedTokens}. */
  readonly storedTokens: number;
  /** The store beneath. */
  protected readonly inner: Inner;
  /** Blocks of it that one block is. */
  protected readonly group: number;

  /** Makes blocks of `group` blocks of `inner`. */
  constructor(inner: Inner, group: number) {
    this.inner = inner;
    this.group = group;
    this.storedTokens = inner.layout.blockTokens;
    this.layout = { ...inner.layout, blockTokens: group * this.storedTokens };
    this.blocks = Math.floor(inner.blocks / group);
    this.blockBytes = group * inner.blockBytes;
  }

  /** See {@linkcode KvStore.attendNodes}. */
  attendNodes(layer: number, work: readonly NodeWork[]): ReturnType<KvStore["attendNodes"]> {
    return this.inner.attendNodes(layer, work.map((one) => ({ ...one, blocks: expand(one.blocks, this.group) })));
  }

  /** See {@linkcode KvStore.readBlock}. */
  readBlock(block: number): Uint8Array {
    const bytes = new Uint8Array(this.blockBytes);
    for (const [i, part] of expand([block], this.group).entries()) {
      bytes.set(this.inner.readBlock(part), i * this.inner.blockBytes);
    }
    return bytes;
  }

  /** See {@linkcode KvStore.writeBlock}. */
  writeBlock(block: number, bytes: Uint8Array): void {
    for (const [i, part] of expand([block], this.group).entries()) {
      this.inner.writeBlock(part, bytes.subarray(i * this.inner.blockBytes, (i + 1) * this.inner.blockBytes));
    }
  }

  /** Ends the store beneath. */
  [Symbol.dispose](): void {
    this.inner[Symbol.dispose]();
  }
}

/** A device over another one, which it takes over. */
export class GroupedDevice extends GroupedStore<Device> implements Device {
  /** See {@linkcode Device.config}. */
  readonly config: Device["config"];
  /** See {@linkcode Device.info}. */
  readonly info: DeviceInfo;

  /** Makes blocks of `group` blocks of `inner`. */
  constructor(inner: Device, group: number) {
    super(inner, group);
    const { blocks, blockBytes, layout: { blockTokens } } = this;
    this.config = inner.config;
    this.info = { ...inner.info, blocks, blockBytes, blockTokens };
  }

  /** See {@linkcode Device.step}. */
  step(batch: readonly StepSequence[]): ReturnType<Device["step"]> {
    return this.inner.step(this.#expand(batch));
  }

  /** See {@linkcode Device.begin}. */
  begin(batch: readonly StepSequence[]): ReturnType<Device["begin"]> {
    return this.inner.begin(this.#expand(batch));
  }

  /** See {@linkcode Device.attend}. */
  attend(layer: number, ranges: readonly AttendRange[]): ReturnType<Device["attend"]> {
    const { blockTokens } = this.inner.layout;
    return this.inner.attend(
      layer,
      ranges.map((range) => {
        const count = Math.ceil(range.length / blockTokens);
        return { ...range, blocks: whole(range.blocks, { group: this.group, count }) };
      }),
    );
  }

  #expand(batch: readonly StepSequence[]): StepSequence[] {
    const { blockTokens } = this.inner.layout;
    return batch.map((sequence) => {
      const count = Math.ceil((sequence.position + sequence.tokens.length) / blockTokens);
      return { ...sequence, blocks: whole(sequence.blocks, { group: this.group, count }) };
    });
  }
}
