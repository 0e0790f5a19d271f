// linear_packed: products of up to 16 tokens with weights that stay as the model file packs them, Hopper (sm_90a).
//
// out[m, n] (+)= sum over k of w[n, k] * x[m, k]; w[n, k] = d * q (Q8_0), d * (q - 8) (Q4_0) or d * q + m (Q4_1), d and m f16 per
// block of 32 columns; x [M, K] bf16 or f32, rounded to bf16, sums f32.
//
// Limit: N * K * 34, 18 or 20 bytes for every 32 weights over the memory's read rate.
//
// The cluster, its share of the work, the ring and the exchange of sums are those of linear_skinny. Weights are not rounded:
// a block's integers are exact in bf16 and multiply x in the tensor cores (mma, weights as A), the sum of 32 columns is scaled in
// f32. A nibble q becomes 128 + q by one masked or; the 128 leaves again as the accumulator's start, -128 (or -136) times
// the block's sum of x. A byte is the difference of two such numbers, exact. Warp w multiplies rows 16 * (w % 4) on of a tile
// and half w / 4 of every piece.
//
// Order of summation: blocks ascending within each of the eight parts (quarter of K, half of every piece of 256 columns), then the parts
// in order. It depends on K alone: the same bits for every M and grid.
//
// Warps: 0-7 consumers, 8 weights, 9-12 inputs, 13-14 sums and outputs.
//
// Layout of w, made by linear_packed_pack: tiles of 64 rows x 64 columns, tile (t, k) number t * ceil(K / 64) + k; in a tile four
// records of 16 rows; in a record the integers in the order of the mma fragment (lane (g, j) holds columns 8j..8j+7 of
// both blocks, of rows g and g + 8), then the scales of both blocks of rows g and g + 8, then the minimums.
//
// Needs: K a multiple of 32; rows of x at multiples of 16 bytes.
//
// @arch sm_90a
// @define WEIGHTS=0 TOKENS=8
// @define WEIGHTS=1 TOKENS=8
// @define WEIGHTS=2 TOKENS=8
// @define WEIGHTS=1 TOKENS=16
// @define WEIGHTS=1 TOKENS=8 OUTPUT=2
// @define WEIGHTS=1 TOKENS=8 OUTPUT=3 NORM=1

#define Q8_0 0
#define Q4_0 1
#define Q4_1 2
#ifndef WEIGHTS
#define WEIGHTS Q4_0
#endif
#ifndef TOKENS
#define TOKENS 8
#endif
#ifndef OUTPUT
#define OUTPUT 0
#endif
#ifndef NORM
#define NORM 0
#endif
#define ROW_MAJOR 0
#define PARTS 8
#define PIECE_TILES 4
#define CONSUMERS 8
#if WEIGHTS == Q8_0
#define INTEGER_BYTES 1024
#else
#define INTEGER_BYTES 512
#endif
#define RECORD_BYTES (INTEGER_BYTES + 64 + (WEIGHTS == Q4_1 ? 64 : 0))
#define TILE_BYTES (4 * RECORD_BYTES)

#include "linear_stream.cuh"

