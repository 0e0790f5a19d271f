// resident_step - all layers of a decode step of a small model as one kernel, whose blocks of threads stay for the whole step.
//
// Ids [T], one a sequence -> residual [T, HIDDEN] f32 behind the last layer, keys and values of the tokens in the pool. The
// layers are those of Llama: RMSNorm, query, key and value, rotation, attention, output, RMSNorm, gate and up, SwiGLU, down.
//
// Limit: what depends on each other, not bytes. An exchange between clusters through the L2 cache takes about 1 us, one within a
// cluster of blocks 0.4 us; reading a layer's weights 1.5 us (135M shape, H200).
//
// Work: a cluster of eight blocks has a KV head with its queries, and the share of the output projection that these need; or a
// share of gate and up with the same columns of down. So a layer has two exchanges between clusters, and three within.
// Between clusters: every cluster has its sums of all rows; a block of each cluster reads what all have of an eighth of the
// rows, adds it to the residual it keeps, and hands the rows to its cluster.
//
// Exchange between clusters: a value is stored once, as a word of its own place in the step, and its reader polls the word until it
// is not EMPTY. There is no barrier, fence or counter. Places are emptied one step later, while the other half is in use.
// Within a cluster: stores that count up the reader's barrier. A buffer is never written again before all that read it have
// told other clusters something that the next writer had to wait for.
//
// Weights: the last warp copies a block's rows of the layers ahead into shared memory, SLOTS layers at a time.
// Products: warp w takes columns 32 w to 32 w + 31 (then 32 (w + WARPS) ..) as m16n8k16; tokens are M, rows of weights N.
// A norm is bf16(x * gain) going in and a scale of the sums coming out.
// Attention: each block has one token, and one of 8 / TOKENS parts of its pages. A warp takes 16 tokens at a time, of which the
// first are on their way before the query is there.
//
// Launch: cooperative, CTAS blocks of THREADS, so that all of them run at the same time.
// Test: resident_step_cuda_test.ts. Time: bench/gpu/step_bench.ts --model smollm2-135m, with and without --no-resident. Ladder:
// docs/perf/2026-11-24-resident-step.md.
//
// Defines: HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, LAYERS, VOCAB, PAIRS, HALVES (as rope_append), TOKENS (1, 2, 4 or 8),
// PARTS (clusters for gate, up and down), WARPS, SLOTS (layers of weights in shared memory). The launcher says what shared
// memory and exchange it has made (SHARED_BYTES, EXCHANGE_BYTES).
//
// @arch sm_90a sm_100
// @define HIDDEN=576 HEADS=9 KV_HEADS=3 HEAD_DIM=64 INTERMEDIATE=1536 LAYERS=30 VOCAB=49152 PAIRS=32 HALVES=0 TOKENS=1 PARTS=8 WARPS=12 SLOTS=2
// @define HIDDEN=576 HEADS=9 KV_HEADS=3 HEAD_DIM=64 INTERMEDIATE=1536 LAYERS=30 VOCAB=49152 PAIRS=32 HALVES=0 TOKENS=8 PARTS=8 WARPS=12 SLOTS=1
// @define HIDDEN=96 HEADS=9 KV_HEADS=3 HEAD_DIM=32 INTERMEDIATE=160 LAYERS=3 VOCAB=50 PAIRS=12 HALVES=1 TOKENS=4 PARTS=5 WARPS=12 SLOTS=1

#include "bulk_copy.cuh"
#include "cluster.cuh"
#include "dependents.cuh"
#include "kv_pool.cuh"
#include "tensor_tile.cuh"
#include "turn.cuh"

#define EMPTY 0xffffffffu
#define LOG2E 1.4426950408889634f

constexpr u32 THREADS = (WARPS + 1) * 32;
constexpr u32 COMPUTE = WARPS * 32;
constexpr u32 CTAS = (KV_HEADS + PARTS) * CLUSTER;
constexpr u32 GROUP = HEADS / KV_HEADS;
// Columns of the second product of a block, and rows of both of a cluster.
constexpr u32 GROUP_WIDTH = GROUP * HEAD_DIM;
constexpr u32 PART_WIDTH = INTERMEDIATE / PARTS;
constexpr u32 QKV_ROWS = (GROUP + 2) * HEAD_DIM;
// Rows of a block.
constexpr u32 QKV_SHARE = QKV_ROWS / CLUSTER;
constexpr u32 GATE_SHARE = PART_WIDTH / CLUSTER;
constexpr u32 ROW_SHARE = HIDDEN / CLUSTER;
// Parts of a token's pages, and what a lane's eighth of a warp stands for where it does not stand for a token.
constexpr u32 SPLITS = 8 / TOKENS;
static_assert(HIDDEN % 32 == 0 && GROUP_WIDTH % 32 == 0 && PART_WIDTH % 32 == 0, "warps take 32 columns at a time");
static_assert(HEAD_DIM <= 64 && HEAD_DIM % 8 == 0 && GROUP <= 8, "a head is one tile of the pool, a group one tile of heads");
static_assert(TOKENS == 1 || TOKENS == 2 || TOKENS == 4 || TOKENS == 8, "a block has one token");
static_assert(INTERMEDIATE % PARTS == 0, "clusters share evenly");

__device__ __forceinline__ constexpr u32 most(u32 a, u32 b) { return a > b ? a : b; }
__device__ __forceinline__ constexpr u32 least(u32 a, u32 b) { return a < b ? a : b; }
__device__ __forceinline__ constexpr u32 tiles_of(u32 rows) { return (rows + 15) / 16; }
// Bytes from a row to the next in shared memory: neighbours lie in different halves of the banks.
__device__ __forceinline__ constexpr u32 stride_of(u32 cols) { return cols * 2 % 128 == 64 ? cols * 2 : cols * 2 + 64; }
// Warps that share the columns of a product, and groups of warps that share its rows.
__device__ __forceinline__ constexpr u32 sharers_of(u32 cols) { return least(cols / 32, WARPS); }
__device__ __forceinline__ constexpr u32 groups_of(u32 cols) { return WARPS / sharers_of(cols); }
__device__ __forceinline__ constexpr u32 rounds_of(u32 cols) { return (cols / 32 + sharers_of(cols) - 1) / sharers_of(cols); }
// Sums of a warp: [tile][token][16], padded so that the quarter sums of a value come from different banks.
__device__ __forceinline__ constexpr u32 sums_of(u32 tiles) { return tiles * TOKENS * 16 + 8; }

