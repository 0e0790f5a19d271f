// attend_prefill_plain - attend_prefill for any GPU from sm_80 on and for head dims up to 256, with mma.sync.
//
// Formula, arguments, layouts and plan are those of attend_prefill.cu, with tiles of 64 rows; chunks must start at a page
// (kvBegin a multiple of 64). `counter` is not used: block b takes the items b, b + gridDim.x, ...
//
// Schedule: 4 warps of 16 rows; one page of keys and values at a time, the next on its way (head dims up to 128) by cp.async.
// Pages go upward; a row has the same bits whatever chunk or tile it came in.
//
// Limit: the tensor cores' mma.sync rate; on sm_90 that is about two thirds of what wgmma reaches.
//
// Test: attend_prefill_cuda_test.ts. Time: `deno run -A kernels/attend_partial/attend_prefill_cuda_bench.ts`.
//
// @define HEADS=9 KV_HEADS=3 HEAD_DIM=64
// @define HEADS=32 KV_HEADS=8 HEAD_DIM=128
// @define HEADS=16 KV_HEADS=1 HEAD_DIM=80
// @define HEADS=8 KV_HEADS=8 HEAD_DIM=256

#include "dependents.cuh"
#include "kv_pool.cuh"

constexpr int GROUP = HEADS / KV_HEADS;
constexpr int DP = KV_PADDED_DIM(HEAD_DIM);
constexpr int PAGE = KV_BLOCK_TOKENS;
constexpr int SUBTILE_BYTES = KV_SUBTILE_BYTES;
constexpr int PAGE_BYTES = KV_PART_BYTES(HEAD_DIM);
constexpr int HEAD_BYTES = 2 * PAGE_BYTES;
constexpr int ROWS = 64;
constexpr int THREADS = 128;
constexpr int ROW_CHUNKS = DP / 8;
constexpr int STAGES = DP <= 128 ? 2 : 1;
// Tokens of a page whose scores are in registers at once.
constexpr int TOKENS = DP <= 128 ? PAGE : PAGE / 2;
// Shared memory: queries [subtile][64][128 bytes], then keys and values of STAGES pages, as they lie in the pool.
constexpr int STAGES_AT = PAGE_BYTES;

static_assert(HEADS % KV_HEADS == 0, "HEADS is a multiple of KV_HEADS");
static_assert(HEAD_DIM % 8 == 0 && HEAD_DIM <= 256, "HEAD_DIM is a multiple of 8, at most 256");

#define DEVICE __device__ __forceinline__

DEVICE void copy_async(u32 to, const void* from, bool real) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(real ? 16 : 0) : "memory");
}
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
DEVICE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

