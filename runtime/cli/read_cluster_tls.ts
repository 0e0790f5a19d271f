/**
 * Reads the certificates with which a member links over TLS.
 *
 * @module
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { checkServerIdentity } from "node:tls";
import type { LinkTls } from "../../scheduler/links/hello_context.ts";
import type { Settings } from "./flags.ts";
import { readFlagFile } from "./read_flag_file.ts";
import { UsageError } from "./usage_error.ts";

/** The flags that name the files. */
export type ClusterTlsSettings = Pick<Settings, "clusterTlsCert" | "clusterTlsKey" | "clusterTlsCa">;

/** A file that a flag named. */
interface FlagFile {
  readonly flag: string;
  readonly path: string;
  readonly text: string;
}

/**
 * The contents of the three files, checked as far as a member can check its own; undefined when no flag names one.
 * `host` is where other members reach this one.
 *
 * @throws {TypeError} when a file is missing or cannot be read.
 * @throws {UsageError} when one holds something else than it should, is out of date, or does not fit the others or `host`.
 */
export async function readClusterTls(
  { clusterTlsCert, clusterTlsKey, clusterTlsCa }: ClusterTlsSettings,
  { host }: { readonly host?: string } = {},
): Promise<LinkTls | undefined> {
  if (clusterTlsCert === undefined || clusterTlsKey === undefined || clusterTlsCa === undefined) return undefined;
  const cert = await read("--cluster-tls-cert", clusterTlsCert);
  const key = await read("--cluster-tls-key", clusterTlsKey);
  const ca = await read("--cluster-tls-ca", clusterTlsCa);
  const chain = certificatesOf(cert);
  const [own, ...others] = chain;
  const authorities = certificatesOf(ca);
  checkOwn(cert, own);
  for (const authority of authorities) {
    if (!authority.ca) throw wrong(ca, "certificates of an authority", `${nameOf(authority)}, which is none`);
  }
  const privateKey = privateKeyOf(key);
  if (!own.checkPrivateKey(createPrivateKey(privateKey))) {
    throw wrong(key, `the key of ${nameOf(own)} in ${cert.path}`, "the key of another certificate");
  }
  if (!leadsTo(own, { others, authorities })) {
    const wanted = `a certificate that an authority in ${ca.path} has signed`;
    throw wrong(cert, wanted, `${nameOf(own)}, signed by ${oneLine(own.issuer)}`);
  }
  if (host !== undefined && checkServerIdentity(host, own.toLegacyObject()) !== undefined) {
    const names = own.subjectAltName ?? "no host at all";
    throw wrong(cert, `a certificate for ${host}, where others reach this member`, `one for ${names}`);
  }
  // Only what was checked: one file may hold all three.
  return { cert: pemOf(chain), key: privateKey, ca: pemOf(authorities) };
}

async function read(flag: string, path: string): Promise<FlagFile> {
  return { flag, path, text: await readFlagFile(flag, path) };
}

/** Every certificate of a file. */
function certificatesOf(file: FlagFile): X509Certificate[] {
  const blocks = file.text.match(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g);
  if (blocks === null) throw wrong(file, "a certificate (PEM)", contentsOf(file));
  return blocks.map((block) => {
    let certificate: X509Certificate;
    try {
      certificate = new X509Certificate(block);
    } catch {
      throw wrong(file, "a certificate (PEM)", "a damaged one");
    }
    const [from, to] = [certificate.validFrom, certificate.validTo];
    const now = Date.now();
    // Written so that a date which cannot be read does not pass.
    if (!(Date.parse(from) <= now && now <= Date.parse(to))) {
      throw wrong(file, "a certificate that is valid now", `${nameOf(certificate)}, valid from ${from} to ${to}`);
    }
    return certificate;
  });
}

/** TLS takes no certificate of an authority for that of a member. */
function checkOwn(file: FlagFile, own: X509Certificate): void {
  if (own.ca) throw wrong(file, "the member's own certificate first", `${nameOf(own)}, one of an authority`);
}

/** The first private key of a file, PEM. */
function privateKeyOf(file: FlagFile): string {
  const wanted = "a private key (PEM) without a password";
  const [key] = /-----BEGIN ((?:[A-Z]+ )?PRIVATE KEY)-----[^]*?-----END \1-----/.exec(file.text) ?? [];
  if (key === undefined) throw wrong(file, wanted, contentsOf(file));
  if (/BEGIN ENCRYPTED |Proc-Type: 4,ENCRYPTED/.test(key)) throw wrong(file, wanted, "one with a password");
  try {
    createPrivateKey(key);
  } catch {
    throw wrong(file, wanted, "a damaged one");
  }
  return key;
}

function pemOf(certificates: readonly X509Certificate[]): string {
  return certificates.map((certificate) => certificate.toString()).join("");
}

/** Whether each certificate from `certificate` on is signed by the next, up to one of the authorities. */
function leadsTo(
  certificate: X509Certificate,
  { others, authorities }: {
    readonly others: readonly X509Certificate[];
    readonly authorities: readonly X509Certificate[];
  },
): boolean {
  if (authorities.some((authority) => signed(certificate, authority))) return true;
  const next = others.find((other) => signed(certificate, other));
  return next !== undefined && leadsTo(next, { others: others.filter((other) => other !== next), authorities });
}

function signed(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

/** What a file holds, by its PEM labels: never its text, which may be a secret. */
function contentsOf({ text }: FlagFile): string {
  const labels = [...text.matchAll(/-----BEGIN ([A-Z0-9 ]{1,40})-----/g)].map(([, label]) => label);
  if (labels.length > 0) return [...new Set(labels)].join(", ");
  return text.trim() === "" ? "an empty file" : "something else";
}

function nameOf({ subject }: X509Certificate): string {
  return oneLine(subject);
}

function oneLine(name: string): string {
  return JSON.stringify(name.replaceAll("\n", ", "));
}

function wrong({ flag, path }: FlagFile, wanted: string, found: string): UsageError {
  return new UsageError(`Cannot use ${flag} ${path}: wanted ${wanted}, found ${found}`);
}
