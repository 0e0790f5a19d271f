/**
 * What computed a kernel digest, as a member says it.
 *
 * @module
 */

/** The words before the hash: the kind of the device and whether it is deterministic. Empty when there are none. */
export function digestedDevice(digest: string): string {
  return digest.slice(0, Math.max(0, digest.lastIndexOf(" ")));
}
