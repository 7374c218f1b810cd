/**
 * Fetching from strangers: bounded in time and size, also when unpacked; and a capsule by its URL.
 *
 *     import { fetchCapsule } from "./bootstrap/index.js";
 *     const { tickets, state } = await fetchCapsule(
 *       "https://muster.example/capsules/mainnet/peers.json", { root, community: "mainnet" });
 *
 * @module
 */
import { Refused, malformed } from "../refused.js";
import { concat } from "../bytes.js";
import { MAX_CAPSULE_BYTES } from "./capsules.js";
import { MAX_MANIFEST_BYTES } from "./manifests.js";
import { requireEd25519 } from "./signatures.js";
import { accept, acceptPinned, begin, expect } from "./trust.js";

/** @typedef {import("./trust.js").State} State */
/** @typedef {import("./trust.js").Accepted} Accepted */
/** @typedef {import("./trust.js").Expected} Expected */
/** @typedef {import("./tickets.js").Rules} Rules */

/**
 * @typedef {<Found extends {state: State}>(ask: (state: State) => Promise<Found>) => Promise<Found>} Learn
 *   asks by the state as it is now, and keeps the one that comes of it, also of a refusal
 */

const DEADLINE_MS = 8000;
const RACES = new Set(["TOO_LARGE", "LENGTH_MISMATCH", "HASH_MISMATCH"]);
const RACE_WAITS_MS = [50, 500];

/**
 * Fetch a published capsule and believe it, or throw `Refused` with the state to keep.
 *
 * The manifest is read first, then as many bytes of capsule as it says. With *pinned* there
 * is no manifest, and the capsule is believed by that key alone (`acceptPinned`). Of slow
 * servers only *deadline* milliseconds are waited for, everything together; of endless
 * ones, packed or not, only *maxBytes* are read. Ask several sources one after the other, each
 * with the state that the last one returned.
 * @param {string} url of `peers.json`
 * @param {object} options
 * @param {string} [options.root] base64 of the root key, if there is no state yet
 * @param {State} [options.state]
 * @param {string} [options.pinned] base64 of the capsule's own key
 * @param {string} [options.community] needed unless a key is pinned
 * @param {number} [options.now] Unix seconds
 * @param {number} [options.deadline] milliseconds for everything
 * @param {number} [options.maxBytes] of a file
 * @param {Rules} [options.rules]
 * @returns {Promise<Accepted>}
 */
export const fetchCapsule = async (url, options) => {
  const { now = Math.floor(Date.now() / 1000), deadline = DEADLINE_MS, rules } = options;
  const { maxBytes = MAX_CAPSULE_BYTES, community, pinned } = options;
  let state = options.state ?? begin(options.root ?? pinned ?? "");
  /** @type {Learn} */
  const learn = async (ask) => {
    const found = await ask(state);
    ({ state } = found);
    return found;
  };
  try {
    await requireEd25519();
    const how = { community, now, rules, pinned, maxBytes, stop: AbortSignal.timeout(deadline), learn };
    return await openCapsule(url, how);
  } catch (error) {
    if (error instanceof Refused) Object.assign(error, { state: /** @type {any} */ (error).state ?? state });
    throw error;
  }
};

/**
 * Open a capsule by the state that *learn* holds.
 * @param {string} url
 * @param {{community?: string, now: number, rules?: Rules, pinned?: string, maxBytes?: number, stop: AbortSignal,
 *   learn: Learn, seen?: (expected: Expected) => void, request?: RequestInit}} how *seen* hears of a believed
 *   manifest before the capsule is fetched
 * @returns {Promise<Accepted>}
 */
export const openCapsule = async (url, how) => {
  const { community, now, rules, pinned, maxBytes = MAX_CAPSULE_BYTES, stop, learn, seen, request } = how;
  if (pinned) {
    const raw = await read(url, maxBytes, stop, request);
    return learn((state) => acceptPinned(state, raw, pinned, { community, now, rules }));
  }
  if (community === undefined) throw malformed("a community is needed");
  // Again after a moment, since the publisher may write between our two reads.
  for (let attempt = 0; ; attempt += 1) {
    const manifest = await read(beside(url), Math.min(maxBytes, MAX_MANIFEST_BYTES), stop, request);
    const expected = await learn((state) => expect(state, manifest, { community, now }));
    seen?.(expected);
    try {
      const capsule = await read(url, Math.min(maxBytes, expected.manifest.capsule.length), stop, request);
      return await learn((state) => accept(state, { manifest, capsule }, { community, now, rules }));
    } catch (error) {
      const raced = error instanceof Refused && RACES.has(error.reason) && attempt < RACE_WAITS_MS.length;
      if (!raced) throw error;
      await pause(RACE_WAITS_MS[attempt], stop);
    }
  }
};

/** @param {string} url @returns {string} where the manifest is; a query stays behind */
const beside = (url) => url.replace(/(?=[?#])|$/, ".manifest");

const tooLate = () => new Refused("TIMEOUT", "it took too long");

/** @param {number} wait milliseconds @param {AbortSignal} stop @returns {Promise<void>} */
export const pause = (wait, stop) =>
  new Promise((resolve, reject) => {
    const late = () => {
      clearTimeout(timer);
      reject(tooLate());
    };
    const timer = setTimeout(() => {
      stop.removeEventListener("abort", late);
      resolve();
    }, wait);
    stop.addEventListener("abort", late);
    if (stop.aborted) late();
  });

/**
 * Read at most *most* bytes of a file before *stop*; `Refused`: `UNREACHABLE`, `TIMEOUT`, `TOO_LARGE`.
 *
 * An `UNREACHABLE` says in `again` whether the same call may have an answer in a moment, and in `waitMs`
 * how long the service wants to be left alone.
 * @param {string} url
 * @param {number} most
 * @param {AbortSignal} stop
 * @param {RequestInit} [request]
 * @returns {Promise<Uint8Array>}
 */
export const read = async (url, most, stop, request) => {
  try {
    const reply = await fetch(url, {
      signal: stop,
      cache: "no-cache",
      credentials: "omit",
      referrerPolicy: "no-referrer",
      ...request,
    });
    if (!reply.ok || !reply.body) throw answered(reply);
    return await drain(reply.body, most);
  } catch (error) {
    if (error instanceof Refused) throw error;
    if (stop.aborted) throw tooLate();
    const why = error instanceof Error ? error.message : String(error);
    throw Object.assign(new Refused("UNREACHABLE", why), { again: true });
  }
};

/** @param {Response} reply */
const answered = (reply) => {
  reply.body?.cancel().catch(() => {});
  const seconds = /^\d{1,7}$/.exec(reply.headers.get("retry-after") ?? "")?.[0];
  return Object.assign(new Refused("UNREACHABLE", `it answered ${reply.status}`), {
    again: reply.status >= 500 && !seconds,
    waitMs: Number(seconds ?? 0) * 1000,
  });
};

/** @param {ReadableStream<Uint8Array>} body @param {number} most @returns {Promise<Uint8Array>} */
const drain = async (body, most) => {
  const reader = body.getReader();
  const chunks = [];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return concat(...chunks);
    length += value.length;
    if (length > most) {
      await reader.cancel().catch(() => undefined);
      throw new Refused("TOO_LARGE", `it has more than ${most} bytes`);
    }
    chunks.push(value);
  }
};
