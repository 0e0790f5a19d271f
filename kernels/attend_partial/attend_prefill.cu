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
//   header [tiles, chunks, KV heads a section, 0]
//   chunk  [query row, tokens, position, kvBegin, kvEnd, first table entry of the sequence, output row, partial], kvBegin
//          a multiple of 256
//   tile   [chunk, first row]: rows of a chunk are (token, head of the group), row = token * GROUP + head
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
// it came in.
//
// The file is long because its roles meet at the same barriers and places in shared memory, which only make sense together.
//
// Needs: HEADS, KV_HEADS, HEAD_DIM (a multiple of 8, at most 128) defined; HEADS a multiple of KV_HEADS; a launch of
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

#include "bulk_copy.cuh"
#include "dependents.cuh"
#include "kv_pool.cuh"
#define WGMMA_F16 KV_FP8
#include "wgmma.cuh"

#ifndef WARPGROUPS
#define WARPGROUPS 2
#endif
#ifndef SLOTS
#define SLOTS 5
#endif
#ifndef CLUSTER
#define CLUSTER 1
#endif
// Whether sums of blocks that raise no maximum are not multiplied by their factor of 1: worth it in pairs of blocks only.
#ifndef SKIP
#define SKIP (CLUSTER > 1)
#endif

constexpr int GROUP = HEADS / KV_HEADS;
constexpr int DP = KV_PADDED_DIM(HEAD_DIM);
constexpr int SUBTILES = DP / 64;
constexpr int PAGE = KV_BLOCK_TOKENS;
constexpr int BLOCK = 2 * PAGE;
constexpr int SUBTILE_BYTES = KV_SUBTILE_BYTES;
constexpr int PAGE_BYTES = KV_PART_BYTES(HEAD_DIM);
constexpr int HEAD_BYTES = 2 * PAGE_BYTES;
constexpr int SLOT_BYTES = 2 * PAGE_BYTES;
constexpr int ROWS = 64 * WARPGROUPS;
constexpr int TILE_ROWS = ROWS * CLUSTER;
constexpr int Q_BYTES = ROWS * DP * 2;
constexpr int ITEM_BYTES = 48;
constexpr int CONSUMER_WARPS = 4 * WARPGROUPS;
constexpr int LOADER_WARPS = 3;
constexpr int THREADS = 128 * (WARPGROUPS + 1);
// What a launch gets, 168 (or 128) registers for each thread, is dealt out again.
constexpr int CONSUMER_REGISTERS = WARPGROUPS == 2 ? 216 : 160;
constexpr int PRODUCER_REGISTERS = WARPGROUPS == 2 ? 72 : 32;

// Shared memory: two tiles of queries [subtile][ROWS][128 bytes], the ring, items, barriers.
constexpr int RING_AT = 2 * Q_BYTES;
constexpr int ITEMS_AT = RING_AT + SLOTS * SLOT_BYTES;
constexpr int FULL_AT = ITEMS_AT + 2 * ITEM_BYTES;
constexpr int EMPTY_AT = FULL_AT + 8 * SLOTS;
constexpr int TAIL_AT = EMPTY_AT + 8 * SLOTS;
constexpr int Q_FULL_AT = TAIL_AT + 8 * SLOTS;
constexpr int Q_EMPTY_AT = Q_FULL_AT + 16;
constexpr int ITEM_FULL_AT = Q_EMPTY_AT + 16;
constexpr int ITEM_EMPTY_AT = ITEM_FULL_AT + 16;
// Between the producers of a cluster: the number of the next item.
constexpr int INDEX_FULL_AT = ITEM_EMPTY_AT + 16;
constexpr int INDEX_EMPTY_AT = INDEX_FULL_AT + 16;
constexpr int INDEX_AT = INDEX_EMPTY_AT + 16;
constexpr int SHARED_END = INDEX_AT + 8;

