// linear_stream: what the products that stream their weights share: barriers, the cluster's share of the work, the ring of weights,
// the exchange of partial sums and the outputs. Hopper (sm_90a). Included by linear_skinny.cu and linear_packed.cu, which
// define before it:
//
// TOKENS padded tokens; OUTPUT 0 bf16, 1 f32, 2 f32 added to what is there, 3 bf16 silu(gate) * up; NORM 1 to scale by
// 1 / rms(x); ROW_MAJOR 1 to read bf16 weights through a tensor map; PARTS partial sums of an output; PIECE_TILES tiles of 64
// columns in a piece of the ring; TILE_BYTES bytes of 64 rows x 64 columns; CONSUMERS warps that multiply.

#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct LinearArgs {
  const u8* weights;
  const void* x;
  const float* gain;
  void* out;
  u32 tokens, rows, cols;
  u32 xStride, outStride;
  // Tiles of 64 rows, or for OUTPUT 3 pairs of them; distance in tiles from a gate tile to its up tile.
  u32 units, partner;
  // Pieces of inputs and of weights that shared memory holds; pieces of weights to ask for beyond those.
  u32 xSlots, slots, prefetch;
  float epsilon;
};

struct alignas(64) TensorMap {
  u64 opaque[16];
};

namespace {

constexpr u32 SLICES = 4;
constexpr u32 PIECE_BYTES = PIECE_TILES * TILE_BYTES;
// Partial sums of 16 rows; rows are two words apart from a multiple of eight, or (64 tokens) swizzled, so that they lie in 16 banks.
constexpr u32 SUM_FLOATS = 16 * (TOKENS == 64 ? 64 : TOKENS + 2);
// Few at many tokens, so that two CTAs fit a multiprocessor.
constexpr u32 LOADERS = TOKENS == 64 ? 2 : TOKENS == 32 ? 3 : 4;
constexpr u32 FINISHERS = 2;
constexpr u32 THREADS = (CONSUMERS + 1 + LOADERS + FINISHERS) * 32;
constexpr u32 MAX_SLOTS = 32;
constexpr u32 MAX_X_SLOTS = TOKENS == 64 ? 16 : 64;

struct Barriers {
  u64 full[MAX_SLOTS];
  u64 empty[MAX_SLOTS];
  u64 xFull[MAX_X_SLOTS];
  u64 xEmpty[MAX_X_SLOTS];
  u64 received;
  u64 drained;
  u64 squares;
};

__device__ __forceinline__ u32 sharedAddress(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void barrierInit(u64& bar, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(sharedAddress(&bar)), "r"(count) : "memory");
}

__device__ __forceinline__ void arrive(u64& bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(sharedAddress(&bar)) : "memory");
}

__device__ __forceinline__ void expect(u64& bar, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(sharedAddress(&bar)), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void wait(u64& bar, u32 parity) {
  u32 done;
  do {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(sharedAddress(&bar)), "r"(parity)
        : "memory");
  } while (!done);
}

// For what other CTAs of the cluster have sent.
__device__ __forceinline__ void waitCluster(u64& bar, u32 parity) {
  u32 done;
  do {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(sharedAddress(&bar)), "r"(parity)
        : "memory");
  } while (!done);
}

__device__ __forceinline__ u32 inCta(u32 address, u32 rank) {
  u32 remote;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
  return remote;
}

__device__ __forceinline__ void arriveRemote(u32 bar) {
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(bar) : "memory");
}

#if NORM
__device__ __forceinline__ void storeRemote(u32 to, float a) {
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(to), "f"(a) : "memory");
}
#endif

__device__ __forceinline__ void storeRemote(u32 to, float a, float b) {
  asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(a), "f"(b) : "memory");
}

__device__ __forceinline__ void clusterFence() { asm volatile("fence.acq_rel.cluster;" ::: "memory"); }
__device__ __forceinline__ void clusterArrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
__device__ __forceinline__ void clusterWait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
__device__ __forceinline__ void dependencyWait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
__device__ __forceinline__ void launchDependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

