// sample - the next token of each row, from its 64 largest logits where these determine it, else from all. See spec.ts.
//
// rows [R] of Row (sample_row.cuh), x [R, VOCAB] of IN, lse [R], ids and top [R, 64] as the logits kernel leaves them -> the token
// of row r in tokens[rows[r].slot], a result in the ring, rows[r].accepted counted up. A row that is left to the host, whose
// logits are not finite, or whose token hangs on rounding (with `x` null: on the logits that are no candidates) gives token 0,
// which every table has; its result says so.
//
// The ring lies in pinned host memory: `ringSlots` slots of [64 bytes: u32 step, u32 rows][ringRows results]. Step s, counted
// from 1 in state[0], fills slot s % ringSlots; its number is stored with release at system scope after all results of the
// step. The host polls that word and reads results after it. state [2] u32 is zero before the first launch.
//
// Grid: (R of the bucket), a block a row. Its first warp draws from the candidates (head_draw.cuh); if that proves nothing, the
// whole block draws from all logits (full_draw.cuh). All sums are f64; both sides decide only what holds whatever the order of
// the sums, so both decide alike.
//
// Roofline: latency; the full path reads a row about four times from L2 and takes VOCAB exponentials in f64.
//
// Defines: VOCAB (at most 64 * 4096), IN (float or bf16).
// @define VOCAB=128256 IN=float
// @define VOCAB=50257 IN=bf16
// @define VOCAB=33 IN=float
#include "dependents.cuh"
#include "elements.cuh"
#include "full_draw.cuh"
#include "head_draw.cuh"
#include "sample_row.cuh"

// Ids of results that name no token.
enum Outcome { UNDECIDED = -1, BAD_LOGITS = -2, LEFT_TO_HOST = -3 };

// 16 bytes; SampleRing of sample_ring.ts reads it.
struct Result {
  i32 id;
  float logit;
  float lse;
  u32 tag;
};

// The number of the candidate the first warp chooses, or an outcome.
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

extern "C" __global__ __launch_bounds__(DRAWERS, 1) void sample(
    Row* rows, const IN* x, const float* lse, const i32* ids, const float* top, const u32* count, i32* tokens, u32 maxTokens,
    u32* state, u8* ring, u32 ringSlots, u32 ringRows) {
  __shared__ FullDraw full;
  __shared__ i32 choice;
  release_dependents();
  await_predecessors();
  // All trips at once: there is room for rows beyond the count.
  const u32 r = blockIdx.x, lane = threadIdx.x % 32;
  const u32 total = *count, step = state[0] + 1;
  const Row row = rows[r];
  const float sum = lse[r];
  const float2 logits = reinterpret_cast<const float2*>(top)[r * (TOP / 2) + lane];
  const int2 names = reinterpret_cast<const int2*>(ids)[r * (TOP / 2) + lane];
  u8* slot = ring + (u64)(step % ringSlots) * (64 + (u64)ringRows * sizeof(Result));
  if (r < total && r < ringRows) {
    i32 id = 0;
    float logit = 0.0f;
    if (threadIdx.x < 32) {
      const i32 number = choose(row, sum, logits);
      const i32 even = __shfl_sync(FULL, names.x, number / 2), odd = __shfl_sync(FULL, names.y, number / 2);
      const float evenLogit = __shfl_sync(FULL, logits.x, number / 2), oddLogit = __shfl_sync(FULL, logits.y, number / 2);
      id = number < 0 ? number : number % 2 == 0 ? even : odd;
      logit = number < 0 ? 0.0f : number % 2 == 0 ? evenLogit : oddLogit;
      choice = id;
    }
    __syncthreads();
    if (choice == UNDECIDED && x != nullptr) {
      const IN* all = x + (u64)r * VOCAB;
      id = draw_from_all(full, row, all, top[r * TOP], ids[r * TOP]);
      float drawn[1] = {0.0f};
      if (id >= 0) load(all + id, drawn);
      logit = drawn[0];
    }
    if (threadIdx.x == 0) {
      rows[r].accepted = row.accepted + 1;
      if ((u32)row.slot < maxTokens) tokens[row.slot] = max(id, 0);
      *reinterpret_cast<int4*>(slot + 64 + r * sizeof(Result)) =
          make_int4(id, __float_as_int(logit), __float_as_int(sum), (i32)row.tag);
    }
  }
  if (threadIdx.x != 0) return;
  if (gridDim.x > 1) {
    __threadfence();
    if (atomicAdd(state + 1, 1u) != gridDim.x - 1) return;
    state[1] = 0;
  }
  state[0] = step;
  reinterpret_cast<volatile u32*>(slot)[1] = total;
  // What the other blocks stored came before their arrival, so it comes before this release too.
  __threadfence_system();
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(slot), "r"(step) : "memory");
}
