/**
 * Sources: where peers of a community can be learned.
 * @module
 */
import { unb64 } from "../bytes.js";
import { malformed } from "../refused.js";
import { COMMUNITY } from "./manifests.js";
import { toBase64 } from "./signatures.js";

/**
 * @typedef {object} Source
 * @property {"cache" | "beacon" | "capsule"} kind
 * @property {string} url
 * @property {string} [key] base64 of what a capsule is believed by
 * @property {boolean} [pinned] whether that is the capsule's own key, not a root
 * @property {boolean} [learned] whether a verified manifest named it, not the caller
 */

/** The community of whoever names none, as for existing clients. */
export const MAINNET = "mainnet";
const LOOPBACK = /^(?:(?:.+\.)?localhost|127(?:\.\d+){3}|\[::1\])$/;

/** @param {URL} url */
const isHere = (url) => url.protocol === "http:" && LOOPBACK.test(url.hostname);

/** Whether a URL leads to this machine, without encryption. @param {string} url @returns {boolean} */
export const onLoopback = (url) => isHere(new URL(url));

/**
 * Whether a place that a manifest or a cache names may be asked: https, or all on this machine.
 * @param {string} url
 * @param {boolean} local
 * @returns {boolean}
 */
export const mayFollow = (url, local) => {
  try {
    const read = readUrl(url);
    return local || !isHere(read);
  } catch {
    return false;
  }
};

/** @param {unknown} text @returns {URL} */
const readUrl = (text) => {
  let url;
  try {
    url = new URL(String(text), globalThis.location?.href);
  } catch {
    throw malformed(`'${text}' is not a URL`);
  }
  if (url.username || url.password || (url.protocol !== "https:" && !isHere(url))) {
    throw malformed(`'${url.origin}' must be https, or http on this machine`);
  }
  return url;
};

/**
 * Read a verify key in either alphabet of base64; `Refused` (`MALFORMED`) if it is none.
 * @param {string} text
 * @returns {string} padded, in the standard alphabet
 */
export const readKey = (text) =>
  toBase64(unb64(text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, ""), 32));

/**
 * Read where a capsule is and what it is believed by: `URL#KEY` (a root), `URL#capsule=KEY` (its own key).
 * @param {string} text
 * @param {{root?: string, pinned?: string}} keys for a URL without a key
 * @returns {Source}
 */
export const readCapsuleUrl = (text, { root, pinned }) => {
  const url = readUrl(text);
  const [, own, named] = /** @type {RegExpExecArray} */ (/^#?(capsule=|root=|)(.*)$/.exec(url.hash));
  url.hash = "";
  // in a fragment only "+", "/" and "=" of base64 may have been escaped
  const plain = named.replace(/%(2b|2f|3d)/gi, (_, code) => String.fromCharCode(parseInt(code, 16)));
  const key = plain || (root ?? pinned);
  if (!key) throw malformed(`'${url.href}' needs the key to believe it by: write URL#KEY`);
  const isPinned = named ? own === "capsule=" : root === undefined;
  return { kind: "capsule", url: url.href, key: readKey(key), pinned: isPinned };
};

/** Read the base URL of a beacon. @param {string} text @returns {Source} */
export const readBeaconUrl = (text) => {
  const url = readUrl(text);
  if (url.search || url.hash) throw malformed(`'${url.href}' is not a beacon: its URL has no '?' or '#' in it`);
  return { kind: "beacon", url: url.href.replace(/\/+$/, "") };
};

/** The community in whose folder a capsule lies: `…/capsules/NAME/peers.json`. @param {Source} source */
export const folder = ({ url }) => {
  const name = /\/capsules\/([^/]+)\/[^/]+$/.exec(new URL(url).pathname)?.[1];
  return name && COMMUNITY.test(name) ? name : undefined;
};
