// The random source of a sequence: Threefry-2x32 with 20 rounds, a pure function of seed and index, as
// runtime/sampling/random.ts has it.
#pragma once
#include "elements.cuh"

// Number `index` of the stream of `seed` (low word, high word), in [0, 1) with 53 random bits.
__device__ __forceinline__ double uniform(const u32 (&seed)[2], u64 index) {
  const u32 keys[3] = {seed[0], seed[1], 0x1bd11bdau ^ seed[0] ^ seed[1]};
  const int turns[8] = {13, 15, 26, 6, 17, 29, 16, 24};
  u32 a = (u32)index + keys[0], b = (u32)(index >> 32) + keys[1];
#pragma unroll
  for (int round = 0; round < 20; round++) {
    a += b;
    b = __funnelshift_l(b, b, turns[round % 8]) ^ a;
    if (round % 4 == 3) {
      const int injection = round / 4 + 1;
      a += keys[injection % 3];
      b += keys[(injection + 1) % 3] + injection;
    }
  }
  return ((double)(a >> 5) * 67108864.0 + (double)(b >> 6)) / 9007199254740992.0;
}