__device__ __forceinline__ u32 clusterRank() {
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Two floats rounded to bf16, the first in the low half.
__device__ __forceinline__ u32 packBf16(float low, float high) {
  u32 packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

#if NORM
// Four values of a row of `cols`; zero beyond it.
__device__ __forceinline__ float4 loadFour(const float* row, u32 at, u32 cols) {
  if (at + 4 <= cols) return *(const float4*)(row + at);
  float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
  if (at < cols) v.x = row[at];
  if (at + 1 < cols) v.y = row[at + 1];
  if (at + 2 < cols) v.z = row[at + 2];
  return v;
}
#endif

// What a cluster does: passes over one or two tiles of 64 rows, each over the pieces of this CTA's slice of K.
struct Work {
  u32 firstTile, tiles, partner, partnerRow;
  u32 passes, pieces, firstK, kTiles, allKTiles;

  __device__ __forceinline__ Work(const LinearArgs& args, u32 rank) {
    const u32 clusters = gridDim.x / SLICES, cluster = blockIdx.x / SLICES;
    firstTile = (u32)((u64)args.units * cluster / clusters);
    const u32 count = (u32)((u64)args.units * (cluster + 1) / clusters) - firstTile;
    tiles = OUTPUT == 3 ? 2 * count : count;
    partner = args.partner;
    partnerRow = args.rows;
    passes = (tiles + 1) / 2;
    allKTiles = (args.cols + 63) / 64;
    firstK = allKTiles * rank / SLICES;
    kTiles = allKTiles * (rank + 1) / SLICES - firstK;
    pieces = (kTiles + PIECE_TILES - 1) / PIECE_TILES;
  }
  __device__ __forceinline__ bool both(u32 pass) const { return 2 * pass + 1 < tiles; }
  __device__ __forceinline__ u32 tile(u32 pass, u32 second) const {
    return OUTPUT == 3 ? firstTile + pass + (second ? partner : 0) : firstTile + 2 * pass + second;
  }
#if ROW_MAJOR
  // First row of a tile in a row-major matrix, where up rows follow gate rows at once.
  __device__ __forceinline__ u32 row(u32 pass, u32 second) const {
    return OUTPUT == 3 && second ? partnerRow + (firstTile + pass) * 64 : tile(pass, second) * 64;
  }
#endif
  // Tiles of 64 columns in a piece.
  __device__ __forceinline__ u32 columns(u32 piece) const {
    const u32 left = kTiles - piece * PIECE_TILES;
    return left < PIECE_TILES ? left : PIECE_TILES;
  }
};

// A place in the order in which pieces of weights are read.
struct Cursor {
  u32 pass, piece, second;

  __device__ __forceinline__ void next(const Work& work) {
    if (second == 0 && work.both(pass)) {
      second = 1;
      return;
    }
    second = 0;
    if (++piece == work.pieces) {
      piece = 0;
      pass++;
    }
  }
  __device__ __forceinline__ bool more(const Work& work) const { return pass < work.passes && work.pieces > 0; }
};

// A place in the ring and the parity of its round.
struct Ring {
  u32 slot, phase;

  __device__ __forceinline__ void next(u32 slots) {
    if (++slot == slots) {
      slot = 0;
      phase ^= 1;
    }
  }
};

__device__ __forceinline__ void loadPiece(const LinearArgs& args, const TensorMap* map, const Work& work, const Cursor& at,
                                          u32 to, u64& bar) {
  const u32 columns = work.columns(at.piece);
  const u32 k = work.firstK + PIECE_TILES * at.piece;
  expect(bar, columns * TILE_BYTES);
#if ROW_MAJOR
#pragma unroll 1
  for (u32 c = 0; c < columns; c++) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
            to + c * TILE_BYTES),
        "l"(map), "r"((k + c) * 64), "r"(work.row(at.pass, at.second)), "r"(sharedAddress(&bar))
        : "memory");
  }
#else
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(args.weights + ((u64)work.tile(at.pass, at.second) * work.allKTiles + k) * TILE_BYTES), "r"(columns * TILE_BYTES),
               "r"(sharedAddress(&bar))
               : "memory");
