// attend_decode: paged attention of one query token a job, one launch from the pool to the merged result.
//
// s_i = q . k_i / sqrt(D), lse = ln sum exp(s_i), o = sum exp(s_i - lse) v_i, over the first `tokens` tokens of a job.
//
// Work: attend_decode_plan.cu cuts every job (a sequence, or a node of the merge tree) into aligned nodes of 2^k pages.
// An item is one node of one KV head and yields one partial. A CTA takes its first two items by its number, then by
// ticket. Nodes of a split job meet in the workspace, up to 16 at a time: each says beforehand that it will be there soon,
// and the CTA that says so last waits for the others' numbers and merges them in the same launch. It waits only for CTAs
// that run and wait for nothing but their own pages, so that no number of CTAs in place is needed. No fences: a number
// that is not there yet shows as ABSENT, and whoever reads it makes it so again.
// Warps: warp 4 copies whole page-heads (K and V adjacent, one bulk copy) into a ring; warps 0 to 3 take pages from it.
// Page: tokens are the M axis of K Q^T, dimensions that of V^T P^T, so a group of up to 8 heads costs one N tile; warp
// w scores tokens 16 w to 16 w + 15, all warps exchange scores once through shared memory, and each owns a quarter of
// the dimensions. Two pages are computed side by side where registers allow: one warp a scheduler is bound by latency.
// ALONE (narrow heads): each warp takes pages of a quarter of the item, with a ring of its own, turns its weights around
// in registers, and the four shares are merged at the end; the same sums in the same order.
// Ring: a stage is given back by an arrival of every lane that read it. Its address is made of what was loaded, because an
// arrival overtakes loads from shared memory that are still queued; a fence orders the reads before the copy's writes.
// Bits: a leaf (64 tokens) is computed in one fixed order, then the tree over the page number; every node is kept as (o
// normalised, lse), so it does not matter which CTA, launch or machine computed it, nor what else ran.
//
// Compile time: HEAD_DIM (true D, even, at most 256), GROUP (query heads a KV head, 1 to 16), KV_FP8 (1: a pool of e4m3, read
// as decode_kv.cuh says). Needs bulk copies.
// Limit: bytes of KV over the bulk-copy read rate. Test: attend_decode_cuda_test.ts. Time: attend_decode_cuda_bench.ts.
//
// @arch sm_90a sm_100
// @define HEAD_DIM=128 GROUP=1
// @define HEAD_DIM=128 GROUP=4
// @define HEAD_DIM=64 GROUP=3
// @define HEAD_DIM=80 GROUP=9
// @define HEAD_DIM=256 GROUP=16
// @define HEAD_DIM=128 GROUP=4 KV_FP8=1
// @define HEAD_DIM=64 GROUP=3 KV_FP8=1
// @define HEAD_DIM=256 GROUP=16 KV_FP8=1

#include "bulk_copy.cuh"
#include "dependents.cuh"

constexpr int PAD = (HEAD_DIM + 63) / 64 * 64;
// One warp a page: for narrow heads a page is too little work to share it.
#if HEAD_DIM <= 64 && GROUP <= 8 && !KV_FP8
constexpr bool ALONE = true;
#else
constexpr bool ALONE = false;
#endif
constexpr int TILES_M = ALONE ? 4 : PAD / 64;
constexpr int TILES_N = (GROUP + 7) / 8;
#include "decode_kv.cuh"
#include "decode_tree.cuh"

constexpr int PAGE_BYTES = 2 * SIDE_BYTES;

#ifndef CTAS
#define CTAS (KV_FP8 && SIDE_BYTES <= 8192 ? 2 : 1)
#endif
#ifndef STAGES
#define STAGES (PAD == 64 && !KV_FP8 ? 12 : SIDE_BYTES <= 4096 ? 8 : SIDE_BYTES <= 16384 ? 6 : SIDE_BYTES == 24576 ? 4 : 3)
#endif
// Pages computed side by side: two, where registers and the ring have room.
constexpr int SIDE = ALONE ? 1 : STAGES >= 4 && PAD / 64 * ((GROUP + 7) / 8) <= 4 ? 2 : 1;
constexpr int WARPS = 4;
constexpr int THREADS = (WARPS + 1) * 32;
constexpr int DESCRIPTORS = 4;
// Scores of pages, twice; or a partial of each warp and the weights of merges.
constexpr int PARTIAL_BYTES = (GROUP * PAD + 8) * 4;
constexpr int SCORES_BYTES = ALONE ? (4 * PARTIAL_BYTES + 2048) / 2 : SIDE * TILES_N * 8 * 64 * 4;

