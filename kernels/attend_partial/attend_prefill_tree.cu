// attend_prefill_tree - attend_prefill with the bits of attend_decode: for devices that promise the same bits for the same token,
// whether it came in a chunk or alone.
//
// Formula, arguments, plan, roles and the ring are those of attend_prefill.cu; `pending` has LEVELS * 17 * 256 * 16 bytes for each
// block of the launch. scale: 1 / sqrt(HEAD_DIM).
//
// Bits: a leaf is a page of 64 tokens. Its scores are the sums of the even and of the odd steps of 16 dimensions, added; its
// weights, their sum and its normalised o follow the order of attend_decode.cu; the tensor cores give the same sums through wgmma
// and mma.sync. Leaves merge in the binary tree over the page number (merge_partials.cuh). kvBegin is where a node of the tree
// begins that holds all of [kvBegin, kvEnd), so pages may be counted from it.
//
// Schedule: pages go downward, two of a slot at a time. Their node is merged with the one to its right, if that is waiting, and so
// upward; a node that is a right half waits: of 2 pages in shared memory, of more in `pending`.
//
// Limit: beside the products of attend_prefill.cu, of 512 cycles a leaf and warpgroup, half of them at N = 64: normalising and
// merging, about 200 instructions a leaf and thread on top of the softmax's 190; nodes of 4 pages and more, 64 KB of L2 a block
// of 128 tokens, as much as the keys and values.
//
// Test: attend_prefill_tree_cuda_test.ts. Time: `deno run -A kernels/attend_partial/attend_prefill_cuda_bench.ts`.
//
// @arch sm_90a
// @define HEADS=9 KV_HEADS=3 HEAD_DIM=64 CLUSTER=2 SLOTS=8
// @define HEADS=32 KV_HEADS=8 HEAD_DIM=128 CLUSTER=2 SLOTS=3
// @define HEADS=32 KV_HEADS=32 HEAD_DIM=128 CLUSTER=1 SLOTS=3
// @define HEADS=16 KV_HEADS=1 HEAD_DIM=80 CLUSTER=2 SLOTS=3

#define TREE 1
#include "merge_partials.cuh"
#include "prefill_output.cuh"
#include "prefill_source.cuh"

constexpr int HELD = OD / 2;
// float4s of a thread's share of a node, the last for lse.
constexpr int NODE_WORDS = HELD / 4 + 1;

DEVICE float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

DEVICE float quad_sum(float x) {
  x = __fadd_rn(x, __shfl_xor_sync(~0u, x, 1));
  return __fadd_rn(x, __shfl_xor_sync(~0u, x, 2));
}

// Scores of a page: sums of the even and odd steps.
DEVICE void multiply_keys(float (&even)[32], float (&odd)[32], u32 queries, u32 slot, int page) {
#pragma unroll
  for (int k = 0; k < STEPS; k++) {
    const u64 a = wgmma_operand(queries, k / 4 * (ROWS * 128) + k % 4 * 32, 16);
    const u64 b = wgmma_operand(slot, k / 4 * (2 * SUBTILE_BYTES) + page * SUBTILE_BYTES + k % 4 * 32, 16);
    if (k < 2) wgmma_new_rows(k % 2 ? odd : even, a, b);
    else wgmma_rows(k % 2 ? odd : even, a, b, 1);
  }
}

DEVICE void multiply_values(float (&o)[HELD], const u32 (&p)[16], u32 slot, int page) {
#pragma unroll
  for (int k = 0; k < PAGE / 16; k++) {
    const u64 v = wgmma_operand(slot, page * PAGE_BYTES + k * 2048, SUBTILE_BYTES);
    if (k == 0) wgmma_new_columns(o, p, v);
    else wgmma_columns(o, p + 4 * k, v, 1);
  }
}

// A node's lse, or what a leaf's o is multiplied by, of the thread's two rows.
struct Two {
  float of[2];
};

// Scores to weights, in place of the even ones. `column` is the first token of the thread, `limit` one past the last that a row
// sees.
template <bool MASK>
DEVICE void weigh(float (&s)[32], const float (&odd)[32], Two& lse, Two& inverse, int column, const int (&limit)[2], float scale) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float x[16];
#pragma unroll
    for (int j = 0; j < 16; j++) {
      const int at = j / 2 * 4 + 2 * i + j % 2;
      x[j] = STEPS > 1 ? __fadd_rn(s[at], odd[at]) : s[at];
      if (MASK && column + j / 2 * 8 + j % 2 >= limit[i]) x[j] = NO_LSE;
    }
    float most = fmaxf(x[0], x[1]);
#pragma unroll
    for (int j = 2; j < 16; j += 2) most = fmaxf(fmaxf(most, x[j]), x[j + 1]);
    most = quad_max(most);
    const float by = __fmul_rn(scale, LOG2E);
    // A row that sees nothing of the page: subtract nothing, so that -Infinity gives 0.
    const bool none = MASK && most == NO_LSE;
    const float shift = none ? 0.0f : __fmul_rn(most, -by);