#endif
}

__device__ __forceinline__ void prefetchPiece(const LinearArgs& args, const TensorMap* map, const Work& work,
                                              const Cursor& at) {
  const u32 columns = work.columns(at.piece);
  const u32 k = work.firstK + PIECE_TILES * at.piece;
#if ROW_MAJOR
#pragma unroll 1
  for (u32 c = 0; c < columns; c++) {
    asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];" ::"l"(map), "r"((k + c) * 64),
                 "r"(work.row(at.pass, at.second))
                 : "memory");
  }
#else
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(args.weights + ((u64)work.tile(at.pass, at.second) * work.allKTiles + k) * TILE_BYTES),
               "r"(columns * TILE_BYTES)
               : "memory");
#endif
}

// One thread. Needs nothing from a predecessor.
__device__ __forceinline__ void streamWeights(const LinearArgs& args, const TensorMap* map, const Work& work, u32 ringBase,
                                              Barriers& bars) {
  Cursor at = {0, 0, 0};
  Ring ring = {0, 1};
  bool filled = false;
#pragma unroll 1
  for (; at.more(work); at.next(work)) {
    if (!filled && ring.phase == 0) {
      filled = true;
      Cursor ahead = at;
#pragma unroll 1
      for (u32 i = 0; i < args.prefetch && ahead.more(work); i++, ahead.next(work)) prefetchPiece(args, map, work, ahead);
    }
    // A barrier that has completed no phase yet lets the parity of the one before it pass.
    wait(bars.empty[ring.slot], ring.phase);
    loadPiece(args, map, work, at, ringBase + ring.slot * PIECE_BYTES, bars.full[ring.slot]);
    ring.next(args.slots);
  }
}

