/**
 * What a profile keeps: rows by kind and id, in IndexedDB, or in memory where there is none (Node).
 *
 * Values are kept as they are, bytes too, and keys that cannot be read back. What is put together goes in one
 * transaction, and nothing goes before what was put earlier: a store may be behind, as one that was restored
 * from a backup is, and has no holes. Where the browser keeps nothing more, all goes on in memory: `trouble` says why.
 * @module
 */
import { Refused } from "./refused.js";

/** @typedef {[kind: string, id: string, value: any]} Row */
/**
 * @typedef {object} Store
 * @property {Refused | undefined} [trouble] why what was put last is in memory alone: `STORAGE_FULL`, `STORAGE_GONE`, `STORAGE_NEWER`
 * @property {(kind: string, id: string) => Promise<any>} get
 * @property {(kind: string) => Promise<[id: string, value: any][]>} all
 * @property {(rows: Row[]) => Promise<void>} put resolves when it is kept, or cannot be; a value that is undefined removes the row
 * @property {() => void} close
 */

const VERSION = 1;
const PATIENCE = 3000;
const LONGEST = 8000;
const AGAIN = 5000;

/** @param {any} error */
const refused = (error) => {
  if (error?.name === "QuotaExceededError") return new Refused("STORAGE_FULL", "this browser stores no more for this page");
  if (error?.name === "VersionError") return new Refused("STORAGE_NEWER", "a newer version of this page has been here: reload it");
  return new Refused("STORAGE_GONE", `what this page has stored is not there: ${error?.message}`);
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
    request.onerror = () => reject(request.error);
  });

/** @param {string} name @returns {Promise<Store>} */
const inDatabase = async (name) => {
  /** @param {boolean} known whether it was there before: what was wiped since is not begun again with half of it */
  const open = async (known) => {
    const opening = indexedDB.open(name, VERSION);
    opening.onupgradeneeded = () => {
      if (known) opening.transaction?.abort();
      else opening.result.createObjectStore("rows");
    };
    const db = await result(opening);
    db.onversionchange = () => db.close(); // a newer page, or who erases it, waits for nobody
    return db;
  };
  let db = await open(false);
  let closed = false;
  /** @param {IDBTransactionMode} mode */
  const rows = async (mode) => {
    try {
      return db.transaction("rows", mode).objectStore("rows");
    } catch (error) {
      if (closed) throw error;
      // browsers close databases of pages that sleep; one that is being erased may not open for long
      const late = new Promise((_, reject) => setTimeout(() => reject(error), PATIENCE));
      db = await /** @type {Promise<IDBDatabase>} */ (Promise.race([open(true), late]));
      return db.transaction("rows", mode).objectStore("rows");
    }
  };
  /** @type {Map<string, Row>} */
  const due = new Map();
  /** @type {Promise<void> | undefined} */
  let next;
  let writing = Promise.resolve();
  /** @type {any} */
  let waits;
  const write = async () => {
    next = undefined;
    if (waits) return;
    const batch = [...due];
    let lost;
    try {
      const store = await rows("readwrite");
      for (const [, [kind, id, value]] of batch) {
        try {
          if (value === undefined) store.delete([kind, id]);
          else store.put(value, [kind, id]);
        } catch (error) {
          if (/** @type {Error} */ (error).name !== "DataCloneError") throw error;
          lost = refused(error); // this browser never keeps it, and what is beside it is not to wait
        }
      }
      await new Promise((/** @type {(value?: any) => void} */ resolve, reject) => {
        store.transaction.oncomplete = resolve;
        store.transaction.onabort = () => reject(store.transaction.error);
        setTimeout(() => reject(refused(null)), LONGEST); // of a database that was erased some never end
      });
      for (const [key, row] of batch) if (due.get(key) === row) due.delete(key);
      made.trouble = lost;
    } catch (error) {
      made.trouble = refused(error);
      waits = !closed && setTimeout(() => {
        waits = 0;
        void put([]);
      }, AGAIN);
    }
  };
  /** @param {Row[]} changed */
  const put = (changed) => {
    for (const row of changed) due.set(`${row[0]}\n${row[1]}`, row);
    return (writing = next ??= writing.then(write));
  };
  /** @type {Store} */
  const made = {
    get: async (kind, id) => result((await rows("readonly")).get([kind, id])),
    all: async (kind) => {
      const store = await rows("readonly");
      const range = IDBKeyRange.bound([kind], [kind, []]);
      const [keys, values] = await Promise.all([result(store.getAllKeys(range)), result(store.getAll(range))]);
      return values.map((value, at) => [/** @type {string[]} */ (keys[at])[1], value]);
    },
    put,
    close: () => {
      closed = true;
      clearTimeout(waits);
      void writing.then(() => db.close());
    },
  };
  return made;
};

/** @type {Map<string, Store>} */
const kept = new Map();

/**
 * Open what a profile keeps.
 * @param {string} name
 * @returns {Promise<Store>} `Refused` (`STORAGE_NEWER`): a newer page knows more of it
 */
export const openStore = async (name) => {
  let trouble;
  try {
    if (globalThis.indexedDB) return await inDatabase(name);
  } catch (error) {
    trouble = refused(error);
    if (trouble.reason === "STORAGE_NEWER") throw trouble;
  }
  const store = kept.get(name) ?? Object.assign(inMemory(), { trouble });
  kept.set(name, store);
  return store;
};
