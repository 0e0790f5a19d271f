// Products of warpgroups (wgmma, sm_90a) with f32 sums: operands of bf16 or, where WGMMA_F16 is 1, of f16.
//
// Operands in shared memory have the 128-byte swizzle: groups of 8 rows of 128 bytes, 1024 bytes apart, from an address that is
// a multiple of 1024. A warpgroup's 64 x N sums lie in N / 2 registers a thread: row g and g + 8 of the warp's 16 (g = lane / 4),
// columns 2 (lane % 4) and the next of every 8.
#pragma once
#include "elements.cuh"

#ifndef WGMMA_F16
#define WGMMA_F16 0
#endif
#if WGMMA_F16
#define WGMMA_TYPES "f32.f16.f16"
#else
#define WGMMA_TYPES "f32.bf16.bf16"
#endif

#define WGMMA_ACC4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define WGMMA_ACC16(d, i) WGMMA_ACC4(d, i), WGMMA_ACC4(d, i + 4), WGMMA_ACC4(d, i + 8), WGMMA_ACC4(d, i + 12)
#define WGMMA_ACC32(d, i) WGMMA_ACC16(d, i), WGMMA_ACC16(d, i + 16)
#define WGMMA_NEW4(d, i) "=f"(d[i]), "=f"(d[i + 1]), "=f"(d[i + 2]), "=f"(d[i + 3])
#define WGMMA_NEW16(d, i) WGMMA_NEW4(d, i), WGMMA_NEW4(d, i + 4), WGMMA_NEW4(d, i + 8), WGMMA_NEW4(d, i + 12)
#define WGMMA_NEW32(d, i) WGMMA_NEW16(d, i), WGMMA_NEW16(d, i + 16)
#define WGMMA_NAMES32                                                                                                    \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define WGMMA_NAMES48 WGMMA_NAMES32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define WGMMA_NAMES64                                                                                                    \
  WGMMA_NAMES32                                                                                                          \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,"    \
  "%60,%61,%62,%63"

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// Registers of a product in flight: what reads them stays behind the wait that stands before this.
template <int N>
__device__ __forceinline__ void hold(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

template <int N>
__device__ __forceinline__ void hold(u32 (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+r"(d[i])::"memory");
}

// Shared memory written by ordinary stores becomes visible to products and bulk copies; before the barrier that tells of it.
__device__ __forceinline__ void wgmma_publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Shared-memory operand `offset` bytes behind `address`; `lead` bytes are between subtiles where rows run along the product's
// inner axis.
__device__ __forceinline__ u64 wgmma_operand(u32 address, u32 offset, u32 lead) {
  const u32 low = ((address & 0x3ffff) >> 4) + ((offset >> 4) | (lead >> 4) << 16), high = 1024 >> 4 | 1u << 30;
  u64 both;
  asm("mov.b64 %0, {%1, %2};" : "=l"(both) : "r"(low), "r"(high));
  return both;
}

// d[64, 128] (+)= a[64, 16] b[128, 16]'.
__device__ __forceinline__ void wgmma_rows(float (&d)[64], u64 a, u64 b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16." WGMMA_TYPES " {" WGMMA_NAMES64 "}, %64, %65, p, 1, 1, 0, 0;\n}"
      : WGMMA_ACC32(d, 0), WGMMA_ACC32(d, 32)
      : "l"(a), "l"(b), "r"(add));
}

// d[64, 64] (+)= a[64, 16] b[64, 16]'.
__device__ __forceinline__ void wgmma_rows(float (&d)[32], u64 a, u64 b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16." WGMMA_TYPES " {" WGMMA_NAMES32 "}, %32, %33, p, 1, 1, 0, 0;\n}"
      : WGMMA_ACC32(d, 0)
      : "l"(a), "l"(b), "r"(add));
}

// d[64, 128] (+)= a[64, 16] b[16, 128], a in registers.
__device__ __forceinline__ void wgmma_columns(float (&d)[64], const u32* a, u64 b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16." WGMMA_TYPES " {" WGMMA_NAMES64 "}, {%64,%65,%66,%67}, %68, p, 1, 1, 1;\n}"
      : WGMMA_ACC32(d, 0), WGMMA_ACC32(d, 32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// d[64, 96] (+)= a[64, 16] b[16, 96], a in registers.
__device__ __forceinline__ void wgmma_columns(float (&d)[48], const u32* a, u64 b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %53, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k16." WGMMA_TYPES " {" WGMMA_NAMES48 "}, {%48,%49,%50,%51}, %52, p, 1, 1, 1;\n}"
      : WGMMA_ACC32(d, 0), WGMMA_ACC16(d, 32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// d[64, 64] (+)= a[64, 16] b[16, 64], a in registers.
__device__ __forceinline__ void wgmma_columns(float (&d)[32], const u32* a, u64 b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16." WGMMA_TYPES " {" WGMMA_NAMES32 "}, {%32,%33,%34,%35}, %36, p, 1, 1, 1;\n}"
      : WGMMA_ACC32(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// The same without what d holds before, so that its registers are free until then.
__device__ __forceinline__ void wgmma_new_rows(float (&d)[32], u64 a, u64 b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16." WGMMA_TYPES " {" WGMMA_NAMES32 "}, %32, %33, p, 1, 1, 0, 0;\n}"
      : WGMMA_NEW32(d, 0)
      : "l"(a), "l"(b));
}

__device__ __forceinline__ void wgmma_new_columns(float (&d)[64], const u32* a, u64 b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16." WGMMA_TYPES " {" WGMMA_NAMES64 "}, {%64,%65,%66,%67}, %68, p, 1, 1, 1;\n}"
      : WGMMA_NEW32(d, 0), WGMMA_NEW32(d, 32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ __forceinline__ void wgmma_new_columns(float (&d)[48], const u32* a, u64 b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k16." WGMMA_TYPES " {" WGMMA_NAMES48 "}, {%48,%49,%50,%51}, %52, p, 1, 1, 1;\n}"
      : WGMMA_NEW32(d, 0), WGMMA_NEW16(d, 32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ __forceinline__ void wgmma_new_columns(float (&d)[32], const u32* a, u64 b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16." WGMMA_TYPES " {" WGMMA_NAMES32 "}, {%32,%33,%34,%35}, %36, p, 1, 1, 1;\n}"
      : WGMMA_NEW32(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
