// Addresses in the paged KV pool.
//
// A block is 64 tokens of all layers: [layer][kv head][K then V][subtile of 64 dimensions][64 tokens][64 dimensions] bf16,
// the head's dimensions padded with zeros to a multiple of 64. In row t of a subtile the 16-byte chunk c lies at chunk
// c ^ (t % 8): the 128-byte swizzle that tensor cores read without bank conflicts.
#pragma once
#include "elements.cuh"

#define KV_BLOCK_TOKENS 64
#define KV_SUBTILE_BYTES 8192
#define KV_PADDED_DIM(dim) (((dim) + 63) / 64 * 64)
// Bytes of the keys, or of the values, of one block, layer and head.
#define KV_PART_BYTES(dim) (KV_PADDED_DIM(dim) / 64 * KV_SUBTILE_BYTES)

// Byte of dimension `dim` of token `slot` within the keys or values of a block, layer and head.
__device__ __forceinline__ u32 kv_offset(u32 slot, u32 dim) {
  return (dim / 64) * KV_SUBTILE_BYTES + slot * 128 + (((dim / 8 % 8) ^ (slot % 8)) * 16) + dim % 8 * 2;
}
