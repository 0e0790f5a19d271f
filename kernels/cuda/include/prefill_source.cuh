// Prefill attention: the producer warpgroup, which brings keys, values and queries into shared memory.
#pragma once
#include "prefill_items.cuh"

DEVICE uint4 get_chunk(u32 from) {
  uint4 words;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "r"(from)
               : "memory");
  return words;
}

DEVICE void put_chunk(u32 to, uint4 words) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w)
               : "memory");
}

#define LARGEST_F16 65504.0f

// Two values rounded to nearest even, `low` in the low half.
DEVICE u32 f16_pair(float low, float high) {
  u32 pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// The two numbers of 8 bits in the low half.
DEVICE u32 f16_of_e4m3(u32 two) {
  u32 pair;
#if KV_FP8
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pair) : "h"((u16)two));
#else
  pair = two;
#endif
  return pair;
}

// Warp 0 of the producer: takes items, tells them to the others and fills the ring.
struct Source {
  u32 shared;
  const u8* head;  // of the item's KV head, in block 0 of the pool
  u64 blockBytes;
  int length;                 // KV tokens of the item's chunk
  Ring<KV_FP8 ? STAGES : SLOTS> ring;
  u32 tailParities = 0;  // one for each slot

  // Whether this block of the cluster fetches that subtile of that page: every second page or, if a slot has one, subtile.
  DEVICE static bool mine(u32 page, u32 sub) { return CLUSTER == 1 || (PAGES > 1 ? page : sub) % CLUSTER == cluster_rank(); }

  DEVICE const u8* page(int block, bool value) const {
    return head + (u64)block * blockBytes + (value ? PART_BYTES : 0);
  }

  // Subtiles of a block's pages: those of keys in the order [subtile][page], of values [page][subtile].
  template <bool VALUE>
  DEVICE void copy(u32 to, int pages, int first, int second, u32 landed) const {
    constexpr int BYTES = KV_SUBTILE_BYTES;
#pragma unroll
    for (int sub = 0; sub < SUBTILES; sub++) {
#pragma unroll
      for (int i = 0; i < PAGES; i++) {
        const int place = VALUE ? i * SUBTILES + sub : sub * PAGES + i;
        if (i < pages && mine(i, sub)) bulk_copy_all(to + place * BYTES, page(i ? second : first, VALUE) + sub * BYTES, BYTES, landed);
      }
    }
  }

  // Pages of 8 bits.
  template <bool VALUE>
  DEVICE void land(int block, int first, int second) {
    const u32 landed = shared + LANDED_AT + 8 * ring.slot, to = shared + LANDINGS_AT + ring.slot * LANDING_BYTES;
    const int pages = min(PAGES, (length - block * BLOCK + PAGE - 1) / PAGE);
    barrier_wait(shared + LEFT_AT + 8 * ring.slot, ring.parity ^ 1);
    if (threadIdx.x % 32 == 0) {
      barrier_expect(landed, pages * PART_BYTES);
      copy<VALUE>(to, pages, first, second, landed);
    }
    __syncwarp();
    ring.advance();
  }

  // Pages beyond the chunk's end are not there; what the slot holds in their place is masked.
  DEVICE void keys(int block, int first, int second) {
    if (KV_FP8) return land<false>(block, first, second);
    const u32 full = shared + FULL_AT + 8 * ring.slot, slot = shared + RING_AT + ring.slot * SLOT_BYTES;
    const int pages = min(PAGES, (length - block * BLOCK + PAGE - 1) / PAGE);
    barrier_wait(shared + EMPTY_AT + 8 * ring.slot, ring.parity ^ 1);
    if (threadIdx.x % 32 == 0) {
      barrier_expect(full, pages * PAGE_BYTES);
      copy<false>(slot, pages, first, second, full);
    }
    __syncwarp();
    ring.advance();
  }

