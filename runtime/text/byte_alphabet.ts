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

/** Byte value of each character of the alphabet. */
export function characterBytes(): Map<string, number> {
  return new Map(byteCharacters().map((character, byte) => [character, byte]));
}