#pragma unroll
    for (int j = 0; j < 16; j++) {
      x[j] = exp2_of(__fmaf_rn(x[j], by, shift));
      s[j / 2 * 4 + 2 * i + j % 2] = x[j];
    }
#pragma unroll
    for (int j = 0; j < 8; j++) x[j] = __fadd_rn(x[j], x[j + 8]);
#pragma unroll
    for (int j = 0; j < 4; j++) x[j] = __fadd_rn(x[j], x[j + 4]);
    const float sum = quad_sum(__fadd_rn(__fadd_rn(x[0], x[2]), __fadd_rn(x[1], x[3])));
    lse.of[i] = none ? NO_LSE : __fmaf_rn(log2_of(sum), LN2, __fmul_rn(most, scale));
    inverse.of[i] = none ? 0.0f : inverse_of(sum);
  }
}

// Weights as the left operand of the product with the values: [step of 16 tokens][register].
DEVICE void pack_weights(u32 (&p)[16], const float (&s)[32]) {
#pragma unroll
  for (int i = 0; i < 16; i++) p[i] = bf16_pair(s[2 * i], s[2 * i + 1]);
}

// What the node to the left and the one to the right are multiplied by; `right` becomes the lse of both.
DEVICE void merge_rows(const Two& left, Two& right, Two& toLeft, Two& toRight) {
#pragma unroll
  for (int i = 0; i < 2; i++) right.of[i] = merge_lse(left.of[i], right.of[i], toLeft.of[i], toRight.of[i]);
}

DEVICE void put_float4(u32 to, float4 x) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w) : "memory");
}

DEVICE float4 get_float4(u32 from) {
  float4 x;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "r"(from) : "memory");
  return x;
}

// Nodes that wait for the one to their left; at most one of a level.
struct Tree {
  u32 shared;       // of this thread's share of a node of two pages
  float4* pending;  // of this thread's share of the first node of more
  Two heldLse;
  u32 waiting = 0;

  DEVICE static u32 place(int i) { return i * (128 * WARPGROUPS * 16); }

  // Takes the node of two pages with that number; numbers go down to 0, where `o` is what all make together.
  DEVICE void push(float (&o)[HELD], Two& lse, int number) {
    if (number & 1) {
#pragma unroll
      for (int i = 0; i < HELD / 4; i++) put_float4(shared + place(i), {o[4 * i], o[4 * i + 1], o[4 * i + 2], o[4 * i + 3]});
      heldLse = lse;
      waiting |= 1;
      return;
    }
    Two toLeft, toRight;
    if (waiting & 1) {
      merge_rows(lse, heldLse, toLeft, toRight);
      lse = heldLse;
#pragma unroll
      for (int i = 0; i < HELD / 4; i++) {
        const float4 right = get_float4(shared + place(i));
        join(o, i, right, toLeft, toRight);
      }
    }
    waiting >>= 1;
    float4* node = pending;
    int level = 0;
    for (number >>= 1; number > 0 || waiting >> level != 0; number >>= 1, level++, node += NODE_WORDS * 128 * WARPGROUPS) {
      if (number & 1) {
#pragma unroll
        for (int i = 0; i < HELD / 4; i++) {
          __stcg(node + i * (128 * WARPGROUPS), make_float4(o[4 * i], o[4 * i + 1], o[4 * i + 2], o[4 * i + 3]));
        }
        __stcg(node + HELD / 4 * (128 * WARPGROUPS), make_float4(lse.of[0], lse.of[1], 0.0f, 0.0f));
        waiting |= 1 << level;
        break;
      }
      if (waiting >> level & 1) {
        const float4 kept = load_float4(node + HELD / 4 * (128 * WARPGROUPS));
        Two right = {kept.x, kept.y};
        merge_rows(lse, right, toLeft, toRight);
        lse = right;
#pragma unroll
        for (int i = 0; i < HELD / 4; i++) join(o, i, load_float4(node + i * (128 * WARPGROUPS)), toLeft, toRight);
        waiting &= ~(1 << level);
      }
    }
    waiting <<= 1;
  }

  DEVICE static void join(float (&o)[HELD], int i, float4 right, const Two& toLeft, const Two& toRight) {
    o[4 * i] = merge_o(o[4 * i], right.x, toLeft.of[0], toRight.of[0]);
    o[4 * i + 1] = merge_o(o[4 * i + 1], right.y, toLeft.of[0], toRight.of[0]);
    o[4 * i + 2] = merge_o(o[4 * i + 2], right.z, toLeft.of[1], toRight.of[1]);
    o[4 * i + 3] = merge_o(o[4 * i + 3], right.w, toLeft.of[1], toRight.of[1]);
  }
};

