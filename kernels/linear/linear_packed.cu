// linear_packed: products of one to four tokens with packed weights at the speed of reading them.
//
// out[m, n] (+)= sum over k of w[n, k] * x[m, k]; w [N, K] is Q8_0, Q4_0 or Q4_1 in the records of linear_pack; x [M, K] bf16, or
// f32 with RMSNorm (NORM 1: w sees x * gain, the sum is scaled by 1 / rms), sums f32.
//
// Limit: the bytes of the weights over the memory's read rate.
//
// The integer tensor cores multiply 16 rows x 32 columns of weights, one block a row, with eight columns of bytes: x as two
// planes of four tokens, x = scale * (256 * high + low) with a scale for each block of 32 columns. So a nibble costs a mask and
// half a shift, sums within a block are exact, and x is off by at most 1 / 65024 of the largest of its block, less than
// bf16 is. A block's sum times both scales is added in f32.
//
// Blocks (CTAs) stay: each packs x into shared memory once and takes strips of 16 rows in turn. Its warps share K in
// consecutive chunks of 64 columns; each copies its own into a ring in shared memory, across strips, the first of them before
// the predecessor has ended (programmatic launch). One more warp adds the sums of all and writes them. A CTA of one token takes less than half of a multiprocessor, so the
// next product's first weights arrive while this one ends.
//
// Order of summation: blocks ascending within each warp's columns, then the warps in order. It depends on K and WARPS alone.
//
// Needs: K a multiple of 32; rows of x at multiples of 16 bytes. Dynamic shared memory: see packedSharedBytes.
//
// Test: linear_packed_cuda_test.ts. Time: linear_cuda_bench.ts. Ladder: docs/perf/2026-11-24-packed-products.md.
//
// @arch sm_90a
// @define WEIGHTS=1 TOKENS=1 PIECE=2 NORM=1
// @define WEIGHTS=1 TOKENS=4 PIECE=2
// @define WEIGHTS=2 TOKENS=1 PIECE=4 NORM=1
// @define WEIGHTS=2 TOKENS=4 PIECE=4 NORM=1
// @define WEIGHTS=2 TOKENS=4 PIECE=4
// @define WEIGHTS=3 TOKENS=1 PIECE=4
// @define WEIGHTS=3 TOKENS=4 PIECE=2 NORM=1
#include "bulk_copy.cuh"
#include "dependents.cuh"
#include "elements.cuh"

#define Q8_0 1
#define Q4_0 2
#define Q4_1 3
#ifndef WEIGHTS
#define WEIGHTS Q4_0
#endif
// Tokens there is room for: 1, 2 or 4.
#ifndef TOKENS
#define TOKENS 1
#endif
#ifndef NORM
#define NORM 0
#endif
// Pieces of a warp's columns in flight, and chunks of a piece.
#ifndef STAGES
#define STAGES 4
#endif
#ifndef PIECE
#define PIECE 4
#endif
// Strips whose sums are on their way from the warps that multiply to the one that adds them.
#ifndef SLOTS
#define SLOTS 4
#endif
#ifndef WARPS
#define WARPS 8
#endif
#ifndef RESIDENT
#define RESIDENT 2
#endif

struct PackedArgs {
  const u8* weights;
  const void* x;
  const float* gain;
  void* out;
  u32 tokens, rows, cols;
  u32 xStride, outStride;
  // 0 bf16, 1 f32, 2 added to f32, 3 bf16 silu(gate) * up.
  u32 output;
  float epsilon;
};

