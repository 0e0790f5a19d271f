// sample - the next token of each row from its 64 largest logits and lse, where these determine it. See spec.ts.
//
// rows [R] of Row, lse [R], ids and top [R, 64] as the logits kernel leaves them -> the token of row r in
// tokens[rows[r].slot], a result in the ring, rows[r].accepted counted up. A row that the candidates do not determine, that
// is left to the host or whose logits are not finite gives token 0, which every table has; its result says so.
//
// The ring lies in pinned host memory: `ringSlots` slots of [64 bytes: u32 step, u32 rows][ringRows results]. Step s, counted
// from 1 in state[0], fills slot s % ringSlots; its number is stored with release at system scope after all results of the
// step. The host polls that word and reads results after it. state [2] u32 is zero before the first launch.
//
// One warp a row, two candidates a lane, all sums in f64 as on the host: prefix sums by a scan, so they differ from the
// host's in the last bits; both sides decide only what holds within ROUNDING of every bound, so both decide alike.
//
// Grid: (R of the bucket / 8). Roofline: latency; a few hundred bytes a row.
//
// Defines: VOCAB.
// @define VOCAB=128256
// @define VOCAB=33
#include "dependents.cuh"
#include "elements.cuh"

#define TOP 64
#define WARPS 8
#define FULL 0xffffffffu
// Relative error allowed to lse's sum of exponentials, and difference allowed between sums in different orders.
#define SUM_ERROR 1e-4
#define ROUNDING 1e-9

constexpr u32 CANDIDATES = VOCAB < TOP ? VOCAB : TOP;

enum Mode { GREEDY = 0, DRAW = 1, HOST = 2 };
// Ids of results that name no token.
enum Outcome { UNDECIDED = -1, BAD_LOGITS = -2, LEFT_TO_HOST = -3 };

// 64 bytes; SampleRows of cuda.ts writes it.
struct Row {
  u32 mode;
  u32 topK;
  double inverseTemperature;
  double topP;
  double depth;
  u32 seed[2];
  u64 accepted;
  i32 slot;
  u32 tag;
  u32 unused[2];
};
static_assert(sizeof(Row) == 64, "the host writes rows of 64 bytes");

// 16 bytes.
struct Result {
  i32 id;
  float logit;
  float lse;
  u32 tag;
};

// Threefry-2x32-20 of (counter, key) as 53 random bits in [0, 1).
__device__ double uniform(const u32 (&key)[2], u64 counter) {
  const u32 keys[3] = {key[0], key[1], 0x1bd11bdau ^ key[0] ^ key[1]};
  const int turns[8] = {13, 15, 26, 6, 17, 29, 16, 24};
  u32 a = (u32)counter + keys[0], b = (u32)(counter >> 32) + keys[1];
#pragma unroll
  for (int round = 0; round < 20; round++) {
    a += b;
    b = __funnelshift_l(b, b, turns[round % 8]) ^ a;
    if (round % 4 == 3) {
      const int injection = round / 4 + 1;
      a += keys[injection % 3];
      b += keys[(injection + 1) % 3] + injection;
    }
  }
  return ((double)(a >> 5) * 67108864.0 + (double)(b >> 6)) / 9007199254740992.0;
}

__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(FULL, x, step);
  return x;
}

// Candidates of a row: lane l holds numbers 2 l and 2 l + 1, in total order.
struct Head {
  float logit[2];
  // Running mass up to and including each; candidates from `kept` on do not count.
  double through[2];
  u32 kept;
  u32 length;
};

// Number of the first candidate whose running mass is above `target`; `kept` when none is.
__device__ __forceinline__ u32 first_above(const Head& head, double target) {
  const u32 at = 2 * (threadIdx.x % 32);
  return __popc(__ballot_sync(FULL, at < head.kept && head.through[0] <= target)) +
         __popc(__ballot_sync(FULL, at + 1 < head.kept && head.through[1] <= target));
}

__device__ __forceinline__ double through(const Head& head, u32 number) {
  const double even = __shfl_sync(FULL, head.through[0], number / 2 % 32);
  const double odd = __shfl_sync(FULL, head.through[1], number / 2 % 32);
  return number % 2 == 0 ? even : odd;
}

struct Bounds {
  double low;
  double high;
};

// Bounds on the mass of the tokens that are no candidates, as head_draw.ts derives them.
__device__ Bounds rest_of(const Head& head, double largest, double smallest, float lse, double a) {
  if (VOCAB == CANDIDATES || smallest == -INFINITE) return {0.0, 0.0};
  const double sum = exp(lse - largest);
  const u32 at = 2 * (threadIdx.x % 32);
  double listed = at < CANDIDATES ? exp(head.logit[0] - largest) : 0.0;
  if (at + 1 < CANDIDATES) listed += exp(head.logit[1] - largest);
  const double unlisted = sum - warp_sum(listed);
  const double low = fmax(0.0, unlisted - SUM_ERROR * sum);
  const double high = fmax(0.0, unlisted + SUM_ERROR * sum);
  const double depth = largest - smallest;
  const double count = VOCAB - CANDIDATES;
  const double scaled = exp(-depth * (a - 1.0));
  const double byCount = count * exp(-depth * a);
  if (a >= 1.0) return {a == 1.0 ? low : 0.0, fmin(high * scaled, byCount)};
  return {low * scaled, fmin(byCount, pow(count, 1.0 - a) * pow(high, a))};
}