// A layer in shared memory: gain and rows of query, key and value, rows of output; or gain and rows of gate and up in turns,
// rows of down.
constexpr u32 GAIN = 4 * HIDDEN;
constexpr u32 AT_QKV = GAIN;
constexpr u32 AT_OUT = AT_QKV + QKV_SHARE * stride_of(HIDDEN);
constexpr u32 AT_GATE = GAIN;
constexpr u32 AT_DOWN = AT_GATE + 2 * GATE_SHARE * stride_of(HIDDEN);
constexpr u32 SLOT_BYTES = most(AT_OUT + ROW_SHARE * stride_of(GROUP_WIDTH), AT_DOWN + ROW_SHARE * stride_of(PART_WIDTH));

constexpr u32 FIRST_SUMS = sharers_of(HIDDEN) * sums_of(most(tiles_of(QKV_SHARE), tiles_of(2 * GATE_SHARE)));
constexpr u32 SECOND_SUMS = most(sharers_of(GROUP_WIDTH), sharers_of(PART_WIDTH)) * sums_of(tiles_of(ROW_SHARE));
// A head's output of a warp, and padding.
constexpr u32 HEAD_WORDS = 80;
// A part of the attention: GROUP times 64 dimensions, then (largest, sum) of each head.
constexpr u32 PART_WORDS = GROUP * 66;
constexpr u32 PART_STRIDE = (PART_WORDS + 3) / 4 * 4;

// Behind the slots; bytes.
constexpr u32 AT_X = SLOTS * SLOT_BYTES;
constexpr u32 AT_GATED = AT_X + 4 * TOKENS * HIDDEN;
constexpr u32 AT_ATTENDED = AT_GATED + 2 * TOKENS * PART_WIDTH;
constexpr u32 AT_NEW_ROWS = AT_ATTENDED + 2 * TOKENS * GROUP_WIDTH;
constexpr u32 AT_PARTS = AT_NEW_ROWS + 4 * QKV_ROWS;
constexpr u32 AT_SUMS = AT_PARTS + 4 * 8 * PART_STRIDE;
constexpr u32 AT_SECOND_SUMS = AT_SUMS + 4 * FIRST_SUMS;
constexpr u32 AT_SQUARES = AT_SECOND_SUMS + 4 * SECOND_SUMS;
constexpr u32 AT_OUTPUTS = AT_SQUARES + 4 * WARPS * 8;
constexpr u32 AT_MAXIMA = AT_OUTPUTS + 4 * WARPS * GROUP * HEAD_WORDS;
constexpr u32 AT_WEIGHTS = AT_MAXIMA + 4 * WARPS * 8;
constexpr u32 AT_QUERY = AT_WEIGHTS + 4 * WARPS * 8;
constexpr u32 AT_NEW = AT_QUERY + 8 * 128;
constexpr u32 AT_TURNS = AT_NEW + 2 * 128;
constexpr u32 AT_BARRIERS = AT_TURNS + 32 * 8;
// Barriers: a product's rows have landed, may be overwritten; x, gated, new rows and parts have come.
constexpr u32 BARRIERS = 4 * SLOTS + 4;
enum Arrival { X_THERE, GATED_THERE, ROWS_THERE, PARTS_THERE };

// Words of the exchange of one layer: sums of the KV heads' clusters, then those of the others.
constexpr u32 SUMS_WORDS = TOKENS * HIDDEN;
constexpr u32 LAYER_WORDS = (KV_HEADS + PARTS) * SUMS_WORDS;

#ifdef SHARED_BYTES
static_assert(SHARED_BYTES == AT_BARRIERS + 8 * BARRIERS, "the launcher knows the shared memory");
static_assert(EXCHANGE_BYTES == 2ull * 4 * LAYERS * LAYER_WORDS, "the launcher knows the exchange");
#endif

struct Layer {
  const u8* attention_norm;
  const u8* qkv;
  const u8* output;
  const u8* mlp_norm;
  const u8* gate_up;
  const u8* down;
};

struct Step {
  const Layer* layers;
  const u8* embedding;
  const u32* ids;
  const u32* positions;
  const i32* sequences;
  const u32* count;
  const i32* tables;
  const double* frequencies;
  u8* pool;
  u64 layer_bytes, block_bytes;
  // Two halves of LAYERS * LAYER_WORDS words, and which half is in use.
  u32* exchange;
  u32* steps;
  float* residual;
  u32 blocks, table_width;
  float epsilon, scale, magnitude;
};

__device__ __forceinline__ void compute_sync() { asm volatile("bar.sync 1, %0;" ::"n"(COMPUTE) : "memory"); }

__device__ __forceinline__ uint4 peek4(const u32* at) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at) : "memory");
  return v;
}
__device__ __forceinline__ bool arrived(uint4 v) { return v.x != EMPTY && v.y != EMPTY && v.z != EMPTY && v.w != EMPTY; }
// EMPTY is a NaN that stands for any other.
__device__ __forceinline__ void tell(u32* to, float value) {
  const u32 bits = __float_as_uint(value);
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(bits == EMPTY ? 0x7fffffffu : bits) : "memory");
}

// The address that `local` has in block `rank` of the cluster.
__device__ __forceinline__ u32 address_in(u32 local, u32 rank) {
  u32 address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(local), "r"(rank));
  return address;
}
// Stores to a place of block `rank` and tells its barrier; both are named by their addresses here.
__device__ __forceinline__ void hand(u32 to, u32 barrier, u32 rank, u32 value) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(address_in(to, rank)),
               "r"(value), "r"(address_in(barrier, rank)) : "memory");
}
__device__ __forceinline__ void hand(u32 to, u32 barrier, u32 rank, float a, float b) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(
                   address_in(to, rank)), "f"(a), "f"(b), "r"(address_in(barrier, rank)) : "memory");
}
__device__ __forceinline__ void hand(u32 to, u32 barrier, u32 rank, float4 v) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
                   address_in(to, rank)), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w), "r"(address_in(barrier, rank)) : "memory");
}
// Until what the cluster handed over is here.
__device__ __forceinline__ void await_handed(u32 barrier, u32 parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(barrier), "r"(parity) : "memory");
}

__device__ __forceinline__ float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

struct Place {
  u8* shared;
  u32 base;  // the same as an address of the shared window
  u32 thread, warp, lane, row, quarter;
};

// Worked out anew by each part of a layer: kept across all of them, what depends on it would not fit into registers.
__device__ __forceinline__ Place place(u8* memory) {
  Place at;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(at.thread));
  at.shared = memory;
  at.base = shared_address(memory);
  at.warp = at.thread / 32;
  at.lane = at.thread % 32;
  at.row = at.lane / 4;
  at.quarter = at.lane % 4;
  return at;
}

