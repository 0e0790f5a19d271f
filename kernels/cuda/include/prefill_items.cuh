// Prefill attention: what its blocks share. Sizes, places in shared memory, and items on their way to everybody.
//
// attend_prefill.cu describes the schedule. The includer defines HEADS, KV_HEADS, HEAD_DIM, and SLOTS, CLUSTER, STAGES, TREE as
// it needs them.
#pragma once
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
#ifndef STAGES
#define STAGES 2
#endif
#ifndef CLUSTER
#define CLUSTER 1
#endif
// Whether keys and values of a block follow one another, and partials of blocks are kept for the tree.
#ifndef TREE
#define TREE 0
#endif

constexpr int GROUP = HEADS / KV_HEADS;
constexpr int DP = KV_PADDED_DIM(HEAD_DIM);
constexpr int SUBTILES = DP / 64;
constexpr int PAGE = KV_BLOCK_TOKENS;
// Pages of a block, whose keys or values are a slot.
constexpr int PAGES = DP <= 128 ? 2 : 1;
constexpr int BLOCK = PAGES * PAGE;
// Steps of 16 dimensions that hold any, and dimensions of the output that are computed.
constexpr int STEPS = (HEAD_DIM + 15) / 16;
constexpr int OD = HEAD_DIM > 64 && HEAD_DIM <= 96 ? 96 : DP;
// Of pages in slots, 16 bits an element.
constexpr int SUBTILE_BYTES = 8192;
constexpr int PAGE_BYTES = SUBTILES * SUBTILE_BYTES;
constexpr int SLOT_BYTES = PAGES * PAGE_BYTES;
// Of pages in the pool.
constexpr int PART_BYTES = KV_PART_BYTES(HEAD_DIM);
constexpr int HEAD_BYTES = 2 * PART_BYTES;
// Where keys and values have 8 bits they land here and become 16 in a slot.
constexpr int LANDINGS = KV_FP8 ? STAGES : 0;
constexpr int LANDING_BYTES = PAGES * PART_BYTES;
constexpr int ROWS = 64 * WARPGROUPS;
constexpr int TILE_ROWS = ROWS * CLUSTER;
constexpr int Q_BYTES = ROWS * DP * 2;
constexpr int ITEM_BYTES = 64;
constexpr int ITEMS = 4;  // of the ring on which blocks learn of them
constexpr int CONSUMER_WARPS = 4 * WARPGROUPS;
constexpr int LOADER_WARPS = 3;
constexpr int THREADS = 128 * (WARPGROUPS + 1);
// What a launch gets, 168 (or 128) registers for each thread, is dealt out again.
constexpr int CONSUMER_REGISTERS = WARPGROUPS == 2 ? (TREE ? 224 : 216) : 160;
constexpr int PRODUCER_REGISTERS = WARPGROUPS == 2 ? (TREE ? 56 : 72) : 32;

// Shared memory: two tiles of queries [subtile][ROWS][128 bytes], the ring, landings, partials of the tree, items, barriers.
constexpr int RING_AT = 2 * Q_BYTES;
constexpr int LANDINGS_AT = RING_AT + SLOTS * SLOT_BYTES;
constexpr int HELD_AT = LANDINGS_AT + LANDINGS * LANDING_BYTES;
constexpr int ITEMS_AT = HELD_AT + (TREE ? ROWS * DP * 4 : 0);
constexpr int FULL_AT = ITEMS_AT + ITEMS * ITEM_BYTES;
constexpr int EMPTY_AT = FULL_AT + 8 * SLOTS;
constexpr int TAIL_AT = EMPTY_AT + 8 * SLOTS;
constexpr int Q_FULL_AT = TAIL_AT + 8 * SLOTS;
constexpr int Q_EMPTY_AT = Q_FULL_AT + 16;
constexpr int ITEM_FULL_AT = Q_EMPTY_AT + 16;
constexpr int ITEM_EMPTY_AT = ITEM_FULL_AT + 8 * ITEMS;
// Between the producers of a cluster: the number of the next item.
constexpr int INDEX_FULL_AT = ITEM_EMPTY_AT + 8 * ITEMS;
constexpr int INDEX_EMPTY_AT = INDEX_FULL_AT + 16;
constexpr int INDEX_AT = INDEX_EMPTY_AT + 16;
constexpr int LANDED_AT = INDEX_AT + 8;
constexpr int LEFT_AT = LANDED_AT + 8 * LANDINGS;
constexpr int SHARED_END = LEFT_AT + 8 * LANDINGS;

