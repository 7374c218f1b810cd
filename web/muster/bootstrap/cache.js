/**
 * What a community keeps between visits: a node's identity, what was learned of signers, who was there.
 *
 * One IndexedDB database a profile, shared by all tabs; memory where there is none, or none that works.
 * @module
 */
import { random } from "../bytes.js";
import { signer, signerOf } from "../crypto.js";
import { items, matching, members, text } from "../json.js";
import { Refused, malformed } from "../refused.js";
import { merged, readState } from "./trust.js";

/** @typedef {import("./sources.js").Source} Source */
/** @typedef {import("./trust.js").State} State */
/** @typedef {{tickets: any[], places: Source[]}} Known nothing in it is verified */

/** @type {Map<string, Map<string, any>>} by profile */
const memories = new Map();
const STORE = "kept";
const OPEN_MS = 3000;
export const MAX_TICKETS = 200;
const MAX_PLACES = 32;

/** @param {string} name @returns {Promise<IDBDatabase>} */
const openDatabase = (name) =>
  new Promise((resolve, reject) => {
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      reject(new Error("it does not open"));
    }, OPEN_MS);
    const asked = indexedDB.open(name, 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore(STORE);
    asked.onsuccess = () => {
      clearTimeout(timer);
      if (isLate) asked.result.close();
      resolve(asked.result);
    };
    asked.onerror = () => reject(asked.error);
  });

export class Cache {
  /** @type {IDBDatabase | undefined} */
  #database;
  /** @type {Map<string, any>} */
  #memory;
  /** @type {(error: Refused) => void} */
  #lost;

  /** @param {Map<string, any>} memory @param {(error: Refused) => void} lost */
  constructor(memory, lost) {
    this.#memory = memory;
    this.#lost = lost;
  }

  /**
   * Open the cache of a profile; *lost* hears once that nothing outlives the page, and why.
   * @param {string} profile
   * @param {(error: Refused) => void} lost
   */
  static async open(profile, lost) {
    const memory = memories.get(profile) ?? new Map();
    memories.set(profile, memory);
    const cache = new Cache(memory, lost);
    try {
      if (globalThis.indexedDB) cache.#use(await openDatabase(`muster-bootstrap ${profile}`));
    } catch (error) {
      cache.#gone(error);
    }
    return cache;
  }

  /** Whether it outlives the page. */
  get durable() {
    return Boolean(this.#database);
  }

  close() {
    this.#database?.close();
    this.#database = undefined;
  }

  /** @param {IDBDatabase} database */
  #use(database) {
    this.#database = database;
    database.onversionchange = () => database.close();
    database.onclose = () => this.#gone(new Error("the browser has closed it"));
  }

  /** @param {any} error */
  #gone(error) {
    this.close();
    const full = error?.name === "QuotaExceededError";
    this.#lost(new Refused(full ? "STORAGE_FULL" : "STORAGE_GONE", `nothing can be kept: ${error?.message}`));
  }

  /**
   * Put what *change* makes of what is kept under a name, with no other tab in between.
   * @param {string} name
   * @param {(old: any) => any} change returns undefined to leave it
   * @returns {Promise<any>} what is kept then
   */
  async #update(name, change) {
    const database = this.#database;
    let found = this.#memory.get(name);
    try {
      if (database) found = await inDatabase(database, name, change);
    } catch (error) {
      this.#gone(error);
    }
    if (!this.#database) found = change(found) ?? found;
    this.#memory.set(name, found);
    return found;
  }

  /** @param {string} name */
  #get(name) {
    return this.#update(name, () => undefined);
  }

  /** The key with which this node signs its tickets; made at the first use. @returns {Promise<import("../crypto.js").Signer>} */
  async identity() {
    let kept = await this.#get("identity");
    if (!isIdentity(kept)) {
      const fresh = await makeIdentity();
      kept = await this.#update("identity", (old) => (isIdentity(old) ? undefined : fresh));
    }
    return kept.seed ? signer(kept.seed) : signerOf(kept.key, kept.public);
  }

  /** What was learned under a key that the caller named; `Refused` if it is damaged. @param {string} key @returns {Promise<State | undefined>} */
  async state(key) {
    const kept = await this.#get(`trust ${key}`);
    return kept && readState(kept);
  }

  /** Keep what was learned, and return it with what another tab has learned since. @param {string} key @param {State} state @returns {Promise<State>} */
  keepState(key, state) {
    return this.#update(`trust ${key}`, (old) => {
      try {
        return old ? merged(readState(old), state) : state;
      } catch {
        return state;
      }
    });
  }

  /** Who and what was known of a community; `Refused` if it is damaged. @param {string} community @returns {Promise<Known>} */
  async known(community) {
    const kept = await this.#get(`known ${community}`);
    if (!kept) return { tickets: [], places: [] };
    const data = members(kept, "what is kept");
    return { tickets: items(data, "tickets", MAX_TICKETS), places: items(data, "places", MAX_PLACES).map(readPlace) };
  }

  /** @param {string} community @param {Known} known @returns {Promise<Known>} */
  keepKnown(community, { tickets, places }) {
    const kept = { tickets: tickets.slice(0, MAX_TICKETS), places: places.slice(0, MAX_PLACES) };
    return this.#update(`known ${community}`, () => kept);
  }
}

/** @param {IDBDatabase} database @param {string} name @param {(old: any) => any} change @returns {Promise<any>} */
const inDatabase = (database, name, change) =>
  new Promise((resolve, reject) => {
    /** @type {any} */
    let found;
    const transaction = database.transaction(STORE, "readwrite");
    const store = transaction.objectStore(STORE);
    transaction.oncomplete = () => resolve(found);
    transaction.onabort = () => reject(transaction.error);
    const asked = store.get(name);
    asked.onsuccess = () => {
      found = asked.result;
      const made = change(found);
      if (made !== undefined) store.put((found = made), name);
    };
  });

/** @param {any} kept */
const isIdentity = (kept) =>
  (kept?.key instanceof CryptoKey && kept.public?.length === 32) || kept?.seed?.length === 32;

/** A key that cannot be read out, or where the browser makes none, the seed of one. */
const makeIdentity = async () => {
  try {
    const { subtle } = crypto;
    const pair = /** @type {CryptoKeyPair} */ (await subtle.generateKey({ name: "Ed25519" }, false, ["sign", "verify"]));
    return { key: pair.privateKey, public: new Uint8Array(await subtle.exportKey("raw", pair.publicKey)) };
  } catch {
    return { seed: random(32) };
  }
};

/** @param {any} entry @returns {Source} */
const readPlace = (entry) => {
  const { kind, url, key } = members(entry, "a place");
  if (kind !== "beacon" && kind !== "capsule") throw malformed("kind must be beacon or capsule");
  text(entry, "url", { most: 512 });
  matching(entry, "key", /^[A-Za-z0-9+/]{43}=$/);
  return { kind, url, key, learned: true };
};