// Shared memory, from a base aligned to 1024 bytes.
constexpr int AT_SCORES = STAGES * PAGE_BYTES;
constexpr int AT_DESCRIPTORS = AT_SCORES + 2 * SCORES_BYTES;
constexpr int AT_BARRIERS = AT_DESCRIPTORS + DESCRIPTORS * 32;
constexpr int AT_LAST = AT_BARRIERS + 8 * 2 * (STAGES + DESCRIPTORS);

// A plan entry, i32: first index into the block table, pages, tokens, query row, output row, nodes of the job, slot of
// this node, slot of the job's first node, then the block ids of the first four to be fetched.
constexpr int ENTRY = 12;
#include "decode_page.cuh"
#include "decode_slots.cuh"

// Barriers of the ring (a page has landed, a stage is free) and of the descriptors (told, read).
struct Barriers {
  u32 full, free, told, read;

  __device__ __forceinline__ Barriers(u32 shared)
      : full(shared + AT_BARRIERS),
        free(full + 8 * STAGES),
        told(free + 8 * STAGES),
        read(told + 8 * DESCRIPTORS) {}
};

// A place in the ring and the parity to wait for there. Warps that work alone have rings of their own.
constexpr int RING = ALONE ? STAGES / 4 : STAGES;
struct Ring {
  u32 stage, phase;

  __device__ __forceinline__ u32 after() const { return (stage + 1) % RING == 0 ? stage + 1 - RING : stage + 1; }
  __device__ __forceinline__ void step() {
    const u32 next = after();
    phase ^= next < stage + 1;
    stage = next;
  }
};

struct Item {
  int pages, tokens, query_row, out_row, parts, slot, first_slot, head;

  __device__ __forceinline__ Place place() const {
    Place place{first_slot, parts, slot - first_slot};
    place.settle();
    return place;
  }
};