namespace {

constexpr u32 INTEGER_BYTES = WEIGHTS == Q8_0 ? 1024 : 512;
constexpr u32 RECORD_BYTES = INTEGER_BYTES + 64 + (WEIGHTS == Q4_1 ? 64 : 0);
constexpr u32 WORDS = WEIGHTS == Q8_0 ? 2 : 1;
// Largest magnitude of x as an integer: its high byte is at most 127.
constexpr float LARGEST = 32512.f;
// Nibbles lie in the high halves of bytes.
constexpr float UNIT = WEIGHTS == Q8_0 ? 1.f : 0.0625f;
constexpr u32 THREADS = WARPS * 32 + 32;
// Blocks of x that a thread has in flight.
constexpr u32 READS = NORM ? 2 : 4;
// Adding it leaves an integer's bits at the end of a float.
constexpr float ROUNDER = 12582912.f;

// What a lane holds of 16 rows x 64 columns.
struct Chunk {
  uint4 words[WORDS];
  uint2 scales;
#if WEIGHTS == Q4_1
  uint2 mins;
#endif
};

__device__ __forceinline__ void takeChunk(Chunk& chunk, const u8* record, u32 lane) {
#pragma unroll
  for (u32 i = 0; i < WORDS; i++) chunk.words[i] = *(const uint4*)(record + i * 512 + lane * 16);
  chunk.scales = *(const uint2*)(record + INTEGER_BYTES + lane / 4 * 8);
#if WEIGHTS == Q4_1
  chunk.mins = *(const uint2*)(record + INTEGER_BYTES + 64 + lane / 4 * 8);
#endif
}

__device__ __forceinline__ void halves(u32 pair, float& low, float& high) {
  asm("{\n.reg .b16 l, h;\nmov.b32 {l, h}, %2;\ncvt.f32.f16 %0, l;\ncvt.f32.f16 %1, h;\n}" : "=f"(low), "=f"(high) : "r"(pair));
}

__device__ __forceinline__ void multiplyBlock(i32 (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
#if WEIGHTS == Q4_1
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
#else
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
#endif
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "r"(0));
}

// What products of one chunk need of x, in shared memory.
struct Inputs {
  // [chunk][token][high, low][lane % 4]: the bytes of a lane's columns, two words a block.
  const uint4* planes;
  // [chunk][token][block]
  const float2* scales;
  const float2* totals;
};

__device__ __forceinline__ u32 nibbles(u32 word) { return word & 0xf0f0f0f0u; }

// Adds rows g and g + 8 of a chunk times token lane % 4.
__device__ __forceinline__ void multiply(float (&acc)[2], const Chunk& chunk, const Inputs& x, u32 index) {
  const uint4 b = x.planes[index * (TOKENS * 8)];
  const float2 scale = x.scales[index * TOKENS];
  i32 d[2][4];
#if WEIGHTS == Q8_0
  multiplyBlock(d[0], chunk.words[0].x, chunk.words[0].z, chunk.words[0].y, chunk.words[0].w, b.x, b.y);
  multiplyBlock(d[1], chunk.words[1].x, chunk.words[1].z, chunk.words[1].y, chunk.words[1].w, b.z, b.w);
#else
  const uint4 w = chunk.words[0];
  multiplyBlock(d[0], nibbles(w.x), nibbles(w.y), nibbles(w.x << 4), nibbles(w.y << 4), b.x, b.y);
  multiplyBlock(d[1], nibbles(w.z), nibbles(w.w), nibbles(w.z << 4), nibbles(w.w << 4), b.z, b.w);
#endif
  float s[2][2];
  halves(chunk.scales.x, s[0][0], s[1][0]);
  halves(chunk.scales.y, s[0][1], s[1][1]);
#pragma unroll
  for (u32 block = 0; block < 2; block++) {
    const float unit = block ? scale.y : scale.x;
#pragma unroll
    for (u32 lower = 0; lower < 2; lower++) {
      const i32 sum = d[block][2 * lower] * 256 + d[block][2 * lower + 1];
      acc[lower] = fmaf(s[block][lower] * unit, (float)sum, acc[lower]);
    }
  }
#if WEIGHTS == Q4_1
  const float2 total = x.totals[index * TOKENS];
  halves(chunk.mins.x, s[0][0], s[1][0]);
  halves(chunk.mins.y, s[0][1], s[1][1]);
#pragma unroll
  for (u32 lower = 0; lower < 2; lower++) {
    acc[lower] = fmaf(s[0][lower], total.x, acc[lower]);
    acc[lower] = fmaf(s[1][lower], total.y, acc[lower]);
  }
#endif
}

// Bytes of four integers that lie at the ends of words: byte `SHIFT` of each.
template <u32 SELECT>
__device__ __forceinline__ u32 bytesOf(u32 a, u32 b, u32 c, u32 d) {
  return __byte_perm(__byte_perm(a, b, SELECT), __byte_perm(c, d, SELECT), 0x5410);
}

// A lane's pairs of columns of a block, as they are stored.
struct Pairs {
#if NORM
  float2 x[4], gain[4];
#else
  u32 x[4];
#endif
};

// `column` is the first; the pairs are eight columns apart.
__device__ __forceinline__ void readPairs(const PackedArgs& args, u32 token, u32 column, Pairs& pairs) {
  const bool inside = token < args.tokens && column < args.cols;
  const u64 at = (u64)token * args.xStride + column;
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
#if NORM
    pairs.x[i] = inside ? *(const float2*)((const float*)args.x + at + 8 * i) : make_float2(0.f, 0.f);
    pairs.gain[i] = inside ? *(const float2*)(args.gain + column + 8 * i) : make_float2(0.f, 0.f);
#else
    pairs.x[i] = inside ? *(const u32*)((const u16*)args.x + at + 8 * i) : 0;
#endif
  }
}

