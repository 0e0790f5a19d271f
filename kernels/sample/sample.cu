// sample - the next token of each row, from its 64 largest logits where these determine it, else from all. See spec.ts.
//
// rows [R] of Row (sample_row.cuh), x [R, VOCAB] of IN, lse [R], ids and top [R, 64] as the logits kernel leaves them -> the token
// of row r in tokens[rows[r].slot], a result in the ring, rows[r].accepted counted up. A row that is left to the host, whose
// logits are not finite, or whose token hangs on rounding (or, without sample_rest, on logits that are no candidates) gives token
// 0, which every table has; its result says so.
//
//   sample        draws from the candidates (head_draw.cuh), a warp a row; lists the rows for which that proves nothing
//   sample_rest   draws those from all logits (full_draw.cuh), a cluster a row; ends at once when there are none
//
// The ring lies in pinned host memory: `ringSlots` slots of [64 bytes: u32 step, u32 rows][ringRows results]. Step s, counted
// from 1 in state.step, fills slot s % ringSlots; its number is stored with release at system scope after all results of the
// step. The host polls that word and reads results after it.
//
// All sums are f64; kernel and host decide only what holds whatever the order of the sums, so both decide alike.
//
// Grid: sample (R of the bucket / 8), sample_rest any number of clusters. Roofline: latency; sample_rest reads a row about four times
// from L2 and takes an exponential in f64 of each logit twice or more.
//
// Test: sample_cuda_test.ts. Time: ../cuda/layer_kernels_bench.ts; figures: docs/perf/2026-11-24-small-cuda-kernels.md.
//
// Defines: VOCAB (at most 64 * 4096), IN (float or bf16).
// @define VOCAB=128256 IN=float
// @define VOCAB=50257 IN=bf16
// @define VOCAB=33 IN=float
#include "cluster.cuh"
#include "dependents.cuh"
#include "elements.cuh"
#include "full_draw.cuh"
#include "head_draw.cuh"
#include "sample_row.cuh"

#define WARPS 8

// Ids of results that name no token.
enum Outcome { UNDECIDED = -1, BAD_LOGITS = -2, LEFT_TO_HOST = -3 };

// All zero before the first launch; `undecided` lists rows.
struct State {
  u32 step;
  u32 arrived;
  u32 waiting;
  u32 arrivedRest;
  u32 undecided[1];
};

// Where results go. A result is 16 bytes: i32 id, f32 logit, f32 lse, u32 tag; SampleRing of sample_ring.ts reads it.
struct Output {
  i32* tokens;
  u8* ring;
  u32 maxTokens;
  u32 slots;
  u32 rows;
};

__device__ __forceinline__ u8* slot_of(const Output& out, u32 step) {
  return out.ring + (u64)(step % out.slots) * (64 + (u64)out.rows * 16);
}

__device__ __forceinline__ void put(const Output& out, u32 step, u32 r, const Row& row, i32 id, float logit, float lse) {
  if ((u32)row.slot < out.maxTokens) out.tokens[row.slot] = max(id, 0);
  *reinterpret_cast<int4*>(slot_of(out, step) + 64 + r * 16) =
      make_int4(id, __float_as_int(logit), __float_as_int(lse), (i32)row.tag);
}

// What other blocks stored came before their arrival, so it comes before this release too.
__device__ __forceinline__ void publish(const Output& out, u32 step, u32 rows) {
  u8* slot = slot_of(out, step);
  reinterpret_cast<volatile u32*>(slot)[1] = rows;
  __threadfence_system();
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(slot), "r"(step) : "memory");
}

// Whether this thread's block is the last of `blocks` to arrive; the counter is zero again then.
__device__ __forceinline__ bool arrive_last(u32* arrived, u32 blocks) {
  if (blocks == 1) return true;
  u32 before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(arrived) : "memory");
  if (before != blocks - 1) return false;
  *arrived = 0;
  return true;
}

