// resident_step - all layers of a decode step of a small model as one kernel: one block of threads a multiprocessor stays for
// the whole step, and what a layer's parts hand to each other goes from block to block through the L2 cache.
//
// Tokens ids [T], one a sequence -> residual [T, HIDDEN] f32 behind the last layer, keys and values of the tokens in the pool.
// The layers are those of Llama: RMSNorm, query, key and value, rotation, attention, output, RMSNorm, gate and up, SwiGLU, down.
//
// Limit: a layer is five products or attentions that need all of the one before; the weights' bytes over the read rate are
// less (1.5 us of the 135M shape on an H200, against five exchanges of about 0.7 us).
//
// Exchange: every value is stored once, as a word of its own place in the step, and its readers poll the word until it is not EMPTY. There is no
// barrier, no fence and no counter: a word that has arrived is all that its reader needs. Places are emptied one step later,
// while the other half of them is in use.
//
// Weights: each block has a share of the rows of every matrix. The last warp copies whole layers of them ahead into shared
// memory, as far as there is room, whatever the exchange does.
//
// Work: warp w multiplies columns 32 w to 32 w + 31 (then 32 (w + WARPS) ..) of the block's rows as m16n8k16 products: tokens
// are M, rows of weights N. A lane needs 8 columns of one token: it polls for exactly these and holds the residual of them
// in registers all the way, the same in all blocks. A norm is bf16(x * gain) going in and a scale of the sums coming out.
//
// Attention: block j has one token, KV head and split of the pages. A warp has 16 tokens at a time, whose old keys and values
// are fetched while the layer's first product runs.
//
// Launch: cooperative, CTAS blocks of THREADS, so that all of them run at the same time.
// Test: resident_step_cuda_test.ts. Time: resident_step_cuda_bench.ts. Ladder: docs/perf/2026-11-24-resident-step.md.
//
// Defines: HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, LAYERS, VOCAB, PAIRS, HALVES (as rope_append), TOKENS (1 to 8),
// CTAS, SPLITS (TOKENS * KV_HEADS * SPLITS <= CTAS), WARPS, SLOTS (layers of weights in shared memory). The launcher says what
// shared memory and exchange it has made (SHARED_BYTES, EXCHANGE_BYTES).
//
// @arch sm_90a sm_100
// @define HIDDEN=576 HEADS=9 KV_HEADS=3 HEAD_DIM=64 INTERMEDIATE=1536 LAYERS=30 VOCAB=49152 PAIRS=32 HALVES=0 TOKENS=1 CTAS=132 SPLITS=8 WARPS=18 SLOTS=3
// @define HIDDEN=576 HEADS=9 KV_HEADS=3 HEAD_DIM=64 INTERMEDIATE=1536 LAYERS=30 VOCAB=49152 PAIRS=32 HALVES=0 TOKENS=8 CTAS=132 SPLITS=5 WARPS=18 SLOTS=2
// @define HIDDEN=960 HEADS=15 KV_HEADS=5 HEAD_DIM=64 INTERMEDIATE=2560 LAYERS=32 VOCAB=49152 PAIRS=32 HALVES=1 TOKENS=4 CTAS=132 SPLITS=6 WARPS=15 SLOTS=1

#include "bulk_copy.cuh"
#include "dependents.cuh"
#include "kv_pool.cuh"
#include "tensor_tile.cuh"
#include "turn.cuh"

#define EMPTY 0xffffffffu
#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f

constexpr u32 THREADS = (WARPS + 1) * 32;
constexpr u32 COMPUTE = WARPS * 32;
constexpr u32 GROUP = HEADS / KV_HEADS;
constexpr u32 WIDTH = HEADS * HEAD_DIM;
constexpr u32 QKV_ROWS = (HEADS + 2 * KV_HEADS) * HEAD_DIM;
static_assert(HIDDEN % 32 == 0 && WIDTH % 32 == 0 && INTERMEDIATE % 32 == 0, "warps take 32 columns at a time");
static_assert(HEAD_DIM <= 64 && HEAD_DIM % 8 == 0 && GROUP <= 8, "a head is one tile of the pool, a group one tile of heads");
static_assert(TOKENS <= 8 && TOKENS * KV_HEADS * SPLITS <= CTAS, "a block has at most one part of the attention");

__device__ __forceinline__ constexpr u32 share(u32 rows) { return (rows + CTAS - 1) / CTAS; }
__device__ __forceinline__ constexpr u32 blocks_of(u32 cols) { return (cols / 32 + WARPS - 1) / WARPS; }
__device__ __forceinline__ constexpr u32 tiles_of(u32 rows) { return (rows + 7) / 8; }
// Bytes from a row to the next in shared memory: neighbours lie in different halves of the banks.
__device__ __forceinline__ constexpr u32 stride_of(u32 cols) { return cols * 2 % 128 == 64 ? cols * 2 : cols * 2 + 64; }

constexpr u32 QKV_SHARE = share(QKV_ROWS), OUT_SHARE = share(HIDDEN), DOWN_SHARE = OUT_SHARE;
constexpr u32 GATE_SHARE = (share(INTERMEDIATE) + 1) / 2 * 2;

