// linear_skinny: products of up to 64 tokens at the speed of reading the weights, bf16 weights, Hopper (sm_90a).
//
// out[m, n] (+)= sum over k of w[n, k] * x[m, k]; w [N, K] bf16, x [M, K] bf16 or f32, sums f32.
//
// Limit: N * K * 2 bytes over the memory's read rate; below 300 multiply-adds a byte the tensor cores wait for memory.
//
// A cluster of four CTAs works on a tile of 64 rows of w at a time, or on two (a pass), each CTA on a quarter of K. Weights
// arrive in a ring of 16 KB pieces (64 rows x 128 columns) and are the A operand of wgmma straight from shared memory;
// tokens, padded to TOKENS, are B. Warp w of the consumers holds rows 16w..16w+15 of a tile, so it sends its partial sums to CTA w
// of the cluster, which adds the four quarters in order. Weights do not depend on a predecessor: with a programmatic launch the
// ring (and `prefetch` more pieces in L2) fills before it has ended; only x waits for it.
//
// Order of summation: k ascending within each quarter (quarter q starts at column 64 * floor(ceil(K / 64) * q / 4)), then
// ((q0 + q1) + q2) + q3. It depends on K alone: the same bits for every M, TOKENS, grid and layout.
//
// Warps: 0-3 consumers, 4 weights, then LOADERS for inputs, then two for sums and outputs.
//
// Layout of w: tiles as linear_skinny_pack makes them (ROW_MAJOR 0), or row-major through a tensor map with boxes of 64 rows x
// 64 columns in the 128-byte swizzle (ROW_MAJOR 1). Inputs: bf16, or f32 with RMSNorm (NORM 1: w sees bf16(x * gain), the
// sum is scaled by 1 / rms); rows of x start at multiples of 16 bytes.
//
// @arch sm_90a
// @define TOKENS=8
// @define TOKENS=8 OUTPUT=1 NORM=1
// @define TOKENS=8 OUTPUT=3 NORM=1 ROW_MAJOR=1
// @define TOKENS=16 OUTPUT=1
// @define TOKENS=32 OUTPUT=2 ROW_MAJOR=1
// @define TOKENS=64 OUTPUT=3

#ifndef TOKENS
#define TOKENS 8
#endif
#ifndef OUTPUT
#define OUTPUT 0
#endif
#ifndef NORM
#define NORM 0
#endif
#ifndef ROW_MAJOR
#define ROW_MAJOR 0
#endif
#define PARTS 4
#define PIECE_TILES 2
#define TILE_BYTES 8192
#define CONSUMERS 4

#include "linear_stream.cuh"

namespace {

constexpr u32 X_TILE_BYTES = TOKENS * 128;
constexpr u32 X_SLOT_BYTES = 2 * X_TILE_BYTES;

// Shows this thread's writes to shared memory to wgmma.
__device__ __forceinline__ void proxyFence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Descriptor of a K-major tile of 128-byte rows in the 128-byte swizzle: 8 rows are 1,024 bytes.
__device__ __forceinline__ u64 tileDescriptor(u32 address) {
  return ((u64)(address & 0x3ffff) >> 4) | (1ull << 16) | (64ull << 32) | (1ull << 62);
}

#define ACC4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define ACC16(d, i) ACC4(d, i), ACC4(d, i + 4), ACC4(d, i + 8), ACC4(d, i + 12)

// acc += 64 rows x 16 columns of weights times 16 columns of TOKENS tokens.
__device__ __forceinline__ void multiply(float (&d)[TOKENS / 2], u64 a, u64 b) {
#if TOKENS == 8
  asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;"
               : ACC4(d, 0)
               : "l"(a), "l"(b));
#elif TOKENS == 16
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7}, %8, %9, 1, 1, 1, 0, 0;"
      : ACC4(d, 0), ACC4(d, 4)
      : "l"(a), "l"(b));
#elif TOKENS == 32
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, %16, %17, 1, 1, 1, 0, 0;"
      : ACC16(d, 0)
      : "l"(a), "l"(b));
