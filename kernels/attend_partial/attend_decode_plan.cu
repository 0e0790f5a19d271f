// attend_decode_plan: cuts the jobs of attend_decode.cu into items, once a step for all layers; reads lengths on the
// device, so that a graph has no shapes in it. One CTA.
//
// A job is a sequence: `lengths[j]` tokens of table row `rows[j]` (below 0: none; null: row j) for query and output row
// `queries[j]` (null: j). Or, where `works` is given, one of its {query row, first index into the table, pages, output
// row}. All jobs are cut into aligned nodes of 2^level pages, one level for all: the one for which the model below
// predicts the shortest time. Whatever it chooses, results have the same bits.
//
// Model, in the time a CTA needs for one page when memory is not the limit: `SATURATE` CTAs use all of the memory rate,
// so work takes pages / SATURATE and never less than the longest item; a last wave of fewer items leaves memory idle
// for a part of its length; items end at unlike times, by a share of their length; each level of merging takes a start and a
// bit a part. The constants were fitted to 52 forced cuts on an H200, of which it finds the best or one that takes at most
// 2.4 % longer (docs/perf); attend_decode_cuda_bench.ts --levels times cuts.
//
// Shared memory: (3 * jobs + 3) * 4 bytes. Test: attend_decode_cuda_test.ts.

#include "dependents.cuh"

typedef unsigned int u32;
typedef unsigned long long u64;

#ifndef SATURATE
#define SATURATE 70.f
#endif
#ifndef UNLIKE
#define UNLIKE 0.03f
#endif
#ifndef MERGE_START
#define MERGE_START 3.f
#endif
#ifndef MERGE_PART
#define MERGE_PART 0.1f
#endif

constexpr int THREADS = 256;
constexpr int LEVELS = 21;
constexpr int ENTRY = 12;
// As attend_decode.cu: so many nodes of a level become one of the next.
constexpr int MERGE_LEVEL = 4;

__device__ __forceinline__ int cut(int pages, int level) {
  return pages == 0 ? 1 : (int)(((u64)pages + (1ull << level) - 1) >> level);
}

// Nodes that so many are merged into.
__device__ __forceinline__ int above(int parts) { return (parts + (1 << MERGE_LEVEL) - 1) >> MERGE_LEVEL; }

// Slots of a job that was cut into so many nodes: one for each node but the root.
__device__ __forceinline__ int slots_of(int parts) {
  int slots = 0;
  for (; parts > 1; parts = above(parts)) slots += parts;
  return slots;
}

