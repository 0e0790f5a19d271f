// attend_plain - attention of query tokens over the paged pool on any GPU: right and simple, not fast.
//
// Formula: spec.ts of this folder. q [T, HEADS, HEAD_DIM] bf16, rotated, not scaled; pool in pages of 64 tokens (below).
//   attend_plain_tokens      token t attends to positions 0 to positions[t] of table row rows[t]; out [T, HEADS * HEAD_DIM]
//                            bf16. A row below 0 is padding: nothing is read or written for it.
//   attend_plain_tasks       task i attends from its first to one before its last position and leaves a partial in a slot:
//                            o [slot][HEADS][HEAD_DIM], lse [slot][HEADS], f32, natural logarithm.
//   merge_node_partials      joins the partials of a token's nodes in the tree into out [token, HEADS * HEAD_DIM] bf16.
//
// Page: see kv_pool.cuh. HEAD_DIM is padded to a multiple of 64; padding is never read here.
//
// Order: a leaf is a page at an absolute position, computed in one fixed order; leaves merge in the binary tree over their
// index, whose nodes of four are the segments of merge_partials/spec.ts. What is missing is empty and changes no bits. So a
// node's partial has the same bits in every entry, batch and grid.
//
// Needs: HEADS a multiple of KV_HEADS, HEAD_DIM at most 256, a task's first position a multiple of 256.
// One CTA of 128 threads a token and head; it is bound by latency and reads K and V once for every query head.
//
// @define HEAD_DIM=64 HEADS=9 KV_HEADS=3
// @define HEAD_DIM=128 HEADS=32 KV_HEADS=8
// @define HEAD_DIM=20 HEADS=8 KV_HEADS=1
// @define HEAD_DIM=256 HEADS=16 KV_HEADS=1
// @define HEAD_DIM=80 HEADS=9 KV_HEADS=3 KV_FP8=1
#include "kv_pool.cuh"
#include "merge_partials.cuh"

#define THREADS 128
#define PAGE_TOKENS 64
#define SEGMENT_LEVEL 2  // a segment is 2^2 pages
#define PART_BYTES KV_PART_BYTES(HEAD_DIM)
#define OWNED ((HEAD_DIM + THREADS - 1) / THREADS)
#define LEVELS 26
#define EMPTY __int_as_float(0xff800000)

struct Task {
  int query;  // row of q
  int table;  // word of the table at which the block of position 0 would be listed
  int from;   // first position, a multiple of 256
  int to;     // one past the last position
  int slot;
};

struct Node {
  int level;  // 2^level segments
  int index;  // first segment / 2^level
  int slot;
};

struct NodeList {
  int token;  // row of out
  int first;  // first of its nodes, ascending
  int count;
};

// Values of o this thread owns: dims threadIdx.x, threadIdx.x + 128.
struct Partial {
  float o[OWNED];
  float lse;
};

struct Stack {
  float o[LEVELS][HEAD_DIM];
  float lse[LEVELS];
};

__device__ __forceinline__ float from_bf16(u32 bits) { return __int_as_float(bits << 16); }

__device__ __forceinline__ u16 to_bf16(float x) {
  u16 bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}

__device__ __forceinline__ Partial empty_partial() {
  Partial p;
#pragma unroll
  for (int i = 0; i < OWNED; i++) p.o[i] = 0.0f;
  p.lse = EMPTY;
  return p;
}

__device__ __forceinline__ Partial merge(const Partial& a, const Partial& b) {
  if (b.lse == EMPTY) return a;
  if (a.lse == EMPTY) return b;
  float left, right;
  Partial p;
  p.lse = merge_lse(a.lse, b.lse, left, right);
#pragma unroll
  for (int i = 0; i < OWNED; i++) p.o[i] = merge_o(a.o[i], b.o[i], left, right);
  return p;
}

// Nodes of the tree that wait for their right neighbour; at most one a level, so a level is a place on the stack.
struct Tree {
  Stack* stack;
  u32 waiting;

  __device__ __forceinline__ Partial at(int level) const {
    Partial p;
#pragma unroll
    for (int i = 0; i < OWNED; i++) {
      const int d = threadIdx.x + i * THREADS;
      p.o[i] = d < HEAD_DIM ? stack->o[level][d] : 0.0f;
    }
    p.lse = stack->lse[level];
    return p;
  }

  // Every thread calls it with the same node; a barrier lies between two calls that touch one level.
  __device__ __forceinline__ void push(int level, int index, Partial node) {
    while (index & 1) {
      if (waiting >> level & 1) {
        node = merge(at(level), node);
        waiting &= ~(1u << level);
      }
      index >>= 1;
      level++;
    }
#pragma unroll
    for (int i = 0; i < OWNED; i++) {
      const int d = threadIdx.x + i * THREADS;
      if (d < HEAD_DIM) stack->o[level][d] = node.o[i];
    }
    __syncthreads();
    if (threadIdx.x == 0) stack->lse[level] = node.lse;
    __syncthreads();
    waiting |= 1u << level;
  }

  __device__ __forceinline__ Partial finish() const {
    Partial all = empty_partial();
    for (int level = 0; level < LEVELS; level++) {
      if (waiting >> level & 1) all = merge(at(level), all);
    }
    return all;
  }
};

struct Shared {
  float q[(HEAD_DIM + 7) / 8 * 8];
  float scores[PAGE_TOKENS];
  float weights[PAGE_TOKENS];
  Stack stack;
};

