// What a profile keeps where there is an IndexedDB, by one of the test's own that fails at will (real ones: tests/browser/test_store.py).
import assert from "node:assert/strict";
import { test } from "node:test";

import { Log } from "../../web/muster/log.js";
import { openStore } from "../../web/muster/store.js";
import { CIRCLE, held, member, said } from "./records.mjs";
import { inTime, pass, soon, until } from "./stub.mjs";

/** As much of IndexedDB as the library asks of it. */
class Database {
  rows = new Map();
  version = 0;
  /** What the next transactions come to: names of errors. */
  fails = [];
  transactions = 0;
  isClosed = false;

  open(_name, version) {
    return this.#request(async (request) => {
      if (this.refuses) throw new DOMException("no", this.refuses);
      if (version < this.version) throw new DOMException("newer", "VersionError");
      this.isClosed = false;
      request.result = this.db = { close: () => (this.isClosed = true), transaction: (_store, mode) => this.#begin(mode), createObjectStore: () => {} };
      if (!this.version) {
        let aborted = false;
        request.transaction = { abort: () => (aborted = true) };
        request.onupgradeneeded();
        if (aborted) throw new DOMException("aborted", "AbortError");
        this.version = version;
      }
      return this.db;
    });
  }

  #request(work) {
    const request = {};
    setImmediate(async () => {
      try {
        request.result = await work(request);
        request.onsuccess?.();
      } catch (error) {
        request.error = error;
        request.onerror?.();
      }
    });
    return request;
  }

  #begin(mode) {
    if (this.isClosed) throw new DOMException("it is closed", "InvalidStateError");
    const changed = new Map();
    const transaction = {};
    const key = ([kind, id]) => `${kind}\n${id}`;
    const found = ({ kind }) => [...this.rows].filter(([one]) => one.startsWith(`${kind}\n`)).sort();
    if (mode === "readwrite") {
      setImmediate(() => {
        this.transactions += 1;
        const error = this.fails.shift();
        if (error) {
          transaction.error = new DOMException("no", error);
          return transaction.onabort();
        }
        for (const [one, value] of changed) value === undefined ? this.rows.delete(one) : this.rows.set(one, value);
        return transaction.oncomplete();
      });
    }
    return {
      objectStore: () => ({
        transaction,
        get: (one) => this.#request(async () => this.rows.get(key(one))),
        getAllKeys: (range) => this.#request(async () => found(range).map(([one]) => one.split("\n"))),
        getAll: (range) => this.#request(async () => found(range).map(([, value]) => value)),
        put: (value, one) => changed.set(key(one), structuredClone(value)),
        delete: (one) => changed.set(key(one), undefined),
      }),
    };
  }
}

const kept = (script) =>
  inTime(async () => {
    const database = new Database();
    globalThis.indexedDB = database;
    globalThis.IDBKeyRange = { bound: ([kind]) => ({ kind }) };
    try {
      await script(database);
    } finally {
      delete globalThis.indexedDB;
      delete globalThis.IDBKeyRange;
    }
  });

test("rows are kept by kind, many in one transaction, and are there again", kept(async (database) => {
  const store = await openStore("one");
  await soon(Promise.all([store.put([["a", "1", 1]]), store.put([["a", "1", 2], ["a", "2", 3]]), store.put([["b", "1", 4], ["a", "2", undefined]])]));
  assert.equal(database.transactions, 1);
  assert.deepEqual([await store.all("a"), await store.get("b", "1"), await store.get("b", "2"), store.trouble], [[["1", 2]], 4, undefined, undefined]);
  store.close();
  await pass(1);
  assert.equal(database.isClosed, true);
  assert.deepEqual(await (await openStore("one")).all("a"), [["1", 2]]);
}));

test("when nothing more is stored that is told, nothing is lost in memory, and all is written when there is room", kept(async (database) => {
  const [store, ann] = [await openStore("one"), await member()];
  const log = await Log.open(store, CIRCLE);
  const told = [];
  log.ontrouble = ({ reason }) => told.push(reason);
  database.fails = Array(5).fill("QuotaExceededError");
  for (const text of ["one", "two", "three"]) await soon(log.append(ann, said(text)));
  assert.deepEqual([told, log.tip(ann.author)[0], database.rows.size], [["STORAGE_FULL"], 3, 0]);
  await until(() => database.rows.size, "room", 60_000);
  assert.deepEqual(held(await Log.open(store, CIRCLE)), held(log));
  await soon(log.append(ann, said("four")));
  database.fails = ["UnknownError"];
  await soon(log.append(ann, said("five")));
  assert.deepEqual(told, ["STORAGE_FULL", "STORAGE_GONE"]);
  await pass(6000);
  assert.deepEqual(held(await Log.open(store, CIRCLE)), held(log));
  database.fails = ["QuotaExceededError"];
  await soon(store.put([["a", "1", 1]]));
  store.close();
  const { transactions } = database;
  await pass(60_000);
  assert.equal(database.transactions, transactions, "who has closed it tries no more");
}));

test("what cannot be cloned is told, and what is beside it is kept", kept(async (database) => {
  const store = await openStore("one");
  await soon(store.put([["a", "1", () => {}], ["a", "2", 2]]));
  assert.deepEqual([store.trouble.reason, [...database.rows]], ["STORAGE_GONE", [["a\n2", 2]]]);
  await soon(store.put([["a", "3", 3]]));
  assert.deepEqual([store.trouble, database.rows.size], [undefined, 2]);
}));

test("a database that the browser has closed is opened again, one that it has wiped is not begun by half", kept(async (database) => {
  const store = await openStore("one");
  await soon(store.put([["a", "1", 1]]));
  database.db.onversionchange();
  await soon(store.put([["a", "2", 2]]));
  assert.deepEqual([database.rows.size, store.trouble], [2, undefined]);
  Object.assign(database, { isClosed: true, version: 0 });
  database.rows.clear();
  await soon(store.put([["a", "3", 3]]));
  assert.deepEqual([store.trouble.reason, database.rows.size], ["STORAGE_GONE", 0]);
  Object.assign(database, { isClosed: true, version: 9 });
  await pass(6000);
  await soon(store.put([["a", "4", 4]]));
  assert.equal(store.trouble.reason, "STORAGE_NEWER");
  store.close();
  await assert.rejects(soon(openStore("one")), { reason: "STORAGE_NEWER" });
  await assert.rejects(soon(store.get("a", "1")), { name: "InvalidStateError" });
  database.refuses = "UnknownError";
  assert.equal((await soon(openStore("two"))).trouble.reason, "STORAGE_GONE");
}));
