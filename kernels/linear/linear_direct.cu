// linear_direct: products of few tokens at the speed of reading the weights, straight from memory into the tensor cores'
// registers.
//
// out[m, n] (+)= sum over k of w[n, k] * x[m, k]; w [N, K] bf16, row-major; x [M, K] bf16, or f32 with RMSNorm (NORM 1: w sees
// bf16(x * gain), the sum is scaled by 1 / rms), sums f32.
//
// Limit: the bytes of the weights over the memory's read rate.
//
// A CTA has ROW_TILES times 16 rows and all of K; its warps share K in chunks of 64 columns, chunk c to warp c % WARPS. A lane
// reads 16 bytes at a time: with the columns of a fragment permuted alike in weights and inputs, they are mma operands as
// they lie. AHEAD chunks are in flight in registers, the first of them before the predecessor has ended (programmatic
// launch).
//
// Order of summation: chunks ascending within each warp, then the warps in order. It depends on K and WARPS alone.
//
// Needs: K a multiple of 8; rows of x and w at multiples of 16 bytes.
//
// Test: linear_direct_cuda_test.ts. Time: linear_cuda_bench.ts. Ladder: docs/perf/2026-11-24-few-token-products.md.
//
// @define TOKENS=8 ROW_TILES=1 AHEAD=2 WARPS=16
// @define TOKENS=8 ROW_TILES=1 AHEAD=4 NORM=1
// @define TOKENS=8 ROW_TILES=2 AHEAD=2 OUTPUT=3 NORM=1
// @define TOKENS=16 ROW_TILES=1 AHEAD=3 OUTPUT=2
// @define TOKENS=16 ROW_TILES=2 AHEAD=2 OUTPUT=3
// @define TOKENS=32 ROW_TILES=2 AHEAD=1 OUTPUT=3
// @define TOKENS=32 ROW_TILES=2 AHEAD=2 RESIDENT=1 OUTPUT=2
// @arch sm_90a

#ifndef TOKENS
#define TOKENS 8
#endif
#ifndef OUTPUT
#define OUTPUT 0
#endif
#ifndef NORM
#define NORM 0
#endif
#ifndef ROW_TILES
#define ROW_TILES 2
#endif
#ifndef AHEAD
#define AHEAD 2
#endif
#ifndef RESIDENT
#define RESIDENT 2
#endif
#ifndef WARPS
#define WARPS 8
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct DirectArgs {
  const u8* weights;
  const void* x;
  const float* gain;
  void* out;
  u32 tokens, rows, cols;
  u32 xStride, outStride;
  float epsilon;
};

namespace {

constexpr u32 GROUPS = TOKENS / 8;

// What a lane holds of 16 rows x 64 columns.
struct Chunk {
  uint4 words[4];
};

__device__ __forceinline__ uint4 readOnce(const u8* at) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at));
  return v;
}

// After the predecessor only.
__device__ __forceinline__ uint4 readInput(const void* at) {
  uint4 v;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at)
               : "memory");
  return v;
}

