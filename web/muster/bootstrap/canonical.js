/**
 * The text that existing clients of the mesh sign: sorted by their users' languages.
 *
 * Keys that two languages could order differently are refused (docs/adr/0005).
 * @module
 */
import { Refused } from "../refused.js";

const MAX_DEPTH = 32;
const KNOWN_KEYS = new Set(
  ("version algorithm publicKey signature payload " +
    "peerId userId issuedAt expiresAt nonce community peers").split(" "),
);
const PLAIN_KEY = /^[A-Za-z0-9_]+$/;

/** @param {string} message */
const not = (message) => new Refused("NOT_CANONICAL", message);

/** @param {string} a @param {string} b */
export const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

/** @param {string} key */
const primary = (key) => key.toLowerCase().replaceAll("_", " ");

/** Lower case before upper. @param {string} key */
const tertiary = (key) => key.replace(/[a-z]/gi, (c) => (c < "a" ? c.toLowerCase() : c.toUpperCase()));

/** @param {string[]} keys @returns {string[]} */
const collated = (keys) => {
  const ordered = [...keys].sort(compare);
  if (ordered.every((key) => KNOWN_KEYS.has(key))) return ordered;
  const root = [...keys].sort(
    (a, b) => compare(primary(a), primary(b)) || compare(tertiary(a), tertiary(b)),
  );
  if (!ordered.every((key, place) => PLAIN_KEY.test(key) && key === root[place])) {
    throw not("browsers could disagree about the order of the keys");
  }
  return ordered;
};

/**
 * Return what is signed of a parsed JSON value; `Refused` (`NOT_CANONICAL`) where there is no one form.
 * @param {any} value
 * @param {number} [depth]
 * @returns {string}
 */
export const canonical = (value, depth = MAX_DEPTH) => {
  if (value === null || ["string", "number", "boolean"].includes(typeof value)) return JSON.stringify(value);
  if (typeof value !== "object") throw not("only JSON has a canonical form");
  if (!depth) throw not(`it nests deeper than ${MAX_DEPTH} levels`);
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item, depth - 1)).join()}]`;
  const keys = collated(Object.keys(value));
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonical(value[key], depth - 1)}`).join()}}`;
};