DEVICE void consume(u32 shared, float scale, const Output& output, float4* pending) {
  const int thread = threadIdx.x - 128;
  const int warpgroup = uniform(thread / 128), warp = thread % 128 / 32, lane = thread % 32;
  const int column = 2 * (lane % 4);
  Items queue{shared};
  Ring<SLOTS> ring;
  Tree tree{shared + HELD_AT + 16 * thread, pending + thread};

  const auto full = [&] {
    barrier_wait(shared + FULL_AT + 8 * ring.slot, ring.parity);
    return uniform(shared + RING_AT + ring.slot * SLOT_BYTES);
  };
  const auto release = [&](u32 slot) {
    if (lane < CLUSTER) barrier_arrive_in(shared + EMPTY_AT + 8 * slot, lane);
  };

  for (u32 turn = 0;; turn++) {
    const Item item = queue.next();
    if (item.end == 0) break;
    const int row = item.row + warpgroup * 64 + warp * 16 + lane / 4;
    // Positions and limits count from kvBegin.
    const int length = item.kvEnd - item.kvBegin, position = item.position - item.kvBegin;
    const int limit[2] = {min(length, position + row / GROUP + 1), min(length, position + (row + 8) / GROUP + 1)};
    const int unmasked = min(item.end, max(0, min(length, position + item.row / GROUP + 1)) / BLOCK);
    barrier_wait(shared + Q_FULL_AT + 8 * (turn & 1), turn >> 1 & 1);
    const u32 queries = uniform(shared + (turn & 1) * Q_BYTES + warpgroup * (64 * 128));
    float o[HELD], right[HELD], s[32], odd[32];
    u32 p[16];
    Two lse, inverse, rightLse, rightInverse;

    const auto step = [&](bool mask, int block) __attribute__((always_inline)) {
      const auto weighed = [&](int page, Two& pageLse, Two& pageInverse) __attribute__((always_inline)) {
        const int first = block * BLOCK + page * PAGE + column;
        if (mask) {
          weigh<true>(s, odd, pageLse, pageInverse, first, limit, scale);
        } else {
          weigh<false>(s, odd, pageLse, pageInverse, first, limit, scale);
        }
      };
      const u32 keys = full(), keySlot = ring.slot;
      ring.advance();
      wgmma_fence();
      multiply_keys(s, odd, queries, keys, 1);
      wgmma_commit();
      wgmma_wait<0>();
      hold(s);
      hold(odd);
      weighed(1, rightLse, rightInverse);
      pack_weights(p, s);
      const u32 values = full(), valueSlot = ring.slot;
      ring.advance();
      hold(p);
      wgmma_fence();
      multiply_keys(s, odd, queries, keys, 0);
      wgmma_commit();
      multiply_values(right, p, values, 1);
      wgmma_commit();
      wgmma_wait<1>();
      hold(s);
      hold(odd);
      release(keySlot);
      weighed(0, lse, inverse);
      wgmma_wait<0>();
      hold(right);
      hold(p);
      pack_weights(p, s);
      hold(p);
      wgmma_fence();
      multiply_values(o, p, values, 0);
      wgmma_commit();
      Two toLeft, toRight;
      merge_rows(lse, rightLse, toLeft, toRight);
      lse = rightLse;
#pragma unroll
      for (int i = 0; i < HELD; i++) right[i] = __fmul_rn(right[i], rightInverse.of[i / 2 % 2]);
      wgmma_wait<0>();
      hold(o);
      hold(p);
      release(valueSlot);
#pragma unroll
      for (int i = 0; i < HELD; i++) {
        o[i] = merge_o(__fmul_rn(o[i], inverse.of[i / 2 % 2]), right[i], toLeft.of[i / 2 % 2], toRight.of[i / 2 % 2]);
      }
      tree.push(o, lse, block);
    };
    int block = item.end - 1;
    for (; block >= unmasked; block--) step(true, block);
    for (; block >= 0; block--) step(false, block);
    __syncwarp();
    if (lane == 0) barrier_arrive(shared + Q_EMPTY_AT + 8 * (turn & 1));
#pragma unroll
    for (int i = 0; i < 2; i++) write_row(item, row + 8 * i, i, o, 1.0f, output, [&] { return lse.of[i]; });
  }
}

// layer: the pool at the layer's offset. scale: 1 / sqrt(HEAD_DIM).
extern "C" __global__ __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 1) void attend_prefill_tree(
    const bf16* q, const u8* layer, const int* table,
    const int* plan, bf16* out, float* partialO,
    float* partialLse, u32* counter, u64 blockBytes, float scale, float4* pending, int levels) {
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
    consume(shared, scale, {out, partialO, partialLse}, pending + (u64)blockIdx.x * levels * (NODE_WORDS * 128 * WARPGROUPS));
  }
  // No block goes while others may still reach into it.
  if (CLUSTER > 1) cluster_sync();
}
