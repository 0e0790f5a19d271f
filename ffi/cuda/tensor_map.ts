/**
 * How the copy engine sees a matrix in device memory.
 *
 * @module
 */
import type { DevicePtr } from "./buffer.ts";
import { DRIVER, DRIVER_LAYOUT } from "./driver_constants.ts";
import type { ContextScope } from "./owned_handle.ts";

/** A bf16 matrix, row-major, and the boxes it is copied in. */
export interface TensorMapOptions {
  /** First value, aligned to 16 bytes. */
  readonly address: DevicePtr;
  /** Rows. */
  readonly rows: number;
  /** Columns. */
  readonly columns: number;
  /** Bytes from a row to the next, a multiple of 16. */
  readonly rowBytes: number;
  /** Rows of a box, at most 256. */
  readonly boxRows: number;
}

/** Columns of a box: what the 128-byte swizzle takes. */
export const TENSOR_BOX_COLUMNS = 64;

/** Alignment of a map in memory. */
const MAP_ALIGNMENT = 64;
const MAP_BYTES = DRIVER_LAYOUT["sizeof(CUtensorMap)"];

/**
 * `CUtensorMap` of a matrix, an argument of kernels (`const __grid_constant__`). A box of {@linkcode TENSOR_BOX_COLUMNS}
 * columns lies in shared memory with the 128-byte swizzle; what is outside the matrix arrives as zero. Lines come into L2
 * in pairs.
 *
 * @throws {CudaError} when the driver does not take the sizes.
 */
export function encodeTensorMap(scope: ContextScope, options: TensorMapOptions): Uint8Array<ArrayBuffer> {
  const { address, rows, columns, rowBytes, boxRows } = options;
  const { driver } = scope;
  const memory = new ArrayBuffer(MAP_BYTES + MAP_ALIGNMENT);
  const at = Number(-driver.host.address(memory) & BigInt(MAP_ALIGNMENT - 1));
  const map = new Uint8Array(memory, at, MAP_BYTES);
  const code = driver.symbols.cuTensorMapEncodeTiled(
    map,
    DRIVER.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
    2,
    address,
    BigUint64Array.of(BigInt(columns), BigInt(rows)),
    BigUint64Array.of(BigInt(rowBytes)),
    Uint32Array.of(TENSOR_BOX_COLUMNS, boxRows),
    Uint32Array.of(1, 1),
    DRIVER.CU_TENSOR_MAP_INTERLEAVE_NONE,
    DRIVER.CU_TENSOR_MAP_SWIZZLE_128B,
    DRIVER.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
    DRIVER.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
  );
  driver.check(code, {
    call: "cuTensorMapEncodeTiled",
    context: `map ${rows} x ${columns} values in boxes of ${boxRows} rows`,
  });
  return map;
}
