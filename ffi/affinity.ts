/**
 * Pins the calling thread to one CPU (Linux `sched_setaffinity`). Elsewhere, or without FFI permission, every function
 * here reports that it did nothing: pinning is a matter of speed only.
 *
 * @module
 */

import { openLibc } from "./libc.ts";

/** Bytes of a CPU mask: 8192 CPUs. */
const MASK_BYTES = 1024;

const SYMBOLS = {
  // int sched_setaffinity(pid_t pid, size_t cpusetsize, const cpu_set_t *mask);
  sched_setaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
  // int sched_getaffinity(pid_t pid, size_t cpusetsize, cpu_set_t *mask);
  sched_getaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** CPUs the calling thread may run on, ascending; empty when this cannot be asked. */
export function allowedCpus(): number[] {
  using libc = openLibc(SYMBOLS);
  if (libc === undefined) return [];
  const mask = new Uint8Array(MASK_BYTES);
  if (libc.symbols.sched_getaffinity(0, BigInt(MASK_BYTES), mask) !== 0) return [];
  const cpus: number[] = [];
  for (let cpu = 0; cpu < MASK_BYTES * 8; cpu++) if ((mask[cpu >> 3] >> (cpu & 7)) & 1) cpus.push(cpu);
  return cpus;
}

/** Lets the calling thread run on `cpus` alone. Returns whether that took effect. */
export function setAllowedCpus(cpus: readonly number[]): boolean {
  using libc = openLibc(SYMBOLS);
  if (libc === undefined) return false;
  const mask = new Uint8Array(MASK_BYTES);
  for (const cpu of cpus) mask[cpu >> 3] |= 1 << (cpu & 7);
  return libc.symbols.sched_setaffinity(0, BigInt(MASK_BYTES), mask) === 0;
}