  // Values are multiplied by zero where they are masked, so those behind the end are made zero before anybody reads them.
  DEVICE void values(int block, int first, int second) {
    if (KV_FP8) return land<true>(block, first, second);
    const u32 full = shared + FULL_AT + 8 * ring.slot, slot = shared + RING_AT + ring.slot * SLOT_BYTES;
    const int valid = min(BLOCK, length - block * BLOCK), pages = (valid + PAGE - 1) / PAGE;
    barrier_wait(shared + EMPTY_AT + 8 * ring.slot, ring.parity ^ 1);
    const u32 landed = valid == BLOCK ? full : shared + TAIL_AT + 8 * ring.slot;
    if (threadIdx.x % 32 == 0) {
      barrier_expect(landed, pages * PAGE_BYTES);
      copy<true>(slot, pages, first, second, landed);
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

// The block ids of an item: a lane keeps one of a window of 32 pages, and one of the window below, which is read ahead.
struct Table {
  static constexpr int WINDOW = 32 / PAGES;
  const int* entries;
  int pages;
  int window, current, below;

  DEVICE void open(const Item& item, const int* table) {
    entries = table + item.table + item.kvBegin / PAGE;
    pages = (item.kvEnd - item.kvBegin + PAGE - 1) / PAGE;
    window = (item.end - 1) / WINDOW;
    current = entry(window);
    below = entry(window - 1);
  }

  DEVICE int entry(int of) const {
    const int lane = threadIdx.x % 32;
    return of >= 0 && 32 * of + lane < pages ? entries[32 * of + lane] : 0;
  }

  // Ids of the first and the last page of a block. Blocks are asked for downward.
  DEVICE int2 pages_of(int block) {
    if (block / WINDOW != window) {
      window = block / WINDOW;
      current = below;
      below = entry(window - 1);
    }
    return {__shfl_sync(~0u, current, PAGES * block % 32), __shfl_sync(~0u, current, PAGES * block % 32 + PAGES - 1)};
  }
};

DEVICE void produce(u32 shared, const u8* layer, const int* table, const int* plan, u64 blockBytes, u32* counter) {
  const int tiles = plan[0], section = plan[1], items = tiles * KV_HEADS;
  const bool leads = cluster_rank() == 0;
  Items queue{shared};
  Indices indices{shared};
  Source source{shared, layer, blockBytes};
  Item item;
  Table pages, nextPages;
  // Tells everybody of the item of that number, or that there is none.
  const auto take = [&](int index) __attribute__((always_inline)) {
    if (CLUSTER > 1 && leads) indices.put(index);
    if (CLUSTER > 1 && !leads) index = indices.next();
    Item taken = {};
    if (index < items) taken = read_item(plan, tiles, section, index);
    queue.put(taken);
    if (index < items) nextPages.open(taken, table);
    return taken;
  };
  // The number of the item after the next is on its way while the next one is told of, and that while pages of this one wait
  // for room.
  const auto draw = [&] { return leads && threadIdx.x % 32 == 0 ? gridDim.x / CLUSTER + atomicInc(counter, items - 1) : 0; };
  item = take(blockIdx.x / CLUSTER);
  u32 next = item.end > 0 ? draw() : 0;
  while (item.end > 0) {
    source.head = layer + (u64)item.kvHead * HEAD_BYTES;
    source.length = item.kvEnd - item.kvBegin;
    pages = nextPages;
    int2 above = pages.pages_of(item.end - 1);
    source.keys(item.end - 1, above.x, above.y);
    const Item taken = take(__shfl_sync(~0u, next, 0));
    if (taken.end > 0) next = draw();
    for (int block = item.end - 2; block >= item.begin; block--) {
      if (TREE) source.values(block + 1, above.x, above.y);
      const int2 ids = pages.pages_of(block);
      source.keys(block, ids.x, ids.y);
      if (!TREE) source.values(block + 1, above.x, above.y);
      above = ids;
    }
    source.values(item.begin, above.x, above.y);
    item = taken;
  }
  release_dependents();
}

// Row, chunk of 16 bytes and place of the queries of a tile that the thread loads.
template <class Visit>
DEVICE void each_chunk(u32 queries, Visit visit) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32 - 1;
  constexpr int ROW_CHUNKS = SUBTILES * 8;
#pragma unroll 4
  for (int first = warp * (32 / ROW_CHUNKS); first < ROWS; first += LOADER_WARPS * (32 / ROW_CHUNKS)) {
    const int r = first + lane / ROW_CHUNKS, c = lane % ROW_CHUNKS;
    if (r < ROWS) visit(r, c, queries + c / 8 * (ROWS * 128) + r * 128 + ((c % 8) ^ (r % 8)) * 16);
  }
}

// Warps 1 to 3 of the producer: queries of an item into swizzled rows; rows and dims that do not exist become zero. Where keys
// and values have 8 bits, queries become the nearest finite numbers of f16.
DEVICE void load_queries(u32 shared, const bf16* q, const Item& item, u32 turn) {
  const u32 buffer = turn & 1;
  barrier_wait(shared + Q_EMPTY_AT + 8 * buffer, (turn >> 1 & 1) ^ 1);
  each_chunk(shared + buffer * Q_BYTES, [&](int r, int c, u32 to) {
    const int row = item.row + r, token = row / GROUP;
    const bool real = token < item.tokens && 8 * c < HEAD_DIM;
    const u64 at = (u64)(item.queryRow + (real ? token : 0)) * HEADS + item.kvHead * GROUP + row % GROUP;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(q + at * HEAD_DIM + (real ? 8 * c : 0)),
                 "r"(real ? 16 : 0)
                 : "memory");
  });
  asm volatile("cp.async.wait_all;" ::: "memory");
  if (KV_FP8) {
    each_chunk(shared + buffer * Q_BYTES, [&](int r, int c, u32 to) {
      uint4 words = get_chunk(to);
      u32* word = &words.x;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float low = fminf(fmaxf(bf16_low(word[i]), -LARGEST_F16), LARGEST_F16);
        const float high = fminf(fmaxf(bf16_high(word[i]), -LARGEST_F16), LARGEST_F16);
        word[i] = f16_pair(low, high);
      }
      put_chunk(to, words);
    });
  }
  wgmma_publish();
  __syncwarp();
  if (threadIdx.x % 32 == 0) barrier_arrive(shared + Q_FULL_AT + 8 * buffer);
}

