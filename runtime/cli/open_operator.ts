/**
 * The client of the commands that talk to a running member.
 *
 * @module
 */
import type { CommandInput } from "./main.ts";
import { OperatorClient } from "./operator_client.ts";
import { readOperatorKey } from "./read_operator_key.ts";

/**
 * Opens the client that flags describe.
 *
 * @throws {TypeError} when the key file cannot be read or holds no key but digests.
 */
export async function openOperator({ settings: { url, apiKeyFile } }: CommandInput): Promise<OperatorClient> {
  if (apiKeyFile === undefined) return new OperatorClient({ url });
  const key = await readOperatorKey(apiKeyFile);
  if (key === undefined) {
    throw new TypeError(
      `Cannot use --api-key-file ${apiKeyFile}: wanted a key as it is, found none, only digests maybe`,
    );
  }
  return new OperatorClient({ url, key });
}
