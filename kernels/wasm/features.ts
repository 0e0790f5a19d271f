/**
 * Which WebAssembly features this host has.
 *
 * @module
 */

function moduleWith(...body: number[]): Uint8Array<ArrayBuffer> {
  // Header, one type () -> (), one function, its code.
  const code = [0x00, ...body, 0x0b];
  return new Uint8Array([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...[1, 4, 1, 0x60, 0, 0],
    ...[3, 2, 1, 0],
    ...[10, code.length + 2, 1, code.length, ...code],
  ]);
}

const SPLAT = [0x41, 0, 0xfd, 0x0f];
const DROP = 0x1a;

const PROBES: Readonly<Record<string, Uint8Array<ArrayBuffer>>> = {
  // i8x16.splat
  "SIMD": moduleWith(...SPLAT, DROP),
  // i16x8.relaxed_dot_i8x16_i7x16_s
  "relaxed SIMD": moduleWith(...SPLAT, ...SPLAT, 0xfd, 0x92, 0x02, DROP),
  // atomic.fence
  "threads": moduleWith(0xfe, 0x03, 0x00),
};

/** Names of needed features that this host lacks. */
export function missingFeatures(): string[] {
  return Object.keys(PROBES).filter((name) => !WebAssembly.validate(PROBES[name]));
}

/**
 * Checks that this host has every feature the kernels need.
 *
 * @throws {TypeError} when one is missing, naming it.
 */
export function requireFeatures(): void {
  const missing = missingFeatures();
  if (missing.length > 0) {
    throw new TypeError(
      `Cannot run the WebAssembly kernels: the host must have SIMD, relaxed SIMD and threads, but lacks ${
        missing.join(", ")
      }`,
    );
  }
}