// The candidate that u, uniform in [0, 1), selects; CANDIDATES when the head does not determine it.
__device__ u32 draw(const Row& row, Head& head, float lse) {
  const u32 at = 2 * (threadIdx.x % 32);
  const double largest = __shfl_sync(FULL, head.logit[0], 0);
  const double smallest = __shfl_sync(FULL, head.logit[(CANDIDATES - 1) % 2], (CANDIDATES - 1) / 2);
  head.kept = min(head.length, row.topK);
  double x[2], weight[2];
  u32 shallow = 0;
#pragma unroll
  for (int k = 0; k < 2; k++) {
    const bool counts = at + k < head.kept;
    x[k] = (largest - head.logit[k]) * row.inverseTemperature;
    weight[k] = counts ? exp(-x[k]) : 0.0;
    shallow += __popc(__ballot_sync(FULL, counts && !(x[k] > row.depth)));
  }
  double through_lane = weight[0] + weight[1];
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const double left = __shfl_up_sync(FULL, through_lane, step);
    if (threadIdx.x % 32 >= step) through_lane += left;
  }
  const double before = __shfl_up_sync(FULL, through_lane, 1);
  head.through[0] = (at == 0 ? 0.0 : before) + weight[0];
  head.through[1] = through_lane;
  const double mass = through(head, head.kept - 1);
  Bounds bounds = {mass, mass};
  if (row.topK > head.length) {
    const Bounds rest = rest_of(head, largest, smallest, lse, row.inverseTemperature);
    bounds = {mass + (row.topK == 0xffffffffu ? rest.low : 0.0), mass + rest.high};
  }
  if (!(bounds.high < INFINITE)) return CANDIDATES;
  if (row.topP < 1.0) {
    const double least = row.topP * bounds.low * (1.0 - ROUNDING);
    const double most = row.topP * bounds.high * (1.0 + ROUNDING);
    const u32 low = first_above(head, least), high = first_above(head, most);
    const double lowMass = through(head, low), highMass = through(head, high);
    bounds = {low < head.kept ? lowMass : fmax(mass, least), high < head.kept ? highMass : bounds.high};
  }
  if (shallow < head.kept) {
    const double cut = through(head, shallow - 1);
    bounds = {fmin(bounds.low, cut), fmin(bounds.high, cut)};
  } else if (row.depth < INFINITE) {
    bounds.low = fmin(bounds.low, mass);
  }
  const double u = uniform(row.seed, row.accepted);
  const u32 least = first_above(head, u * bounds.low * (1.0 - ROUNDING));
  const u32 most = first_above(head, u * bounds.high * (1.0 + ROUNDING));
  return least == most && least < head.kept ? least : CANDIDATES;
}

extern "C" __global__ __launch_bounds__(WARPS * 32, 1) void sample(
    Row* rows, const float* lse, const i32* ids, const float* top, const u32* count, i32* tokens, u32 maxTokens, u32* state,
    u8* ring, u32 ringSlots, u32 ringRows) {
  release_dependents();
  await_predecessors();
  const u32 total = *count;
  const u32 step = state[0] + 1;
  u8* slot = ring + (u64)(step % ringSlots) * (64 + (u64)ringRows * sizeof(Result));
  const u32 r = blockIdx.x * WARPS + threadIdx.x / 32;
  const u32 lane = threadIdx.x % 32;
  if (r < total && r < ringRows) {
    const Row row = rows[r];
    const float sum = lse[r];
    Head head;
    u32 length = 0;
#pragma unroll
    for (int k = 0; k < 2; k++) {
      const u32 at = 2 * lane + k;
      head.logit[k] = at < CANDIDATES ? top[r * TOP + at] : -INFINITE;
      length += __popc(__ballot_sync(FULL, head.logit[k] > -INFINITE));
    }
    head.length = length;
    i32 outcome = 0;
    u32 number = 0;
    // The sum is NaN or infinite when a logit is, and minus infinite when all are.
    if (!(fabsf(sum) < INFINITE)) {
      outcome = BAD_LOGITS;
    } else if (row.mode == DRAW) {
      number = draw(row, head, sum);
      if (number == CANDIDATES) outcome = UNDECIDED;
    } else if (row.mode != GREEDY) {
      outcome = LEFT_TO_HOST;
    }
    if (lane == 0) {
      const i32 id = outcome == 0 ? ids[r * TOP + number] : outcome;
      const float logit = outcome == 0 ? top[r * TOP + number] : 0.0f;
      rows[r].accepted = row.accepted + 1;
      if ((u32)row.slot < maxTokens) tokens[row.slot] = max(id, 0);
      *reinterpret_cast<int4*>(slot + 64 + r * sizeof(Result)) =
          make_int4(id, __float_as_int(logit), __float_as_int(sum), (i32)row.tag);
      __threadfence_system();
    }
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  __threadfence();
  if (atomicAdd(state + 1, 1u) != gridDim.x - 1) return;
  state[1] = 0;
  state[0] = step;
  reinterpret_cast<volatile u32*>(slot)[1] = total;
  __threadfence_system();
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(slot), "r"(step) : "memory");
}
