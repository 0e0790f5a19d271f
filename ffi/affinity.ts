/**
 * Pins the calling thread to one CPU (Linux `sched_setaffinity`). Elsewhere, or without FFI permission, every function
 * here reports that it did nothing: pinning is a matter of speed only.
 *
 * @module
 */

/** Bytes of a CPU mask: 8192 CPUs. */
const MASK_BYTES = 1024;

const LIBC = {
  // int sched_setaffinity(pid_t pid, size_t cpusetsize, const cpu_set_t *mask);
  sched_setaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
  // int sched_getaffinity(pid_t pid, size_t cpusetsize, cpu_set_t *mask);
  sched_getaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

type Libc = Deno.DynamicLibrary<typeof LIBC>;

// A permission that names paths does not cover a bare library name, so full paths are tried too.
const CANDIDATES = [
  "libc.so.6",
  `/lib/${Deno.build.arch}-linux-gnu/libc.so.6`,
  "/lib64/libc.so.6",
  "/usr/lib/libc.so.6",
];

function openLibc(): Libc | undefined {
  if (Deno.build.os !== "linux") return undefined;
  const allowed = Deno.permissions.querySync({ name: "ffi" }).state === "granted"
    ? CANDIDATES
    : CANDIDATES.filter((path) => Deno.permissions.querySync({ name: "ffi", path }).state === "granted");
  for (const path of allowed) {
    try {
      return Deno.dlopen(path, LIBC);
    } catch {
      // Another libc layout: the next path may exist.
    }
  }
  return undefined;
}

/** CPUs the calling thread may run on, ascending; empty when this cannot be asked. */
export function allowedCpus(): number[] {
  const libc = openLibc();
  if (libc === undefined) return [];
  try {
    const mask = new Uint8Array(MASK_BYTES);
    if (libc.symbols.sched_getaffinity(0, BigInt(MASK_BYTES), mask) !== 0) return [];
    const cpus: number[] = [];
    for (let cpu = 0; cpu < MASK_BYTES * 8; cpu++) if ((mask[cpu >> 3] >> (cpu & 7)) & 1) cpus.push(cpu);
    return cpus;
  } finally {
    libc.close();
  }
}

/** Lets the calling thread run on `cpus` alone. Returns whether that took effect. */
export function setAllowedCpus(cpus: readonly number[]): boolean {
  const libc = openLibc();
  if (libc === undefined) return false;
  try {
    const mask = new Uint8Array(MASK_BYTES);
    for (const cpu of cpus) mask[cpu >> 3] |= 1 << (cpu & 7);
    return libc.symbols.sched_setaffinity(0, BigInt(MASK_BYTES), mask) === 0;
  } finally {
    libc.close();
  }
}