__device__ __forceinline__ u32 full_barrier(u32 base, u32 slot, u32 part) { return base + AT_BARRIERS + (slot * 2 + part) * 16; }
__device__ __forceinline__ u32 free_barrier(u32 base, u32 slot, u32 part) { return full_barrier(base, slot, part) + 8; }
__device__ __forceinline__ u32 arrival_barrier(u32 base, Arrival what) { return base + AT_BARRIERS + (4 * SLOTS + what) * 8; }

__device__ __forceinline__ u32 cluster_rank() { return blockIdx.x % CLUSTER; }
__device__ __forceinline__ u32 cluster_index() { return blockIdx.x / CLUSTER; }

// The last warp: weights ahead into shared memory, and the other half of the exchange emptied.
__device__ __forceinline__ void fetch(const Step& step, const Place& at, u32* stale) {
  const u32 rank = cluster_rank(), cluster = cluster_index();
  const bool attends = cluster < KV_HEADS;
  const u32 share = cluster - KV_HEADS;
#pragma unroll 1
  for (u32 index = 0; index < LAYERS; index++) {
    const Layer layer = step.layers[index];
    const u32 slot = index % SLOTS, parity = (index / SLOTS & 1) ^ 1;
    const u32 to = at.base + slot * SLOT_BYTES;
#pragma unroll
    for (u32 part = 0; part < 2; part++) {
      const u32 full = full_barrier(at.base, slot, part);
      if (index >= SLOTS) barrier_wait(free_barrier(at.base, slot, part), parity);
      const u32 width = attends ? GROUP_WIDTH : PART_WIDTH;
      const u32 rows = part == 1 ? ROW_SHARE : attends ? QKV_SHARE : 2 * GATE_SHARE;
      if (at.lane == 0) barrier_expect(full, part == 1 ? rows * width * 2 : GAIN + rows * HIDDEN * 2);
      __syncwarp();
      if (part == 1) {
        const u64 cols = attends ? HEADS * HEAD_DIM : INTERMEDIATE;
        const u8* from = (attends ? layer.output : layer.down) +
                         ((u64)rank * ROW_SHARE * cols + (attends ? cluster : share) * width) * 2;
        const u32 first = to + (attends ? AT_OUT : AT_DOWN), stride = attends ? stride_of(GROUP_WIDTH) : stride_of(PART_WIDTH);
        for (u32 row = at.lane; row < ROW_SHARE; row += 32) {
          bulk_copy_once(first + row * stride, from + row * cols * 2, width * 2, full);
        }
        continue;
      }
      if (at.lane == 0) bulk_copy(to, attends ? layer.attention_norm : layer.mlp_norm, GAIN, full);
      for (u32 row = at.lane; row < rows; row += 32) {
        u64 source;
        if (attends) {
          // The group's queries, its key, its value.
          const u32 mine = rank * QKV_SHARE + row;
          source = mine < GROUP_WIDTH              ? cluster * GROUP_WIDTH + mine
                   : mine < GROUP_WIDTH + HEAD_DIM ? (HEADS + cluster) * HEAD_DIM + mine - GROUP_WIDTH
                                                   : (HEADS + KV_HEADS + cluster) * HEAD_DIM + mine - GROUP_WIDTH - HEAD_DIM;
        } else {
          source = row % 2 * INTERMEDIATE + share * PART_WIDTH + rank * GATE_SHARE + row / 2;
        }
        bulk_copy_once(to + GAIN + row * stride_of(HIDDEN), (attends ? layer.qkv : layer.gate_up) + source * HIDDEN * 2, HIDDEN * 2,
                       full);
      }
    }
    uint4* words = reinterpret_cast<uint4*>(stale + (u64)index * LAYER_WORDS);
    for (u32 i = blockIdx.x * 32 + at.lane; i < LAYER_WORDS / 4; i += CTAS * 32) words[i] = make_uint4(EMPTY, EMPTY, EMPTY, EMPTY);
  }
}

// The part of a block's ROWS rows of COLS columns that a warp multiplies, and this lane's share of it: from shared memory to
// registers while its inputs are waited for.
template <u32 ROWS, u32 COLS> struct Weights {
  static constexpr u32 SHARERS = sharers_of(COLS), ROUNDS = rounds_of(COLS);
  static constexpr u32 TILES = tiles_of(ROWS), MINE = (TILES + groups_of(COLS) - 1) / groups_of(COLS);
  uint4 w[ROUNDS][MINE][2];

  __device__ __forceinline__ static u32 block_of(u32 round, const Place& at) { return at.warp % SHARERS + round * SHARERS; }

  __device__ __forceinline__ Weights(const u8* rows, const Place& at) {
#pragma unroll
    for (u32 i = 0; i < MINE; i++) {
#pragma unroll
      for (u32 h = 0; h < 2; h++) {
        // A row that does not exist is read as the last one; what becomes of it is dropped.
        const u32 row = least((at.warp / SHARERS * MINE + i) * 16 + h * 8 + at.row, ROWS - 1);
        const u8* from = rows + row * stride_of(COLS) + at.quarter * 16;
#pragma unroll
        for (u32 round = 0; round < ROUNDS; round++) {
          const u32 block = least(block_of(round, at), COLS / 32 - 1);
          w[round][i][h] = *reinterpret_cast<const uint4*>(from + block * 64);
        }
      }
    }
  }

  // sums <- the rows times this warp's columns; `inputs(a, block)` gives this lane's columns of a block of 32.
  template <typename Inputs> __device__ __forceinline__ void multiply_by(float* sums, const Place& at, Inputs inputs) const {
    const u32 first = at.warp / SHARERS * MINE;
    if (at.warp / SHARERS >= groups_of(COLS)) return;
    float acc[MINE][4];
#pragma unroll
    for (u32 i = 0; i < MINE; i++) acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0.f;
#pragma unroll
    for (u32 round = 0; round < ROUNDS; round++) {
      if (ROUNDS > 1 && block_of(round, at) >= COLS / 32) break;
      u32 b[4];
      inputs(b, block_of(round, at));
#pragma unroll
      for (u32 i = 0; i < MINE; i++) {
        const uint4 upper = w[round][i][0], lower = w[round][i][1];
        multiply(acc[i], {upper.x, lower.x, upper.y, lower.y}, {b[0], b[1]});
        multiply(acc[i], {upper.z, lower.z, upper.w, lower.w}, {b[2], b[3]});
      }
    }
    float* to = sums + at.warp % SHARERS * sums_of(TILES) + at.quarter * 32 + at.row;
#pragma unroll
    for (u32 i = 0; i < MINE; i++) {
      if (first + i >= TILES) continue;
#pragma unroll
      for (u32 k = 0; k < 4; k++) {
        if (at.quarter * 2 + k % 2 < TOKENS) to[(first + i) * TOKENS * 16 + k % 2 * 16 + k / 2 * 8] = acc[i][k];
      }
    }
  }
};

