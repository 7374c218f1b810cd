/**
 * Bytes, and the three ways in which they are written: UTF-8, lower-case hex, base64url.
 * @module
 */
import { malformed } from "./refused.js";

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** @param {string} text @returns {Uint8Array} */
export const utf8 = (text) => encoder.encode(text);

/** Read UTF-8; `Refused` (`MALFORMED`) if it is none. @param {Uint8Array} bytes @returns {string} */
export const text = (bytes) => {
  try {
    return decoder.decode(bytes);
  } catch {
    throw malformed("it is not UTF-8");
  }
};

/** @param {Uint8Array} bytes @returns {string} */
export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Read hex that was checked before. @param {string} digits @returns {Uint8Array} */
export const unhex = (digits) =>
  Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));

/** Write base64url without padding (RFC 4648, 5). @param {Uint8Array} bytes @returns {string} */
export const b64 = (bytes) => {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 8192) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
};

/**
 * Read base64url in its only spelling; `Refused` (`MALFORMED`) otherwise.
 * @param {unknown} written
 * @param {number} [length] how many bytes it must be
 * @returns {Uint8Array}
 */
export const unb64 = (written, length) => {
  let bytes;
  try {
    const plain = /** @type {string} */ (written).replaceAll("-", "+").replaceAll("_", "/");
    bytes = Uint8Array.from(atob(plain), (c) => c.charCodeAt(0));
  } catch {
    bytes = null;
  }
  if (!bytes || b64(bytes) !== written || (length ?? bytes.length) !== bytes.length) {
    throw malformed(`it is not base64url${length ? ` of ${length} bytes` : ""}`);
  }
  return bytes;
};

/** @param {...Uint8Array} parts @returns {Uint8Array} */
export const concat = (...parts) => {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
};

/** @param {Uint8Array} bytes */
const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** @param {number} value @returns {Uint8Array} */
export const u32 = (value) => {
  const bytes = new Uint8Array(4);
  view(bytes).setUint32(0, value);
  return bytes;
};

/** @param {number} value @returns {Uint8Array} */
export const u64 = (value) => {
  const bytes = new Uint8Array(8);
  view(bytes).setBigUint64(0, BigInt(value));
  return bytes;
};

/** @param {Uint8Array} bytes @param {number} [at] @returns {number} */
export const readU32 = (bytes, at = 0) => view(bytes).getUint32(at);

/** Beyond 2^53 it is no number of ours: the caller checks. @param {Uint8Array} bytes @param {number} [at] @returns {number} */
export const readU64 = (bytes, at = 0) => Number(view(bytes).getBigUint64(at));

/** @param {Uint8Array} a @param {Uint8Array} b @returns {boolean} */
export const equal = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at]);

/** @param {number} length @returns {Uint8Array} */
export const random = (length) => crypto.getRandomValues(new Uint8Array(length));