__device__ __forceinline__ void consume(
    u32 shared, const u16* queries, float scale, u32* arrivals, float* slots, int kv_heads, const Results& to,
    u32 zero) {
  const Lane at(threadIdx.x);
  const Barriers barriers(shared);
  const u32 full = barriers.full, free = barriers.free, told = barriers.told, read = barriers.read;
  u32 turn = 0;
  Ring ring{ALONE ? at.warp * RING : 0, 0};
  Part deep[DEEP];
  // The successor may prepare itself from here on: what ran before this launch has ended.
  await_predecessors();
  release_dependents();
  for (u32 number = 0;; number++) {
    const u32 descriptor = number % DESCRIPTORS, round = number / DESCRIPTORS & 1;
    barrier_wait(told + 8 * descriptor, round);
    const u32 from = shared + AT_DESCRIPTORS + descriptor * 32;
    const int4 what = get_words(from), where = get_words(from + 16);
    const Item item{what.x, what.y, what.z, what.w, where.x, where.y, where.z, where.w};
    barrier_arrive(read + 8 * descriptor + ((what.x | where.x) & zero));
    if (item.pages < 0) break;

    u32 query[STEPS][TILES_N][2];
    float scales[TILES_N];
#pragma unroll
    for (int n = 0; n < TILES_N; n++) {
      const int member = n * 8 + at.row;
      const u16* row = queries + ((u64)item.query_row * to.heads + item.head * GROUP + member) * HEAD_DIM;
#pragma unroll
      for (int step = 0; step < STEPS; step++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int dim = step * 16 + i * QUERY_PAIR_DIMS + at.pair * QUERY_LANE_DIMS;
          query[step][n][i] = member < GROUP && dim < HEAD_DIM ? __ldcg((const u32*)(row + dim)) : 0u;
        }
      }
    }
#pragma unroll
    for (int n = 0; n < TILES_N; n++) scales[n] = KV_FP8 ? __fmul_rn(scale, take_queries(query, n)) : scale;

    Part part;
    Spine spine;
    spine.deep = deep;
    u32 before = 0;
    const u32 counter = counter_of(item.place(), kv_heads, item.head);
    int page = 0;
    const Shares shares(item.pages);
    if constexpr (ALONE) {
      const int mine = shares.of(at.warp);
      for (int j = 0; j < mine; j++) {
        const u32 stage = ring.stage;
        barrier_wait(full + 8 * stage, ring.phase);
        ring.step();
        announce(before, arrivals, counter, j + 1 == mine);
        const u32 from = shared + stage * PAGE_BYTES, visible = item.tokens - (at.warp * shares.quarter + j) * 64;
        Part one;
        if (visible >= 64) attend_alone<true>(one, from, free + 8 * stage, query, 64, scales[0], zero, at);
        else attend_alone<false>(one, from, free + 8 * stage, query, visible, scales[0], zero, at);
        spine.push(one, j);
      }
      spine.finish(part, mine);
      page = item.pages;
    }
    for (; SIDE == 2 && page + 1 < item.pages; page += 2) {
      const u32 visible = item.tokens - (page + 1) * 64, scores = shared + AT_SCORES + turn * SCORES_BYTES;
      const u32 pages[2] = {shared + ring.stage * PAGE_BYTES, shared + ring.after() * PAGE_BYTES};
      const u32 frees[2] = {free + 8 * ring.stage, free + 8 * ring.after()};
      Part both[2];
      barrier_wait(full + 8 * ring.stage, ring.phase);
      ring.step();
      barrier_wait(full + 8 * ring.stage, ring.phase);
      ring.step();
      announce(before, arrivals, counter, page + 2 == item.pages);
      if (visible >= 64) attend_pages<2, true>(both, pages, frees, scores, query, 64, scales, zero, at);
      else attend_pages<2, false>(both, pages, frees, scores, query, visible, scales, zero, at);
      merge(both[0], both[1]);
      spine.push<1>(both[1], page / 2);
      turn ^= 1;
    }
    for (; page < item.pages; page++) {
      const u32 pages[1] = {shared + ring.stage * PAGE_BYTES}, frees[1] = {free + 8 * ring.stage};
      Part one[1];
      barrier_wait(full + 8 * ring.stage, ring.phase);
      ring.step();
      announce(before, arrivals, counter, page + 1 == item.pages);
      const u32 visible = item.tokens - page * 64, scores = shared + AT_SCORES + turn * SCORES_BYTES;
      if (SIDE == 1 && visible >= 64) attend_pages<1, true>(one, pages, frees, scores, query, 64, scales, zero, at);
      else attend_pages<1, false>(one, pages, frees, scores, query, visible, scales, zero, at);
      spine.push(one[0], page);
      turn ^= 1;
    }
    if constexpr (!ALONE) spine.finish(part, item.pages);
    if (item.pages == 0) {
#pragma unroll
      for (int n = 0; n < TILES_N; n++) {
        part.lse[n][0] = part.lse[n][1] = NO_LSE;
#pragma unroll
        for (int m = 0; m < TILES_M; m++) {
#pragma unroll
          for (int i = 0; i < 4; i++) part.values.o[m][n][i] = 0.f;
        }
      }
    }

    if (item.parts == 1) {
      if (ALONE && item.pages > 1) {
        const int count = (item.pages + shares.quarter - 1) / shares.quarter;
        merge_shares(part, shared + AT_SCORES, count, nullptr, to, item.out_row, item.head, at);
        // Before the next node's are written.
        consumers_sync();
      } else if (!ALONE || at.warp == 0) {
        store_result(part, to, item.out_row, item.head, at);
      }
      continue;
    }
    Place place = item.place();
    const u64 stride = (u64)kv_heads * SLOT;
    float* const own = slots + (u64)item.head * SLOT;
    float* const slot = own + (u64)(place.first + place.node) * stride;
    if (ALONE && item.pages > 1) {
      const int count = (item.pages + shares.quarter - 1) / shares.quarter;
      merge_shares(part, shared + AT_SCORES, count, slot, to, item.out_row, item.head, at);
    } else if (!ALONE || at.warp == 0) {
      store_part(part, slot, at);
    }
    while (place.parts > 1) {
      const int count = place.count(), group = place.first + place.group();
      if (threadIdx.x == 0) {
        const u32 last = before == (u32)count - 1;
        if (last) arrivals[(u64)group * kv_heads + item.head] = 0;
        put_word(shared + AT_LAST, last);
      }
      consumers_sync();
      u32 last;
      asm volatile("ld.shared.u32 %0, [%1];" : "=r"(last) : "r"(shared + AT_LAST) : "memory");
      if (!last) break;
      place.up();
      place.settle();
      announce(before, arrivals, counter_of(place, kv_heads, item.head), true);
      float* const parent = place.parts > 1 ? own + (u64)(place.first + place.node) * stride : nullptr;
      // The scores last used, so that the next page, which uses the others, may begin while a warp still reads here.
      const u32 weights = shared + AT_SCORES + (ALONE ? 4 * PARTIAL_BYTES : (turn ^ 1) * SCORES_BYTES);
      merge_slots(weights, own + (u64)group * stride, stride, count, parent, to, item.out_row, item.head, at);
    }
  }
}