// Adds up what the warps have; `take(token, row, sum)` gets every sum in four lanes at the same time.
template <u32 ROWS, u32 COLS, bool NORM, typename Take>
__device__ __forceinline__ void add_up(const float* sums, float epsilon, const Place& at, Take take) {
  constexpr u32 SHARERS = sharers_of(COLS), TILES = tiles_of(ROWS);
  const float* squares = reinterpret_cast<const float*>(at.shared + AT_SQUARES);
#pragma unroll 1
  for (u32 i = at.thread; i < TILES * TOKENS * 64; i += COMPUTE) {
    const u32 value = i / 4, token = value / 16 % TOKENS;
    float sum = 0.f, square = 0.f;
#pragma unroll
    for (u32 k = 0; k < (SHARERS + 3) / 4; k++) {
      const u32 sharer = k * 4 + at.quarter;
      const bool exists = SHARERS % 4 == 0 || sharer < SHARERS;
      const u32 from = exists ? sharer : 0;
      const float more = sums[from * sums_of(TILES) + value], more_square = NORM ? squares[from * 8 + token] : 0.f;
      sum += exists ? more : 0.f;
      square += exists ? more_square : 0.f;
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (NORM) {
      square += __shfl_xor_sync(~0u, square, 1);
      square += __shfl_xor_sync(~0u, square, 2);
      sum *= rsqrtf(square * (1.f / HIDDEN) + epsilon);
    }
    take(token, value / 16 / TOKENS * 16 + value % 16, sum);
  }
}

// The first product of a layer: a norm of x, times the block's rows.
template <u32 ROWS>
__device__ __forceinline__ void multiply_normed(const Weights<ROWS, HIDDEN>& weights, const u8* slot, u32 count, const Place& at) {
  const float* x = reinterpret_cast<const float*>(at.shared + AT_X) + at.row * HIDDEN;
  float squares = 0.f;
  weights.multiply_by(reinterpret_cast<float*>(at.shared + AT_SUMS), at, [&](u32(&b)[4], u32 block) {
    float v[8], g[8];
#pragma unroll
    for (u32 i = 0; i < 8; i++) v[i] = 0.f;
    if (at.row < count) load(x + block * 32 + at.quarter * 8, v);
    load(reinterpret_cast<const float*>(slot) + block * 32 + at.quarter * 8, g);
#pragma unroll
    for (u32 i = 0; i < 8; i++) squares += v[i] * v[i];
#pragma unroll
    for (u32 i = 0; i < 4; i++) b[i] = bf16_pair(v[2 * i] * g[2 * i], v[2 * i + 1] * g[2 * i + 1]);
  });
  squares += __shfl_xor_sync(~0u, squares, 1);
  squares += __shfl_xor_sync(~0u, squares, 2);
  if (at.quarter == 0 && at.warp < sharers_of(HIDDEN)) {
    reinterpret_cast<float*>(at.shared + AT_SQUARES)[at.warp * 8 + at.row] = squares;
  }
}

// Residual of a block's rows: task k of a warp is one token and 16 columns, of which a lane has four, each alike for all
// eight rows of lanes, which stand for the clusters while sums are read and for the blocks while x is handed on.
constexpr u32 ROW_TASKS = (ROW_SHARE / 4 + 3) / 4;
constexpr u32 TASKS = (TOKENS * ROW_TASKS + WARPS - 1) / WARPS;

struct Task {
  u32 token, column;
  bool exists;

  __device__ __forceinline__ Task(u32 index, u32 count, const Place& at) {
    const u32 number = at.warp + index * WARPS, four = number % ROW_TASKS * 4 + at.quarter;
    token = number / ROW_TASKS;
    column = cluster_rank() * ROW_SHARE + four * 4;
    exists = token < count && four < ROW_SHARE / 4;
  }
};

// x += what SOURCES clusters have.
template <u32 SOURCES>
__device__ __forceinline__ void gather(float (&x)[TASKS][4], const u32* from, u32 count, const Place& at) {
  constexpr u32 ROUNDS = (SOURCES + 7) / 8;
  uint4 v[TASKS][ROUNDS];
  bool all;
  do {
    all = true;
#pragma unroll
    for (u32 k = 0; k < TASKS; k++) {
      const Task task(k, count, at);
#pragma unroll
      for (u32 round = 0; round < ROUNDS; round++) {
        const u32 source = round * 8 + at.row;
        v[k][round] = make_uint4(0, 0, 0, 0);
        if (task.exists && source < SOURCES) v[k][round] = peek4(from + source * SUMS_WORDS + task.token * HIDDEN + task.column);
      }
    }
#pragma unroll
    for (u32 k = 0; k < TASKS; k++) {
#pragma unroll
      for (u32 round = 0; round < ROUNDS; round++) all = all && arrived(v[k][round]);
    }
  } while (!all);
  __syncwarp();
#pragma unroll
  for (u32 k = 0; k < TASKS; k++) {
    if (at.warp + k * WARPS >= TOKENS * ROW_TASKS) continue;
    float sum[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
    for (u32 round = 0; round < ROUNDS; round++) {
      sum[0] += __uint_as_float(v[k][round].x);
      sum[1] += __uint_as_float(v[k][round].y);
      sum[2] += __uint_as_float(v[k][round].z);
      sum[3] += __uint_as_float(v[k][round].w);
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
      for (u32 step = 4; step < 32; step *= 2) sum[i] += __shfl_xor_sync(~0u, sum[i], step);
      x[k][i] += sum[i];
    }
  }
}

// Hands the block's rows of x to the cluster.
__device__ __forceinline__ void hand_x(const float (&x)[TASKS][4], u32 count, const Place& at) {
#pragma unroll
  for (u32 k = 0; k < TASKS; k++) {
    const Task task(k, count, at);
    if (!task.exists) continue;
    hand(at.base + AT_X + (task.token * HIDDEN + task.column) * 4, arrival_barrier(at.base, X_THERE), at.row,
         make_float4(x[k][0], x[k][1], x[k][2], x[k][3]));
  }
}

// Pages of a token that a part of it has, and parts that have any.
struct Split {
  u32 pages, used;

  __device__ __forceinline__ explicit Split(u32 length) {
    const u32 all = (length + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    pages = (all + SPLITS - 1) / SPLITS;
    used = (all + pages - 1) / pages;
  }
};

// This block's part of the attention.
struct Job {
  // First and one past the last of its KV tokens; none when equal.
  u32 first, end;
  // Position of the new token, and whether it is among them.
  u32 position;
  bool newest;
  const i32* table;
};

// Rows become columns: of an 8 x 8 tile of 16-bit values, two of row lane / 4 a lane.
__device__ __forceinline__ u32 transposed(u32 pair) {
  u32 result;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

// Keys of tokens `row` and `row + 8`, values of tokens 2 quarter, + 1, + 8, + 9 of 16 tokens, as products want them.
struct Sixteen {
  uint4 key[2][2], value[4];
};

__device__ __forceinline__ void load_sixteen(Sixteen& kv, const u8* head, u32 slot, const Place& at) {
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    const u32 token = slot + at.row + 8 * i;
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
      kv.key[i][j] = *reinterpret_cast<const uint4*>(head + token * 128 + ((at.quarter + 4 * j ^ token % 8) * 16));
    }
  }
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    const u32 token = slot + at.quarter * 2 + i % 2 + i / 2 * 8;
    kv.value[i] = *reinterpret_cast<const uint4*>(head + KV_PART_BYTES(HEAD_DIM) + token * 128 + ((at.row ^ token % 8) * 16));
  }
}

// Has them brought into the L2 cache.
__device__ __forceinline__ void fetch_sixteen(const u8* head, u32 slot, const Place& at) {
  const u8* from = head + at.lane / 16 * KV_PART_BYTES(HEAD_DIM) + (slot + at.lane % 16) * 128;
  asm volatile("prefetch.global.L2 [%0];" ::"l"(from) : "memory");
}

// The page of a token that the job has.
__device__ __forceinline__ const u8* page_of(const Step& step, const Job& job, const u8* layer, u32 token) {
  const u32 block = min((u32)job.table[token / KV_BLOCK_TOKENS], step.blocks - 1);
  return layer + block * step.block_bytes + 2 * cluster_index() * KV_PART_BYTES(HEAD_DIM);
}

__device__ __forceinline__ u32 word_of(const uint4& v, u32 i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

// Rotates the new token's queries and key, puts key and value where the next steps find them, attends, and hands the part's
// result to the cluster.
__device__ __forceinline__ void attend(const Step& step, const Job& job, u8* layer, u32 parity, const Place& at) {
  // On their way while the query is waited for.
  Sixteen kv = {};
  u32 token = job.first + at.warp * 16;
  if (token < job.end) load_sixteen(kv, page_of(step, job, layer, token), token % KV_BLOCK_TOKENS, at);
  u16* const query = reinterpret_cast<u16*>(at.shared + AT_QUERY);
  u16* const newest = reinterpret_cast<u16*>(at.shared + AT_NEW);
  constexpr u32 HALF = HEAD_DIM / 2;
  await_handed(arrival_barrier(at.base, ROWS_THERE), parity);
  for (u32 i = at.thread; i < (GROUP + 2) * HALF; i += COMPUTE) {
    const u32 head = i / HALF, pair = i % HALF;
    const bool is_query = head < GROUP, is_value = head == GROUP + 1;
    const bool turns = pair < PAIRS && !is_value;
    const u32 first = turns && HALVES ? pair : 2 * pair, second = turns && HALVES ? pair + PAIRS : 2 * pair + 1;
    const float* from = reinterpret_cast<const float*>(at.shared + AT_NEW_ROWS) + head * HEAD_DIM;
    float2 turn = make_float2(1.f, 0.f);
    if (turns) turn = reinterpret_cast<const float2*>(at.shared + AT_TURNS)[pair];
    float x = from[first], y = from[second];
    const float turned = x * turn.x - y * turn.y;
    y = y * turn.x + x * turn.y;
    x = turned;
    if (!is_query) {
      x = clamp_bf16(x);
      y = clamp_bf16(y);
    }
    u16* to = is_query ? query + head * 64 : newest + (is_value ? 64 : 0);
    const u32 both = bf16_pair(x, y);
    to[first] = (u16)both;
    to[second] = (u16)(both >> 16);
  }
  compute_sync();
  if (job.newest && at.warp == WARPS - 1 && at.lane < 16) {
    // Key, then value: 16 bytes a lane, zeros up to 64 dimensions.
    const u32 side = at.lane / 8, chunk = at.lane % 8, slot = job.position % KV_BLOCK_TOKENS;
    const u32 block = (u32)job.table[job.position / KV_BLOCK_TOKENS];
    if (block < step.blocks) {
      u8* to = layer + block * step.block_bytes + (2 * cluster_index() + side) * KV_PART_BYTES(HEAD_DIM) + slot * 128;
      *reinterpret_cast<uint4*>(to + ((chunk ^ slot % 8) * 16)) = reinterpret_cast<const uint4*>(newest + side * 64)[chunk];
    }
  }

  uint4 q[2];
#pragma unroll
  for (u32 j = 0; j < 2; j++) {
    q[j] = make_uint4(0, 0, 0, 0);
    if (at.row < GROUP) q[j] = reinterpret_cast<const uint4*>(query + at.row * 64)[at.quarter + 4 * j];
  }
  const float by = step.scale * LOG2E;
  // Tile j: dimensions 8 row + j and + 4 of heads 2 quarter, + 1; the other numbers are of these heads, sums of some tokens.
  float o[4][4], largest[2] = {-INFINITE, -INFINITE}, sum[2] = {0.f, 0.f};
#pragma unroll
  for (u32 j = 0; j < 4; j++) o[j][0] = o[j][1] = o[j][2] = o[j][3] = 0.f;
#pragma unroll 1
  while (token < job.end) {
    if (job.newest) {
      // The new token is not in memory yet.
#pragma unroll
      for (u32 i = 0; i < 2; i++) {
        if (token + at.row + 8 * i != job.position) continue;
#pragma unroll
        for (u32 j = 0; j < 2; j++) kv.key[i][j] = reinterpret_cast<const uint4*>(newest)[at.quarter + 4 * j];
      }
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        const u32 t = token + at.quarter * 2 + i % 2 + i / 2 * 8;
        if (t == job.position) kv.value[i] = reinterpret_cast<const uint4*>(newest + 64)[at.row];
        // Beyond it anything may lie, and 0 * NaN is NaN.
        if (t > job.position) kv.value[i] = make_uint4(0, 0, 0, 0);
      }
    }
    // Tokens `row` and `row + 8` of heads 2 quarter, + 1.
    float s[2][4] = {};
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
      const uint4 upper = kv.key[0][j], lower = kv.key[1][j];
      multiply(s[j], {upper.x, lower.x, upper.y, lower.y}, {q[j].x, q[j].y});
      multiply(s[j], {upper.z, lower.z, upper.w, lower.w}, {q[j].z, q[j].w});
    }
    u32 p[2];
    float keep[2];
    {
      float score[4], most[2];
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        score[i] = token + at.row + i / 2 * 8 < job.end ? (s[0][i] + s[1][i]) * by : -INFINITE;
      }
#pragma unroll
      for (u32 h = 0; h < 2; h++) most[h] = fmaxf(largest[h], fmaxf(score[h], score[h + 2]));
#pragma unroll
      for (u32 step = 4; step < 32; step *= 2) {
#pragma unroll
        for (u32 h = 0; h < 2; h++) most[h] = fmaxf(most[h], __shfl_xor_sync(~0u, most[h], step));
      }
#pragma unroll
      for (u32 h = 0; h < 2; h++) {
        keep[h] = largest[h] == -INFINITE ? 0.f : exp2_of(largest[h] - most[h]);
        largest[h] = most[h];
        score[h] = score[h] == -INFINITE ? 0.f : exp2_of(score[h] - most[h]);
        score[h + 2] = score[h + 2] == -INFINITE ? 0.f : exp2_of(score[h + 2] - most[h]);
        sum[h] = sum[h] * keep[h] + score[h] + score[h + 2];
      }
      p[0] = transposed(bf16_pair(score[0], score[1]));
      p[1] = transposed(bf16_pair(score[2], score[3]));
    }
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      // Words j / 2 and j / 2 + 2 have dimensions j and j + 4; products want the tokens side by side.
      const u32 half = j % 2 == 0 ? 0x5410 : 0x7632;
#pragma unroll
      for (u32 i = 0; i < 4; i++) o[j][i] *= keep[i % 2];
      multiply(
          o[j],
          {__byte_perm(word_of(kv.value[0], j / 2), word_of(kv.value[1], j / 2), half),
           __byte_perm(word_of(kv.value[0], j / 2 + 2), word_of(kv.value[1], j / 2 + 2), half),
           __byte_perm(word_of(kv.value[2], j / 2), word_of(kv.value[3], j / 2), half),
           __byte_perm(word_of(kv.value[2], j / 2 + 2), word_of(kv.value[3], j / 2 + 2), half)},
          {p[0], p[1]});
    }
    token += WARPS * 16;
    if (token < job.end) load_sixteen(kv, page_of(step, job, layer, token), token % KV_BLOCK_TOKENS, at);
  }

  float* maxima = reinterpret_cast<float*>(at.shared + AT_MAXIMA);
  float* weights = reinterpret_cast<float*>(at.shared + AT_WEIGHTS);
  float* outputs = reinterpret_cast<float*>(at.shared + AT_OUTPUTS);
  const u32 busy = min((job.end - job.first + 15) / 16, (u32)WARPS);
  if (at.warp < busy) {
#pragma unroll
    for (u32 step = 4; step < 32; step *= 2) {
#pragma unroll
      for (u32 h = 0; h < 2; h++) sum[h] += __shfl_xor_sync(~0u, sum[h], step);
    }
    if (at.row == 0) {
#pragma unroll
      for (u32 h = 0; h < 2; h++) {
        maxima[at.warp * 8 + at.quarter * 2 + h] = largest[h];
        weights[at.warp * 8 + at.quarter * 2 + h] = sum[h];
      }
    }
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
      const u32 head = at.quarter * 2 + h;
      if (head >= GROUP) continue;
      float4* to = reinterpret_cast<float4*>(outputs + (at.warp * GROUP + head) * HEAD_WORDS + at.row * 8);
      to[0] = make_float4(o[0][h], o[1][h], o[2][h], o[3][h]);
      to[1] = make_float4(o[0][h + 2], o[1][h + 2], o[2][h + 2], o[3][h + 2]);
    }
  }
  compute_sync();
  // Four threads share the warps' results of four dimensions of a head.
