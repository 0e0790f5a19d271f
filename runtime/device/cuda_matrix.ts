/**
 * In which forms a matrix lies on a GPU: bf16, packed as its file has it, or both.
 *
 * @module
 */
import { cudaMatrixBytes, type CudaPackedType, cudaPairBytes, STRIP_ROWS } from "../../kernels/linear/cuda_layout.ts";
import type { DType } from "../../kernels/dtype.ts";

/** Types whose matrices can stay packed. */
export const PACKED_TYPES: readonly DType[] = ["Q8_0", "Q4_0", "Q4_1"] satisfies CudaPackedType[];

/**
 * What becomes of matrices of {@linkcode PACKED_TYPES}: `packed` keeps them as they are and expands them where many tokens
 * are multiplied, `bf16` expands them once, `both` keeps both.
 */
export type KeptForm = "packed" | "bf16" | "both";

/** Rows of a matrix that are packed alike. `Place` is an address, or bytes from a start. */
export interface PackedPart<Place> {
  /** Their type. */
  readonly dtype: CudaPackedType;
  /** First of these outputs. */
  readonly first: number;
  /** Outputs. */
  readonly rows: number;
  /** Records. */
  readonly at: Place;
}

/** A matrix [rows, cols] of one or several tensors, one behind the other; it has at least one form. */
export interface CudaMatrix<Place> {
  /** Outputs; of a pair those of each. */
  readonly rows: number;
  /** Inputs. */
  readonly cols: number;
  /** Whether it is gate and up: packed, they share strips. */
  readonly paired: boolean;
  /** bf16, row-major; of a pair gate, then up. */
  readonly full?: Place;
  /** Packed parts in order, all rows together. */
  readonly packed?: readonly PackedPart<Place>[];
}

/** A tensor of a matrix. */
export interface StoredRows {
  /** Its type in the file. */
  readonly dtype: DType;
  /** Outputs. */
  readonly rows: number;
}

/** What a matrix is made of. */
export interface MatrixSource {
  /** Its tensors in order. */
  readonly tensors: readonly StoredRows[];
  /** Inputs. */
  readonly cols: number;
  /** Whether the tensors are gate and up. @default {false} */
  readonly paired?: boolean;
}

/** Whether matrices of a type can stay packed. */
export function isPackedType(dtype: DType): dtype is CudaPackedType {
  return PACKED_TYPES.includes(dtype);
}

/** The tensors as few packed parts; undefined when one of them cannot stay packed. */
function packedParts(
  { tensors, paired }: MatrixSource,
): readonly (StoredRows & { readonly dtype: CudaPackedType })[] | undefined {
  const parts: { dtype: CudaPackedType; rows: number }[] = [];
  for (const { dtype, rows } of tensors) {
    if (!isPackedType(dtype)) return undefined;
    const last = parts.at(-1);
    if (paired) {
      if (last !== undefined && last.dtype !== dtype) return undefined;
      if (last === undefined) parts.push({ dtype, rows });
    } else if (last?.dtype === dtype && last.rows % STRIP_ROWS === 0) last.rows += rows;
    else parts.push({ dtype, rows });
  }
  return parts;
}

/** Bytes of a matrix in bf16. */
export function fullBytes({ tensors, cols }: MatrixSource): number {
  return 2 * cols * tensors.reduce((sum, { rows }) => sum + rows, 0);
}

/** Whether a matrix can stay packed. */
export function canStayPacked(source: MatrixSource): boolean {
  return packedParts(source) !== undefined;
}

/** Places for a matrix: `take` gives room for bytes. What cannot stay packed is kept in bf16. */
export function placeMatrix(source: MatrixSource, keep: KeptForm, take: (bytes: number) => number): CudaMatrix<number> {
  const { tensors, cols, paired = false } = source;
  const rows = paired ? tensors[0].rows : tensors.reduce((sum, one) => sum + one.rows, 0);
  const parts = keep === "bf16" ? undefined : packedParts(source);
  const full = parts === undefined || keep === "both" ? take(fullBytes(source)) : undefined;
  let first = 0;
  const packed = parts?.map((part): PackedPart<number> => {
    const at = take((paired ? cudaPairBytes : cudaMatrixBytes)({ ...part, cols }));
    const placed = { ...part, first, at };
    first += part.rows;
    return placed;
  });
  return { rows, cols, paired, ...(full !== undefined && { full }), ...(packed && { packed }) };
}

/** Bytes of a matrix in its smallest form: what a product of few tokens reads. */
export function leastBytes({ rows, cols, paired, packed }: CudaMatrix<unknown>): number {
  if (packed === undefined) return 2 * rows * cols * (paired ? 2 : 1);
  return packed.reduce((sum, part) => sum + (paired ? cudaPairBytes : cudaMatrixBytes)({ ...part, cols }), 0);
}

/** The same matrix with its places given by `at`. */
export function mapMatrix<From, To>(matrix: CudaMatrix<From>, at: (place: From) => To): CudaMatrix<To> {
  const { full, packed, ...rest } = matrix;
  return {
    ...rest,
    ...(full !== undefined && { full: at(full) }),
    ...(packed && { packed: packed.map((part) => ({ ...part, at: at(part.at) })) }),
  };
}

/** The forms of a matrix, for telling kinds of matrices apart. */
export function formOf({ full, packed = [] }: CudaMatrix<unknown>): string {
  return [...full === undefined ? [] : ["BF16"], ...packed.map(({ dtype, rows }) => `${dtype} x ${rows}`)].join(" ");
}
