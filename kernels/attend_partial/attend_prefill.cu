// attend_prefill - causal attention of many query tokens over the paged pool, with wgmma (sm_90a).
//
// o[t, h] = sum_i p_i v_i / sum_i p_i, p_i = exp(q[t, h] . k_i / sqrt(D)) over the KV tokens i of [kvBegin, kvEnd) with
// i <= position of t; lse[t, h] = ln sum_i p_i. One launch serves the chunks of several sequences (varlen).
//
// q [token][HEADS][HEAD_DIM] bf16, rotated, not scaled. Pool: see kv_pool.cuh; DP is the padded width of a head.
// Output bf16 [token][HEADS][HEAD_DIM], or, for chunks marked partial, o f32 [row][HEADS][HEAD_DIM] and lse f32 [row][HEADS];
// where nothing is seen, o = 0 and lse = -Infinity.
//
// plan (i32), made by planPrefill in prefill_plan.ts:
//   header [tiles, KV heads a section, 0, 0]
//   tile   of its chunk [query row, tokens, position, kvBegin, kvEnd, first table entry of the sequence, output row, partial],
//          kvBegin a multiple of 256; its own [first row, first KV block, end, parts, slot, first slot, 0, 0]. Rows of a chunk are
//          (token, head of the group), row = token * GROUP + head. A tile that is cut along its KV blocks is there several times,
//          once for each part, with slots of their own.
// An item is a tile and a KV head. Item i lies in section i / (tiles * S) of S KV heads: the keys and values of a section fit
// in L2, and inside a section the longest tiles come first. Blocks take items from `counter`, which is 0 before and after.
//
// Schedule: a cluster of CLUSTER blocks works on a tile of CLUSTER * 64 * WARPGROUPS rows; with two, each fetches every second
// page for both, which halves what is read from L2. In a block, one producer warpgroup (warp 0: items, keys and values, warps
// 1-3: queries) and WARPGROUPS consumers of 64 rows each. Keys and values of 128 tokens are slots of one ring, filled by 1-D
// bulk copies in the order they are used: K(n-1), K(n-2), V(n-1), ... K(0), V(1), V(0). A consumer issues S(j) = Q K(j)' before
// O += P(j+1) V(j+1) and the softmax of j; the consumers take turns in issuing, so that one computes exponentials while the
// other multiplies. The first scores of the next item run while the last one is written. Only blocks that cross the diagonal
// or the end are masked. Blocks lie at absolute positions and go downward, so a row has the same bits whatever chunk or tile
// it came in, unless its tile is cut: then parts leave sums in `slots`, and the last of them joins all, in order.
//
// Where keys and values have 8 bits (KV_FP8), pages land in a ring of their own, warps 1-3 turn them into slots of f16, and all
// products are of f16: queries as the nearest finite f16, weights rounded to f16.
//
// Items, the producer and the way out are in prefill_items.cuh, prefill_source.cuh and prefill_output.cuh.
//
// Needs: HEADS, KV_HEADS, HEAD_DIM (a multiple of 8, at most 256; 128 with KV_FP8) defined; HEADS a multiple of KV_HEADS; a launch of
// 128 * (WARPGROUPS + 1) threads and a multiple of CLUSTER blocks, at most one a multiprocessor; SHARED_END + 1024 bytes of
// dynamic shared memory. KV tokens of [kvBegin, kvEnd) are finite. What lies behind kvEnd, in unused blocks and in unused table
// entries is never used.
//
// Limit: causal 2 * S^2 * HEADS * HEAD_DIM flops at the rate of a large matrix product of the same run. A block reads 64 KB of
// L2 for 8.4 Mflop (half of it with CLUSTER 2): 5 to 7 TB/s at full rate, which is what L2 can give; exponentials take half
// the time of the products and run beside them.
//
// Versions, H100, TFLOP/s of causal prompts of 4K, 16K and 64K tokens, 32/8 heads of 128 (cuDNN beside them 536, 636, 607; a
// matrix product of 8192^3 799): one block a tile, operands' addresses in each thread 547, 640, 616; in uniform registers
// 586, 667, 619; queries of two items and scores begun before the last item is written 620, 691, 655; pairs of blocks 623,
// 725, 678. With 32/32 heads the last two are 606, 673, 650 and 596, 679, 662, so those keep one block a tile.
//
// Test: attend_prefill_cuda_test.ts. Time: `deno run -A kernels/attend_partial/attend_prefill_cuda_bench.ts`.
//
// @arch sm_90a
// @define HEADS=9 KV_HEADS=3 HEAD_DIM=64 CLUSTER=2 SLOTS=8
// @define HEADS=32 KV_HEADS=8 HEAD_DIM=128 CLUSTER=2
// @define HEADS=32 KV_HEADS=32 HEAD_DIM=128 CLUSTER=1
// @define HEADS=16 KV_HEADS=1 HEAD_DIM=80 CLUSTER=2
// @define HEADS=8 KV_HEADS=1 HEAD_DIM=256 CLUSTER=2 SLOTS=3
// @define HEADS=16 KV_HEADS=16 HEAD_DIM=192 CLUSTER=1 SLOTS=5
// @define HEADS=32 KV_HEADS=8 HEAD_DIM=128 CLUSTER=2 KV_FP8=1 SLOTS=4
// @define HEADS=9 KV_HEADS=3 HEAD_DIM=64 CLUSTER=2 KV_FP8=1 SLOTS=8 STAGES=4