// A layer in shared memory: gain and rows of query, key and value; of output; gain and rows of gate and up in turns; of down.
constexpr u32 GAIN = 4 * HIDDEN;
constexpr u32 AT_QKV = GAIN;
constexpr u32 AT_OUT = AT_QKV + QKV_SHARE * stride_of(HIDDEN);
constexpr u32 AT_GATE_GAIN = AT_OUT + OUT_SHARE * stride_of(WIDTH);
constexpr u32 AT_GATE = AT_GATE_GAIN + GAIN;
constexpr u32 AT_DOWN = AT_GATE + 2 * GATE_SHARE * stride_of(HIDDEN);
constexpr u32 SLOT_BYTES = AT_DOWN + DOWN_SHARE * stride_of(INTERMEDIATE);
constexpr u32 PARTS = 4;

__device__ __forceinline__ constexpr u32 most(u32 a, u32 b) { return a > b ? a : b; }
constexpr u32 MOST_TILES = most(most(tiles_of(QKV_SHARE), tiles_of(OUT_SHARE)), tiles_of(2 * GATE_SHARE));
// Sums of a warp: [tile][token][8], padded so that the quarter sums of a value come from different banks.
__device__ __forceinline__ constexpr u32 sums_of(u32 tiles) {
  return tiles * TOKENS * 8 + (tiles * TOKENS % 2 == 0 ? 8 : 0);
}
// A head's output of a warp, and padding.
constexpr u32 HEAD_WORDS = 80;

// Behind the slots.
constexpr u32 AT_SUMS = SLOTS * SLOT_BYTES;
constexpr u32 AT_SQUARES = AT_SUMS + 2 * WARPS * sums_of(MOST_TILES) * 4;
constexpr u32 AT_OUTPUTS = AT_SQUARES + 2 * WARPS * 8 * 4;
constexpr u32 AT_MAXIMA = AT_OUTPUTS + WARPS * GROUP * HEAD_WORDS * 4;
constexpr u32 AT_WEIGHTS = AT_MAXIMA + WARPS * 8 * 4;
constexpr u32 AT_QUERY = AT_WEIGHTS + WARPS * 8 * 4;
constexpr u32 AT_NEW = AT_QUERY + 8 * 128;
constexpr u32 AT_TURNS = AT_NEW + 2 * 128;
constexpr u32 AT_BARRIERS = AT_TURNS + 32 * 8;

// Words of the exchange of one layer.
constexpr u32 X_QKV = 0;
constexpr u32 X_PART = X_QKV + TOKENS * QKV_ROWS;
constexpr u32 X_LSE = X_PART + SPLITS * TOKENS * WIDTH;
constexpr u32 X_OUT = X_LSE + (SPLITS * TOKENS * HEADS + 31) / 32 * 32;
constexpr u32 X_GATED = X_OUT + TOKENS * HIDDEN;
constexpr u32 X_DOWN = X_GATED + TOKENS * INTERMEDIATE / 2;
constexpr u32 LAYER_WORDS = X_DOWN + TOKENS * HIDDEN;

#ifdef SHARED_BYTES
static_assert(SHARED_BYTES == AT_BARRIERS + 2 * 8 * SLOTS * PARTS, "the launcher knows the shared memory");
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
  // Two halves of LAYERS * LAYER_WORDS words, and the number of steps so far.
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
__device__ __forceinline__ u32 peek(const u32* at) {
  u32 v;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(at) : "memory");
  return v;
}
__device__ __forceinline__ bool arrived(u32 v) { return v != EMPTY; }
__device__ __forceinline__ bool arrived(uint4 v) { return v.x != EMPTY && v.y != EMPTY && v.z != EMPTY && v.w != EMPTY; }
// EMPTY is a NaN that stands for any other.
__device__ __forceinline__ void tell(u32* to, u32 value) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(value == EMPTY ? 0x7fffffffu : value) : "memory");
}
__device__ __forceinline__ void tell(u32* to, float value) { tell(to, __float_as_uint(value)); }