#pragma unroll 1
  for (u32 i = at.thread; i < GROUP * 64; i += COMPUTE) {
    const u32 head = i / 64, four = i / 4 % 16, quarter = i % 4;
    const u32 last = busy - 1;
    float top = -INFINITE, weight = 0.f;
    for (u32 w = 0; w < busy; w += 4) top = fmaxf(top, maxima[min(w + quarter, last) * 8 + head]);
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
    for (u32 w = 0; w < busy; w += 4) {
      const u32 warp = min(w + quarter, last);
      const float4 more = *reinterpret_cast<const float4*>(outputs + (warp * GROUP + head) * HEAD_WORDS + four * 4);
      const float factor = w + quarter > last || top == -INFINITE ? 0.f : exp2_of(maxima[warp * 8 + head] - top);
      v.x += more.x * factor, v.y += more.y * factor, v.z += more.z * factor, v.w += more.w * factor;
      weight += weights[warp * 8 + head] * factor;
    }
#pragma unroll
    for (u32 other = 1; other < 4; other *= 2) {
      v.x += __shfl_xor_sync(~0u, v.x, other);
      v.y += __shfl_xor_sync(~0u, v.y, other);
      v.z += __shfl_xor_sync(~0u, v.z, other);
      v.w += __shfl_xor_sync(~0u, v.w, other);
      weight += __shfl_xor_sync(~0u, weight, other);
    }
    const u32 part = at.base + AT_PARTS + cluster_rank() * PART_STRIDE * 4;
    const u32 barrier = arrival_barrier(at.base, PARTS_THERE);
#pragma unroll
    for (u32 rank = 0; rank < CLUSTER; rank += 4) {
      hand(part + (head * 64 + four * 4) * 4, barrier, rank + quarter, v);
      if (four == 0) hand(part + (GROUP * 64 + head * 2) * 4, barrier, rank + quarter, top, weight);
    }
  }
}

