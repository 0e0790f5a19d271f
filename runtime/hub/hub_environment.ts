/**
 * What the environment says about model hubs: the variables that tools of the Hugging Face hub share.
 *
 * @module
 */

/** What the environment says. */
export interface HubEnvironment {
  /** `HF_ENDPOINT`. */
  readonly endpoint?: string;
  /** `HF_TOKEN`. */
  readonly token?: string;
  /** `HF_HUB_OFFLINE`. */
  readonly offline: boolean;
}

/**
 * Reads `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE`; empty ones count as unset.
 *
 * @throws {TypeError} when `HF_TOKEN` cannot be a header, without showing it.
 */
export function readHubEnvironment(env: (name: string) => string | undefined): HubEnvironment {
  const token = env("HF_TOKEN")?.trim() || undefined;
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
    throw new TypeError("Cannot use HF_TOKEN: wanted visible ASCII characters, got others");
  }
  return {
    endpoint: env("HF_ENDPOINT") || undefined,
    token,
    offline: ["1", "true", "yes", "on"].includes((env("HF_HUB_OFFLINE") ?? "").toLowerCase()),
  };
}