static_assert(HEADS % KV_HEADS == 0, "HEADS is a multiple of KV_HEADS");
static_assert(HEAD_DIM % 8 == 0 && HEAD_DIM <= 128, "HEAD_DIM is a multiple of 8, at most 128");
static_assert(SHARED_END + 1024 <= 232448, "shared memory of a block");

#define DEVICE __device__ __forceinline__
// Number of this block in its cluster.
DEVICE u32 cluster_rank() {
  if (CLUSTER == 1) return 0;
  u32 rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Where `address` of this block's shared memory is in that of block `rank` of the cluster.
DEVICE u32 in_block(u32 address, u32 rank) {
  u32 there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}

DEVICE void barrier_arrive_in(u32 barrier, u32 rank) {
  if (CLUSTER == 1) return barrier_arrive(barrier);
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(in_block(barrier, rank)) : "memory");
}

DEVICE void cluster_sync() {
  if (CLUSTER == 1) return __syncthreads();
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// Into the same place of every block of the cluster; their barriers at the same place count the bytes.
DEVICE void bulk_copy_all(u32 to, const u8* from, u32 bytes, u32 barrier) {
  if (CLUSTER == 1) return bulk_copy(to, from, bytes, barrier);
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"((u16)((1 << CLUSTER) - 1))
      : "memory");
}

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

// A tile and a KV head. In shared memory as three times four numbers.
struct Item {
  int queryRow, tokens, position, kvBegin;
  int kvEnd, outRow, partial, row;  // row: first row of this block's tile in the chunk
  int kvHead, blocks, table, unused;  // blocks: KV blocks that some row of the cluster's tiles sees, at least 1; 0: no item
};

DEVICE Item read_item(const int* plan, int index) {
  const int tiles = plan[0], chunks = plan[1], section = plan[2];
  const int within = index % (tiles * section);
  const int* tile = plan + 4 + 8 * chunks + 2 * (within / section);
  const int* chunk = plan + 4 + 8 * tile[0];
  Item item;
  item.queryRow = chunk[0];
  item.tokens = chunk[1];
  item.position = chunk[2];
  item.kvBegin = chunk[3];
  item.kvEnd = chunk[4];
  item.table = chunk[5];
  item.outRow = chunk[6];
  item.partial = chunk[7];
  item.row = tile[1] + cluster_rank() * ROWS;
  item.kvHead = index / (tiles * section) * section + within % section;
  const int last = min(tile[1] + TILE_ROWS, item.tokens * GROUP) - 1;
  const int end = min(item.kvEnd, item.position + last / GROUP + 1);
  item.blocks = max(1, end - item.kvBegin + BLOCK - 1) / BLOCK;
  item.blocks = max(1, item.blocks);
  item.unused = 0;
  return item;
}

// Items on their way from the producer to everybody in the block: a ring of two.
struct Items {
  u32 shared;
  u32 turn = 0;

  DEVICE Item next() {
    const u32 slot = turn & 1;
    barrier_wait(shared + ITEM_FULL_AT + 8 * slot, turn >> 1 & 1);
    Item item;
    int* words = &item.queryRow;
#pragma unroll
    for (int i = 0; i < 12; i += 4) {
      asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(words[i]), "=r"(words[i + 1]), "=r"(words[i + 2]), "=r"(words[i + 3])
                   : "r"(shared + ITEMS_AT + slot * ITEM_BYTES + 4 * i)
                   : "memory");
    }
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(shared + ITEM_EMPTY_AT + 8 * slot);
    turn++;
    return item;
  }

  DEVICE void put(const Item& item) {
    const u32 slot = turn & 1;
    barrier_wait(shared + ITEM_EMPTY_AT + 8 * slot, (turn >> 1 & 1) ^ 1);
    if (threadIdx.x % 32 == 0) {
      const int* words = &item.queryRow;
#pragma unroll
      for (int i = 0; i < 12; i += 4) {
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(shared + ITEMS_AT + slot * ITEM_BYTES + 4 * i),
                     "r"(words[i]), "r"(words[i + 1]), "r"(words[i + 2]), "r"(words[i + 3])
                     : "memory");
      }
      barrier_arrive(shared + ITEM_FULL_AT + 8 * slot);
    }
    __syncwarp();
    turn++;
  }
};