__device__ __forceinline__ void produce(
    u32 shared, const u8* pool, u64 block_bytes, const int* table, int fields, int items, const int* entries, u32* tickets,
    int kv_heads, int early) {
  const u32 lane = threadIdx.x % 32;
  const Barriers barriers(shared);
  const u32 full = barriers.full, free = barriers.free, told = barriers.told, read = barriers.read;
  const int first = blockIdx.x, grid = gridDim.x;
  u32 number = 0;
  // Alone, lane w has the place of warp w.
  Ring ring{ALONE ? lane % 4 * RING : 0, 1};
  bool waited = !early;
  const bool tickets_drawn = items > 2 * grid;
  for (int item = first, next = first + grid; item < items;) {
    const int upcoming = next < items && lane < ENTRY ? entries[next / kv_heads * ENTRY + lane] : 0;
    const int head = item % kv_heads;
    const int start = __shfl_sync(~0u, fields, 0), pages = __shfl_sync(~0u, fields, 1);
    const int parts = __shfl_sync(~0u, fields, 5);
    const int slot = __shfl_sync(~0u, fields, 6), first_slot = __shfl_sync(~0u, fields, 7);
    const Shares shares(pages);
    // Block ids of the next 32 pages to be fetched and of those behind them: of 8 of each warp, or in order.
    const auto block_ids = [&](int window) {
      const int within = window * 8 + (int)lane % 8;
      const int page = ALONE ? (int)lane / 8 * shares.quarter + within : window * 8 + (int)lane;
      return (ALONE ? within < shares.of(lane / 8) : page < pages) ? table[start + page] : 0;
    };
    constexpr int WINDOW = ALONE ? 8 : 32;
    const int ids = block_ids(0), more_ids = block_ids(WINDOW / 8);
    u32 ticket = 0;
    if (waited && tickets_drawn && lane == 0) ticket = atomicAdd(tickets, 1);

    // Before the predecessor has ended, only pages that it cannot have written: all but the last of the sequence.
    const int fresh = slot - first_slot == parts - 1 ? pages - 1 : pages;
    int warp = 0, turn = 0;
    const auto fetch = [&](int block, int page) {
      if (!waited && page == fresh) {
        await_predecessors();
        waited = true;
        if (tickets_drawn && lane == 0) ticket = atomicAdd(tickets, 1);
      }
      u32 stage = ring.stage, phase = ring.phase;
      if (ALONE) {
        stage = __shfl_sync(~0u, ring.stage, warp);
        phase = __shfl_sync(~0u, ring.phase, warp);
      }
      const u32 landed = full + 8 * stage;
      barrier_wait(free + 8 * stage, phase);
      if (lane == 0) {
        const u8* const from = pool + (u64)block * block_bytes + (u64)head * PAGE_BYTES;
        barrier_expect(landed, PAGE_BYTES);
        bulk_copy_once(shared + stage * PAGE_BYTES, from, PAGE_BYTES, landed);
      }
      __syncwarp();
      if (!ALONE || lane == warp) ring.step();
      if (ALONE && ++warp == shares.width(turn)) {
        warp = 0;
        turn++;
      }
    };
    const auto page_of = [&](int count) { return ALONE ? warp * shares.quarter + turn : count; };

    // The first pages are in the plan's entry, so that nothing waits for the table. The item is told behind its first page.
    if (pages > 0) fetch(__shfl_sync(~0u, fields, 8), 0);
    const u32 descriptor = number % DESCRIPTORS;
    barrier_wait(read + 8 * descriptor, (number / DESCRIPTORS & 1) ^ 1);
    // Descriptor: pages, tokens, query row, output row, nodes, slot, first slot, head.
    int field = __shfl_sync(~0u, fields, lane + 1 & 31);
    if (lane == 7) field = head;
    if (lane < 8) {
      put_word(shared + AT_DESCRIPTORS + descriptor * 32 + lane * 4, field);
      barrier_arrive(told + 8 * descriptor);
    }
    const int known = min(pages, 4);
    for (int count = 1; count < known; count++) fetch(__shfl_sync(~0u, fields, 8 + count), page_of(count));
    int blocks = ids, following = more_ids;
    for (int count = known; count < pages; count++) {
      const int at = ALONE ? turn : count;
      if (at % WINDOW == 0 && at > 0 && warp == 0) {
        blocks = following;
        following = block_ids(at / 8 + WINDOW / 8);
      }
      const int lane_of = ALONE ? warp * 8 + turn % 8 : count % 32;
      fetch(__shfl_sync(~0u, blocks, lane_of), page_of(count));
    }
    if (!waited) {
      await_predecessors();
      waited = true;
      if (tickets_drawn && lane == 0) ticket = atomicAdd(tickets, 1);
    }
    number++;
    item = next;
    next = items;
    if (tickets_drawn) {
      // Every item draws one ticket, so the last ticket is known and its drawer leaves the counter as it was found.
      ticket = __shfl_sync(~0u, ticket, 0);
      if (lane == 0 && ticket == (u32)items - 1) *tickets = 0;
      next = 2 * grid + (int)ticket;
    }
    fields = upcoming;
  }
  const u32 descriptor = number % DESCRIPTORS;
  barrier_wait(read + 8 * descriptor, (number / DESCRIPTORS & 1) ^ 1);
  if (lane < 8) {
    put_word(shared + AT_DESCRIPTORS + descriptor * 32 + lane * 4, ~0u);
    barrier_arrive(told + 8 * descriptor);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, CTAS) attend_decode(
    const u8* pool, u64 block_bytes, const int* table, const u16* queries, const int* header, const int* entries,
    u32* tickets, u32* arrivals, float* slots, u16* out, float* o, float* lse, int kv_heads, float scale, int early) {
  extern __shared__ __align__(1024) u8 memory[];
  const u32 shared = shared_address(memory);
  int fields = 0, items = 0;
  if (threadIdx.x >= WARPS * 32) {
    if (!early) await_predecessors();
    // The plan reserves entries for one item a CTA, so this may be read before it is known whether there is such an item.
    if (threadIdx.x % 32 < ENTRY) fields = entries[blockIdx.x / kv_heads * ENTRY + threadIdx.x % 32];
    items = header[0];
  }
  if (threadIdx.x == 0) {
    const Barriers at(shared);
    for (int i = 0; i < STAGES; i++) {
      barrier_init(at.full + 8 * i, 1);
      barrier_init(at.free + 8 * i, ALONE ? 32 : WARPS * 32);
    }
    for (int i = 0; i < DESCRIPTORS; i++) {
      barrier_init(at.told + 8 * i, 8);
      barrier_init(at.read + 8 * i, WARPS * 32);
    }
    barriers_made();
  }
  __syncthreads();
  if (threadIdx.x < WARPS * 32) {
    // A zero that the compiler does not know.
    const u32 zero = (u32)early >> 1;
    consume(shared, queries, scale, arrivals, slots, kv_heads, Results{out, o, lse, kv_heads * GROUP}, zero);
  } else {
    produce(shared, pool, block_bytes, table, fields, items, entries, tickets, kv_heads, early);
  }
}
