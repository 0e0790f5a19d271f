// Programmatic dependent launch: a kernel's blocks may take their places while its predecessor still runs.
//
// Every block of every kernel waits, also one that finds nothing to do: the end of a kernel then implies the end of all
// before it. Before the wait only what no kernel of a step writes may be read (weights, tables).
#pragma once

// Until all that the predecessors wrote is there.
__device__ __forceinline__ void await_predecessors() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the successor's blocks start; they wait for the end of this kernel before they read its results.
__device__ __forceinline__ void release_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