namespace {

constexpr u32 GROUPS = TOKENS / 8;
// What a block's sum of x is multiplied with before it is kept.
constexpr float SUM_SCALE = WEIGHTS == Q4_0 ? -136.f : 1.f;

__device__ __forceinline__ float low(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ __forceinline__ float halfToFloat(u32 bits) {
  float value;
  asm("{\n.reg .b16 h;\ncvt.u16.u32 h, %1;\ncvt.f32.f16 %0, h;\n}" : "=f"(value) : "r"(bits));
  return value;
}

__device__ __forceinline__ u32 maskedOr(u32 word, u32 mask, u32 bits) {
  u32 result;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(word), "r"(mask), "r"(bits));
  return result;
}

#if WEIGHTS == Q8_0
__device__ __forceinline__ u32 subtractPair(u32 a, u32 b) {
  u32 result;
  asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
  return result;
}

// Four signed bytes as two pairs of bf16: (128 + low seven bits) - (128 or, with the sign, 256).
__device__ __forceinline__ void expandBytes(u32 word, u32& first, u32& second) {
  first = subtractPair(maskedOr(word, 0x007f007fu, 0x43004300u), maskedOr(word, 0x00800080u, 0x43004300u));
  word >>= 8;
  second = subtractPair(maskedOr(word, 0x007f007fu, 0x43004300u), maskedOr(word, 0x00800080u, 0x43004300u));
}
#else
// Eight nibbles as pairs of bf16, each plus 128.
__device__ __forceinline__ void expandNibbles(u32 word, u32 (&pairs)[4]) {
#pragma unroll
  for (u32 i = 0; i < 4; i++) pairs[i] = maskedOr(word >> 4 * i, 0x000f000fu, 0x43004300u);
}
#endif

__device__ __forceinline__ void mma(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// acc += 16 rows x 64 columns of weights times x. `x` points at this lane's columns of its token in the first block, `blockSums`
// at this lane's two tokens.
__device__ __forceinline__ void multiplyRecord(float (&acc)[TOKENS / 2], const u8* record, const u8* const (&x)[GROUPS],
                                               u32 xBlock, const float* blockSums) {
  const u32 lane = threadIdx.x % 32;
#if WEIGHTS == Q8_0
  const uint4 words[2] = {((const uint4*)record)[lane], ((const uint4*)record)[32 + lane]};
#else
  const uint4 words = ((const uint4*)record)[lane];
#endif
  const uint2 scales = *(const uint2*)(record + INTEGER_BYTES + lane / 4 * 8);
#if WEIGHTS == Q4_1
  const uint2 mins = *(const uint2*)(record + INTEGER_BYTES + 64 + lane / 4 * 8);
#endif
#pragma unroll
  for (u32 block = 0; block < 2; block++) {
    u32 a[4], b[4];
#if WEIGHTS == Q8_0
    expandBytes(words[block].x, a[0], a[1]);
    expandBytes(words[block].y, a[2], a[3]);
    expandBytes(words[block].z, b[0], b[1]);
    expandBytes(words[block].w, b[2], b[3]);
#else
    expandNibbles(block ? words.z : words.x, a);
    expandNibbles(block ? words.w : words.y, b);
#endif
    const float upper = halfToFloat(block ? scales.x >> 16 : scales.x & 0xffff);
    const float lower = halfToFloat(block ? scales.y >> 16 : scales.y & 0xffff);
#pragma unroll
    for (u32 i = 0; i < GROUPS; i++) {
      const uint4 in = *(const uint4*)(x[i] + block * xBlock);
      float d[4] = {0.f, 0.f, 0.f, 0.f};
#if WEIGHTS != Q8_0
      const float2 sums = *(const float2*)(blockSums + block * TOKENS + 8 * i);
      d[0] = d[2] = WEIGHTS == Q4_0 ? sums.x : -128.f * sums.x;
      d[1] = d[3] = WEIGHTS == Q4_0 ? sums.y : -128.f * sums.y;
#endif
      mma(d, a[0], b[0], a[1], b[1], in.x, in.y);
      mma(d, a[2], b[2], a[3], b[3], in.z, in.w);
      acc[4 * i] += upper * d[0];
      acc[4 * i + 1] += upper * d[1];
      acc[4 * i + 2] += lower * d[2];
      acc[4 * i + 3] += lower * d[3];
#if WEIGHTS == Q4_1
      const float upperMin = halfToFloat(block ? mins.x >> 16 : mins.x & 0xffff);
      const float lowerMin = halfToFloat(block ? mins.y >> 16 : mins.y & 0xffff);
      acc[4 * i] += upperMin * sums.x;
      acc[4 * i + 1] += upperMin * sums.y;
      acc[4 * i + 2] += lowerMin * sums.x;
      acc[4 * i + 3] += lowerMin * sums.y;
#endif
    }
  }
}

__device__ __forceinline__ void multiplyAll(const LinearArgs& args, const Work& work, u32 rank, const u8* ringBase,
                                            const u8* x, const float* blockSums, const float* sums, Barriers& bars) {
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = warp % 4, half = warp / 4;
  const u32 to = inCta(sharedAddress(sums), group) + (rank * 2 + half) * SUM_FLOATS * 4;
  const u32 received = inCta(sharedAddress(&bars.received), group);
  const u32 xBlock = args.tokens * 64;
  Ring ring = {0, 0};
#pragma unroll 1
  for (u32 pass = 0; pass < work.passes; pass++) {
    float acc[2][TOKENS / 2];
#pragma unroll
    for (u32 i = 0; i < TOKENS / 2; i++) acc[0][i] = acc[1][i] = 0.f;
    const bool both = work.both(pass);
#pragma unroll 1
    for (u32 piece = 0; piece < work.pieces; piece++) {
      wait(bars.xFull[piece], 0);
      const u32 columns = work.columns(piece);
#pragma unroll
      for (u32 second = 0; second < 2; second++) {
        if (second && !both) break;
        wait(bars.full[ring.slot], ring.phase);
        const u8* records = ringBase + ring.slot * PIECE_BYTES + group * RECORD_BYTES;
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
          const u32 column = 2 * half + i;
          if (column >= columns) break;
          const u32 block = (piece * PIECE_TILES + column) * 2;
          const u8* in[GROUPS];
#pragma unroll
          for (u32 j = 0; j < GROUPS; j++) {
            // Products of tokens that are not there are not written, so any token may stand in for them.
            const u32 token = min(8 * j + lane / 4, args.tokens - 1);
            in[j] = x + block * xBlock + token * 64 + lane % 4 * 16;
          }
          multiplyRecord(acc[second], records + column * TILE_BYTES, in, xBlock,
                         blockSums + block * TOKENS + lane % 4 * 2);
        }
        __syncwarp();
        if (lane == 0) arrive(bars.empty[ring.slot]);
        ring.next(args.slots);
      }
    }
    if (pass == 0) clusterWait();
    else waitCluster(bars.drained, (pass - 1) & 1);
    sendSums(acc[0], to);
    if (both) sendSums(acc[1], to + PARTS * SUM_FLOATS * 4);
    sent(received);
  }
}

// Rounds this warp's pieces of x (times gain) to bf16, with every block's sum and every piece's sum of squares per token.
__device__ __forceinline__ void loadInputs(const LinearArgs& args, const Work& work, u32 loader, u8* x, float* blockSums,
                                           float* squares, Barriers& bars) {
  constexpr u32 BATCH = NORM ? 2 : 4;
  const u32 lane = threadIdx.x % 32;
  const u32 mine = work.pieces > loader ? (work.pieces - loader + LOADERS - 1) / LOADERS : 0;
  const u32 total = mine * args.tokens;
  dependencyWait();
#pragma unroll 1
  for (u32 first = 0; first < total; first += BATCH) {
#if NORM
    float4 v[BATCH][2], g[BATCH][2];
#else
    uint4 v[BATCH];
#endif
#pragma unroll
    for (u32 i = 0; i < BATCH; i++) {
      const u32 unit = first + i;
      if (unit < total) {
        const u32 piece = loader + unit / args.tokens * LOADERS, token = unit % args.tokens;
        const u32 at = (work.firstK + PIECE_TILES * piece) * 64 + lane * 8;
        const bool inside = lane < work.columns(piece) * 8 && at < args.cols;
#if NORM
        const u32 from = inside ? at : args.cols;
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
          v[i][j] = loadFour((const float*)args.x + (u64)token * args.xStride, from + 4 * j, args.cols);
          g[i][j] = loadFour(args.gain, from + 4 * j, args.cols);
        }
#else
        v[i] = inside ? *(const uint4*)((const u16*)args.x + (u64)token * args.xStride + at) : make_uint4(0, 0, 0, 0);
#endif
      }
    }
#pragma unroll
    for (u32 i = 0; i < BATCH; i++) {
      const u32 unit = first + i;
      if (unit < total) {
        const u32 piece = loader + unit / args.tokens * LOADERS, token = unit % args.tokens;
#if NORM
        float square = 0.f;
        u32 words[4];
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
          const float4 a = v[i][j], b = g[i][j];
          square += (a.x * a.x + a.y * a.y) + (a.z * a.z + a.w * a.w);
          words[2 * j] = packBf16(a.x * b.x, a.y * b.y);
          words[2 * j + 1] = packBf16(a.z * b.z, a.w * b.w);
        }
        const uint4 packed = make_uint4(words[0], words[1], words[2], words[3]);
#pragma unroll
        for (u32 step = 16; step > 0; step /= 2) square += __shfl_xor_sync(0xffffffffu, square, step);
        if (lane == 0) squares[piece * TOKENS + token] = square;
#else
        const uint4 packed = v[i];
#endif
        float sum = ((low(packed.x) + high(packed.x)) + (low(packed.y) + high(packed.y))) +
                    ((low(packed.z) + high(packed.z)) + (low(packed.w) + high(packed.w)));
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        const u32 block = piece * PIECE_TILES * 2 + lane / 4;
        *(uint4*)(x + (block * args.tokens + token) * 64 + lane % 4 * 16) = packed;
        if (lane % 4 == 0) blockSums[block * TOKENS + token] = SUM_SCALE * sum;
        if (token + 1 == args.tokens) {
          __syncwarp();
          if (lane == 0) arrive(bars.xFull[piece]);
        }
      }
    }
  }
}

}  // namespace