// Every thread of the CTA. `emptyCount` warps release a piece.
__device__ __forceinline__ void initBarriers(Barriers& bars, u32 emptyCount) {
#pragma unroll 1
  for (u32 i = threadIdx.x; i < max(MAX_SLOTS, MAX_X_SLOTS); i += THREADS) {
    if (i < MAX_SLOTS) {
      barrierInit(bars.full[i], 1);
      barrierInit(bars.empty[i], emptyCount);
    }
    if (i < MAX_X_SLOTS) {
      barrierInit(bars.xFull[i], 1);
      barrierInit(bars.xEmpty[i], CONSUMERS);
    }
    if (i == 0) {
      // A warp arrives for all its rows: one asynchronous store with a count of its own for every pair takes microseconds.
      barrierInit(bars.received, SLICES * CONSUMERS / 4);
      barrierInit(bars.squares, SLICES);
      barrierInit(bars.drained, SLICES * FINISHERS);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
}

__device__ __forceinline__ u32 sumAt(u32 row, u32 token) {
  return TOKENS == 64 ? row * 64 + (token ^ 2 * row) : row * (TOKENS + 2) + token;
}

// This thread's sums of rows row and row + 8, two tokens of each eight, to their place in the CTA that adds them up.
__device__ __forceinline__ void sendSums(const float (&acc)[TOKENS / 2], u32 to) {
  const u32 lane = threadIdx.x % 32, row = lane / 4, token = lane % 4 * 2;
#pragma unroll
  for (u32 b = 0; b < TOKENS / 8; b++) {
    storeRemote(to + sumAt(row, 8 * b + token) * 4, acc[4 * b], acc[4 * b + 1]);
    storeRemote(to + sumAt(row + 8, 8 * b + token) * 4, acc[4 * b + 2], acc[4 * b + 3]);
  }
}

// Tells the CTA that adds up that this warp's sums are there.
__device__ __forceinline__ void sent(u32 bar) {
  clusterFence();
  __syncwarp();
  if (threadIdx.x % 32 == 0) arriveRemote(bar);
}

__device__ __forceinline__ float addUp(const float* sums, u32 second, u32 row, u32 token) {
  const float* at = sums + second * PARTS * SUM_FLOATS + sumAt(row, token);
  float sum = at[0];
#pragma unroll
  for (u32 i = 1; i < PARTS; i++) sum += at[i * SUM_FLOATS];
  return sum;
}

#if NORM
// Every CTA learns every slice's sum of squares.
__device__ __forceinline__ void sendSquares(const LinearArgs& args, const Work& work, u32 rank, const float* squares,
                                            const float* allSquares, Barriers& bars) {
  const u32 token = threadIdx.x - (THREADS - FINISHERS * 32);
  if (token < 32) {
#pragma unroll 1
    for (u32 piece = 0; piece < work.pieces; piece++) wait(bars.xFull[piece], 0);
    float sum = 0.f;
    if (token < args.tokens) {
#pragma unroll 1
      for (u32 piece = 0; piece < work.pieces; piece++) sum += squares[piece * TOKENS + token];
    }
    for (u32 to = 0; to < SLICES; to++) {
      if (token < TOKENS) storeRemote(inCta(sharedAddress(allSquares), to) + (rank * TOKENS + token) * 4, sum);
    }
    clusterFence();
    __syncwarp();
    if (token < SLICES) arriveRemote(inCta(sharedAddress(&bars.squares), token));
  }
  waitCluster(bars.squares, 0);
}
#endif

// The last warps: adds partial sums up in order, scales, and writes outputs.
__device__ __forceinline__ void finish(const LinearArgs& args, const Work& work, u32 rank, const float* sums,
                                       const float* squares, const float* allSquares, Barriers& bars) {
  const u32 lane = threadIdx.x % 32, index = threadIdx.x - (THREADS - FINISHERS * 32);
  dependencyWait();
  clusterWait();
#if NORM
  sendSquares(args, work, rank, squares, allSquares, bars);
#endif
#pragma unroll 1
  for (u32 pass = 0; pass < work.passes; pass++) {
    const u32 count = work.both(pass) ? 2 : 1;
    const u32 outputs = (OUTPUT == 3 ? 1 : count) * args.tokens * 16;
    bool arrived = false;
#pragma unroll 1
    for (u32 first = index; first < outputs; first += 4 * FINISHERS * 32) {
      u64 to[4];
      float old[4];
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        const u32 at = first + i * FINISHERS * 32, second = at / 16 >= args.tokens;
        const u32 token = at / 16 - (second ? args.tokens : 0);
        const u32 row = work.tile(pass, second) * 64 + rank * 16 + at % 16;
        to[i] = at < outputs && row < args.rows ? (u64)token * args.outStride + row : ~0ull;
        if (OUTPUT == 2) old[i] = to[i] == ~0ull ? 0.f : ((const float*)args.out)[to[i]];
      }
      if (!arrived) waitCluster(bars.received, pass & 1);
      arrived = true;
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        if (to[i] == ~0ull) continue;
        const u32 at = first + i * FINISHERS * 32, second = at / 16 >= args.tokens;
        const u32 token = at / 16 - (second ? args.tokens : 0), row = at % 16;
        float scale = 1.f;
        if (NORM) {
          const float* q = allSquares + token;
          const float sum = ((q[0] + q[TOKENS]) + q[2 * TOKENS]) + q[3 * TOKENS];
          scale = 1.f / sqrtf(sum / (float)args.cols + args.epsilon);
        }
        float value = addUp(sums, OUTPUT == 3 ? 0 : second, row, token) * scale;
        if (OUTPUT == 3) value = value / (1.f + __expf(-value)) * (addUp(sums, 1, row, token) * scale);
        if (OUTPUT == 0 || OUTPUT == 3) ((u16*)args.out)[to[i]] = (u16)packBf16(value, 0.f);
        else ((float*)args.out)[to[i]] = OUTPUT == 2 ? old[i] + value : value;
      }
    }
    // A thread without outputs must not signal that a pass was drained before it has come.
    if (!arrived) waitCluster(bars.received, pass & 1);
    if (pass + 1 < work.passes) {
      __syncwarp();
      if (lane < SLICES) arriveRemote(inCta(sharedAddress(&bars.drained), lane));
    }
  }
}

}  // namespace
