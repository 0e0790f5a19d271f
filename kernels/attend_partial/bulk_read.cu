// bulk_read: reads memory through bulk copies into shared memory and does nothing with it: the ceiling of attend_decode.cu.
//
// CTA b takes pieces b, b + grid, ... of CHUNK bytes, STAGES of them in flight.
//
// @arch sm_90a sm_100

#include "dependents.cuh"

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifndef CHUNK
#define CHUNK 32768
#endif
#ifndef STAGES
#define STAGES 6
#endif

extern "C" __global__ void __launch_bounds__(32) bulk_read(const u8* from, u64 pieces) {
  extern __shared__ __align__(1024) u8 memory[];
  __shared__ __align__(8) u64 barriers[STAGES];
  u32 shared, full;
  asm("{\n.reg .u64 t;\ncvta.to.shared.u64 t, %1;\ncvt.u32.u64 %0, t;\n}" : "=r"(shared) : "l"(memory));
  asm("{\n.reg .u64 t;\ncvta.to.shared.u64 t, %1;\ncvt.u32.u64 %0, t;\n}" : "=r"(full) : "l"(barriers));
  if (threadIdx.x != 0) return;
  for (int i = 0; i < STAGES; i++) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(full + 8 * i) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  await_predecessors();
  release_dependents();
  const u64 mine = blockIdx.x < pieces ? (pieces - 1 - blockIdx.x) / gridDim.x + 1 : 0;
  for (u64 piece = 0; piece < mine + STAGES; piece++) {
    const u32 stage = piece % STAGES, barrier = full + 8 * stage;
    if (piece >= STAGES && piece - STAGES < mine) {
      const u32 parity = (piece / STAGES - 1) & 1;
      asm volatile(
          "{\n.reg .pred done;\nagain:\n"
          "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
          "@!done bra again;\n}" ::"r"(barrier), "r"(parity) : "memory");
    }
    if (piece < mine) {
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(CHUNK) : "memory");
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
              shared + stage * CHUNK),
          "l"(from + (blockIdx.x + piece * gridDim.x) * CHUNK), "r"(CHUNK), "r"(barrier) : "memory");
    }
  }
}
