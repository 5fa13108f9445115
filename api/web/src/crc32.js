/** CRC-32 as of zlib (polynomial 0xEDB88320, reflected). Pure. */

const TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** @param {Uint8Array} bytes @returns {number} 0 to 2**32 - 1 */
export function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = /** @type {number} */ (TABLE[(value ^ byte) & 255]) ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}