__device__ __forceinline__ u32 packBf16(float low, float high) {
  u32 packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

__device__ __forceinline__ void mma(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// acc += 16 rows x 64 columns of weights times x.
__device__ __forceinline__ void multiply(float (&acc)[GROUPS][4], const Chunk& chunk, const uint4 (&x)[GROUPS][2]) {
#pragma unroll
  for (u32 block = 0; block < 2; block++) {
    const uint4 a = chunk.words[2 * block], b = chunk.words[2 * block + 1];
#pragma unroll
    for (u32 i = 0; i < GROUPS; i++) {
      mma(acc[i], a.x, b.x, a.y, b.y, x[i][block].x, x[i][block].y);
      mma(acc[i], a.z, b.z, a.w, b.w, x[i][block].z, x[i][block].w);
    }
  }
}

// First of the 16 rows of a tile of this CTA, in the whole (stacked) matrix.
__device__ __forceinline__ u32 firstRow(const DirectArgs& args, u32 tile) {
  if (OUTPUT == 3) return blockIdx.x * 16 + (tile ? args.rows : 0);
  return (blockIdx.x * ROW_TILES + tile) * 16;
}

__device__ __forceinline__ const u8* place(const DirectArgs& args, u32 tile, u32 chunk, u32 lane) {
  const u32 row = firstRow(args, tile);
  // A row beyond the matrix is read as its last one and not written.
  const u32 last = (OUTPUT == 3 ? 2 : 1) * args.rows - 1;
  return args.weights + ((u64)min(row + lane / 4, last) * args.cols + chunk * 64 + lane % 4 * 8) * 2;
}

__device__ __forceinline__ void loadChunk(const DirectArgs& args, Chunk& chunk, u32 tile, u32 index, u32 lane) {
  const u8* at = place(args, tile, index, lane);
  const u32 last = (OUTPUT == 3 ? 2 : 1) * args.rows - 1, row = firstRow(args, tile) + lane / 4;
  const u64 below = (u64)(min(row + 8, last) - min(row, last)) * args.cols * 2;
  const u32 column = index * 64 + lane % 4 * 8;
  const uint4 zero = make_uint4(0, 0, 0, 0);
  chunk.words[0] = column < args.cols ? readOnce(at) : zero;
  chunk.words[1] = column < args.cols ? readOnce(at + below) : zero;
  chunk.words[2] = column + 32 < args.cols ? readOnce(at + 64) : zero;
  chunk.words[3] = column + 32 < args.cols ? readOnce(at + below + 64) : zero;
}

#if NORM
__device__ __forceinline__ float4 asFloats(uint4 v) {
  return make_float4(__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z), __uint_as_float(v.w));
}

__device__ __forceinline__ u32 scaledPair(float a, float b, float gainA, float gainB, float& square) {
  square += a * a + b * b;
  return packBf16(a * gainA, b * gainB);
}
#endif

// This lane's columns of its tokens; with NORM rounded from x * gain, their squares added to `squares`.
__device__ __forceinline__ void loadInputs(const DirectArgs& args, uint4 (&x)[GROUPS][2], u32 index, u32 lane,
                                           float (&squares)[GROUPS]) {
#pragma unroll
  for (u32 i = 0; i < GROUPS; i++) {
    const u32 token = 8 * i + lane / 4;
#pragma unroll
    for (u32 block = 0; block < 2; block++) {
      const u32 column = index * 64 + block * 32 + lane % 4 * 8;
      x[i][block] = make_uint4(0, 0, 0, 0);
      if (token < args.tokens && column < args.cols) {
        const u64 at = (u64)token * args.xStride + column;
#if NORM
        const float* from = (const float*)args.x + at;
        const float4 a = asFloats(readInput(from)), b = asFloats(readInput(from + 4));
        const float4 g = *(const float4*)(args.gain + column), h = *(const float4*)(args.gain + column + 4);
        x[i][block] = make_uint4(
            scaledPair(a.x, a.y, g.x, g.y, squares[i]), scaledPair(a.z, a.w, g.z, g.w, squares[i]),
            scaledPair(b.x, b.y, h.x, h.y, squares[i]), scaledPair(b.z, b.w, h.z, h.w, squares[i]));
#else
        x[i][block] = readInput((const u16*)args.x + at);
#endif
      }
    }
  }
}

__device__ __forceinline__ float addUp(const float* sums, u32 tile, u32 row, u32 token) {
  const float* at = sums + (tile * GROUPS + token / 8) * 128 + (row % 8 * 4 + token % 8 / 2) * 4 + row / 8 * 2 + token % 2;
  float sum = at[0];
#pragma unroll
  for (u32 warp = 1; warp < WARPS; warp++) sum += at[warp * ROW_TILES * GROUPS * 128];
  return sum;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(WARPS * 32, RESIDENT) linear_direct(const __grid_constant__ DirectArgs args) {
  __shared__ __align__(16) float sums[WARPS * ROW_TILES * GROUPS * 128];
#if NORM
  __shared__ float allSquares[WARPS * TOKENS];
#endif
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const u32 chunks = (args.cols + 63) / 64;
  Chunk ring[AHEAD][ROW_TILES];
  uint4 x[AHEAD][GROUPS][2];
  float acc[ROW_TILES][GROUPS][4];
  float squares[GROUPS];
#pragma unroll
  for (u32 i = 0; i < GROUPS; i++) squares[i] = 0.f;
#pragma unroll
  for (u32 tile = 0; tile < ROW_TILES; tile++) {
#pragma unroll
    for (u32 i = 0; i < GROUPS; i++) {
#pragma unroll
      for (u32 j = 0; j < 4; j++) acc[tile][i][j] = 0.f;
    }
  }
#pragma unroll
  for (u32 u = 0; u < AHEAD; u++) {
    if (warp + u * WARPS < chunks) {
#pragma unroll
      for (u32 tile = 0; tile < ROW_TILES; tile++) loadChunk(args, ring[u][tile], tile, warp + u * WARPS, lane);
    }
  }
  asm volatile("griddepcontrol.wait;" ::: "memory");
#pragma unroll
  for (u32 u = 0; u < AHEAD; u++) {
    if (warp + u * WARPS < chunks) loadInputs(args, x[u], warp + u * WARPS, lane, squares);
  }
  constexpr u32 KEPT = OUTPUT == 3 ? 1 : ROW_TILES;
  const u32 outputs = KEPT * 16 * args.tokens;
  // Sixteen rows of a token lie together.
  const u32 tileOf = threadIdx.x / (16 * args.tokens), token = threadIdx.x / 16 % args.tokens;
  const u32 outRow = (OUTPUT == 3 ? blockIdx.x * 16 : firstRow(args, tileOf)) + threadIdx.x % 16;
  const bool writes = threadIdx.x < outputs && outRow < args.rows;
  float old = 0.f;
  if (OUTPUT == 2 && writes) old = ((const float*)args.out)[(u64)token * args.outStride + outRow];
#pragma unroll 1
  for (u32 first = warp; first < chunks; first += AHEAD * WARPS) {
#pragma unroll
    for (u32 u = 0; u < AHEAD; u++) {
      const u32 index = first + u * WARPS;
      if (index < chunks) {
#pragma unroll
        for (u32 tile = 0; tile < ROW_TILES; tile++) multiply(acc[tile], ring[u][tile], x[u]);
        const u32 next = index + AHEAD * WARPS;
        if (next < chunks) {
#pragma unroll
          for (u32 tile = 0; tile < ROW_TILES; tile++) loadChunk(args, ring[u][tile], tile, next, lane);
          loadInputs(args, x[u], next, lane, squares);
        }
      }
    }
  }
#pragma unroll
  for (u32 tile = 0; tile < ROW_TILES; tile++) {
#pragma unroll
    for (u32 i = 0; i < GROUPS; i++) {
      ((float4*)sums)[((warp * ROW_TILES + tile) * GROUPS + i) * 32 + lane] =
          make_float4(acc[tile][i][0], acc[tile][i][1], acc[tile][i][2], acc[tile][i][3]);
    }
  }
#if NORM
#pragma unroll
  for (u32 i = 0; i < GROUPS; i++) {
    squares[i] += __shfl_xor_sync(0xffffffffu, squares[i], 1);
    squares[i] += __shfl_xor_sync(0xffffffffu, squares[i], 2);
    if (lane % 4 == 0) allSquares[warp * TOKENS + 8 * i + lane / 4] = squares[i];
  }
#endif
  __syncthreads();
#pragma unroll 1
  for (u32 e = threadIdx.x; e < outputs; e += WARPS * 32) {
    const u32 tile = e / (16 * args.tokens), m = e / 16 % args.tokens, r = e % 16;
    const u32 row = (OUTPUT == 3 ? blockIdx.x * 16 : firstRow(args, tile)) + r;
    if (row >= args.rows) continue;
    const u64 to = (u64)m * args.outStride + row;
    float scale = 1.f;
#if NORM
    float square = 0.f;
    for (u32 w = 0; w < WARPS; w++) square += allSquares[w * TOKENS + m];
    scale = 1.f / sqrtf(square / (float)args.cols + args.epsilon);
#endif
    float value = addUp(sums, tile, r, m) * scale;
    if (OUTPUT == 3) value = value / (1.f + __expf(-value)) * (addUp(sums, 1, r, m) * scale);
    if (OUTPUT == 0 || OUTPUT == 3) ((u16*)args.out)[to] = (u16)packBf16(value, 0.f);
    else if (OUTPUT == 2) ((float*)args.out)[to] = (e == threadIdx.x ? old : ((const float*)args.out)[to]) + value;
    else ((float*)args.out)[to] = value;
  }
}