// Where the warps leave their sums of strips, and what the warp that adds them needs.
struct Sums {
  // [slot][warp][row][token]
  const float* partials;
  // [warp][token]
  const float* squares;
  u64 *summed, *added;
  u32 strips, outputs;
};

// Sums over the first and the second half of the warps, together.
template <u32 STEP>
__device__ __forceinline__ float overWarps(const float* at) {
  float first = at[0], second = at[WARPS / 2 * STEP];
#pragma unroll
  for (u32 w = 1; w < WARPS / 2; w++) {
    first += at[w * STEP];
    second += at[(WARPS / 2 + w) * STEP];
  }
  return first + second;
}

// Adds the warps' sums of strip after strip and writes the outputs.
__device__ __forceinline__ void addUp(const PackedArgs& args, const Sums& sums, u32 lane) {
#pragma unroll 1
  for (u32 turn = 0; turn < sums.strips; turn++) {
    const u32 slot = turn % SLOTS;
    barrier_wait(shared_address(sums.summed + slot), turn / SLOTS & 1);
    const float* const partials = sums.partials + slot * (WARPS * 16 * TOKENS);
#pragma unroll 1
    for (u32 e = lane; e < sums.outputs * args.tokens; e += 32) {
      const u32 r = e % sums.outputs, token = e / sums.outputs;
      const u32 row = (blockIdx.x + turn * gridDim.x) * sums.outputs + r;
      float scale = 1.f;
#if NORM
      float square = 0.f;
#pragma unroll
      for (u32 w = 0; w <= WARPS; w++) square += sums.squares[w * TOKENS + token];
      scale = 1.f / sqrtf(square / (float)args.cols + args.epsilon);
#endif
      float value = overWarps<16 * TOKENS>(partials + r * TOKENS + token) * scale;
      if (args.output == 3) {
        const float up = overWarps<16 * TOKENS>(partials + (r + 8) * TOKENS + token) * scale;
        value = value / (1.f + __expf(-value)) * up;
      }
      if (row >= args.rows) continue;
      const u64 to = (u64)token * args.outStride + row;
      if (args.output == 0 || args.output == 3) ((u16*)args.out)[to] = (u16)bf16_pair(value, 0.f);
      // Nothing else adds to it: one sum, rounded once.
      else if (args.output == 2) asm volatile("red.global.add.f32 [%0], %1;" ::"l"((float*)args.out + to), "f"(value) : "memory");
      else ((float*)args.out)[to] = value;
    }
    __syncwarp();
    if (lane == 0) barrier_arrive(shared_address(sums.added + slot));
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) linear_packed(const __grid_constant__ PackedArgs args) {
  extern __shared__ __align__(16) u8 shared[];
  release_dependents();
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const u32 chunks = (args.cols + 63) / 64;
  // Outputs of a strip: 16 rows, or 8 of gate and 8 of up.
  const u32 outputs = args.output == 3 ? 8 : 16;
  const u32 strips = (args.rows + outputs - 1) / outputs;
  u64* const full = (u64*)shared;
  u64* const summed = full + WARPS * STAGES;
  u64* const added = summed + SLOTS;
  u8* const stages = (u8*)(added + SLOTS);
  u8* const planes = stages + WARPS * STAGES * PIECE * RECORD_BYTES;
  float* const scales = (float*)(planes + chunks * TOKENS * 128);
  float* const totals = scales + chunks * TOKENS * 2;
  float* const partials = totals + (WEIGHTS == Q4_1 ? chunks * TOKENS * 2 : 0);
  float* const squares = partials + SLOTS * WARPS * 16 * TOKENS;

  // The last warp multiplies nothing.
  const u32 begin = chunks * min(warp, WARPS) / WARPS, count = chunks * min(warp + 1, WARPS) / WARPS - begin;
  const u32 mine = (strips - blockIdx.x + gridDim.x - 1) / gridDim.x;
  const u32 total = mine * ((count + PIECE - 1) / PIECE);
  u8* const ring = stages + warp * (STAGES * PIECE * RECORD_BYTES);
  if (threadIdx.x == WARPS * 32) {
    for (u32 slot = 0; slot < SLOTS; slot++) {
      barrier_init(shared_address(summed + slot), WARPS);
      barrier_init(shared_address(added + slot), 1);
    }
  }
  const u32 ringAt = shared_address(ring), fullAt = shared_address(full + warp * STAGES);
  if (lane == 0 && warp < WARPS) {
#pragma unroll 1
    for (u32 stage = 0; stage < STAGES; stage++) barrier_init(fullAt + 8 * stage, 1);
    barriers_made();
  }
  __syncwarp();
  const u8* next = args.weights + ((u64)blockIdx.x * chunks + begin) * RECORD_BYTES;
  const u64 hop = ((u64)gridDim.x * chunks - count) * RECORD_BYTES;
  u32 left = count, asked = 0;
  auto ask = [&](u32 stage) {
    if (asked >= total) return;
    const u32 some = left < PIECE ? left : PIECE, bytes = some * RECORD_BYTES;
    if (lane == 0) {
      barrier_expect(fullAt + 8 * stage, bytes);
      bulk_copy_once(ringAt + stage * (PIECE * RECORD_BYTES), next, bytes, fullAt + 8 * stage);
    }
    asked++;
    next += bytes;
    left -= some;
    if (left == 0) {
      next += hop;
      left = count;
    }
  };
#pragma unroll 1
  for (u32 stage = 0; stage < STAGES; stage++) ask(stage);
  await_predecessors();

#pragma unroll 1
  for (u32 token = 0; token < TOKENS; token++) {
#if NORM
    float square = 0.f;
#endif
#pragma unroll 1
    for (u32 start = threadIdx.x; start - lane < chunks * 8; start += READS * THREADS) {
      Pairs reads[READS];
#pragma unroll
      for (u32 r = 0; r < READS; r++) {
        const u32 share = start + r * THREADS;
        readPairs(args, token, share / 4 * 32 + share % 4 * 2, reads[r]);
      }
#pragma unroll
      for (u32 r = 0; r < READS; r++) {
        const u32 share = start + r * THREADS;
        if (share - lane >= chunks * 8) break;
        const u32 chunk = share / 8, block = share / 4 % 2, j = share % 4;
        float x[8];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
#if NORM
          const float2 pair = reads[r].x[i], gain = reads[r].gain[i];
          square = fmaf(pair.x, pair.x, square);
          square = fmaf(pair.y, pair.y, square);
          x[2 * i] = pair.x * gain.x, x[2 * i + 1] = pair.y * gain.y;
#else
          x[2 * i] = bf16_low(reads[r].x[i]), x[2 * i + 1] = bf16_high(reads[r].x[i]);
#endif
        }
        float largest = 0.f, sum = 0.f;
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
          largest = fmaxf(largest, fabsf(x[i]));
          sum += x[i];
        }
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
#if WEIGHTS == Q4_1
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
#endif
        const float inverse = largest > 0.f ? LARGEST / largest : 0.f;
        u32 low[8], high[8];
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
          low[i] = __float_as_uint(fmaf(x[i], inverse, ROUNDER));
          high[i] = low[i] + 128;
        }
        // A word of nibbles has pairs 0 and 2 in the low halves of its bytes, one of Q8_0 pairs 0 and 1.
        if (share >= chunks * 8) continue;
        uint2* to = (uint2*)(planes + ((chunk * TOKENS + token) * 2 * 4 + j) * 16 + block * 8);
        if (WEIGHTS == Q8_0) {
          to[0] = make_uint2(bytesOf<0x0051>(high[0], high[2], high[1], high[3]), bytesOf<0x0051>(high[4], high[6], high[5], high[7]));
          to[8] = make_uint2(bytesOf<0x0040>(low[0], low[2], low[1], low[3]), bytesOf<0x0040>(low[4], low[6], low[5], low[7]));
        } else {
          to[0] = make_uint2(bytesOf<0x0051>(high[2], high[6], high[3], high[7]), bytesOf<0x0051>(high[0], high[4], high[1], high[5]));
          to[8] = make_uint2(bytesOf<0x0040>(low[2], low[6], low[3], low[7]), bytesOf<0x0040>(low[0], low[4], low[1], low[5]));
        }
        if (j == 0) scales[(chunk * TOKENS + token) * 2 + block] = largest * (UNIT / LARGEST);
#if WEIGHTS == Q4_1
        if (j == 0) totals[(chunk * TOKENS + token) * 2 + block] = sum;
#endif
      }
    }
