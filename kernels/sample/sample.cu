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

// The candidate the first warp chooses, or an outcome, by lane.
__device__ __forceinline__ i32 choose(const Row& row, float lse, const float* top) {
  // The sum is NaN or infinite when a logit is, and minus infinite when all are.
  if (!(fabsf(lse) < INFINITE)) return BAD_LOGITS;
  if (row.mode == GREEDY) return 0;
  if (row.mode != DRAW) return LEFT_TO_HOST;
  Head head;
  head.length = 0;
#pragma unroll
  for (int k = 0; k < 2; k++) {
    const u32 at = 2 * threadIdx.x + k;
    head.logit[k] = at < CANDIDATES ? top[at] : -INFINITE;
    head.length += __popc(__ballot_sync(FULL, head.logit[k] > -INFINITE));
  }
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
  const u32 total = *count;
  const u32 step = state[0] + 1;
  u8* slot = ring + (u64)(step % ringSlots) * (64 + (u64)ringRows * sizeof(Result));
  const u32 r = blockIdx.x;
  if (r < total && r < ringRows) {
    const Row row = rows[r];
    const float sum = lse[r];
    ids += r * TOP;
    top += r * TOP;
    if (threadIdx.x < 32) choice = choose(row, sum, top);
    __syncthreads();
    i32 id = choice < 0 ? choice : ids[choice];
    float logit = choice < 0 ? 0.0f : top[choice];
    if (choice == UNDECIDED && x != nullptr) {
      const IN* logits = x + (u64)r * VOCAB;
      id = draw_from_all(full, row, logits, top[0], ids[0]);
      float drawn[1] = {0.0f};
      if (id >= 0) load(logits + id, drawn);
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