// Numbers of items on their way from the first producer of a cluster to the second: a ring of two.
struct Indices {
  u32 shared;
  u32 turn = 0;

  DEVICE void put(int index) {
    const u32 slot = turn & 1;
    barrier_wait(shared + INDEX_EMPTY_AT + 8 * slot, (turn >> 1 & 1) ^ 1);
    if (threadIdx.x % 32 == 0) {
      asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(
                       in_block(shared + INDEX_AT + 4 * slot, 1)),
                   "r"(index), "r"(in_block(shared + INDEX_FULL_AT + 8 * slot, 1))
                   : "memory");
    }
    __syncwarp();
    turn++;
  }

  DEVICE int next() {
    const u32 slot = turn & 1;
    if (threadIdx.x % 32 == 0) barrier_expect(shared + INDEX_FULL_AT + 8 * slot, 4);
    __syncwarp();
    barrier_wait(shared + INDEX_FULL_AT + 8 * slot, turn >> 1 & 1);
    int index;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(index) : "r"(shared + INDEX_AT + 4 * slot) : "memory");
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive_in(shared + INDEX_EMPTY_AT + 8 * slot, 0);
    turn++;
    return index;
  }
};

// A value that all lanes have, in a form that lets the compiler know.
DEVICE u32 uniform(u32 x) { return __shfl_sync(~0u, x, 0); }

// Position in the ring of slots.
struct Ring {
  u32 slot = 0;
  u32 parity = 0;

  DEVICE void advance() {
    if (++slot == SLOTS) {
      slot = 0;
      parity ^= 1;
    }
  }
};

// Warp 0 of the producer: takes items, tells them to the others and fills the ring.
struct Source {
  u32 shared;
  const u8* head;  // of the item's KV head, in block 0 of the pool
  u64 blockBytes;
  int length;                 // KV tokens of the item's chunk
  Ring ring;
  u32 tailParities = 0;  // one for each slot

  // Whether this block of the cluster fetches the first or second page of a slot.
  DEVICE static bool mine(u32 page) { return CLUSTER == 1 || page == cluster_rank(); }

  DEVICE const u8* page(int block, bool value) const {
    return head + (u64)block * blockBytes + (value ? PAGE_BYTES : 0);
  }

  // Pages beyond the chunk's end are not there; what the slot holds in their place is masked.
  DEVICE void keys(int block, int first, int second) {
    const u32 full = shared + FULL_AT + 8 * ring.slot, slot = shared + RING_AT + ring.slot * SLOT_BYTES;
    const int pages = min(2, (length - block * BLOCK + PAGE - 1) / PAGE);
    barrier_wait(shared + EMPTY_AT + 8 * ring.slot, ring.parity ^ 1);
    if (threadIdx.x % 32 == 0) {
      barrier_expect(full, pages * PAGE_BYTES);
#pragma unroll
      for (int sub = 0; sub < SUBTILES; sub++) {
        const u32 to = slot + sub * 2 * SUBTILE_BYTES;
        if (pages > 0 && mine(0)) bulk_copy_all(to, page(first, false) + sub * SUBTILE_BYTES, SUBTILE_BYTES, full);
        if (pages > 1 && mine(1)) bulk_copy_all(to + SUBTILE_BYTES, page(second, false) + sub * SUBTILE_BYTES, SUBTILE_BYTES, full);
      }
    }
    __syncwarp();
    ring.advance();
  }

