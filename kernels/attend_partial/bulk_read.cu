// bulk_read: reads memory through bulk copies into shared memory and does nothing with it: the ceiling of attend_decode.cu.
//
// CTA b takes pieces b, b + grid, ... of CHUNK bytes, STAGES of them in flight.
//
// @arch sm_90a sm_100

#include "bulk_copy.cuh"
#include "dependents.cuh"

#ifndef CHUNK
#define CHUNK 32768
#endif
#ifndef STAGES
#define STAGES 6
#endif

extern "C" __global__ void __launch_bounds__(32) bulk_read(const u8* from, u64 pieces) {
  extern __shared__ __align__(1024) u8 memory[];
  __shared__ __align__(8) u64 barriers[STAGES];
  const u32 shared = shared_address(memory), full = shared_address(barriers);
  if (threadIdx.x != 0) return;
  for (int i = 0; i < STAGES; i++) barrier_init(full + 8 * i, 1);
  barriers_made();
  await_predecessors();
  release_dependents();
  const u64 mine = blockIdx.x < pieces ? (pieces - 1 - blockIdx.x) / gridDim.x + 1 : 0;
  for (u64 piece = 0; piece < mine + STAGES; piece++) {
    const u32 stage = piece % STAGES, barrier = full + 8 * stage;
    if (piece >= STAGES && piece - STAGES < mine) barrier_wait(barrier, (piece / STAGES - 1) & 1);
    if (piece < mine) {
      barrier_expect(barrier, CHUNK);
      bulk_copy_once(shared + stage * CHUNK, from + (blockIdx.x + piece * gridDim.x) * CHUNK, CHUNK, barrier);
    }
  }
}
