// linear_pack: rearranges packed weights into the tiles that linear_direct reads.
//
// from: rows of blocks as the model file stores them, [rows, cols / 32 blocks]; to: tiles as cuda_layout.ts describes them, each
// thread a lane of a record. Integers, scales and minimums are moved, not changed; beyond the matrix all are 0.
//
// @arch sm_80 sm_90a sm_100
// @define WEIGHTS=1
// @define WEIGHTS=2
// @define WEIGHTS=3

#define Q8_0 1
#define Q4_0 2
#define Q4_1 3
#ifndef WEIGHTS
#define WEIGHTS Q4_0
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

namespace {

constexpr u32 INTEGER_BYTES = WEIGHTS == Q8_0 ? 1024 : 512;
constexpr u32 RECORD_BYTES = INTEGER_BYTES + 64 + (WEIGHTS == Q4_1 ? 64 : 0);
constexpr u32 TILE_BYTES = 4 * RECORD_BYTES;
constexpr u32 BLOCK_BYTES = WEIGHTS == Q8_0 ? 34 : WEIGHTS == Q4_0 ? 18 : 20;
constexpr u32 BLOCK_HEAD = WEIGHTS == Q4_1 ? 4 : 2;

// Integer `i` of a stored block, as it is stored.
__device__ __forceinline__ u32 storedInteger(const u8* block, u32 i) {
  if (WEIGHTS == Q8_0) return block[BLOCK_HEAD + i];
  return block[BLOCK_HEAD + (i & 15)] >> (i & 16 ? 4 : 0) & 15;
}

}  // namespace

extern "C" __global__ void linear_pack(const u8* from, u32 rows, u32 cols, u8* to) {
  const u32 kTiles = (cols + 63) / 64, blocks = cols / 32;
  const u64 lanes = (u64)((rows + 63) / 64) * kTiles * 128;
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < lanes; i += (u64)gridDim.x * blockDim.x) {
    const u32 lane = i % 32, group = i / 32 % 4;
    const u64 tile = i / 128;
    u8* record = to + tile * TILE_BYTES + group * RECORD_BYTES;
    u32 words[WEIGHTS == Q8_0 ? 8 : 4];
    for (u32 b = 0; b < 2; b++) {
      for (u32 lower = 0; lower < 2; lower++) {
        const u64 row = tile / kTiles * 64 + group * 16 + lane / 4 + 8 * lower;
        const u32 block = (u32)(tile % kTiles) * 2 + b;
        const bool inside = row < rows && block < blocks;
        const u8* stored = from + (inside ? (row * blocks + block) * BLOCK_BYTES : 0);
        const u32 first = lane % 4 * 8;
        if (WEIGHTS == Q8_0) {
          for (u32 half = 0; half < 2; half++) {
            u32 word = 0;
            for (u32 j = 0; inside && j < 4; j++) {
              // Bytes 0 and 2 are one pair, 1 and 3 the next.
              const u32 element = (j & 1) * 2 + j / 2;
              word |= storedInteger(stored, first + 4 * half + element) << 8 * j;
            }
            words[(b * 2 + lower) * 2 + half] = word;
          }
        } else {
          u32 word = 0;
          for (u32 j = 0; inside && j < 8; j++) word |= storedInteger(stored, first + j) << (j & 1 ? 16 + 2 * (j - 1) : 2 * j);
          words[b * 2 + lower] = word;
        }
        if (lane % 4 == 0) {
          u16* scales = (u16*)(record + INTEGER_BYTES + lane / 4 * 8);
          scales[lower * 2 + b] = inside ? stored[0] | stored[1] << 8 : 0;
          if (WEIGHTS == Q4_1) scales[32 + lower * 2 + b] = inside ? stored[2] | stored[3] << 8 : 0;
        }
      }
    }
    uint4* integers = (uint4*)record;
    integers[lane] = make_uint4(words[0], words[1], words[2], words[3]);
    if (WEIGHTS == Q8_0) integers[32 + lane] = make_uint4(words[4], words[5], words[6], words[7]);
  }
}