// Attention's result of the cluster's head, from the parts of the tokens: a warp has one token and query head at a time.
__device__ __forceinline__ void merge_parts(const Step& step, u32 count, const Place& at) {
  const float* parts = reinterpret_cast<const float*>(at.shared + AT_PARTS);
  for (u32 i = at.warp; i < count * GROUP; i += WARPS) {
    const u32 token = i / GROUP, head = i % GROUP, used = Split(step.positions[token] + 1).used;
    const float* first = parts + token * SPLITS * PART_STRIDE;
    float2 scale = make_float2(-INFINITE, 0.f), v[SPLITS];
    if (at.lane < used) scale = *reinterpret_cast<const float2*>(first + at.lane * PART_STRIDE + GROUP * 64 + head * 2);
#pragma unroll
    for (u32 s = 0; s < SPLITS; s++) {
      v[s] = *reinterpret_cast<const float2*>(first + least(s, used - 1) * PART_STRIDE + head * 64 + at.lane * 2);
    }
    float top = scale.x;
#pragma unroll
    for (u32 other = 1; other < SPLITS; other *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, other));
    float factor = at.lane < used ? exp2_of(scale.x - top) : 0.f;
    float weight = scale.y * factor;
#pragma unroll
    for (u32 other = 1; other < SPLITS; other *= 2) weight += __shfl_xor_sync(~0u, weight, other);
    factor = __fdividef(factor, weight);
    float2 sum = make_float2(0.f, 0.f);
#pragma unroll
    for (u32 s = 0; s < SPLITS; s++) {
      const float by = __shfl_sync(~0u, factor, s);
      if (s < used) sum.x += v[s].x * by, sum.y += v[s].y * by;
    }
    u32* to = reinterpret_cast<u32*>(at.shared + AT_ATTENDED) + (token * GROUP_WIDTH + head * HEAD_DIM) / 2 + at.lane;
    if (at.lane * 2 < HEAD_DIM) *to = bf16_pair(sum.x, sum.y);
  }
}