#elif TOKENS == 64
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, 1, 1, 1, 0, 0;"
      : ACC16(d, 0), ACC16(d, 16)
      : "l"(a), "l"(b));
#else
#error "TOKENS must be 8, 16, 32 or 64"
#endif
}

// Rows of the slot that no token fills stay zero.
__device__ __forceinline__ void clearRows(u8* slot, u32 tokens) {
  const u32 lane = threadIdx.x % 32;
#pragma unroll 1
  for (u32 half = 0; half < 2; half++) {
    uint4* rows = (uint4*)(slot + half * X_TILE_BYTES);
#pragma unroll 1
    for (u32 i = tokens * 8 + lane; i < TOKENS * 8; i += 32) rows[i] = make_uint4(0, 0, 0, 0);
  }
}

// Starts copying 64 or 128 columns of every token into the slot, in the image that wgmma reads.
__device__ __forceinline__ void copyInputs(const LinearArgs& args, u32 slot, u32 k, u32 columns) {
  const u32 lane = threadIdx.x % 32, perToken = columns * 8;
#pragma unroll 2
  for (u32 i = lane; i < args.tokens * perToken; i += 32) {
    const u32 token = columns == 2 ? i / 16 : i / 8, chunk = i % perToken;
    const u32 at = k + chunk * 8;
    const u32 bytes = at >= args.cols ? 0 : args.cols - at >= 8 ? 16 : (args.cols - at) * 2;
    const u16* from = (const u16*)args.x + (bytes > 0 ? (u64)token * args.xStride + at : 0);
    const u32 to = slot + chunk / 8 * X_TILE_BYTES + token * 128 + (((chunk & 7) ^ (token & 7)) << 4);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
  }
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most LEFT groups of this thread's copies are under way and shows the others to wgmma.
template <u32 LEFT>
__device__ __forceinline__ void copied() {
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
  proxyFence();
  __syncwarp();
}

#if NORM
// Rounds x * gain to bf16 into the slots of this warp's pieces and leaves each piece's sum of squares per token in `squares`.
__device__ __forceinline__ void normInputs(const LinearArgs& args, const Work& work, u32 loader, u8* x, float* squares,
                                           Barriers& bars) {
  constexpr u32 BATCH = 6;
  const u32 lane = threadIdx.x % 32;
  const u32 mine = work.pieces > loader ? (work.pieces - loader + LOADERS - 1) / LOADERS : 0;
  const u32 total = mine * args.tokens;
#pragma unroll 1
  for (u32 first = 0; first < total; first += BATCH) {
    float4 v[BATCH], g[BATCH];
#pragma unroll
    for (u32 i = 0; i < BATCH; i++) {
      const u32 unit = first + i;
      if (unit < total) {
        const u32 piece = loader + unit / args.tokens * LOADERS, token = unit % args.tokens;
        const bool inside = lane < work.columns(piece) * 16;
        const u32 at = inside ? (work.firstK + 2 * piece) * 64 + lane * 4 : args.cols;
        v[i] = loadFour((const float*)args.x + (u64)token * args.xStride, at, args.cols);
        g[i] = loadFour(args.gain, at, args.cols);
      }
    }
#pragma unroll
    for (u32 i = 0; i < BATCH; i++) {
      const u32 unit = first + i;
      if (unit < total) {
        const u32 piece = loader + unit / args.tokens * LOADERS, token = unit % args.tokens;
        float sum = (v[i].x * v[i].x + v[i].y * v[i].y) + (v[i].z * v[i].z + v[i].w * v[i].w);
        const u32 chunk = lane / 2 & 7;
        *(uint2*)(x + piece * X_SLOT_BYTES + lane / 16 * X_TILE_BYTES + token * 128 + ((chunk ^ (token & 7)) << 4) +
                  (lane & 1) * 8) = make_uint2(packBf16(v[i].x * g[i].x, v[i].y * g[i].y),
                                               packBf16(v[i].z * g[i].z, v[i].w * g[i].w));
#pragma unroll
        for (u32 step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
        if (lane == 0) squares[piece * TOKENS + token] = sum;
        if (token + 1 == args.tokens) {
          proxyFence();
          __syncwarp();
          if (lane == 0) arrive(bars.xFull[piece]);
        }
      }
    }
  }
}

#endif

__device__ __forceinline__ void loadInputs(const LinearArgs& args, const Work& work, u32 loader, u8* x, float* squares,
                                           Barriers& bars) {
  const u32 lane = threadIdx.x % 32, base = sharedAddress(x);
  if (work.pieces <= args.xSlots) {
#pragma unroll 1
    for (u32 piece = loader; piece < work.pieces; piece += LOADERS) clearRows(x + piece * X_SLOT_BYTES, args.tokens);
    dependencyWait();
#if NORM
    normInputs(args, work, loader, x, squares, bars);
#else
#pragma unroll 1
    for (u32 piece = loader; piece < work.pieces; piece += LOADERS) {
      copyInputs(args, base + piece * X_SLOT_BYTES, (work.firstK + 2 * piece) * 64, work.columns(piece));
    }
    // With many pieces the first are used before the last two have arrived.
    u32 done = loader;
    if (work.pieces > 4 * LOADERS) {
      copied<2>();
#pragma unroll 1
      for (; done + 2 * LOADERS < work.pieces; done += LOADERS) {
        if (lane == 0) arrive(bars.xFull[done]);
      }
    }
    copied<0>();
#pragma unroll 1
    for (; done < work.pieces; done += LOADERS) {
      if (lane == 0) arrive(bars.xFull[done]);
    }
#endif
    return;
  }
  // Too many columns to hold: slot i belongs to loader i, and pieces come again for every pass.
  clearRows(x + loader * X_SLOT_BYTES, args.tokens);
  dependencyWait();
  const u32 total = work.passes * work.pieces;
#pragma unroll 1
  for (u32 i = loader, piece = loader % work.pieces, phase = 1; i < total; i += LOADERS, phase ^= 1) {
    wait(bars.xEmpty[loader], phase);
    copyInputs(args, base + loader * X_SLOT_BYTES, (work.firstK + 2 * piece) * 64, work.columns(piece));
    copied<0>();
    if (lane == 0) arrive(bars.xFull[loader]);
    piece = (piece + LOADERS) % work.pieces;
  }
}

// The four consumer warps together: one piece of weights times its columns of x.
__device__ __forceinline__ void multiplyPiece(float (&acc)[TOKENS / 2], Ring& ring, const LinearArgs& args, u32 ringBase,
                                              u32 xSlot, u32 columns, Barriers& bars) {
  wait(bars.full[ring.slot], ring.phase);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  u64 a = tileDescriptor(ringBase + ring.slot * PIECE_BYTES), b = tileDescriptor(xSlot);
#pragma unroll 1
  for (u32 c = 0; c < columns; c++) {
#pragma unroll
    for (u32 k = 0; k < 4; k++) multiply(acc, a + 2 * k, b + 2 * k);
    a += TILE_BYTES >> 4;
    b += X_TILE_BYTES >> 4;
  }
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  if (threadIdx.x % 32 == 0) arrive(bars.empty[ring.slot]);
  ring.next(args.slots);
}

__device__ __forceinline__ void multiplyAll(const LinearArgs& args, const Work& work, u32 rank, u32 ringBase, u32 x,
                                            const float* sums, Barriers& bars) {
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const bool resident = work.pieces <= args.xSlots;
  const u32 slots = resident ? work.pieces : LOADERS;
  const u32 to = inCta(sharedAddress(sums), warp) + rank * SUM_FLOATS * 4;
  const u32 received = inCta(sharedAddress(&bars.received), warp);
  Ring ring = {0, 0};
  Ring inputs = {0, 0};
#pragma unroll 1
  for (u32 pass = 0; pass < work.passes; pass++) {
    float first[TOKENS / 2], second[TOKENS / 2];
#pragma unroll
    for (u32 i = 0; i < TOKENS / 2; i++) first[i] = second[i] = 0.f;
    const bool both = work.both(pass);
#pragma unroll 1
    for (u32 piece = 0; piece < work.pieces; piece++) {
      wait(bars.xFull[inputs.slot], resident ? 0 : inputs.phase);
      const u32 columns = work.columns(piece), xSlot = x + inputs.slot * X_SLOT_BYTES;
      multiplyPiece(first, ring, args, ringBase, xSlot, columns, bars);
      if (both) multiplyPiece(second, ring, args, ringBase, xSlot, columns, bars);
      if (!resident && lane == 0) arrive(bars.xEmpty[inputs.slot]);
      inputs.next(slots);
    }
    if (pass == 0) clusterWait();
    else waitCluster(bars.drained, (pass - 1) & 1);
    sendSums(first, to);
    if (both) sendSums(second, to + PARTS * SUM_FLOATS * 4);
    sent(received);
  }
}

}  // namespace

extern "C" __global__ void __cluster_dims__(4, 1, 1) __launch_bounds__(THREADS, 2)
    linear_skinny(const __grid_constant__ LinearArgs args
#if ROW_MAJOR
                  ,
                  const __grid_constant__ TensorMap map
#endif
    ) {
  extern __shared__ __align__(1024) u8 memory[];
  u8* x = memory + args.slots * PIECE_BYTES;
  float* sums = (float*)(x + args.xSlots * X_SLOT_BYTES);
  float* allSquares = sums + 2 * PARTS * SUM_FLOATS;
  float* squares = allSquares + (NORM ? SLICES * TOKENS : 0);
  Barriers& bars = *(Barriers*)(squares + (NORM ? args.xSlots * TOKENS : 0));
  initBarriers(bars, CONSUMERS);
  clusterArrive();
  launchDependents();
  const u32 rank = clusterRank(), warp = threadIdx.x / 32;
  const Work work(args, rank);
  if (warp < CONSUMERS) {
    multiplyAll(args, work, rank, sharedAddress(memory), sharedAddress(x), sums, bars);
  } else if (warp == CONSUMERS) {
#if ROW_MAJOR
    const TensorMap* weights = &map;
#else
    const TensorMap* weights = nullptr;
#endif
    if (threadIdx.x % 32 == 0) streamWeights(args, weights, work, sharedAddress(memory), bars);
  } else if (warp < CONSUMERS + 1 + LOADERS) {
    loadInputs(args, work, warp - CONSUMERS - 1, x, squares, bars);
  } else {
    finish(args, work, rank, sums, squares, allSquares, bars);
  }
}

// Writes row-major rows as tiles of 64 rows x 64 columns, 8 KB each, in the 128-byte swizzle: chunk c of row r lies at
// c ^ (r & 7). Tile (t, k) is number t * ceil(cols / 64) + k. Rows and columns beyond the matrix are zero. A thread a chunk.
extern "C" __global__ void linear_skinny_pack(const u16* from, u32 rows, u32 cols, u32 stride, u8* to) {
  const u32 kTiles = (cols + 63) / 64;
  const u64 chunks = (u64)((rows + 63) / 64) * kTiles * 512;
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < chunks; i += (u64)gridDim.x * blockDim.x) {
    const u32 chunk = i % 8, inTile = i / 8 % 64;
    const u64 tile = i / 512;
    const u64 row = tile / kTiles * 64 + inTile;
    const u32 col = (u32)(tile % kTiles) * 64 + chunk * 8;
    u32 words[4];
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      const u32 low = row < rows && col + 2 * j < cols ? from[row * stride + col + 2 * j] : 0;
      const u32 high = row < rows && col + 2 * j + 1 < cols ? from[row * stride + col + 2 * j + 1] : 0;
      words[j] = low | high << 16;
    }
    *(uint4*)(to + tile * TILE_BYTES + inTile * 128 + ((chunk ^ (inTile & 7)) << 4)) =
        make_uint4(words[0], words[1], words[2], words[3]);
  }
}