DEVICE void load_matrices(u32 (&r)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

DEVICE void load_matrices_transposed(u32 (&r)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// d[16, 8] += a[16, 16] b[16, 8].
DEVICE void multiply(float* d, const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

DEVICE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Address of 16-byte chunk `chunk` of row `row` of a swizzled tile of 64 rows.
DEVICE u32 chunk_at(u32 tile, int row, int chunk) {
  return tile + chunk / 8 * SUBTILE_BYTES + row * 128 + ((chunk % 8) ^ (row % 8)) * 16;
}

extern "C" __global__ __launch_bounds__(THREADS, 2) void attend_prefill(
    const bf16* q, const u8* layer, const int* table,
    const int* plan, bf16* out, float* partialO,
    float* partialLse, u32* counter, u64 blockBytes, float scale) {
  extern __shared__ __align__(128) u8 raw[];
  const u32 shared = (u32)__cvta_generic_to_shared(raw);
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int matrix = lane / 8, line = lane % 8;
  await_predecessors();
  const int tiles = plan[0], section = plan[1];

  for (int index = blockIdx.x; index < tiles * KV_HEADS; index += gridDim.x) {
    const int within = index % (tiles * section);
    const int* tile = plan + 4 + 16 * (within / section);
    const int queryRow = tile[0], tokens = tile[1], kvBegin = tile[3], outRow = tile[6];
    const int length = tile[4] - kvBegin, position = tile[2] - kvBegin, first = tile[8];
    const bool partial = tile[7];
    const int kvHead = index / (tiles * section) * section + within % section;
    const int* entries = table + tile[5] + kvBegin / PAGE;
    const u8* head = layer + (u64)kvHead * HEAD_BYTES;
    const int last = min(first + ROWS, tokens * GROUP) - 1;
    const int pages = (max(0, min(length, position + last / GROUP + 1)) + PAGE - 1) / PAGE;

    // Values behind the end are multiplied by zero, so they become zero.
    const auto load_page = [&](int page) {
      const u32 to = shared + STAGES_AT + page % STAGES * HEAD_BYTES;
      const u8* from = head + (u64)entries[page] * blockBytes;
      const int valid = length - page * PAGE;
#pragma unroll 4
      for (int c = thread; c < HEAD_BYTES / 16; c += THREADS) copy_async(to + 16 * c, from + 16 * c, c / 8 % PAGE < valid);
    };

    __syncthreads();
    for (int c = thread; c < ROWS * ROW_CHUNKS; c += THREADS) {
      const int r = c / ROW_CHUNKS, dim = c % ROW_CHUNKS * 8, row = first + r, token = row / GROUP;
      const bool real = token < tokens && dim < HEAD_DIM;
      const u64 at = (u64)(queryRow + (real ? token : 0)) * HEADS + kvHead * GROUP + row % GROUP;
      copy_async(chunk_at(shared, r, dim / 8), q + at * HEAD_DIM + (real ? dim : 0), real);
    }
    if (pages > 0) load_page(0);
    copy_commit();

    const int row = first + warp * 16 + lane / 4;
    const int limit[2] = {min(length, position + row / GROUP + 1), min(length, position + (row + 8) / GROUP + 1)};
    float o[DP / 2];
#pragma unroll
    for (int i = 0; i < DP / 2; i++) o[i] = 0.0f;
    float most[2] = {-INFINITE, -INFINITE}, sum[2] = {0.0f, 0.0f};

    for (int page = 0; page < pages; page++) {
      if (STAGES == 2 && page + 1 < pages) load_page(page + 1);
      if (STAGES == 2) copy_commit();
      copy_wait<STAGES - 1>();
      __syncthreads();
      const u32 keys = shared + STAGES_AT + page % STAGES * HEAD_BYTES, values = keys + PAGE_BYTES;

#pragma unroll 1
      for (int offset = 0; offset < PAGE; offset += TOKENS) {
        float s[TOKENS / 2];
#pragma unroll
        for (int i = 0; i < TOKENS / 2; i++) s[i] = 0.0f;
#pragma unroll(DP <= 128 ? DP / 16 : 4)
        for (int k = 0; k < DP / 16; k++) {
          u32 a[4];
          load_matrices(a, chunk_at(shared, warp * 16 + (matrix & 1) * 8 + line, 2 * k + (matrix >> 1)));
#pragma unroll
          for (int n = 0; n < TOKENS / 16; n++) {
            u32 b[4];
            load_matrices(b, chunk_at(keys, offset + 16 * n + (matrix >> 1) * 8 + line, 2 * k + (matrix & 1)));
            multiply(s + 8 * n, a, b[0], b[1]);
            multiply(s + 8 * n + 4, a, b[2], b[3]);
          }
        }

        const int column = page * PAGE + offset + 2 * (lane % 4);
#pragma unroll
        for (int i = 0; i < 2; i++) {
          float next = most[i];
#pragma unroll
          for (int j = 0; j < TOKENS / 8; j++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
              float& score = s[4 * j + 2 * i + e];
              if (column + 8 * j + e >= limit[i]) score = -INFINITE;
              next = fmaxf(next, score);
            }
          }
          next = fmaxf(next, __shfl_xor_sync(~0u, next, 1));
          next = fmaxf(next, __shfl_xor_sync(~0u, next, 2));
          // A row that has seen nothing yet: subtract nothing, so that -Infinity gives 0.
          const float from = next == -INFINITE ? 0.0f : next * scale;
          const float decay = exp2_fast(most[i] * scale - from);
          most[i] = next;
          sum[i] *= decay;
#pragma unroll
          for (int j = 0; j < DP / 8; j++) {
            o[4 * j + 2 * i] *= decay;
            o[4 * j + 2 * i + 1] *= decay;
          }
#pragma unroll
          for (int j = 0; j < TOKENS / 8; j++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
              float& score = s[4 * j + 2 * i + e];
              score = exp2_fast(fmaf(score, scale, -from));
              sum[i] += score;
            }
          }
        }

#pragma unroll
        for (int t = 0; t < TOKENS / 16; t++) {
          const u32 a[4] = {bf16_pair(s[8 * t], s[8 * t + 1]), bf16_pair(s[8 * t + 2], s[8 * t + 3]), bf16_pair(s[8 * t + 4], s[8 * t + 5]),
                            bf16_pair(s[8 * t + 6], s[8 * t + 7])};
#pragma unroll
          for (int n = 0; n < DP / 16; n++) {
            u32 b[4];
            load_matrices_transposed(b, chunk_at(values, offset + 16 * t + (matrix & 1) * 8 + line, 2 * n + (matrix >> 1)));
            multiply(o + 8 * n, a, b[0], b[1]);
            multiply(o + 8 * n + 4, a, b[2], b[3]);
          }
        }
      }
      __syncthreads();
      if (STAGES == 1 && page + 1 < pages) {
        load_page(page + 1);
        copy_commit();
      }
    }
    copy_wait<0>();

#pragma unroll
    for (int i = 0; i < 2; i++) {
      sum[i] += __shfl_xor_sync(~0u, sum[i], 1);
      sum[i] += __shfl_xor_sync(~0u, sum[i], 2);
      const int r = row + 8 * i;
      if (r >= tokens * GROUP) continue;
      const float inverse = sum[i] == 0.0f ? 0.0f : 1.0f / sum[i];
      const u64 at = (u64)(outRow + r / GROUP) * HEADS + kvHead * GROUP + r % GROUP;
#pragma unroll
      for (int j = 0; j < HEAD_DIM / 8; j++) {
        const float low = o[4 * j + 2 * i] * inverse, high = o[4 * j + 2 * i + 1] * inverse;
        const u64 to = at * HEAD_DIM + 8 * j + 2 * (lane % 4);
        if (partial) {
          *(float2*)(partialO + to) = make_float2(low, high);
        } else {
          *(u32*)(out + to) = bf16_pair(low, high);
        }
      }
      const float ln2 = 0.69314718055994531f;
      if (partial && lane % 4 == 0) partialLse[at] = sum[i] == 0.0f ? -INFINITE : (most[i] * scale + log2f(sum[i])) * ln2;
    }
  }
  release_dependents();
}
