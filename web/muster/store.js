/**
 * What a profile keeps: rows by kind and id, in IndexedDB, or in memory where there is none (Node).
 *
 * Whole values are kept as they are, keys that cannot be read back and bytes too. Writes that come
 * together go in one transaction. What fails is refused by a reason; nobody has lost what is in memory.
 * @module
 */
import { Refused } from "./refused.js";

/** @typedef {[kind: string, id: string, value: any]} Row */
/**
 * @typedef {object} Store
 * @property {(kind: string, id: string) => Promise<any>} get
 * @property {(kind: string) => Promise<[id: string, value: any][]>} all
 * @property {(rows: Row[]) => Promise<void>} put a value that is undefined removes the row
 * @property {() => void} close
 */

const VERSION = 1;

/** @param {any} error */
const refused = (error) => {
  if (error?.name === "QuotaExceededError") return new Refused("STORAGE_FULL", "this browser stores no more for this page");
  if (error?.name === "VersionError") return new Refused("STORAGE_NEWER", "a newer version of this page has been here: reload it");
  return new Refused("STORAGE_GONE", `what this page has stored is not there: ${error?.message ?? "it was erased"}`);
};

/** @returns {Store} */
const inMemory = () => {
  /** @type {Map<string, Map<string, any>>} */
  const kinds = new Map();
  return {
    get: async (kind, id) => kinds.get(kind)?.get(id),
    all: async (kind) => [...(kinds.get(kind) ?? [])],
    put: async (rows) => {
      for (const [kind, id, value] of rows) {
        const known = kinds.get(kind) ?? new Map();
        kinds.set(kind, known);
        if (value === undefined) known.delete(id);
        else known.set(id, value);
      }
    },
    close: () => {},
  };
};

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
const result = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(refused(request.error));
  });

/** @type {Map<string, Store>} */
const kept = new Map();

/**
 * Open what a profile keeps.
 * @param {string} name
 * @returns {Promise<Store>} `Refused` (`STORAGE_NEWER`, `STORAGE_GONE`)
 */
export const openStore = async (name) => {
  if (!globalThis.indexedDB) {
    const store = kept.get(name) ?? inMemory();
    kept.set(name, store);
    return store;
  }
  /** @type {IDBDatabase} */
  let db;
  try {
    const opening = indexedDB.open(name, VERSION);
    opening.onupgradeneeded = () => opening.result.createObjectStore("rows");
    db = await result(opening);
  } catch (error) {
    throw error instanceof Refused ? error : refused(error);
  }
  /** @type {Error | undefined} */
  let gone;
  db.onversionchange = () => db.close();
  db.onclose = () => (gone = refused(null));
  /** @param {IDBTransactionMode} mode */
  const rows = (mode) => {
    if (gone) throw gone;
    try {
      return db.transaction("rows", mode).objectStore("rows");
    } catch (error) {
      throw refused(error);
    }
  };
  /** @type {Row[]} */
  let due = [];
  /** @type {Promise<void> | undefined} */
  let next;
  let writing = Promise.resolve();
  const write = async () => {
    const all = due;
    due = [];
    next = undefined;
    const store = rows("readwrite");
    for (const [kind, id, value] of all) {
      if (value === undefined) store.delete([kind, id]);
      else store.put(value, [kind, id]);
    }
    await new Promise((/** @type {(value?: any) => void} */ resolve, reject) => {
      store.transaction.oncomplete = resolve;
      store.transaction.onabort = store.transaction.onerror = () => reject(refused(store.transaction.error));
    });
  };
  return {
    get: async (kind, id) => result(rows("readonly").get([kind, id])),
    all: async (kind) => {
      const store = rows("readonly");
      const range = IDBKeyRange.bound([kind], [kind, []]);
      const [keys, values] = await Promise.all([result(store.getAllKeys(range)), result(store.getAll(range))]);
      return values.map((value, at) => [/** @type {string[]} */ (keys[at])[1], value]);
    },
    put: (changed) => {
      due.push(...changed);
      if (!next) {
        next = writing.then(write);
        writing = next.catch(() => {});
      }
      return next;
    },
    close: () => db.close(),
  };
};