__device__ __forceinline__ float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float log2_of(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// c += a b with rows 8 to 15 of a zero.
__device__ __forceinline__ void multiply_half(float (&c)[2], u32 a0, u32 a2, u32 b0, u32 b1) {
  const u32 a[4] = {a0, 0u, a2, 0u};
  const u32 b[2] = {b0, b1};
  float whole[4] = {c[0], c[1], 0.f, 0.f};
  multiply(whole, a, b);
  c[0] = whole[0];
  c[1] = whole[1];
}

struct Place {
  u8* shared;
  u32 base;  // the same as an address of the shared window
  u32 warp, lane, row, quarter;
};

// Worked out anew by each part of a layer: kept across all of them, what depends on it would not fit into registers.
__device__ __forceinline__ Place place(u8* memory) {
  Place at;
  u32 thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  at.shared = memory;
  at.base = shared_address(memory);
  at.warp = thread / 32;
  at.lane = thread % 32;
  at.row = at.lane / 4;
  at.quarter = at.lane % 4;
  return at;
}

__device__ __forceinline__ u32 full_barrier(const Place& at, u32 slot, u32 part) {
  return at.base + AT_BARRIERS + (slot * PARTS + part) * 16;
}
__device__ __forceinline__ u32 free_barrier(const Place& at, u32 slot, u32 part) {
  return full_barrier(at, slot, part) + 8;
}

// Copies of `count` rows of `cols` columns.
__device__ __forceinline__ void copy_rows(u32 to, u32 stride, const u8* from, u32 cols, u32 count, u32 barrier, u32 lane) {
  for (u32 row = lane; row < count; row += 32) bulk_copy_once(to + row * stride, from + (u64)row * cols * 2, cols * 2, barrier);
}

__device__ __forceinline__ u32 rows_here(u32 rows, u32 shared_by) {
  const u32 first = blockIdx.x * shared_by;
  return first >= rows ? 0 : min(shared_by, rows - first);
}

// The last warp: weights ahead into shared memory, and the other half of the exchange emptied.
__device__ __forceinline__ void fetch(const Step& step, const Place& at, u32* stale) {
  const u32 lane = at.lane;
  const u32 qkv = rows_here(QKV_ROWS, QKV_SHARE), out = rows_here(HIDDEN, OUT_SHARE);
  const u32 gate = rows_here(INTERMEDIATE, GATE_SHARE);
#pragma unroll 1
  for (u32 index = 0; index < LAYERS; index++) {
    const Layer layer = step.layers[index];
    const u32 slot = index % SLOTS, parity = (index / SLOTS & 1) ^ 1;
    const u32 to = at.base + slot * SLOT_BYTES;
#pragma unroll
    for (u32 part = 0; part < PARTS; part++) {
      const u32 full = full_barrier(at, slot, part);
      if (index >= SLOTS) barrier_wait(free_barrier(at, slot, part), parity);
      const u32 bytes = part == 0   ? GAIN + qkv * HIDDEN * 2
                        : part == 1 ? out * WIDTH * 2
                        : part == 2 ? GAIN + 2 * gate * HIDDEN * 2
                                    : out * INTERMEDIATE * 2;
      if (lane == 0) barrier_expect(full, bytes);
      __syncwarp();
      if (part == 0) {
        if (lane == 0) bulk_copy(to, layer.attention_norm, GAIN, full);
        copy_rows(to + AT_QKV, stride_of(HIDDEN), layer.qkv + (u64)blockIdx.x * QKV_SHARE * HIDDEN * 2, HIDDEN, qkv, full, lane);
      } else if (part == 1) {
        copy_rows(to + AT_OUT, stride_of(WIDTH), layer.output + (u64)blockIdx.x * OUT_SHARE * WIDTH * 2, WIDTH, out, full, lane);
      } else if (part == 2) {
        if (lane == 0) bulk_copy(to + AT_GATE_GAIN, layer.mlp_norm, GAIN, full);
        const u8* from = layer.gate_up + (u64)blockIdx.x * GATE_SHARE * HIDDEN * 2;
        copy_rows(to + AT_GATE, 2 * stride_of(HIDDEN), from, HIDDEN, gate, full, lane);
        copy_rows(to + AT_GATE + stride_of(HIDDEN), 2 * stride_of(HIDDEN), from + (u64)INTERMEDIATE * HIDDEN * 2, HIDDEN, gate,
                  full, lane);
      } else {
        copy_rows(to + AT_DOWN, stride_of(INTERMEDIATE), layer.down + (u64)blockIdx.x * DOWN_SHARE * INTERMEDIATE * 2,
                  INTERMEDIATE, out, full, lane);
      }
    }
    uint4* words = reinterpret_cast<uint4*>(stale + (u64)index * LAYER_WORDS);
    for (u32 i = blockIdx.x * 32 + lane; i < LAYER_WORDS / 4; i += CTAS * 32) words[i] = make_uint4(EMPTY, EMPTY, EMPTY, EMPTY);
  }
}

// acc += the block's rows times this warp's columns `a`.
template <u32 ROWS, u32 COLS>
__device__ __forceinline__ void multiply_rows(
    float (&acc)[tiles_of(ROWS)][2], const u32 (&a)[blocks_of(COLS)][4], const u8* weights, const Place& at) {
#pragma unroll
  for (u32 tile = 0; tile < tiles_of(ROWS); tile++) {
#pragma unroll
    for (u32 i = 0; i < 2; i++) acc[tile][i] = 0.f;
    // A row that does not exist is read as the last one; what becomes of it is dropped.
    const u8* row = weights + min(tile * 8 + at.row, ROWS - 1) * stride_of(COLS) + at.quarter * 16;
#pragma unroll
    for (u32 b = 0; b < blocks_of(COLS); b++) {
      const u32 block = at.warp + b * WARPS;
      if (block >= COLS / 32) continue;
      const uint4 w = *reinterpret_cast<const uint4*>(row + block * 64);
      multiply_half(acc[tile], a[b][0], a[b][1], w.x, w.y);
      multiply_half(acc[tile], a[b][2], a[b][3], w.z, w.w);
    }
  }
}

// Adds up what the warps have, squares too where NORM; `take(tile, token, row, value, in_charge)` gets every sum in four lanes at the
// same time, of which one is in charge.
template <u32 TILES, bool NORM, typename Take>
__device__ __forceinline__ void add_up(
    const float (&acc)[TILES][2], float squares, u32 buffer, u32 used, float epsilon, const Place& at, Take take) {
  float* sums = reinterpret_cast<float*>(at.shared + AT_SUMS) + buffer * WARPS * sums_of(MOST_TILES);
  float* all_squares = reinterpret_cast<float*>(at.shared + AT_SQUARES) + buffer * WARPS * 8;
#pragma unroll
  for (u32 tile = 0; tile < TILES; tile++) {
    if (at.row < TOKENS) {
      *reinterpret_cast<float2*>(sums + at.warp * sums_of(TILES) + (tile * TOKENS + at.row) * 8 + at.quarter * 2) =
          make_float2(acc[tile][0], acc[tile][1]);
    }
  }
  if (NORM) {
    squares += __shfl_xor_sync(~0u, squares, 1);
    squares += __shfl_xor_sync(~0u, squares, 2);
    if (at.quarter == 0) all_squares[at.warp * 8 + at.row] = squares;
  }
  compute_sync();
  if (threadIdx.x == 0) barrier_arrive(used);
#pragma unroll
  for (u32 first = 0; first < TILES * TOKENS * 32; first += COMPUTE) {
    const u32 i = first + threadIdx.x;
    if (i >= TILES * TOKENS * 32) break;
    const u32 value = i / 4, quarter = i % 4, token = value / 8 % TOKENS;
    float sum = 0.f, square = 0.f;
#pragma unroll
    for (u32 w = 0; w < (WARPS + 3) / 4; w++) {
      const u32 warp = w * 4 + quarter;
      if (warp >= WARPS) continue;
      sum += sums[warp * sums_of(TILES) + value];
      if (NORM) square += all_squares[warp * 8 + token];
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (NORM) {
      square += __shfl_xor_sync(~0u, square, 1);
      square += __shfl_xor_sync(~0u, square, 2);
      sum *= 1.f / sqrtf(square / (float)HIDDEN + epsilon);
    }
    take(value / 8 / TOKENS, token, value % 8, sum, quarter == 0);
  }
}

// The residual's columns of this lane, times the gain, as bf16; returns the sum of their squares.
__device__ __forceinline__ float normed(
    u32 (&a)[blocks_of(HIDDEN)][4], const float (&x)[blocks_of(HIDDEN)][8], const u8* gain, const Place& at) {
  float squares = 0.f;
#pragma unroll
  for (u32 b = 0; b < blocks_of(HIDDEN); b++) {
    const u32 block = at.warp + b * WARPS;
    if (block >= HIDDEN / 32) {
#pragma unroll
      for (u32 i = 0; i < 4; i++) a[b][i] = 0;
      continue;
    }
    float g[8];
    load(reinterpret_cast<const float*>(gain) + block * 32 + at.quarter * 8, g);
#pragma unroll
    for (u32 i = 0; i < 8; i++) squares += x[b][i] * x[b][i];
#pragma unroll
    for (u32 i = 0; i < 4; i++) a[b][i] = bf16_pair(x[b][2 * i] * g[2 * i], x[b][2 * i + 1] * g[2 * i + 1]);
  }
  return squares;
}

// x += what all blocks made of this lane's columns; the lane has a token.
__device__ __forceinline__ void take_delta(float (&x)[blocks_of(HIDDEN)][8], const u32* from, const Place& at) {
  uint4 v[blocks_of(HIDDEN)][2];
  bool all;
  do {
    all = true;
#pragma unroll
    for (u32 b = 0; b < blocks_of(HIDDEN); b++) {
      const u32 block = at.warp + b * WARPS;
      v[b][0] = v[b][1] = make_uint4(0, 0, 0, 0);
      if (block >= HIDDEN / 32) continue;
      v[b][0] = peek4(from + block * 32 + at.quarter * 8);
      v[b][1] = peek4(from + block * 32 + at.quarter * 8 + 4);
    }
#pragma unroll
    for (u32 b = 0; b < blocks_of(HIDDEN); b++) {
      if (at.warp + b * WARPS < HIDDEN / 32) all = all && arrived(v[b][0]) && arrived(v[b][1]);
    }
  } while (!all);
#pragma unroll
  for (u32 b = 0; b < blocks_of(HIDDEN); b++) {
    if (at.warp + b * WARPS >= HIDDEN / 32) continue;
    const u32 words[8] = {v[b][0].x, v[b][0].y, v[b][0].z, v[b][0].w, v[b][1].x, v[b][1].y, v[b][1].z, v[b][1].w};
#pragma unroll
    for (u32 i = 0; i < 8; i++) x[b][i] += __uint_as_float(words[i]);
  }
}

// How the pages of a token are split: tokens of a split, and splits that have any.
struct Splits {
  u32 tokens, used;

  __device__ __forceinline__ explicit Splits(u32 length) {
    const u32 pages = (length + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    const u32 wanted = max(min((pages + 3) / 4, (u32)SPLITS), 1u);
    const u32 each = (pages + wanted - 1) / wanted;
    tokens = each * KV_BLOCK_TOKENS;
    used = each == 0 ? 0 : (pages + each - 1) / each;
  }
};

// This block's part of the attention.
struct Job {
  u32 token, head, split;
  // First and one past the last of its KV tokens; none when equal.
  u32 first, end;
  // Position of the new token, and whether it is among them.
  u32 position;
  bool newest;
  const i32* table;
};

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
  return layer + block * step.block_bytes + 2 * job.head * KV_PART_BYTES(HEAD_DIM);
}

__device__ __forceinline__ u32 word_of(const uint4& v, u32 i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

// Rotates the new token's query and key, puts key and value where the next steps find them, and attends.
__device__ __forceinline__ void attend(
    const Step& step, const Job& job, u8* layer, u32* exchange, const Place& at) {
  // On their way while the query is waited for.
  Sixteen kv = {};
  u32 token = job.first + at.warp * 16;
  if (token < job.end) load_sixteen(kv, page_of(step, job, layer, token), token % KV_BLOCK_TOKENS, at);
  u16* const query = reinterpret_cast<u16*>(at.shared + AT_QUERY);
  u16* const newest = reinterpret_cast<u16*>(at.shared + AT_NEW);
  const u32* row = exchange + X_QKV + job.token * QKV_ROWS;
  constexpr u32 HALF = HEAD_DIM / 2;
  for (u32 i = threadIdx.x; i < (GROUP + 2) * HALF; i += COMPUTE) {
    const u32 head = i / HALF, pair = i % HALF;
    const bool is_query = head < GROUP, is_value = head == GROUP + 1;
    const bool turns = pair < PAIRS && !is_value;
    const u32 first = turns && HALVES ? pair : 2 * pair, second = turns && HALVES ? pair + PAIRS : 2 * pair + 1;
    const u32 source = is_query ? job.head * GROUP + head : HEADS + job.head + (is_value ? KV_HEADS : 0);
    const u32* from = row + source * HEAD_DIM;
    float2 turn = make_float2(1.f, 0.f);
    if (turns) turn = reinterpret_cast<const float2*>(at.shared + AT_TURNS)[pair];
    u32 a, b;
    do {
      a = peek(from + first);
      b = peek(from + second);
    } while (!arrived(a) || !arrived(b));
    float x = __uint_as_float(a), y = __uint_as_float(b);
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
      u8* to = layer + block * step.block_bytes + (2 * job.head + side) * KV_PART_BYTES(HEAD_DIM) + slot * 128;
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
  // Tile j: dimensions 8 row + j and + 4 of heads 2 quarter, + 1; the other numbers are those of head `row`.
  float o[4][4], largest = -INFINITE, sum = 0.f;
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
    float s[2][2];
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      s[i][0] = s[i][1] = 0.f;
#pragma unroll
      for (u32 j = 0; j < 2; j++) {
        multiply_half(s[i], q[j].x, q[j].y, kv.key[i][j].x, kv.key[i][j].y);
        multiply_half(s[i], q[j].z, q[j].w, kv.key[i][j].z, kv.key[i][j].w);
      }
    }
    // Of head `row`: tokens 2 quarter, + 1, + 8, + 9.
    float p[4] = {s[0][0] * by, s[0][1] * by, s[1][0] * by, s[1][1] * by};
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      if (token + at.quarter * 2 + i % 2 + i / 2 * 8 >= job.end) p[i] = -INFINITE;
    }
    float top = fmaxf(fmaxf(p[0], p[1]), fmaxf(p[2], p[3]));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    top = fmaxf(top, largest);
    const float keep = largest == -INFINITE ? 0.f : exp2_of(largest - top);
    largest = top;
    float more = 0.f;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      p[i] = top == -INFINITE ? 0.f : exp2_of(p[i] - top);
      more += p[i];
    }
    more += __shfl_xor_sync(~0u, more, 1);
    more += __shfl_xor_sync(~0u, more, 2);
    sum = sum * keep + more;
    const u32 b[2] = {bf16_pair(p[0], p[1]), bf16_pair(p[2], p[3])};
    const float keep_even = __shfl_sync(~0u, keep, at.quarter * 8), keep_odd = __shfl_sync(~0u, keep, at.quarter * 8 + 4);
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      // Words j / 2 and j / 2 + 2 have dimensions j and j + 4; products want the tokens side by side.
      const u32 half = j % 2 == 0 ? 0x5410 : 0x7632;
      const u32 a[4] = {
          __byte_perm(word_of(kv.value[0], j / 2), word_of(kv.value[1], j / 2), half),
          __byte_perm(word_of(kv.value[0], j / 2 + 2), word_of(kv.value[1], j / 2 + 2), half),
          __byte_perm(word_of(kv.value[2], j / 2), word_of(kv.value[3], j / 2), half),
          __byte_perm(word_of(kv.value[2], j / 2 + 2), word_of(kv.value[3], j / 2 + 2), half),
      };
      o[j][0] *= keep_even;
      o[j][1] *= keep_odd;
      o[j][2] *= keep_even;
      o[j][3] *= keep_odd;
      multiply(o[j], a, b);
    }
    token += WARPS * 16;
    if (token < job.end) load_sixteen(kv, page_of(step, job, layer, token), token % KV_BLOCK_TOKENS, at);
  }

  // All warps agree on the largest score, then what they have simply adds up.
  float* maxima = reinterpret_cast<float*>(at.shared + AT_MAXIMA);
  float* weights = reinterpret_cast<float*>(at.shared + AT_WEIGHTS);
  float* outputs = reinterpret_cast<float*>(at.shared + AT_OUTPUTS);
  if (at.quarter == 0) maxima[at.warp * 8 + at.row] = largest;
  compute_sync();
  const u32 busy = min((job.end - job.first + 15) / 16, (u32)WARPS);
  float highest = -INFINITE;