  // Values are multiplied by zero where they are masked, so those behind the end are made zero before anybody reads them.
  DEVICE void values(int block, int first, int second) {
    const u32 full = shared + FULL_AT + 8 * ring.slot, slot = shared + RING_AT + ring.slot * SLOT_BYTES;
    const int valid = min(BLOCK, length - block * BLOCK), pages = (valid + PAGE - 1) / PAGE;
    barrier_wait(shared + EMPTY_AT + 8 * ring.slot, ring.parity ^ 1);
    const u32 landed = valid == BLOCK ? full : shared + TAIL_AT + 8 * ring.slot;
    if (threadIdx.x % 32 == 0) {
      barrier_expect(landed, pages * PAGE_BYTES);
#pragma unroll
      for (int sub = 0; sub < SUBTILES; sub++) {
        const u32 to = slot + sub * SUBTILE_BYTES;
        if (pages > 0 && mine(0)) bulk_copy_all(to, page(first, true) + sub * SUBTILE_BYTES, SUBTILE_BYTES, landed);
        if (pages > 1 && mine(1)) {
          bulk_copy_all(to + PAGE_BYTES, page(second, true) + sub * SUBTILE_BYTES, SUBTILE_BYTES, landed);
        }
      }
    }
    __syncwarp();
    if (valid < BLOCK) {
      barrier_wait(landed, tailParities >> ring.slot & 1);
      tailParities ^= 1 << ring.slot;
      for (int chunk = threadIdx.x % 32; chunk < (BLOCK - valid) * SUBTILES * 8; chunk += 32) {
        const int token = valid + chunk / (SUBTILES * 8), within = chunk % (SUBTILES * 8);
        const u32 to = slot + token / PAGE * PAGE_BYTES + within / 8 * SUBTILE_BYTES + token % PAGE * 128 + within % 8 * 16;
        asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(0) : "memory");
      }
      wgmma_publish();
      __syncwarp();
      if (threadIdx.x % 32 == 0) barrier_arrive(full);
    }
    ring.advance();
  }
};

DEVICE void produce(u32 shared, const u8* layer, const int* table, const int* plan, u64 blockBytes, u32* counter) {
  const int lane = threadIdx.x % 32;
  const int items = plan[0] * KV_HEADS;
  const bool leads = cluster_rank() == 0;
  Items queue{shared};
  Indices indices{shared};
  Source source{shared, layer, blockBytes};
  int index = blockIdx.x / CLUSTER;
  for (;;) {
    if (CLUSTER > 1 && leads) indices.put(index);
    if (CLUSTER > 1 && !leads) index = indices.next();
    if (index >= items) break;
    int next = 0;
    if (leads && lane == 0) next = gridDim.x / CLUSTER + atomicInc(counter, items - 1);
    const Item item = read_item(plan, index);
    queue.put(item);
    source.head = layer + (u64)item.kvHead * HEAD_BYTES;
    source.length = item.kvEnd - item.kvBegin;
    const int* entries = table + item.table + item.kvBegin / PAGE;
    const int pages = (source.length + PAGE - 1) / PAGE;
    // A lane keeps one table entry of a window of 32 pages, and one of the window below, which is read ahead.
    int window = (item.blocks - 1) / 16;
    const auto entry = [&](int of) { return of >= 0 && 32 * of + lane < pages ? entries[32 * of + lane] : 0; };
    int current = entry(window), below = entry(window - 1);
    int first = 0, second = 0;
    for (int block = item.blocks - 1; block >= 0; block--) {
      if (block / 16 != window) {
        window = block / 16;
        current = below;
        below = entry(window - 1);
      }
      const int nextFirst = __shfl_sync(~0u, current, 2 * block % 32);
      const int nextSecond = __shfl_sync(~0u, current, 2 * block % 32 + 1);
      source.keys(block, nextFirst, nextSecond);
      if (block + 1 < item.blocks) source.values(block + 1, first, second);
      first = nextFirst;
      second = nextSecond;
    }
    source.values(0, first, second);
    index = __shfl_sync(~0u, next, 0);
  }
  release_dependents();
  Item none = {};
  queue.put(none);
}

