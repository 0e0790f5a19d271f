/**
 * The files that flags of a server name.
 *
 * @module
 */
import { type KeyDigest, loadApiKeys } from "../server/api_keys.ts";
import type { TlsFiles } from "../server/server.ts";
import type { Settings } from "./flags.ts";
import { readFlagFile } from "./read_flag_file.ts";

/** Their contents. */
export interface ServerFiles {
  /** Digests of the keys that may ask. */
  readonly apiKeys: readonly KeyDigest[];
  /** Certificate and key for HTTPS. */
  readonly tls?: TlsFiles;
}

/** Reads them. @throws {TypeError | SyntaxError} when one cannot be used. */
export async function readServerFiles({ apiKeyFile, tlsCert, tlsKey }: Settings): Promise<ServerFiles> {
  // Reading it this way first gives the errors of all file flags the same form.
  if (apiKeyFile !== undefined) await readFlagFile("--api-key-file", apiKeyFile);
  return {
    apiKeys: apiKeyFile === undefined ? [] : await loadApiKeys(apiKeyFile),
    tls: tlsCert === undefined || tlsKey === undefined ? undefined : {
      cert: await readFlagFile("--tls-cert", tlsCert),
      key: await readFlagFile("--tls-key", tlsKey),
    },
  };
}

/** Options of a server that flags give as they are. */
export function doorOptions(
  settings: Settings,
  files: ServerFiles,
): {
  readonly hostname: string;
  readonly port: number;
  readonly apiKeys: readonly KeyDigest[];
  readonly tls?: TlsFiles;
  readonly corsOrigins: readonly string[];
  readonly allowInsecureBind: boolean;
} {
  return {
    hostname: settings.host.replace(/^\[(.*)\]$/, "$1"),
    port: settings.port,
    apiKeys: files.apiKeys,
    tls: files.tls,
    corsOrigins: settings.corsOrigin,
    allowInsecureBind: settings.allowInsecureBind,
  };
}