#pragma unroll
  for (u32 w = 0; w < (WARPS + 3) / 4; w++) {
    const u32 warp = w * 4 + at.quarter;
    if (warp < busy) highest = fmaxf(highest, maxima[warp * 8 + at.row]);
  }
  highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
  highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
  const float factor = largest == -INFINITE ? 0.f : exp2_of(largest - highest);
#pragma unroll
  for (u32 h = 0; h < 2; h++) {
    const u32 head = at.quarter * 2 + h;
    const float by_head = __shfl_sync(~0u, factor, head * 4);
    if (at.warp >= busy || head >= GROUP) continue;
    float4* to = reinterpret_cast<float4*>(outputs + (at.warp * GROUP + head) * HEAD_WORDS + at.row * 8);
    to[0] = make_float4(o[0][h] * by_head, o[1][h] * by_head, o[2][h] * by_head, o[3][h] * by_head);
    to[1] = make_float4(o[0][h + 2] * by_head, o[1][h + 2] * by_head, o[2][h + 2] * by_head, o[3][h + 2] * by_head);
  }
  if (at.warp < busy && at.quarter == 0) weights[at.warp * 8 + at.row] = sum * factor;
  compute_sync();
#pragma unroll 1
  for (u32 i = threadIdx.x; i < GROUP * 64; i += COMPUTE) {
    const u32 head = i / 64, four = i / 4 % 16, quarter = i % 4;
    float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
    float weight = 0.f, most = -INFINITE;
#pragma unroll
    for (u32 w = 0; w < (WARPS + 3) / 4; w++) {
      const u32 warp = w * 4 + quarter;
      if (warp >= busy) continue;
      const float4 more = *reinterpret_cast<const float4*>(
          outputs + (warp * GROUP + head) * HEAD_WORDS + four * 4);
      v.x += more.x, v.y += more.y, v.z += more.z, v.w += more.w;
      weight += weights[warp * 8 + head];
      most = fmaxf(most, maxima[warp * 8 + head]);
    }
#pragma unroll
    for (u32 other = 1; other < 4; other *= 2) {
      v.x += __shfl_xor_sync(~0u, v.x, other);
      v.y += __shfl_xor_sync(~0u, v.y, other);
      v.z += __shfl_xor_sync(~0u, v.z, other);
      v.w += __shfl_xor_sync(~0u, v.w, other);
      weight += __shfl_xor_sync(~0u, weight, other);
      most = fmaxf(most, __shfl_xor_sync(~0u, most, other));
    }
    const float value = quarter == 0 ? v.x : quarter == 1 ? v.y : quarter == 2 ? v.z : v.w;
    const u32 dim = four * 4 + quarter, query_head = job.head * GROUP + head;
    const u32 part = job.split * TOKENS + job.token;
    if (dim < HEAD_DIM) tell(exchange + X_PART + part * WIDTH + query_head * HEAD_DIM + dim, value / weight);
    if (dim == 0) tell(exchange + X_LSE + part * HEADS + query_head, most + log2_of(weight));
  }
}

