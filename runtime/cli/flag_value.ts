/**
 * Reads the values of flags from text and from JSON.
 *
 * @module
 */
import type { FlagSpec } from "./flags.ts";
import { nearest } from "./nearest.ts";

/** A value read, or what was wanted instead. */
export type ReadValue = { readonly value: unknown } | { readonly wanted: string };

const BYTE_UNITS: Readonly<Record<string, number>> = {
  "": 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
};

/** Reads one occurrence on the command line, or an environment variable; `separator` cuts lists of several values. */
export function readText(
  flag: FlagSpec,
  text: string,
  { separator }: { readonly separator?: string } = {},
): ReadValue {
  if (/\p{Cc}/u.test(text)) return { wanted: "text without control characters" };
  switch (flag.kind) {
    case "text":
    case "path":
      return text === "" ? { wanted: "some text" } : { value: text };
    case "integer":
    case "number":
      return readNumber(flag, /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : undefined);
    case "bytes":
      return readBytes(text);
    case "switch":
      return readSwitch(text);
    case "choice":
      return readChoice(flag, text);
    case "list": {
      const values = separator === undefined ? [text] : text.split(separator).map((part) => part.trim());
      return values.includes("") ? { wanted: "some text" } : { value: values };
    }
    case "pairs": {
      const pairs = separator === undefined ? [text] : text.split(separator);
      return readPairs(pairs);
    }
  }
}

/** Reads a value of a configuration file. */
export function readJson(flag: FlagSpec, json: unknown): ReadValue {
  switch (flag.kind) {
    case "integer":
    case "number":
      return readNumber(flag, typeof json === "number" ? json : undefined);
    case "bytes":
      return typeof json === "number" ? readBytes(String(json)) : fromText(flag, json);
    case "switch":
      return typeof json === "boolean" ? { value: json } : { wanted: "true or false" };
    case "list":
      return Array.isArray(json) && json.every((item) => typeof item === "string" && item !== "")
        ? { value: json }
        : { wanted: "a list of texts" };
    case "pairs":
      return typeof json === "object" && json !== null && !Array.isArray(json)
        ? { value: { ...json } }
        : { wanted: "an object" };
    default:
      return fromText(flag, json);
  }
}

function fromText(flag: FlagSpec, json: unknown): ReadValue {
  return typeof json === "string" ? readText(flag, json) : { wanted: "text" };
}

function readNumber(
  { kind, min, max }: Extract<FlagSpec, { readonly kind: "integer" | "number" }>,
  value: number | undefined,
): ReadValue {
  const fits = value !== undefined && value >= min && value <= max && (kind === "number" || Number.isInteger(value));
  return fits ? { value } : { wanted: `a ${kind === "integer" ? "whole " : ""}number from ${min} to ${max}` };
}

function readBytes(text: string): ReadValue {
  const [, digits, unit] = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/.exec(text) ?? [];
  const bytes = Math.round(Number(digits) * BYTE_UNITS[unit]);
  return Number.isSafeInteger(bytes) && bytes > 0 ? { value: bytes } : { wanted: "a size such as 512MiB or 1.5GB" };
}

function readSwitch(text: string): ReadValue {
  switch (text.toLowerCase()) {
    case "true":
    case "1":
    case "yes":
    case "on":
      return { value: true };
    case "false":
    case "0":
    case "no":
    case "off":
      return { value: false };
    default:
      return { wanted: "true or false" };
  }
}

function readChoice(
  { choices, numbered }: Extract<FlagSpec, { readonly kind: "choice" }>,
  text: string,
): ReadValue {
  if (choices.includes(text)) return { value: text };
  const [name, number, ...rest] = text.split(":");
  if (numbered !== undefined && name === numbered) {
    if (rest.length === 0 && /^\d{1,3}$/.test(number)) return { value: `${name}:${Number(number)}` };
    return { wanted: `${numbered}, or ${numbered}: and a number` };
  }
  const near = nearest(text, choices);
  return { wanted: `one of ${choices.join(", ")}${near === undefined ? "" : ` (${near}?)`}` };
}

function readPairs(texts: readonly string[]): ReadValue {
  const entries: [string, unknown][] = [];
  for (const text of texts) {
    const equals = text.indexOf("=");
    if (equals < 1) return { wanted: "KEY=VALUE" };
    entries.push([text.slice(0, equals).trim(), jsonOrText(text.slice(equals + 1))]);
  }
  return { value: Object.fromEntries(entries) };
}

function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