// Warps 1 to 3 of the producer: queries of an item into swizzled rows; rows and dims that do not exist become zero.
DEVICE void load_queries(u32 shared, const bf16* q) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32 - 1;
  constexpr int ROW_CHUNKS = SUBTILES * 8;
  Items queue{shared};
  for (u32 turn = 0;; turn++) {
    const Item item = queue.next();
    if (item.blocks == 0) break;
    const u32 buffer = turn & 1;
    barrier_wait(shared + Q_EMPTY_AT + 8 * buffer, (turn >> 1 & 1) ^ 1);
    for (int first = warp * (32 / ROW_CHUNKS); first < ROWS; first += LOADER_WARPS * (32 / ROW_CHUNKS)) {
      const int r = first + lane / ROW_CHUNKS, c = lane % ROW_CHUNKS;
      const int row = item.row + r, token = row / GROUP;
      const bool real = token < item.tokens && 8 * c < HEAD_DIM;
      const u64 at = (u64)(item.queryRow + (real ? token : 0)) * HEADS + item.kvHead * GROUP + row % GROUP;
      const u32 to = shared + buffer * Q_BYTES + c / 8 * (ROWS * 128) + r * 128 + ((c % 8) ^ (r % 8)) * 16;
      if (r < ROWS) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(q + at * HEAD_DIM + (real ? 8 * c : 0)),
                     "r"(real ? 16 : 0)
                     : "memory");
      }
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
    wgmma_publish();
    __syncwarp();
    if (lane == 0) barrier_arrive(shared + Q_FULL_AT + 8 * buffer);
  }
}

// What a thread keeps of its two rows, g and g + 8 of its warp's 16: columns 2 (lane % 4) and the next of every 8.
struct Rows {
  float max[2] = {-INFINITE, -INFINITE};  // of the scores, not scaled
  float sum[2] = {0.0f, 0.0f};            // of this thread's columns
  float decay[2];                         // what the sums so far are to be multiplied by
};

// Scores to weights, in place. `column` is the first KV token of the thread, `limit` one past the last that a row sees.
template <bool MASK>
DEVICE void weigh(float (&s)[64], Rows& rows, int column, const int (&limit)[2], float scale) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (MASK) {
#pragma unroll
      for (int j = 0; j < 16; j++) {
        if (column + 8 * j >= limit[i]) s[4 * j + 2 * i] = -INFINITE;
        if (column + 8 * j + 1 >= limit[i]) s[4 * j + 2 * i + 1] = -INFINITE;
      }
    }
    float most[4];
#pragma unroll
    for (int c = 0; c < 4; c++) most[c] = fmaxf(s[4 * c + 2 * i], s[4 * c + 2 * i + 1]);
#pragma unroll
    for (int j = 4; j < 16; j++) most[j % 4] = fmaxf(fmaxf(most[j % 4], s[4 * j + 2 * i]), s[4 * j + 2 * i + 1]);
    const float max = quad_max(fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3])));
    const float next = fmaxf(rows.max[i], max);
    // A row that has seen nothing yet: subtract nothing, so that -Infinity gives 0.
    const float from = MASK && next == -INFINITE ? 0.0f : next * scale;
    rows.decay[i] = exp2_fast(rows.max[i] * scale - from);
    rows.max[i] = next;
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int j = 0; j < 16; j++) {
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
DEVICE void pack_weights(u32 (&p)[32], const float (&s)[64]) {
#pragma unroll
  for (int i = 0; i < 32; i++) p[i] = bf16_pair(s[2 * i], s[2 * i + 1]);
}

DEVICE void multiply_keys(float (&s)[64], u32 queries, u32 slot) {
#pragma unroll
  for (int k = 0; k < DP / 16; k++) {
    const u64 a = wgmma_operand(queries, k / 4 * (ROWS * 128) + k % 4 * 32, 16);
    const u64 b = wgmma_operand(slot, k / 4 * (2 * SUBTILE_BYTES) + k % 4 * 32, 16);
    wgmma_rows(s, a, b, k > 0);
  }
}

DEVICE void multiply_values(float (&o)[DP / 2], const u32 (&p)[32], u32 slot) {
#pragma unroll
  for (int k = 0; k < BLOCK / 16; k++) {
    wgmma_columns(o, p + 4 * k, wgmma_operand(slot, k / 4 * PAGE_BYTES + k % 4 * 2048, SUBTILE_BYTES), 1);
  }
}

// Word i of thread q of four becomes word q of thread i.
DEVICE void transpose_quad(u32 (&w)[4]) {
  const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const u32 got = __shfl_xor_sync(~0u, odd ? w[i] : w[i + 1], 1);
    w[i] = odd ? got : w[i];
    w[i + 1] = odd ? w[i + 1] : got;
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const u32 got = __shfl_xor_sync(~0u, high ? w[i] : w[i + 2], 2);
    w[i] = high ? got : w[i];
    w[i + 2] = high ? w[i + 2] : got;
  }
}