// Attention's result for this lane's columns, from its parts.
__device__ __forceinline__ void take_attended(u32 (&a)[blocks_of(WIDTH)][4], const u32* exchange, u32 used, const Place& at) {
#pragma unroll
  for (u32 b = 0; b < blocks_of(WIDTH); b++) {
    const u32 column = (at.warp + b * WARPS) * 32 + at.quarter * 8;
#pragma unroll
    for (u32 i = 0; i < 4; i++) a[b][i] = 0;
    if (column >= WIDTH || used == 0) continue;
    float o[8], most = -INFINITE, sum = 0.f;
#pragma unroll
    for (u32 i = 0; i < 8; i++) o[i] = 0.f;
    constexpr u32 TOGETHER = SPLITS < 4 ? SPLITS : 4;
#pragma unroll 1
    for (u32 first = 0; first < used; first += TOGETHER) {
      uint4 v[TOGETHER][2];
      u32 lse[TOGETHER];
      bool all;
      do {
        all = true;
#pragma unroll
        for (u32 i = 0; i < TOGETHER; i++) {
          // Values left from before would cost registers all the way.
          v[i][0] = v[i][1] = make_uint4(0, 0, 0, 0);
          lse[i] = 0;
          if (first + i >= used) continue;
          const u32 part = (first + i) * TOKENS + at.row;
          const u32* from = exchange + X_PART + part * WIDTH + column;
          v[i][0] = peek4(from);
          v[i][1] = peek4(from + 4);
          lse[i] = used == 1 ? 0 : peek(exchange + X_LSE + part * HEADS + column / HEAD_DIM);
        }
#pragma unroll
        for (u32 i = 0; i < TOGETHER; i++) {
          if (first + i < used) all = all && arrived(v[i][0]) && arrived(v[i][1]) && arrived(lse[i]);
        }
      } while (!all);
#pragma unroll
      for (u32 i = 0; i < TOGETHER; i++) {
        if (first + i >= used) continue;
        const float more = __uint_as_float(lse[i]), top = fmaxf(most, more);
        const float keep = most == -INFINITE ? 0.f : exp2_of(most - top), add = exp2_of(more - top);
        most = top;
        sum = sum * keep + add;
        const u32 words[8] = {v[i][0].x, v[i][0].y, v[i][0].z, v[i][0].w, v[i][1].x, v[i][1].y, v[i][1].z, v[i][1].w};
#pragma unroll
        for (u32 k = 0; k < 8; k++) o[k] = o[k] * keep + __uint_as_float(words[k]) * add;
      }
    }
    const float over = used == 1 ? 1.f : 1.f / sum;
#pragma unroll
    for (u32 i = 0; i < 4; i++) a[b][i] = bf16_pair(o[2 * i] * over, o[2 * i + 1] * over);
  }
}