extern "C" __global__ void __cluster_dims__(4, 1, 1) __launch_bounds__(THREADS, TOKENS == 8 ? 2 : 1)
    linear_packed(const __grid_constant__ LinearArgs args) {
  extern __shared__ __align__(1024) u8 memory[];
  u8* x = memory + args.slots * PIECE_BYTES;
  float* blockSums = (float*)(x + args.xSlots * PIECE_TILES * 128 * args.tokens);
  float* sums = blockSums + args.xSlots * PIECE_TILES * 2 * TOKENS;
  float* allSquares = sums + 2 * PARTS * SUM_FLOATS;
  float* squares = allSquares + (NORM ? SLICES * TOKENS : 0);
  Barriers& bars = *(Barriers*)(squares + (NORM ? args.xSlots * TOKENS : 0));
  initBarriers(bars, CONSUMERS);
  clusterArrive();
  launchDependents();
  const u32 rank = clusterRank(), warp = threadIdx.x / 32;
  const Work work(args, rank);
  if (warp < CONSUMERS) {
    multiplyAll(args, work, rank, memory, x, blockSums, sums, bars);
  } else if (warp == CONSUMERS) {
    if (threadIdx.x % 32 == 0) streamWeights(args, nullptr, work, sharedAddress(memory), bars);
  } else if (warp < CONSUMERS + 1 + LOADERS) {
    loadInputs(args, work, warp - CONSUMERS - 1, x, blockSums, squares, bars);
  } else {
    finish(args, work, rank, sums, squares, allSquares, bars);
  }
}

namespace {

constexpr u32 BLOCK_BYTES = WEIGHTS == Q8_0 ? 34 : WEIGHTS == Q4_0 ? 18 : 20;
constexpr u32 BLOCK_HEAD = WEIGHTS == Q4_1 ? 4 : 2;

// Integer `i` of a stored block, as it is stored.
__device__ __forceinline__ u32 storedInteger(const u8* block, u32 i) {
  if (WEIGHTS == Q8_0) return block[BLOCK_HEAD + i];
  return block[BLOCK_HEAD + (i & 15)] >> (i & 16 ? 4 : 0) & 15;
}

}  // namespace

// Rearranges stored rows [rows, cols / 32 blocks]; rows and columns beyond the matrix have scale and minimum 0. A thread a lane of
// a record.
extern "C" __global__ void linear_packed_pack(const u8* from, u32 rows, u32 cols, u8* to) {
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