struct Output {
  bf16* out;
  float* partialO;
  float* partialLse;
};

// Row g + 8 i of the warp: normalises and writes it.
DEVICE void write_row(const Item& item, int row, int i, const float (&o)[DP / 2], const Rows& rows, float scale,
                      const Output& output) {
  const int lane = threadIdx.x % 32;
  const float sum = quad_sum(rows.sum[i]);
  const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
  const bool real = row < item.tokens * GROUP;
  const u64 at = (u64)(item.outRow + row / GROUP) * HEADS + item.kvHead * GROUP + row % GROUP;
  if (item.partial) {
    if (!real) return;
#pragma unroll
    for (int j = 0; j < DP / 8; j++) {
      if (8 * j < HEAD_DIM) {
        float2 pair = {o[4 * j + 2 * i] * inverse, o[4 * j + 2 * i + 1] * inverse};
        *(float2*)(output.partialO + at * HEAD_DIM + 8 * j + 2 * (lane % 4)) = pair;
      }
    }
    const float ln2 = 0.69314718055994531f;
    if (lane % 4 == 0) output.partialLse[at] = sum == 0.0f ? -INFINITE : (rows.max[i] * scale + log2f(sum)) * ln2;
    return;
  }
#pragma unroll
  for (int j = 0; j < DP / 8; j += 4) {
    u32 words[4];
#pragma unroll
    for (int c = 0; c < 4; c++) {
      words[c] = bf16_pair(o[4 * (j + c) + 2 * i] * inverse, o[4 * (j + c) + 2 * i + 1] * inverse);
    }
    transpose_quad(words);
    const int dim = 8 * (j + lane % 4);
    if (real && dim < HEAD_DIM) *(uint4*)(output.out + at * HEAD_DIM + dim) = {words[0], words[1], words[2], words[3]};
  }
}

DEVICE void take_turn(int warpgroup) { asm volatile("bar.sync %0, 256;" ::"r"(1 + warpgroup) : "memory"); }
DEVICE void pass_turn(int warpgroup) { asm volatile("bar.arrive %0, 256;" ::"r"(1 + warpgroup) : "memory"); }