__device__ __forceinline__ void take_gated(u32 (&a)[blocks_of(INTERMEDIATE)][4], const u32* from, bool has, const Place& at) {
  uint4 v[blocks_of(INTERMEDIATE)];
#pragma unroll
  for (u32 b = 0; b < blocks_of(INTERMEDIATE); b++) v[b] = make_uint4(0, 0, 0, 0);
  if (has) {
    bool all;
    do {
      all = true;
#pragma unroll
      for (u32 b = 0; b < blocks_of(INTERMEDIATE); b++) {
        const u32 block = at.warp + b * WARPS;
        if (block < INTERMEDIATE / 32) v[b] = peek4(from + block * 16 + at.quarter * 4);
      }
#pragma unroll
      for (u32 b = 0; b < blocks_of(INTERMEDIATE); b++) all = all && arrived(v[b]);
    } while (!all);
  }
#pragma unroll
  for (u32 b = 0; b < blocks_of(INTERMEDIATE); b++) {
    a[b][0] = v[b].x;
    a[b][1] = v[b].y;
    a[b][2] = v[b].z;
    a[b][3] = v[b].w;
  }
}

__device__ __forceinline__ void compute(const Step& step, u8* memory, u32* exchange) {
  const Place at = place(memory);
  const u32 count = min(*step.count, (u32)TOKENS);
  const bool has = at.row < count;
  float x[blocks_of(HIDDEN)][8];
#pragma unroll
  for (u32 b = 0; b < blocks_of(HIDDEN); b++) {
    const u32 column = (at.warp + b * WARPS) * 32 + at.quarter * 8;
#pragma unroll
    for (u32 i = 0; i < 8; i++) x[b][i] = 0.f;
    if (!has || column >= HIDDEN) continue;
    const u32 id = step.ids[at.row];
    if (id < VOCAB) {
      load(reinterpret_cast<const bf16*>(step.embedding) + (u64)id * HIDDEN + column, x[b]);
    } else {
#pragma unroll
      for (u32 i = 0; i < 8; i++) x[b][i] = NOT_A_NUMBER;
    }
  }
  const u32 used_splits = has ? Splits(step.positions[at.row] + 1).used : 0;
  Job job;
  job.split = blockIdx.x / (TOKENS * KV_HEADS);
  job.token = blockIdx.x / KV_HEADS % TOKENS;
  job.head = blockIdx.x % KV_HEADS;
  job.first = job.end = job.position = 0;
  job.newest = false;
  job.table = step.tables;
  if (job.split < SPLITS && job.token < count) {
    job.position = step.positions[job.token];
    const i32 sequence = step.sequences[job.token];
    const Splits splits(job.position + 1);
    job.first = min(job.split * splits.tokens, job.position + 1);
    job.end = min(job.first + splits.tokens, job.position + 1);
    job.newest = job.end == job.position + 1 && job.first < job.end;
    job.table += (u64)max(sequence, 0) * step.table_width;
  }
  const bool attends = job.first < job.end;
  if (attends && threadIdx.x < PAIRS) {
    reinterpret_cast<float2*>(memory + AT_TURNS)[threadIdx.x] =
        turn_of(job.position, step.frequencies[threadIdx.x], step.magnitude);
  }
  const u32 first_token = job.first + at.warp * 16;

  u32 buffer = 0;
#pragma unroll 1
  for (u32 index = 0; index < LAYERS; index++, exchange += LAYER_WORDS) {
    const u32 slot = index % SLOTS, parity = index / SLOTS & 1;
    const u8* weights = at.shared + slot * SLOT_BYTES;
    u8* layer = step.pool + index * step.layer_bytes;
    if (attends && first_token < job.end) {
      const Place at = place(memory);
      fetch_sixteen(page_of(step, job, layer, first_token), first_token % KV_BLOCK_TOKENS, at);
    }
    {
      const Place at = place(memory);
      if (index > 0 && has) take_delta(x, exchange - LAYER_WORDS + X_DOWN + at.row * HIDDEN, at);
      barrier_wait(full_barrier(at, slot, 0), parity);
      u32 a[blocks_of(HIDDEN)][4];
      const float squares = normed(a, x, weights, at);
      float acc[tiles_of(QKV_SHARE)][2];
      multiply_rows<QKV_SHARE, HIDDEN>(acc, a, weights + AT_QKV, at);
      add_up<tiles_of(QKV_SHARE), true>(
          acc, squares, buffer, free_barrier(at, slot, 0), step.epsilon, at, [&](u32 tile, u32 token, u32 row, float sum, bool in_charge) {
            const u32 local = tile * 8 + row, to = blockIdx.x * QKV_SHARE + local;
            if (in_charge && local < QKV_SHARE && to < QKV_ROWS && token < count) {
              tell(exchange + X_QKV + token * QKV_ROWS + to, sum);
            }
          });
      buffer ^= 1;
    }
    if (attends) attend(step, job, layer, exchange, place(memory));
    {
      const Place at = place(memory);
      u32 a[blocks_of(WIDTH)][4];
      take_attended(a, exchange, used_splits, at);
      barrier_wait(full_barrier(at, slot, 1), parity);
      float acc[tiles_of(OUT_SHARE)][2];
      multiply_rows<OUT_SHARE, WIDTH>(acc, a, weights + AT_OUT, at);
      add_up<tiles_of(OUT_SHARE), false>(
          acc, 0.f, buffer, free_barrier(at, slot, 1), step.epsilon, at, [&](u32 tile, u32 token, u32 row, float sum, bool in_charge) {
            const u32 local = tile * 8 + row, to = blockIdx.x * OUT_SHARE + local;
            if (in_charge && local < OUT_SHARE && to < HIDDEN && token < count) tell(exchange + X_OUT + token * HIDDEN + to, sum);
          });
      buffer ^= 1;
    }
    {
      const Place at = place(memory);
      if (has) take_delta(x, exchange + X_OUT + at.row * HIDDEN, at);
      barrier_wait(full_barrier(at, slot, 2), parity);
      u32 a[blocks_of(HIDDEN)][4];
      const float squares = normed(a, x, weights + AT_GATE_GAIN, at);
      float acc[tiles_of(2 * GATE_SHARE)][2];
      multiply_rows<2 * GATE_SHARE, HIDDEN>(acc, a, weights + AT_GATE, at);
      add_up<tiles_of(2 * GATE_SHARE), true>(
          acc, squares, buffer, free_barrier(at, slot, 2), step.epsilon, at, [&](u32 tile, u32 token, u32 row, float sum, bool in_charge) {
            // Gate and up lie in turns; two gated values are a word.
            const float other = __shfl_xor_sync(~0u, sum, 4);
            const float gated = sum / (1.f + __expf(-sum)) * other;
            const float next = __shfl_xor_sync(~0u, gated, 8);
            const u32 local = (tile * 8 + row) / 2, to = blockIdx.x * GATE_SHARE + local;
            if (in_charge && row % 4 == 0 && local < GATE_SHARE && to < INTERMEDIATE && token < count) {
              tell(exchange + X_GATED + (token * INTERMEDIATE + to) / 2, bf16_pair(gated, next));
            }
          });
      buffer ^= 1;
    }
    {
      const Place at = place(memory);
      u32 a[blocks_of(INTERMEDIATE)][4];
      take_gated(a, exchange + X_GATED + at.row * (INTERMEDIATE / 2), has, at);
      barrier_wait(full_barrier(at, slot, 3), parity);
      float acc[tiles_of(DOWN_SHARE)][2];
      multiply_rows<DOWN_SHARE, INTERMEDIATE>(acc, a, weights + AT_DOWN, at);
      add_up<tiles_of(DOWN_SHARE), false>(
          acc, 0.f, buffer, free_barrier(at, slot, 3), step.epsilon, at, [&](u32 tile, u32 token, u32 row, float sum, bool in_charge) {
            const u32 local = tile * 8 + row, to = blockIdx.x * DOWN_SHARE + local;
            if (in_charge && local < DOWN_SHARE && to < HIDDEN && token < count) tell(exchange + X_DOWN + token * HIDDEN + to, sum);
          });
      buffer ^= 1;
    }
  }
  if (blockIdx.x != 0 || !has) return;
  take_delta(x, exchange - LAYER_WORDS + X_DOWN + at.row * HIDDEN, at);
#pragma unroll
  for (u32 b = 0; b < blocks_of(HIDDEN); b++) {
    const u32 column = (at.warp + b * WARPS) * 32 + at.quarter * 8;
    if (column < HIDDEN) store(step.residual + (u64)at.row * HIDDEN + column, x[b]);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) resident_step(const __grid_constant__ Step step) {
  extern __shared__ __align__(1024) u8 memory[];
  const Place at = place(memory);
  release_dependents();
  if (threadIdx.x == 0) {
    for (u32 i = 0; i < SLOTS * PARTS; i++) {
      barrier_init(full_barrier(at, 0, i), 1);
      barrier_init(free_barrier(at, 0, i), 1);
    }
    barriers_made();
  }
  // Dimensions beyond the head's stay zero.
  if (threadIdx.x < 10 * 32) reinterpret_cast<u32*>(memory + AT_QUERY)[threadIdx.x] = 0;
  await_predecessors();
  const u32 half = *step.steps & 1;
  __syncthreads();
  constexpr u64 HALF_WORDS = (u64)LAYERS * LAYER_WORDS;
  if (at.warp == WARPS) {
    fetch(step, at, step.exchange + (half ^ 1) * HALF_WORDS);
    return;
  }
  compute(step, memory, step.exchange + half * HALF_WORDS);
  // Every block has read the number before it told anything.
  if (blockIdx.x == 0 && threadIdx.x == 0) *step.steps = half ^ 1;
}
