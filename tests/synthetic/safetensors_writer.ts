/**
 * Writes safetensors files for tests, broken ones too.
 *
 * @module
 */

/** A tensor of a safetensors file. */
export interface SafetensorsTensor {
  /** Name. */
  readonly name: string;
  /** Stored type. */
  readonly dtype: string;
  /** Dimensions, slowest first. */
  readonly shape: readonly number[];
  /** Stored bytes. */
  readonly data: Uint8Array;
}

/** Bytes of a file with `header`, as it is, and `data`; `length` is what the file states as the header's length. */
export function joinSafetensors(header: string | Uint8Array, data: Uint8Array, length?: bigint): Uint8Array {
  const encoded = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const bytes = new Uint8Array(8 + encoded.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(encoded.length), true);
  bytes.set(encoded, 8);
  bytes.set(data, 8 + encoded.length);
  return bytes;
}

/** Bytes of a safetensors file. */
export function writeSafetensors(tensors: readonly SafetensorsTensor[]): Uint8Array {
  let end = 0;
  const entries = tensors.map(({ name, dtype, shape, data }) => {
    const begin = end;
    end += data.length;
    return [name, { dtype, shape, data_offsets: [begin, end] }];
  });
  const header = JSON.stringify({ __metadata__: { format: "pt" }, ...Object.fromEntries(entries) });
  const data = new Uint8Array(end);
  let at = 0;
  for (const tensor of tensors) {
    data.set(tensor.data, at);
    at += tensor.data.length;
  }
  return joinSafetensors(header.padEnd(Math.ceil(header.length / 8) * 8), data);
}