DEVICE void consume(u32 shared, float scale, const Output& output) {
  const int warpgroup = uniform(threadIdx.x / 128 - 1), warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32;
  const int following = (warpgroup + 1) % WARPGROUPS;
  const int column = 2 * (lane % 4);
  Items queue{shared};
  Ring ring;
  u32 turn = 0;  // items begun: says which queries
  float o[DP / 2], s[64];
  u32 p[32];
  if (warpgroup == WARPGROUPS - 1) pass_turn(0);

  const auto full = [&] {
    barrier_wait(shared + FULL_AT + 8 * ring.slot, ring.parity);
    return uniform(shared + RING_AT + ring.slot * SLOT_BYTES);
  };
  const auto release = [&](u32 slot) {
    if (lane < CLUSTER) barrier_arrive_in(shared + EMPTY_AT + 8 * slot, lane);
  };
  const auto queries = [&] { return uniform(shared + (turn & 1) * Q_BYTES + warpgroup * (64 * 128)); };

  Item item = queue.next();
  if (item.blocks > 0) {
    barrier_wait(shared + Q_FULL_AT, 0);
    const u32 keys = full();
    wgmma_fence();
    multiply_keys(s, queries(), keys);
    wgmma_commit();
  }
  while (item.blocks > 0) {
    const int row = item.row + warpgroup * 64 + warp * 16 + lane / 4;
    // Positions and limits count from kvBegin.
    const int length = item.kvEnd - item.kvBegin, position = item.position - item.kvBegin;
    const int limit[2] = {min(length, position + row / GROUP + 1), min(length, position + (row + 8) / GROUP + 1)};
    const int unmasked = min(item.blocks, max(0, min(length, position + item.row / GROUP + 1)) / BLOCK);
    Rows rows;
#pragma unroll
    for (int i = 0; i < DP / 2; i++) o[i] = 0.0f;

    // The scores of the first block are on their way.
    wgmma_wait<0>();
    hold(s);
    release(ring.slot);
    ring.advance();
    weigh<true>(s, rows, (item.blocks - 1) * BLOCK + column, limit, scale);
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
        for (int i = 0; i < DP / 2; i++) o[i] *= rows.decay[i / 2 % 2];
      }
    };
    int block = item.blocks - 2;
    for (; block >= unmasked; block--) step(true, block);
    for (; block >= 0; block--) step(false, block);
    __syncwarp();
    if (lane == 0) barrier_arrive(shared + Q_EMPTY_AT + 8 * (turn & 1));

    // The last product with values, and behind it the first scores of the next item, which run while this one is written.
    const Item next = queue.next();
    turn++;
    const u32 values = full(), valueSlot = ring.slot;
    ring.advance();
    u32 keys = values;
    if (next.blocks > 0) {
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
    write_row(item, row, 0, o, rows, scale, output);
    write_row(item, row + 8, 1, o, rows, scale, output);
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
    float* partialLse, u32* counter, u64 blockBytes, float scale) {
  extern __shared__ u8 raw[];
  const u32 shared = ((u32)__cvta_generic_to_shared(raw) + 1023) & ~1023u;
  if (threadIdx.x == 0) {
    for (int i = 0; i < SLOTS; i++) {
      barrier_init(shared + FULL_AT + 8 * i, 1);
      barrier_init(shared + EMPTY_AT + 8 * i, CLUSTER * CONSUMER_WARPS);
      barrier_init(shared + TAIL_AT + 8 * i, 1);
    }
    for (int i = 0; i < 2; i++) {
      barrier_init(shared + Q_FULL_AT + 8 * i, LOADER_WARPS);
      barrier_init(shared + Q_EMPTY_AT + 8 * i, CONSUMER_WARPS);
      barrier_init(shared + ITEM_FULL_AT + 8 * i, 1);
      barrier_init(shared + ITEM_EMPTY_AT + 8 * i, CONSUMER_WARPS + LOADER_WARPS);
      barrier_init(shared + INDEX_FULL_AT + 8 * i, 1);
      barrier_init(shared + INDEX_EMPTY_AT + 8 * i, 1);
    }
    barriers_made();
  }
  cluster_sync();
  await_predecessors();
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(PRODUCER_REGISTERS));
    if (threadIdx.x < 32) {
      produce(shared, layer, table, plan, blockBytes, counter);
    } else {
      load_queries(shared, q);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(CONSUMER_REGISTERS));
    consume(shared, scale, {out, partialO, partialLse});
  }
  // No block goes while others may still reach into it.
  if (CLUSTER > 1) cluster_sync();
}