extern "C" __global__ void __launch_bounds__(THREADS) attend_decode_plan(
    const int* lengths, const int* rows, const int* queries, int max_blocks, const int4* works, const int* table,
    int jobs, int kv_heads, int ctas, int slot_nodes, int entry_nodes, int forced_level, int shares, int* header, int* entries) {
  extern __shared__ int memory[];
  int* const pages = memory;              // [jobs]
  int* const nodes = pages + jobs;        // [jobs + 1] nodes before a job
  int* const split = nodes + jobs + 1;    // [jobs + 1] slots of split jobs before a job
  __shared__ int level_nodes[LEVELS], level_split[LEVELS], most_pages, chosen;
  __shared__ int warp_nodes[THREADS / 32], warp_split[THREADS / 32];
  __shared__ u64 all_pages;
  const int thread = threadIdx.x, lane = thread % 32;

  if (thread < LEVELS) level_nodes[thread] = level_split[thread] = 0;
  if (thread == 0) {
    most_pages = 0;
    all_pages = 0;
  }
  __syncthreads();
  await_predecessors();
  release_dependents();

  for (int base = 0; base < jobs; base += THREADS) {
    const int job = base + thread;
    const bool real = job < jobs;
    const int mine = !real ? 0 : works ? works[job].z : rows && rows[job] < 0 ? 0 : (lengths[job] + 63) / 64;
    if (real) pages[job] = mine;
    const int most = __reduce_max_sync(~0u, mine);
    const int sum = __reduce_add_sync(~0u, mine);
    if (lane == 0) {
      atomicMax(&most_pages, most);
      atomicAdd(&all_pages, (u64)sum);
    }
    for (int level = 0; level < LEVELS; level++) {
      const int count = real ? cut(mine, level) : 0;
      const int total = __reduce_add_sync(~0u, count), apart = __reduce_add_sync(~0u, slots_of(count));
      if (lane == 0) {
        atomicAdd(&level_nodes[level], total);
        atomicAdd(&level_split[level], apart);
      }
    }
  }
  __syncthreads();

  if (thread < 32) {
    const int level = lane;
    float cost = 3e38f;
    if (level < LEVELS && level_split[level] <= slot_nodes && level_nodes[level] <= entry_nodes) {
      const float items = (float)level_nodes[level] * kv_heads, tail = items - floorf(items / ctas) * ctas;
      const float length = (float)min(1 << level, most_pages);
      cost = (float)all_pages * kv_heads / SATURATE;
      if (tail > 0.f && tail < SATURATE) cost += length * (1.f - tail / SATURATE);
      cost = fmaxf(cost, length) + UNLIKE * length;
      for (int parts = cut(most_pages, level); parts > 1; parts = above(parts)) {
        cost += MERGE_START + MERGE_PART * min(parts, 1 << MERGE_LEVEL);
      }
    }
    // Of equal costs the highest level, which has the fewest nodes.
    float best = cost;
    for (int step = 16; step > 0; step /= 2) best = fminf(best, __shfl_xor_sync(~0u, best, step));
    const u32 equal = __ballot_sync(~0u, cost <= best);
    const u32 fitting = __ballot_sync(~0u, cost < 3e38f);
    const int forced = max(min(forced_level, LEVELS - 1), __ffs(fitting) - 1);
    if (lane == 0) chosen = forced_level < 0 ? 31 - __clz(equal) : forced;
  }
  __syncthreads();
  const int level = chosen;

  // Every thread takes a run of jobs; prefix sums over threads, then over its own jobs.
  const int run = (jobs + THREADS - 1) / THREADS, from = min(thread * run, jobs), to = min(from + run, jobs);
  int own_nodes = 0, own_split = 0;
  for (int job = from; job < to; job++) {
    const int count = cut(pages[job], level);
    own_nodes += count;
    own_split += slots_of(count);
  }
  int sum_nodes = own_nodes, sum_split = own_split;
  for (int step = 1; step < 32; step *= 2) {
    const int a = __shfl_up_sync(~0u, sum_nodes, step), b = __shfl_up_sync(~0u, sum_split, step);
    if (lane >= step) {
      sum_nodes += a;
      sum_split += b;
    }
  }
  if (lane == 31) {
    warp_nodes[thread / 32] = sum_nodes;
    warp_split[thread / 32] = sum_split;
  }
  __syncthreads();
  int before_nodes = sum_nodes - own_nodes, before_split = sum_split - own_split;
  for (int warp = 0; warp < thread / 32; warp++) {
    before_nodes += warp_nodes[warp];
    before_split += warp_split[warp];
  }
  for (int job = from; job < to; job++) {
    const int count = cut(pages[job], level);
    nodes[job] = before_nodes;
    split[job] = before_split;
    before_nodes += count;
    before_split += slots_of(count);
  }
  if (thread == THREADS - 1) nodes[jobs] = before_nodes;
  __syncthreads();

  const int total = nodes[jobs];
  if (thread == 0) {
    header[0] = total * kv_heads;
    header[1] = level;
  }
  for (int node = thread; node < total; node += THREADS) {
    int low = 0, high = jobs;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (nodes[middle] <= node) low = middle;
      else high = middle;
    }
    const int job = low, parts = nodes[job + 1] - nodes[job], part = node - nodes[job];
    const int first_page = part << level, count = min(pages[job] - first_page, 1 << level);
    int start, tokens, query_row, out_row;
    if (works) {
      const int4 work = works[job];
      start = work.y;
      tokens = work.z * 64;
      query_row = work.x;
      out_row = work.w;
    } else {
      start = (rows ? max(rows[job], 0) : job) * max_blocks;
      tokens = lengths[job];
      query_row = out_row = queries ? queries[job] : job;
    }
    start += first_page;
    int* const entry = entries + node * ENTRY;
    entry[0] = start;
    entry[1] = count;
    entry[2] = min(tokens - first_page * 64, count * 64);
    entry[3] = query_row;
    entry[4] = out_row;
    entry[5] = parts;
    entry[6] = parts > 1 ? split[job] + part : 0;
    entry[7] = parts > 1 ? split[job] : 0;
    // What is fetched first: pages in order, or one of every warp's share and then the second.
    const int quarter = 1 << max(30 - __clz(max(count - 1, 0)), 0), wide = (count + quarter - 1) / quarter;
    for (int i = 0; i < 4; i++) {
      const int page = !shares ? i : i < wide ? i * quarter : 1;
      entry[8 + i] = i < count ? table[start + page] : 0;
    }
  }
}