// The second product of a layer, of COLS bf16 inputs a token, told to the other clusters.
template <u32 COLS>
__device__ __forceinline__ void multiply_second(
    const Weights<ROW_SHARE, COLS>& weights, const u8* inputs, u32 used, u32* to, u32 count, const Place& at) {
  float* sums = reinterpret_cast<float*>(at.shared + AT_SECOND_SUMS);
  weights.multiply_by(sums, at, [&](u32(&b)[4], u32 block) {
    uint4 v = make_uint4(0, 0, 0, 0);
    if (at.row < count) v = *reinterpret_cast<const uint4*>(inputs + at.row * COLS * 2 + block * 64 + at.quarter * 16);
    b[0] = v.x, b[1] = v.y, b[2] = v.z, b[3] = v.w;
  });
  compute_sync();
  if (at.thread == 0) barrier_arrive(used);
  add_up<ROW_SHARE, COLS, false>(sums, 0.f, at, [&](u32 token, u32 row, float sum) {
    if (at.quarter == 0 && row < ROW_SHARE && token < count) tell(to + token * HIDDEN + cluster_rank() * ROW_SHARE + row, sum);
  });
}

// x <- rows of the embedding.
__device__ __forceinline__ void embed(const Step& step, float (&x)[TASKS][4], u32 count, const Place& at) {
#pragma unroll
  for (u32 k = 0; k < TASKS; k++) {
    const Task task(k, count, at);
#pragma unroll
    for (u32 i = 0; i < 4; i++) x[k][i] = 0.f;
    if (!task.exists) continue;
    const u32 id = step.ids[task.token];
    if (id < VOCAB) {
      const uint2 v = *reinterpret_cast<const uint2*>(step.embedding + ((u64)id * HIDDEN + task.column) * 2);
      x[k][0] = bf16_low(v.x), x[k][1] = bf16_high(v.x), x[k][2] = bf16_low(v.y), x[k][3] = bf16_high(v.y);
    } else {
#pragma unroll
      for (u32 i = 0; i < 4; i++) x[k][i] = NOT_A_NUMBER;
    }
  }
}

// A cluster with a KV head.
__device__ __forceinline__ void run_attention(const Step& step, u8* memory, u32* exchange) {
  const u32 count = min(*step.count, (u32)TOKENS);
  const u32 base = shared_address(memory), head = cluster_index();
  float x[TASKS][4];
  Job job;
  u32 arriving = 0;
  {
    const Place at = place(memory);
    embed(step, x, count, at);
    const u32 token = cluster_rank() / SPLITS, split = cluster_rank() % SPLITS;
    job.first = job.end = job.position = 0;
    job.newest = false;
    job.table = step.tables;
    if (token < count) {
      job.position = step.positions[token];
      const u32 length = job.position + 1, tokens = Split(length).pages * KV_BLOCK_TOKENS;
      job.first = min(split * tokens, length);
      job.end = min(job.first + tokens, length);
      job.newest = job.end == length && job.first < job.end;
      job.table += (u64)max(step.sequences[token], 0) * step.table_width;
      if (at.thread < PAIRS) {
        reinterpret_cast<float2*>(memory + AT_TURNS)[at.thread] =
            turn_of(job.position, step.frequencies[at.thread], step.magnitude);
      }
    }
    for (u32 t = 0; t < count; t++) arriving += Split(step.positions[t] + 1).used * PART_WORDS * 4;
    if (at.thread == 0) {
      barrier_expect(arrival_barrier(base, X_THERE), count * HIDDEN * 4);
      if (token < count) barrier_expect(arrival_barrier(base, ROWS_THERE), QKV_ROWS * 4);
      barrier_expect(arrival_barrier(base, PARTS_THERE), arriving);
    }
  }
  const bool has_token = cluster_rank() / SPLITS < count;

#pragma unroll 1
  for (u32 index = 0; index < LAYERS; index++, exchange += LAYER_WORDS) {
    const u32 slot = index % SLOTS, filled = index / SLOTS & 1, parity = index & 1;
    const u8* weights = memory + slot * SLOT_BYTES;
    u8* layer = step.pool + index * step.layer_bytes;
    {
      const Place at = place(memory);
      barrier_wait(full_barrier(base, slot, 0), filled);
      const Weights<QKV_SHARE, HIDDEN> rows(weights + AT_QKV, at);
      const u32 token = job.first + at.warp * 16;
      if (token < job.end) fetch_sixteen(page_of(step, job, layer, token), token % KV_BLOCK_TOKENS, at);
      if (index > 0) {
        gather<KV_HEADS>(x, exchange - LAYER_WORDS, count, at);
        gather<PARTS>(x, exchange - LAYER_WORDS + KV_HEADS * SUMS_WORDS, count, at);
      }
      hand_x(x, count, at);
      await_handed(arrival_barrier(base, X_THERE), parity);
      multiply_normed(rows, weights, count, at);
      compute_sync();
      if (at.thread == 0) {
        barrier_arrive(free_barrier(base, slot, 0));
        if (index + 1 < LAYERS) barrier_expect(arrival_barrier(base, X_THERE), count * HIDDEN * 4);
      }
      const float* sums = reinterpret_cast<const float*>(memory + AT_SUMS);
      add_up<QKV_SHARE, HIDDEN, true>(sums, step.epsilon, at, [&](u32 token, u32 row, float sum) {
        if (row >= QKV_SHARE || token >= count) return;
        // To all blocks that have a part of the token.
        for (u32 split = at.quarter; split < SPLITS; split += 4) {
          hand(at.base + AT_NEW_ROWS + (cluster_rank() * QKV_SHARE + row) * 4, arrival_barrier(at.base, ROWS_THERE),
               token * SPLITS + split, __float_as_uint(sum));
        }
      });
    }
    if (job.first < job.end) attend(step, job, layer, parity, place(memory));
    {
      const Place at = place(memory);
      if (has_token && at.thread == 0) {
        // A block without pages has the rows too.
        await_handed(arrival_barrier(base, ROWS_THERE), parity);
        if (index + 1 < LAYERS) barrier_expect(arrival_barrier(base, ROWS_THERE), QKV_ROWS * 4);
      }
      barrier_wait(full_barrier(base, slot, 1), filled);
      const Weights<ROW_SHARE, GROUP_WIDTH> rows(weights + AT_OUT, at);
      await_handed(arrival_barrier(base, PARTS_THERE), parity);
      merge_parts(step, count, at);
      compute_sync();
      if (at.thread == 0 && index + 1 < LAYERS) barrier_expect(arrival_barrier(base, PARTS_THERE), arriving);
      multiply_second(rows, memory + AT_ATTENDED, free_barrier(base, slot, 1), exchange + head * SUMS_WORDS, count, at);
    }
  }
  if (head != 0) return;
  const Place at = place(memory);
  gather<KV_HEADS>(x, exchange - LAYER_WORDS, count, at);
  gather<PARTS>(x, exchange - LAYER_WORDS + KV_HEADS * SUMS_WORDS, count, at);
#pragma unroll
  for (u32 k = 0; k < TASKS; k++) {
    const Task task(k, count, at);
    if (task.exists && at.row == 0) {
      *reinterpret_cast<float4*>(step.residual + task.token * HIDDEN + task.column) =
          make_float4(x[k][0], x[k][1], x[k][2], x[k][3]);
    }
  }
}