static_assert(HEADS % KV_HEADS == 0, "HEADS is a multiple of KV_HEADS");
static_assert(HEAD_DIM % 8 == 0 && HEAD_DIM <= (TREE ? 128 : 256), "HEAD_DIM is a multiple of 8, at most 256");
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

// A tile and a KV head, or a part of their KV blocks: four times four numbers, as the plan has them but for row and KV head.
struct Item {
  int queryRow, tokens, position, kvBegin;
  int kvEnd, table, outRow, partial;
  int row, begin, end, parts;  // row: the block's first row in the chunk; KV blocks [begin, end), at least one; end = 0: no item
  int slot, firstSlot, kvHead, unused;
};

DEVICE Item read_item(const int* plan, int tiles, int section, int index) {
  const int within = index % (tiles * section);
  const int4* from = (const int4*)(plan + 4 + 16 * (within / section));
  Item item;
  int4* words = (int4*)&item;
#pragma unroll
  for (int i = 0; i < 4; i++) words[i] = from[i];
  item.row += cluster_rank() * ROWS;
  item.kvHead = index / (tiles * section) * section + within % section;
  return item;
}

// Items on their way from the producer to everybody in the block: a ring.
struct Items {
  u32 shared;
  u32 turn = 0;

  DEVICE Item next() {
    const u32 slot = turn % ITEMS;
    barrier_wait(shared + ITEM_FULL_AT + 8 * slot, turn / ITEMS & 1);
    Item item;
    int* words = &item.queryRow;
#pragma unroll
    for (int i = 0; i < 16; i += 4) {
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
    const u32 slot = turn % ITEMS;
    barrier_wait(shared + ITEM_EMPTY_AT + 8 * slot, (turn / ITEMS & 1) ^ 1);
    if (threadIdx.x % 32 == 0) {
      const int* words = &item.queryRow;
#pragma unroll
      for (int i = 0; i < 16; i += 4) {
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

// Position in a ring.
template <int SIZE>
struct Ring {
  u32 slot = 0;
  u32 parity = 0;

  DEVICE void advance() {
    if (++slot == SIZE) {
      slot = 0;
      parity ^= 1;
    }
  }
};

// Once, by one thread of each block, before any of them begins.
DEVICE void make_barriers(u32 shared) {
  for (int i = 0; i < SLOTS; i++) {
    barrier_init(shared + FULL_AT + 8 * i, KV_FP8 ? LOADER_WARPS : 1);
    barrier_init(shared + EMPTY_AT + 8 * i, (KV_FP8 ? 1 : CLUSTER) * CONSUMER_WARPS);
    barrier_init(shared + TAIL_AT + 8 * i, 1);
  }
  for (int i = 0; i < LANDINGS; i++) {
    barrier_init(shared + LANDED_AT + 8 * i, 1);
    barrier_init(shared + LEFT_AT + 8 * i, CLUSTER * LOADER_WARPS);
  }
  for (int i = 0; i < 2; i++) {
    barrier_init(shared + Q_FULL_AT + 8 * i, LOADER_WARPS);
    barrier_init(shared + Q_EMPTY_AT + 8 * i, CONSUMER_WARPS);
    barrier_init(shared + INDEX_FULL_AT + 8 * i, 1);
    barrier_init(shared + INDEX_EMPTY_AT + 8 * i, 1);
  }
  for (int i = 0; i < ITEMS; i++) {
    barrier_init(shared + ITEM_FULL_AT + 8 * i, 1);
    barrier_init(shared + ITEM_EMPTY_AT + 8 * i, CONSUMER_WARPS + LOADER_WARPS);
  }
  barriers_made();
}