#if NORM
#pragma unroll
    for (u32 step = 16; step > 0; step /= 2) square += __shfl_xor_sync(0xffffffffu, square, step);
    if (lane == 0) squares[warp * TOKENS + token] = square;
#endif
  }
  __syncthreads();

  if (warp == WARPS) {
    addUp(args, {partials, squares, summed, added, mine, outputs}, lane);
    return;
  }
  const u32 g = lane / 4, j = lane % 4;
  const Inputs x = {
      (const uint4*)planes + ((g / 2 % TOKENS) * 2 + g % 2) * 4 + j,
      (const float2*)scales + j % TOKENS,
      (const float2*)totals + j % TOKENS,
  };
  float acc[2] = {0.f, 0.f};
  u32 index = begin, turn = 0;
  // Leaves the sums of a strip to the last warp.
  auto finish = [&]() {
    const u32 slot = turn % SLOTS;
    if (turn >= SLOTS) barrier_wait(shared_address(added + slot), turn / SLOTS - 1 & 1);
    float* const own = partials + slot * (WARPS * 16 * TOKENS);
    if (j < TOKENS) {
      own[(warp * 16 + g) * TOKENS + j] = acc[0];
      own[(warp * 16 + g + 8) * TOKENS + j] = acc[1];
    }
    acc[0] = acc[1] = 0.f;
    __syncwarp();
    if (lane == 0) barrier_arrive(shared_address(summed + slot));
    turn++;
  };
  // More warps than chunks: this one only takes its turns.
  if (count == 0) {
    for (u32 i = 0; i < mine; i++) finish();
    return;
  }
  u32 stage = 0, parity = 0;
#pragma unroll 1
  for (u32 i = 0; i < total; i++) {
    barrier_wait(fullAt + 8 * stage, parity);
    const u8* record = ring + stage * (PIECE * RECORD_BYTES);
    const u32 some = min(begin + count - index, (u32)PIECE);
    // Without a condition in between the chunks' instructions are woven into each other.
    if (some == PIECE) {
#pragma unroll
      for (u32 u = 0; u < PIECE; u++) {
        Chunk chunk;
        takeChunk(chunk, record + u * RECORD_BYTES, lane);
        multiply(acc, chunk, x, index + u);
      }
    } else {
#pragma unroll 1
      for (u32 u = 0; u < some; u++) {
        Chunk chunk;
        takeChunk(chunk, record + u * RECORD_BYTES, lane);
        multiply(acc, chunk, x, index + u);
      }
    }
    index += some;
    __syncwarp();
    ask(stage);
    if (++stage == STAGES) {
      stage = 0;
      parity ^= 1;
    }
    if (index == begin + count) {
      index = begin;
      finish();
    }
  }
}