// The partial of one page, whose first `count` tokens are seen.
__device__ __forceinline__ Partial attend_page(Shared& shared, const u8* keys, int count) {
  const int token = threadIdx.x >> 1;
  float score = EMPTY;
  if (token < count) {
    float sum = 0.0f;
    for (int chunk = threadIdx.x & 1; chunk < (HEAD_DIM + 7) / 8; chunk += 2) {
      float key[8];
      load((const kv_element*)(keys + kv_offset(token, chunk * 8)), key);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const int d = chunk * 8 + i;
        if (HEAD_DIM % 8 == 0 || d < HEAD_DIM) sum = fmaf(shared.q[d], key[i], sum);
      }
    }
    score = sum;
  }
  // Both halves of a token are in one warp and see or miss it together.
  score += __shfl_xor_sync(0xffffffffu, score, 1);
  if ((threadIdx.x & 1) == 0) shared.scores[token] = score;
  __syncthreads();
  const int lane = threadIdx.x & 31;
  const float low = shared.scores[lane];
  const float high = shared.scores[lane + 32];
  float most = fmaxf(low, high);
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
  const float weight_low = expf(low - most);
  const float weight_high = expf(high - most);
  float sum = weight_low + weight_high;
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (threadIdx.x < 32) {
    shared.weights[lane] = weight_low;
    shared.weights[lane + 32] = weight_high;
  }
  __syncthreads();
  const u8* values = keys + PART_BYTES;
  Partial p;
#pragma unroll
  for (int i = 0; i < OWNED; i++) {
    const int d = threadIdx.x + i * THREADS;
    float total = 0.0f;
    if (d < HEAD_DIM) {
      for (int t = 0; t < count; t++) {
        total = fmaf(shared.weights[t], kv_value(*(const kv_element*)(values + kv_offset(t, d))), total);
      }
    }
    p.o[i] = total / sum;
  }
  p.lse = most + logf(sum);
  __syncthreads();
  return p;
}

__device__ __forceinline__ Partial attend_range(Shared& shared, const u16* q, const u8* head, const int* table,
                                               long long block_bytes, int from, int to) {
  for (int d = threadIdx.x; d < HEAD_DIM; d += THREADS) shared.q[d] = from_bf16(q[d]) * (1.0f / sqrtf((float)HEAD_DIM));
  __syncthreads();
  Tree tree = {&shared.stack, 0};
#pragma unroll 1
  for (int page = from / PAGE_TOKENS; page * PAGE_TOKENS < to; page++) {
    const long long block = table[page];
    const int count = min(to - page * PAGE_TOKENS, PAGE_TOKENS);
    tree.push(0, page, attend_page(shared, head + block * block_bytes, count));
  }
  return tree.finish();
}

__device__ __forceinline__ const u8* head_of(const u8* layer) {
  return layer + (blockIdx.y / (HEADS / KV_HEADS)) * (2ll * PART_BYTES);
}

__device__ __forceinline__ void write_bf16(u16* out, const Partial& p) {
#pragma unroll
  for (int i = 0; i < OWNED; i++) {
    const int d = threadIdx.x + i * THREADS;
    if (d < HEAD_DIM) out[d] = to_bf16(p.o[i]);
  }
}

// `layer` is the address of the layer in block 0. Grid [T, HEADS].
extern "C" __global__ void __launch_bounds__(THREADS)
    attend_plain_tokens(const u16* q, const u8* layer, long long block_bytes, const int* tables, int table_width,
                        const int* positions, const int* rows, u16* out) {
  __shared__ Shared shared;
  const int token = blockIdx.x;
  const int row = rows[token];
  if (row < 0) return;
  const u64 at = ((u64)token * HEADS + blockIdx.y) * HEAD_DIM;
  const Partial p = attend_range(shared, q + at, head_of(layer), tables + (long long)row * table_width, block_bytes, 0,
                                 positions[token] + 1);
  write_bf16(out + at, p);
}

// Grid [tasks, HEADS].
extern "C" __global__ void __launch_bounds__(THREADS)
    attend_plain_tasks(const u16* q, const u8* layer, long long block_bytes, const int* tables, const Task* tasks,
                       float* o, float* lse) {
  __shared__ Shared shared;
  const Task task = tasks[blockIdx.x];
  const Partial p = attend_range(shared, q + ((u64)task.query * HEADS + blockIdx.y) * HEAD_DIM, head_of(layer),
                                 tables + task.table, block_bytes, task.from, task.to);
  const u64 row = (u64)task.slot * HEADS + blockIdx.y;
#pragma unroll
  for (int i = 0; i < OWNED; i++) {
    const int d = threadIdx.x + i * THREADS;
    if (d < HEAD_DIM) o[row * HEAD_DIM + d] = p.o[i];
  }
  if (threadIdx.x == 0) lse[row] = p.lse;
}

// Grid [lists, HEADS].
extern "C" __global__ void __launch_bounds__(THREADS)
    merge_node_partials(const float* o, const float* lse, const NodeList* lists, const Node* nodes, u16* out) {
  __shared__ Stack stack;
  const NodeList list = lists[blockIdx.x];
  Tree tree = {&stack, 0};
  for (int i = list.first; i < list.first + list.count; i++) {
    const Node node = nodes[i];
    const u64 row = (u64)node.slot * HEADS + blockIdx.y;
    Partial p;
#pragma unroll
    for (int j = 0; j < OWNED; j++) {
      const int d = threadIdx.x + j * THREADS;
      p.o[j] = d < HEAD_DIM ? o[row * HEAD_DIM + d] : 0.0f;
    }
    p.lse = lse[row];
    if (p.lse == EMPTY) continue;
    tree.push(SEGMENT_LEVEL + node.level, node.index, p);
  }
  const Partial all = tree.finish();
  write_bf16(out + ((u64)list.token * HEADS + blockIdx.y) * HEAD_DIM, all);
}