// A cluster with a share of gate, up and down.
__device__ __forceinline__ void run_mlp(const Step& step, u8* memory, u32* exchange) {
  const u32 count = min(*step.count, (u32)TOKENS);
  const u32 base = shared_address(memory), share = cluster_index() - KV_HEADS;
  float x[TASKS][4];
  {
    const Place at = place(memory);
    embed(step, x, count, at);
    if (at.thread == 0) {
      barrier_expect(arrival_barrier(base, X_THERE), count * HIDDEN * 4);
      barrier_expect(arrival_barrier(base, GATED_THERE), count * PART_WIDTH * 2);
    }
  }
#pragma unroll 1
  for (u32 index = 0; index < LAYERS; index++, exchange += LAYER_WORDS) {
    const u32 slot = index % SLOTS, filled = index / SLOTS & 1, parity = index & 1;
    const u8* weights = memory + slot * SLOT_BYTES;
    {
      const Place at = place(memory);
      barrier_wait(full_barrier(base, slot, 0), filled);
      const Weights<2 * GATE_SHARE, HIDDEN> rows(weights + AT_GATE, at);
      if (index > 0) gather<PARTS>(x, exchange - LAYER_WORDS + KV_HEADS * SUMS_WORDS, count, at);
      gather<KV_HEADS>(x, exchange, count, at);
      hand_x(x, count, at);
      await_handed(arrival_barrier(base, X_THERE), parity);
      multiply_normed(rows, weights, count, at);
      compute_sync();
      if (at.thread == 0) {
        barrier_arrive(free_barrier(base, slot, 0));
        if (index + 1 < LAYERS) barrier_expect(arrival_barrier(base, X_THERE), count * HIDDEN * 4);
      }
      const float* sums = reinterpret_cast<const float*>(memory + AT_SUMS);
      add_up<2 * GATE_SHARE, HIDDEN, true>(sums, step.epsilon, at, [&](u32 token, u32 row, float sum) {
        // Gate and up lie in turns; two gated values are a word.
        const float other = __shfl_xor_sync(~0u, sum, 4);
        const float gated = __fdividef(sum, 1.f + __expf(-sum)) * other;
        const float next = __shfl_xor_sync(~0u, gated, 8);
        if (row % 4 != 0 || row >= 2 * GATE_SHARE || token >= count) return;
        const u32 to = at.base + AT_GATED + (token * PART_WIDTH + cluster_rank() * GATE_SHARE + row / 2) * 2;
        for (u32 rank = at.quarter; rank < CLUSTER; rank += 4) {
          hand(to, arrival_barrier(at.base, GATED_THERE), rank, bf16_pair(gated, next));
        }
      });
    }
    {
      const Place at = place(memory);
      barrier_wait(full_barrier(base, slot, 1), filled);
      const Weights<ROW_SHARE, PART_WIDTH> rows(weights + AT_DOWN, at);
      await_handed(arrival_barrier(base, GATED_THERE), parity);
      if (at.thread == 0 && index + 1 < LAYERS) barrier_expect(arrival_barrier(base, GATED_THERE), count * PART_WIDTH * 2);
      multiply_second(
          rows, memory + AT_GATED, free_barrier(base, slot, 1), exchange + (KV_HEADS + share) * SUMS_WORDS, count, at);
    }
  }
}

extern "C" __global__ void IN_CLUSTERS __launch_bounds__(THREADS, 1) resident_step(const __grid_constant__ Step step) {
  extern __shared__ __align__(1024) u8 memory[];
  const Place at = place(memory);
  release_dependents();
  if (threadIdx.x == 0) {
    for (u32 i = 0; i < BARRIERS; i++) barrier_init(at.base + AT_BARRIERS + 8 * i, 1);
    barriers_made();
  }
  // Dimensions beyond the head's stay zero.
  if (threadIdx.x < 10 * 32) reinterpret_cast<u32*>(memory + AT_QUERY)[threadIdx.x] = 0;
  await_predecessors();
  const u32 half = *step.steps & 1;
  constexpr u64 HALF_WORDS = (u64)LAYERS * LAYER_WORDS;
  u32* const exchange = step.exchange + half * HALF_WORDS;
  __syncthreads();
  sync_cluster();
  if (at.warp == WARPS) fetch(step, at, step.exchange + (half ^ 1) * HALF_WORDS);
  else if (cluster_index() < KV_HEADS) run_attention(step, memory, exchange);
  else run_mlp(step, memory, exchange);
  // Others may still hand something to this block.
  __syncwarp();
  sync_cluster();
  // Every block has read the number before it told anything.
  if (blockIdx.x == 0 && threadIdx.x == 0) *step.steps = half ^ 1;
}