#include "prefill_output.cuh"
#include "prefill_source.cuh"

// Whether sums of blocks that raise no maximum are not multiplied by their factor of 1: worth it in pairs of blocks only.
#ifndef SKIP
#define SKIP (CLUSTER > 1)
#endif

DEVICE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

DEVICE float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

DEVICE float quad_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

// What a thread keeps of its two rows, g and g + 8 of its warp's 16: columns 2 (lane % 4) and the next of every 8.
struct Rows {
  float max[2] = {-INFINITE, -INFINITE};  // of the scores, not scaled
  float sum[2] = {0.0f, 0.0f};            // of this thread's columns
  float decay[2];                         // what the sums so far are to be multiplied by
};

// Scores to weights, in place. `column` is the first KV token of the thread, `limit` one past the last that a row sees.
template <bool MASK>
DEVICE void weigh(float (&s)[BLOCK / 2], Rows& rows, int column, const int (&limit)[2], float scale) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (MASK) {
#pragma unroll
      for (int j = 0; j < BLOCK / 8; j++) {
        if (column + 8 * j >= limit[i]) s[4 * j + 2 * i] = -INFINITE;
        if (column + 8 * j + 1 >= limit[i]) s[4 * j + 2 * i + 1] = -INFINITE;
      }
    }
    float most[4];
#pragma unroll
    for (int c = 0; c < 4; c++) most[c] = fmaxf(s[4 * c + 2 * i], s[4 * c + 2 * i + 1]);
