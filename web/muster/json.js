/**
 * JSON with one spelling (RFC 8785 without fractions), and readers of its members.
 *
 * What readers refuse is said by the name of the member that has another form.
 * @module
 */
import { text as decode, utf8 } from "./bytes.js";
import { Refused, malformed } from "./refused.js";

/** @typedef {Record<string, any>} Members an object that came from JSON */

const MAX_DEPTH = 32;
const ASCII_KEY = /^[\x20-\x7e]*$/;
const SURROGATE = /\p{Surrogate}/u;

/** @param {any} value */
const isContainer = (value) => typeof value === "object" && value !== null;

/** @param {string} message */
const notCanonical = (message) => new Refused("NOT_CANONICAL", message);

/**
 * Read JSON of at most 32 levels; `Refused` (`MALFORMED`) otherwise.
 * @param {Uint8Array | string} raw
 * @returns {any}
 */
export const parse = (raw) => {
  let value;
  try {
    value = JSON.parse(typeof raw === "string" ? raw : decode(raw));
  } catch {
    throw malformed("it is not UTF-8 JSON");
  }
  let level = [value];
  for (let depth = 0; depth < MAX_DEPTH && level.length; depth += 1) {
    level = level.flatMap((parent) => (isContainer(parent) ? Object.values(parent) : []));
  }
  if (level.some(isContainer)) throw malformed(`it nests deeper than ${MAX_DEPTH} levels`);
  return value;
};

/**
 * Write a value as it is signed; `Refused` (`NOT_CANONICAL`) for what has no one form.
 * @param {any} value
 * @param {number} [depth]
 * @returns {string}
 */
export const strict = (value, depth = MAX_DEPTH) => {
  if (typeof value === "string") {
    if (SURROGATE.test(value)) throw notCanonical("half a surrogate pair is not text");
    return JSON.stringify(value);
  }
  if (typeof value === "number") {
    if (!Number.isSafeInteger(value)) throw notCanonical("only integers up to 2^53 have one form");
    return String(value);
  }
  if (value === null || typeof value === "boolean") return String(value);
  if (!isContainer(value)) throw notCanonical("only JSON has a canonical form");
  if (!depth) throw notCanonical(`it nests deeper than ${MAX_DEPTH} levels`);
  if (Array.isArray(value)) return `[${value.map((item) => strict(item, depth - 1)).join()}]`;
  const keys = Object.keys(value);
  if (!keys.every((key) => ASCII_KEY.test(key))) throw notCanonical("keys must be printable ASCII");
  // in ASCII, the order of JavaScript is the order of code points
  const pairs = keys.sort().map((key) => `${JSON.stringify(key)}:${strict(value[key], depth - 1)}`);
  return `{${pairs.join()}}`;
};

/**
 * Read what was written by `strict`; `Refused` (`NOT_CANONICAL`) for another spelling.
 * @param {Uint8Array} raw
 * @returns {any}
 */
export const readStrict = (raw) => {
  const said = decode(raw);
  const value = parse(said);
  if (strict(value) !== said) throw notCanonical("it is spelled in another way than it was signed");
  return value;
};

/** @param {any} value @param {string} name @returns {Members} */
export const members = (value, name) => {
  if (!isContainer(value) || Array.isArray(value)) throw malformed(`${name} must be an object`);
  return value;
};

/** @param {Members} data @param {string} name @param {number} most @returns {any[]} */
export const items = (data, name, most) => {
  const value = data[name];
  if (!Array.isArray(value) || value.length > most) {
    throw malformed(`${name} must be an array of at most ${most}`);
  }
  return value;
};

/** @param {Members} data @param {string} name @param {number} [least] @returns {number} */
export const integer = (data, name, least = 0) => {
  const value = data[name];
  if (!Number.isSafeInteger(value) || value < least) {
    throw malformed(`${name} must be a whole number from ${least}`);
  }
  return value;
};

/**
 * @param {Members} data
 * @param {string} name
 * @param {{least?: number, most: number}} limits in bytes of UTF-8
 * @returns {string}
 */
export const text = (data, name, { least = 0, most }) => {
  const value = data[name];
  if (typeof value !== "string" || SURROGATE.test(value)) throw malformed(`${name} must be a string`);
  const length = utf8(value).length;
  if (length < least || length > most) throw malformed(`${name} must have ${least} to ${most} bytes`);
  return value;
};

/** @param {Members} data @param {string} name @param {RegExp} form @returns {string} */
export const matching = (data, name, form) => {
  const value = data[name];
  if (typeof value !== "string" || !form.test(value)) {
    throw malformed(`${name} does not have the right form`);
  }
  return value;
};
