/**
 * What this device remembers beside the circles: the person's name, STUN and TURN of their own, looks, read marks.
 *
 * It is in localStorage; where that is full or wiped the app goes on with what is in memory.
 * @module
 */
import { effect, signal } from "../ui.js";

const PREFIX = "muster app ";

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

/** A signal that is kept. @template T @param {string} name @param {T} fallback */
const kept = (name, fallback) => {
  const one = signal(recall(name, fallback));
  let first = true;
  effect(() => {
    const { value } = one;
    if (!first) remember(name, value);
    first = false;
  });
  return one;
};

export const settings = {
  name: kept("name", ""),
  /** `auto`, `light` or `dark` */
  theme: kept("theme", "auto"),
  /** Whether to notify when the page is not seen, and to ring. */
  notify: kept("notify", false),
  ring: kept("ring", true),
  /** STUN and TURN servers of one's own. */
  turn: kept("turn", /** @type {RTCIceServer[]} */ ([])),
  /** By TURN alone: others do not learn this device's address. */
  relayOnly: kept("relay only", false),
  /** How many may watch a broadcast. */
  viewers: kept("viewers", 6),
  devices: kept("devices", { audio: "", video: "", speaker: "" }),
};

/** The profile of this page: another one is another person in the same browser. */
export const profile = new URLSearchParams(location.search).get("profile") || "default";