// The number of the candidate a warp chooses, or an outcome.
__device__ __forceinline__ i32 choose(const Row& row, float lse, float2 logits) {
  // The sum is NaN or infinite when a logit is, and minus infinite when all are.
  if (!(fabsf(lse) < INFINITE)) return BAD_LOGITS;
  if (row.mode == GREEDY) return 0;
  if (row.mode != DRAW) return LEFT_TO_HOST;
  Head head;
  head.logit[0] = logits.x;
  head.logit[1] = logits.y;
  head.length = __popc(__ballot_sync(FULL, logits.x > -INFINITE)) + __popc(__ballot_sync(FULL, logits.y > -INFINITE));
  const u32 number = draw(row, head, lse);
  return number == CANDIDATES ? (i32)UNDECIDED : (i32)number;
}

// `rest` says whether sample_rest follows.
extern "C" __global__ __launch_bounds__(WARPS * 32, 1) void sample(
    Row* rows, const float* lse, const i32* ids, const float* top, const u32* count, State* state, Output out, u32 bucket,
    u32 rest) {
  release_dependents();
  await_predecessors();
  // All trips at once: there is room for rows beyond the count.
  const u32 lane = threadIdx.x % 32;
  const u32 r = min(blockIdx.x * WARPS + threadIdx.x / 32, bucket - 1);
  const bool mine = r == blockIdx.x * WARPS + threadIdx.x / 32;
  const u32 total = *count, step = state->step + 1;
  const Row row = rows[r];
  const float sum = lse[r];
  const float2 logits = reinterpret_cast<const float2*>(top)[r * (TOP / 2) + lane];
  const int2 names = reinterpret_cast<const int2*>(ids)[r * (TOP / 2) + lane];
  if (mine && r < total) {
    const i32 number = choose(row, sum, logits);
    const i32 even = __shfl_sync(FULL, names.x, number / 2), odd = __shfl_sync(FULL, names.y, number / 2);
    const float evenLogit = __shfl_sync(FULL, logits.x, number / 2), oddLogit = __shfl_sync(FULL, logits.y, number / 2);
    if (lane == 0) {
      rows[r].accepted = row.accepted + 1;
      if (number == UNDECIDED && rest != 0) {
        state->undecided[atomicAdd(&state->waiting, 1u)] = r;
      } else {
        put(out, step, r, row, number < 0 ? number : number % 2 == 0 ? even : odd,
            number < 0 ? 0.0f : number % 2 == 0 ? evenLogit : oddLogit, sum);
      }
    }
  }
  __syncthreads();
  if (threadIdx.x != 0 || !arrive_last(&state->arrived, gridDim.x)) return;
  state->step = step;
  if (atomicAdd(&state->waiting, 0u) == 0) publish(out, step, total);
}

extern "C" __global__ IN_CLUSTERS __launch_bounds__(DRAWERS, 1) void sample_rest(
    const Row* rows, const IN* x, const float* lse, const float* top, const u32* count, State* state, Output out) {
  __shared__ FullDraw full;
  release_dependents();
  await_predecessors();
  const u32 waiting = state->waiting;
  if (waiting == 0) return;
  const u32 step = state->step;
  const u32 clusters = gridDim.x / CLUSTER, cluster = blockIdx.x / CLUSTER;
  // Nobody stores into a block that has not begun.
  sync_cluster();
  for (u32 i = cluster; i < waiting; i += clusters) {
    const u32 r = state->undecided[i];
    const Row row = rows[r];
    const IN* logits = x + (u64)r * VOCAB;
    const i32 id = draw_from_all(full, row, row.accepted - 1, logits, top[r * TOP]);
    if (blockIdx.x % CLUSTER == 0 && threadIdx.x == 0) {
      float drawn[1] = {0.0f};
      if (id >= 0) load(logits + id, drawn);
      put(out, step, r, row, id, drawn[0], lse[r]);
    }
    sync_cluster();
  }
  if (blockIdx.x % CLUSTER != 0 || threadIdx.x != 0 || !arrive_last(&state->arrivedRest, clusters)) return;
  state->waiting = 0;
  publish(out, step, *count);
}
