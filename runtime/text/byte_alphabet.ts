/**
 * The GPT-2 alphabet: one printable character for each byte, in which byte-level vocabularies are written.
 *
 * @module
 */

/** Character of each byte value. */
export function byteCharacters(): string[] {
  const characters: string[] = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    characters.push(String.fromCharCode(printable ? byte : next++));
  }
  return characters;
}

/** Byte value by character code; -1 for codes below the highest that stand for no byte. */
export function characterBytes(): Int16Array {
  const characters = byteCharacters();
  const codes = characters.map((character) => character.charCodeAt(0));
  const bytes = new Int16Array(Math.max(...codes) + 1).fill(-1);
  codes.forEach((code, byte) => bytes[code] = byte);
  return bytes;
}
