// What a profile keeps, where there is no IndexedDB, and where the browser does not give it.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { hex, random } from "../../web/muster/bytes.js";
import { openStore } from "../../web/muster/store.js";

const name = () => hex(random(8));
afterEach(() => delete globalThis.indexedDB);

test("rows are kept by kind and id, as they are, and undefined removes one", async () => {
  const store = await openStore(name());
  const key = await crypto.subtle.importKey("raw", random(32), "HKDF", false, ["deriveBits"]);
  await store.put([["a", "1", { key, bytes: new Uint8Array([1]) }], ["a", "2", 2], ["b", "1", 3]]);
  assert.equal((await store.get("a", "1")).key, key);
  assert.deepEqual((await store.all("a")).map(([id]) => id), ["1", "2"]);
  await store.put([["a", "1", undefined], ["c", "9", undefined]]);
  assert.deepEqual([await store.all("a"), await store.get("b", "1"), await store.get("b", "2"), await store.all("d")], [[["2", 2]], 3, undefined, []]);
  assert.equal(store.trouble, undefined);
});

test("who opens a profile again has the same, and another profile nothing of it", async () => {
  const [one, two] = [name(), name()];
  const store = await openStore(one);
  await store.put([["a", "1", 1]]);
  store.close();
  assert.deepEqual([await (await openStore(one)).get("a", "1"), await (await openStore(two)).get("a", "1")], [1, undefined]);
});

const failing = (error) => {
  globalThis.indexedDB = {
    open: () => {
      const request = { error };
      queueMicrotask(() => request.onerror());
      return request;
    },
  };
};

test("where the browser keeps nothing for a page, all goes on in memory, and why is told", async () => {
  for (const [word, reason] of [["UnknownError", "STORAGE_GONE"], ["QuotaExceededError", "STORAGE_FULL"]]) {
    failing(new DOMException("no", word));
    const store = await openStore(name());
    await store.put([["a", "1", 1]]);
    assert.deepEqual([store.trouble.reason, await store.get("a", "1")], [reason, 1]);
  }
  globalThis.indexedDB = {
    open: () => {
      throw new DOMException("not in this frame", "SecurityError");
    },
  };
  const store = await openStore(name());
  assert.deepEqual([store.trouble.reason, await store.all("a")], ["STORAGE_GONE", []]);
});

test("what a newer page has written is not touched", async () => {
  failing(new DOMException("newer", "VersionError"));
  await assert.rejects(openStore(name()), { reason: "STORAGE_NEWER" });
});