// Warps 1 to 3 of the producer, where keys and values have 8 bits: the next landing becomes the next slot, in f16. Of values,
// tokens from `valid` on become zero.
//
// Rows of 64 dimensions lie in the same order on both sides, 64 and 128 bytes each. A thread takes every 24th row, so that its
// place in the swizzles stays the same.
DEVICE void unpack(u32 shared, Ring<LANDINGS + 1 - KV_FP8>& landings, Ring<SLOTS>& slots, bool value, int valid) {
  constexpr int ALL_ROWS = PAGES * PAGE * SUBTILES, STEP = 8 * LOADER_WARPS, AHEAD = 4;
  const int thread = threadIdx.x % 128 - 32, first = thread / 4;
  const int chunk = (thread % 4 ^ (first / 2 % 4)) * 2;
  const u32 from = shared + LANDINGS_AT + landings.slot * LANDING_BYTES + thread * 16;
  const u32 to = shared + RING_AT + slots.slot * SLOT_BYTES + first * 128;
  const u32 low = to + (chunk ^ first % 8) * 16, high = to + (chunk + 1 ^ first % 8) * 16;
  const bool whole = !value || valid >= BLOCK;
  barrier_wait(shared + LANDED_AT + 8 * landings.slot, landings.parity);
  barrier_wait(shared + EMPTY_AT + 8 * slots.slot, slots.parity ^ 1);
#pragma unroll
  for (int base = 0; base < ALL_ROWS; base += AHEAD * STEP) {
    uint4 words[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      const int row = base + i * STEP;
      if (row + STEP <= ALL_ROWS || row + first < ALL_ROWS) words[i] = get_chunk(from + row * 64);
    }
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      const int row = base + i * STEP;
      if (row + STEP > ALL_ROWS && row + first >= ALL_ROWS) continue;
      uint4 a = {f16_of_e4m3(words[i].x), f16_of_e4m3(words[i].x >> 16), f16_of_e4m3(words[i].y), f16_of_e4m3(words[i].y >> 16)};
      uint4 b = {f16_of_e4m3(words[i].z), f16_of_e4m3(words[i].z >> 16), f16_of_e4m3(words[i].w), f16_of_e4m3(words[i].w >> 16)};
      if (!whole && (row + first) / (PAGE * SUBTILES) * PAGE + (row + first) % PAGE >= valid) a = b = {0, 0, 0, 0};
      put_chunk(low + row * 128, a);
      put_chunk(high + row * 128, b);
    }
  }
  wgmma_publish();
  __syncwarp();
  if (threadIdx.x % 32 == 0) barrier_arrive(shared + FULL_AT + 8 * slots.slot);
  if (threadIdx.x % 32 < CLUSTER) barrier_arrive_in(shared + LEFT_AT + 8 * landings.slot, threadIdx.x % 32);
  landings.advance();
  slots.advance();
}

// Warps 1 to 3 of the producer.
DEVICE void load(u32 shared, const bf16* q) {
  Items queue{shared};
  Ring<LANDINGS + 1 - KV_FP8> landings;
  Ring<SLOTS> slots;
  for (u32 turn = 0;; turn++) {
    const Item item = queue.next();
    if (item.end == 0) break;
    load_queries(shared, q, item, turn);
    if (!KV_FP8) continue;
    const int length = item.kvEnd - item.kvBegin;
    for (int block = item.end - 1; block >= item.begin; block--) {
      unpack(shared, landings, slots, false, length - block * BLOCK);
      const int values = TREE ? block : block + 1;
      if (values < item.end) unpack(shared, landings, slots, true, length - values * BLOCK);
    }
    if (!TREE) unpack(shared, landings, slots, true, length - item.begin * BLOCK);
  }
}