#pragma unroll
    for (int j = 4; j < BLOCK / 8; j++) most[j % 4] = fmaxf(fmaxf(most[j % 4], s[4 * j + 2 * i]), s[4 * j + 2 * i + 1]);
    const float max = quad_max(fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3])));
    const float next = fmaxf(rows.max[i], max);
    // A row that has seen nothing yet: subtract nothing, so that -Infinity gives 0.
    const float from = MASK && next == -INFINITE ? 0.0f : next * scale;
    rows.decay[i] = exp2_fast(rows.max[i] * scale - from);
    rows.max[i] = next;
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int j = 0; j < BLOCK / 8; j++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const float weight = exp2_fast(fmaf(s[4 * j + 2 * i + e], scale, -from));
        s[4 * j + 2 * i + e] = weight;
        sums[j % 4] += weight;
      }
    }
    rows.sum[i] = fmaf(rows.sum[i], rows.decay[i], (sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
}

// Weights as the left operand of the product with the values: [step of 16 tokens][register].
DEVICE void pack_weights(u32 (&p)[BLOCK / 4], const float (&s)[BLOCK / 2]) {
#pragma unroll
  for (int i = 0; i < BLOCK / 4; i++) p[i] = KV_FP8 ? f16_pair(s[2 * i], s[2 * i + 1]) : bf16_pair(s[2 * i], s[2 * i + 1]);
}

DEVICE void multiply_keys(float (&s)[BLOCK / 2], u32 queries, u32 slot) {
#pragma unroll
  for (int k = 0; k < STEPS; k++) {
    const u64 a = wgmma_operand(queries, k / 4 * (ROWS * 128) + k % 4 * 32, 16);
    const u64 b = wgmma_operand(slot, k / 4 * (PAGES * SUBTILE_BYTES) + k % 4 * 32, 16);
    wgmma_rows(s, a, b, k > 0);
  }
}

// 16 tokens' values from FIRST dimensions on, at most 128 at a time.
template <int FIRST = 0>
DEVICE void add_values(float (&o)[OD / 2], const u32* p, u32 values, u32 at) {
  constexpr int N = OD - FIRST < 128 ? OD - FIRST : 128;
  wgmma_columns(*(float (*)[N / 2])(o + FIRST / 2), p, wgmma_operand(values, at + FIRST / 64 * SUBTILE_BYTES, SUBTILE_BYTES), 1);
  if constexpr (FIRST + N < OD) add_values<FIRST + N>(o, p, values, at);
}

DEVICE void multiply_values(float (&o)[OD / 2], const u32 (&p)[BLOCK / 4], u32 slot) {
#pragma unroll
  for (int k = 0; k < BLOCK / 16; k++) add_values(o, p + 4 * k, slot, k / 4 * PAGE_BYTES + k % 4 * 2048);
}

// Where parts of tiles meet: float4s of [slot][KV head][block of the cluster][share of a node][thread], and how many parts of
// [first slot][KV head][block of the cluster][warp] are there.
struct Parts {
  float4* slots;
  u32* arrived;
};

// Leaves a part in its slot. Whether it is the last of its tile; then it becomes the whole: sums, maxima and values of all.
DEVICE bool join_parts(const Item& item, float (&o)[OD / 2], Rows& rows, float scale, const Parts& parts) {
  constexpr int WORDS = OD / 8 + 1, ALL = 128 * WARPGROUPS;
  const int thread = threadIdx.x - 128, lane = thread % 32;
  const auto place = [&](int slot) {
    return parts.slots + (u64)((slot * KV_HEADS + item.kvHead) * CLUSTER + cluster_rank()) * (WORDS * ALL) + thread;
  };
  float4* own = place(item.slot);
#pragma unroll
  for (int i = 0; i < WORDS - 1; i++) __stcg(own + i * ALL, make_float4(o[4 * i], o[4 * i + 1], o[4 * i + 2], o[4 * i + 3]));
  __stcg(own + (WORDS - 1) * ALL, make_float4(rows.max[0], rows.max[1], rows.sum[0], rows.sum[1]));
  __threadfence();
  __syncwarp();
  u32 before = 0;
  if (lane == 0) {
    u32* counter = parts.arrived + ((item.firstSlot * KV_HEADS + item.kvHead) * CLUSTER + cluster_rank()) * CONSUMER_WARPS + thread / 32;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    if (before == (u32)item.parts - 1) *counter = 0;
  }
  before = __shfl_sync(~0u, before, 0);
  if (before != (u32)item.parts - 1) return false;
  __threadfence();
  float most[2] = {-INFINITE, -INFINITE};
  for (int part = 0; part < item.parts; part++) {
    const float4 of = load_float4(place(item.firstSlot + part) + (WORDS - 1) * ALL);
    most[0] = fmaxf(most[0], of.x);
    most[1] = fmaxf(most[1], of.y);
  }
#pragma unroll
  for (int i = 0; i < OD / 2; i++) o[i] = 0.0f;
  float sum[2] = {0.0f, 0.0f};
  for (int part = 0; part < item.parts; part++) {
    const float4* from = place(item.firstSlot + part);
    const float4 of = load_float4(from + (WORDS - 1) * ALL);
    const float weight[2] = {of.x == -INFINITE ? 0.0f : exp2_fast((of.x - most[0]) * scale),
                             of.y == -INFINITE ? 0.0f : exp2_fast((of.y - most[1]) * scale)};
    sum[0] = fmaf(of.z, weight[0], sum[0]);
    sum[1] = fmaf(of.w, weight[1], sum[1]);
#pragma unroll
    for (int i = 0; i < WORDS - 1; i++) {
      const float4 four = load_float4(from + i * ALL);
      o[4 * i] = fmaf(four.x, weight[0], o[4 * i]);
      o[4 * i + 1] = fmaf(four.y, weight[0], o[4 * i + 1]);
      o[4 * i + 2] = fmaf(four.z, weight[1], o[4 * i + 2]);
      o[4 * i + 3] = fmaf(four.w, weight[1], o[4 * i + 3]);
    }
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    rows.max[i] = most[i];
    rows.sum[i] = sum[i];
  }
  return true;
}

DEVICE void take_turn(int warpgroup) { asm volatile("bar.sync %0, 256;" ::"r"(1 + warpgroup) : "memory"); }
DEVICE void pass_turn(int warpgroup) { asm volatile("bar.arrive %0, 256;" ::"r"(1 + warpgroup) : "memory"); }

DEVICE void consume(u32 shared, float scale, const Output& output, const Parts& parts) {
  const int warpgroup = uniform(threadIdx.x / 128 - 1), warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32;
  const int following = (warpgroup + 1) % WARPGROUPS;
  const int column = 2 * (lane % 4);
  Items queue{shared};
  Ring<SLOTS> ring;
  u32 turn = 0;  // items begun: says which queries
  float o[OD / 2], s[BLOCK / 2];
  u32 p[BLOCK / 4];
  if (warpgroup == WARPGROUPS - 1) pass_turn(0);

  const auto full = [&] {
    barrier_wait(shared + FULL_AT + 8 * ring.slot, ring.parity);
    return uniform(shared + RING_AT + ring.slot * SLOT_BYTES);
  };
  const auto release = [&](u32 slot) {
    // Slots that come out of landings are filled by this block alone.
    if (KV_FP8 ? lane == 0 : lane < CLUSTER) {
      if (KV_FP8) barrier_arrive(shared + EMPTY_AT + 8 * slot);
      else barrier_arrive_in(shared + EMPTY_AT + 8 * slot, lane);
    }
  };
  const auto queries = [&] { return uniform(shared + (turn & 1) * Q_BYTES + warpgroup * (64 * 128)); };

  Item item = queue.next();
  if (item.end > 0) {
    barrier_wait(shared + Q_FULL_AT, 0);
    const u32 keys = full();
    wgmma_fence();
    multiply_keys(s, queries(), keys);
    wgmma_commit();
  }
  while (item.end > 0) {
    const int row = item.row + warpgroup * 64 + warp * 16 + lane / 4;
    // Positions and limits count from kvBegin.
    const int length = item.kvEnd - item.kvBegin, position = item.position - item.kvBegin;
    const int limit[2] = {min(length, position + row / GROUP + 1), min(length, position + (row + 8) / GROUP + 1)};
    const int unmasked = min(item.end, max(0, min(length, position + item.row / GROUP + 1)) / BLOCK);
    Rows rows;
#pragma unroll
    for (int i = 0; i < OD / 2; i++) o[i] = 0.0f;

    // The scores of the first block are on their way.
    wgmma_wait<0>();
    hold(s);
    release(ring.slot);
    ring.advance();
    weigh<true>(s, rows, (item.end - 1) * BLOCK + column, limit, scale);
    pack_weights(p, s);

    const auto step = [&](bool mask, int block) __attribute__((always_inline)) {
      const u32 keys = full(), keySlot = ring.slot;
      take_turn(warpgroup);
      hold(p);
      hold(o);
      wgmma_fence();
      multiply_keys(s, queries(), keys);
      wgmma_commit();
      ring.advance();
      const u32 values = full(), valueSlot = ring.slot;
      wgmma_fence();
      multiply_values(o, p, values);
      wgmma_commit();
      ring.advance();
      pass_turn(following);
      wgmma_wait<1>();
      hold(s);
      release(keySlot);
      if (mask) {
        weigh<true>(s, rows, block * BLOCK + column, limit, scale);
      } else {
        weigh<false>(s, rows, block * BLOCK + column, limit, scale);
      }
      wgmma_wait<0>();
      hold(o);
      hold(p);
      release(valueSlot);
      pack_weights(p, s);
      // A factor of 1 changes nothing; most blocks raise no row's maximum.
      if (!SKIP || __any_sync(~0u, rows.decay[0] != 1.0f || rows.decay[1] != 1.0f)) {
#pragma unroll
        for (int i = 0; i < OD / 2; i++) o[i] *= rows.decay[i / 2 % 2];
      }
    };
    int block = item.end - 2;
    for (; block >= max(unmasked, item.begin); block--) step(true, block);
    for (; block >= item.begin; block--) step(false, block);
    __syncwarp();
    if (lane == 0) barrier_arrive(shared + Q_EMPTY_AT + 8 * (turn & 1));

    // The last product with values, and behind it the first scores of the next item, which run while this one is written.
    const Item next = queue.next();
    turn++;
    const u32 values = full(), valueSlot = ring.slot;
    ring.advance();
    u32 keys = values;
    if (next.end > 0) {
      barrier_wait(shared + Q_FULL_AT + 8 * (turn & 1), turn >> 1 & 1);
      keys = full();
    }
    take_turn(warpgroup);
    hold(p);
    hold(o);
    wgmma_fence();
    multiply_values(o, p, values);
    wgmma_commit();
    wgmma_fence();
    multiply_keys(s, queries(), keys);
    wgmma_commit();
    pass_turn(following);
    wgmma_wait<1>();
    hold(o);
    hold(p);
    release(valueSlot);
#pragma unroll
    for (int i = 0; i < 2; i++) rows.sum[i] = quad_sum(rows.sum[i]);
    if (item.parts == 1 || join_parts(item, o, rows, scale, parts)) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const float sum = rows.sum[i], inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
        const auto lse = [&] { return sum == 0.0f ? -INFINITE : (rows.max[i] * scale + log2f(sum)) * 0.69314718055994531f; };
        write_row(item, row + 8 * i, i, o, inverse, output, lse);
      }
    }
    item = next;
  }
  wgmma_wait<0>();
  hold(s);
  if (warpgroup == 0) take_turn(0);
}

// layer: the pool at the layer's offset. scale: log2(e) / sqrt(HEAD_DIM).
extern "C" __global__ __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 1) void attend_prefill(
    const bf16* q, const u8* layer, const int* table,
    const int* plan, bf16* out, float* partialO,
    float* partialLse, u32* counter, u64 blockBytes, float scale, float4* slots, u32* arrived) {
  extern __shared__ u8 raw[];
  const u32 shared = ((u32)__cvta_generic_to_shared(raw) + 1023) & ~1023u;
  if (threadIdx.x == 0) make_barriers(shared);
  cluster_sync();
  await_predecessors();
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(PRODUCER_REGISTERS));
    if (threadIdx.x < 32) {
      produce(shared, layer, table, plan, blockBytes, counter);
    } else {
      load(shared, q);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(CONSUMER_REGISTERS));
    consume(shared, scale, {out, partialO, partialLse}, {slots, arrived});
  }
  // No block goes while others may still reach into it.
  if (CLUSTER > 1) cluster_sync();
}
