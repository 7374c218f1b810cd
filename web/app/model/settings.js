/**
 * What this device remembers beside the circles: the person's name, STUN and TURN of their own, looks, read marks.
 *
 * It is in localStorage; where that is full or wiped the app goes on with what is in memory.
 * @module
 */
import { effect, signal } from "../ui.js";

/** The profile of this page: another one is another person in the same browser, who is called otherwise and has read otherwise. */
export const profile = new URLSearchParams(location.search).get("profile") || "default";
export const PREFIX = profile === "default" ? "muster app " : `muster app of ${profile} `;

/** @template T @param {string} name @param {T} fallback @returns {T} */
export const recall = (name, fallback) => {
  try {
    const found = JSON.parse(localStorage.getItem(PREFIX + name) ?? "null");
    return found !== null && typeof found === typeof fallback && Array.isArray(found) === Array.isArray(fallback) ? found : fallback;
  } catch {
    return fallback; // wiped, forbidden, or written by something else
  }
};

/** @param {string} name @param {any} value @returns {boolean} whether it was kept */
export const remember = (name, value) => {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
};

/** @param {string} name */
export const forget = (name) => {
  try {
    localStorage.removeItem(PREFIX + name);
  } catch {
    // it is not there then
  }
};

/** A signal that is kept. @template T @param {string} name @param {T} fallback @param {(value: T) => boolean} [fits] whether what is found can be used */
const kept = (name, fallback, fits = () => true) => {
  const found = recall(name, fallback);
  const one = signal(fits(found) ? found : fallback);
  let first = true;
  effect(() => {
    const { value } = one;
    if (!first) remember(name, value);
    first = false;
  });
  return one;
};

const NAME_MOST = 64;

/** Whether somebody can be called so: at most 64 bytes, and nothing that breaks a line. @param {string} name */
export const isName = (name) => new TextEncoder().encode(name).length <= NAME_MOST && !/[\p{Cc}\p{Surrogate}]/u.test(name);

/** @param {any} server */
const isServer = (server) => typeof server?.urls === "string" && /^(stun|turn)s?:/.test(server.urls);
/** @param {Record<string, any>} found */
const areWords = (found) => Object.values(found).every((one) => typeof one === "string");

export const settings = {
  name: kept("name", /** @type {string} */ (""), isName),
  /** `auto`, `light` or `dark` */
  theme: kept("theme", /** @type {string} */ ("auto"), (found) => /^(auto|light|dark)$/.test(found)),
  /** Whether to notify when the page is not seen, and to ring. */
  notify: kept("notify", false),
  ring: kept("ring", true),
  /** STUN and TURN servers of one's own. */
  turn: kept("turn", /** @type {RTCIceServer[]} */ ([]), (found) => found.every(isServer)),
  /** By TURN alone: others do not learn this device's address. */
  relayOnly: kept("relay only", false),
  /** How many may watch a broadcast. */
  viewers: kept("viewers", 6, (found) => Number.isInteger(found) && found >= 1 && found <= 8),
  devices: kept("devices", { audio: "", video: "", speaker: "" }, areWords),
};
