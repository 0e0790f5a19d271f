// Blocks that work on one thing together: CLUSTER of them share a barrier and reach each other's shared memory.
//
// Before compute capability 9.0 there are no clusters: CLUSTER is 1, and everything here is that of one block.
#pragma once
#include "elements.cuh"

#if __CUDA_ARCH__ >= 900
#define CLUSTER 8
#define IN_CLUSTERS __cluster_dims__(CLUSTER, 1, 1)
#else
#define CLUSTER 1
#define IN_CLUSTERS
#endif

// Until all threads of the cluster are here, and what they stored is seen by all.
__device__ __forceinline__ void sync_cluster() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
  __syncthreads();
#endif
}

// Stores to the place that `local` has in the shared memory of block `rank`.
__device__ __forceinline__ void store_remote(double* local, u32 rank, double value) {
#if __CUDA_ARCH__ >= 900
  u32 address = (u32)__cvta_generic_to_shared(local), remote;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
  asm volatile("st.shared::cluster.f64 [%0], %1;" ::"r"(remote), "d"(value) : "memory");
#else
  *local = value;
#endif
}

__device__ __forceinline__ void store_remote(u32* local, u32 rank, u32 value) {
#if __CUDA_ARCH__ >= 900
  u32 address = (u32)__cvta_generic_to_shared(local), remote;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
  asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(remote), "r"(value) : "memory");
#else
  *local = value;
#endif
}
