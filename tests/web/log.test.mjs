// Chains of records: in any order, with holes, forks and deletions; and our own, which must not fork.
import assert from "node:assert/strict";
import { test } from "node:test";

import { hex, random } from "../../web/muster/bytes.js";
import { sha256 } from "../../web/muster/crypto.js";
import { Log } from "../../web/muster/log.js";
import { writeRecord } from "../../web/muster/seals.js";
import { openStore } from "../../web/muster/store.js";
import { CIRCLE, DAY, held, log, member, said, unsigned } from "./records.mjs";

const numbered = async (log, author, ...seqs) => {
  for (const seq of seqs) await log.take(unsigned(author, seq));
};
const deletion = (author, seq, { hash, seq: number }) => unsigned(author, seq, { kind: "delete", body: { of: hash, seq: number } });

test("a chain grows by one record after the other, also when several are said at once", async () => {
  const [ann, one] = [await member(), await log()];
  const recs = await Promise.all(Array.from({ length: 20 }, (_, at) => one.append(ann, said(`${at}`))));
  assert.deepEqual(recs.map(({ seq }) => seq), recs.map((_, at) => at + 1));
  assert.deepEqual(recs.map(({ prev }) => prev), [null, ...recs.slice(0, -1).map(({ hash }) => hash)]);
  assert.deepEqual(one.tip(ann.author), [20, recs[19].hash]);
  assert.deepEqual(one.forks(), []);
});

test("what cannot be written holds up nothing that is said after it", async () => {
  const [ann, one] = [await member(), await log()];
  const bad = one.append(ann, said("no", { body: () => Promise.reject(new Error("no passphrase")) }));
  const good = one.append(ann, said("yes", { body: async (seq) => ({ text: `number ${seq}` }) }));
  await assert.rejects(bad, /no passphrase/);
  assert.deepEqual([(await good).seq, (await good).body], [1, { text: "number 1" }]);
});

test("what this member has said elsewhere and comes while it speaks makes no fork", async () => {
  const [ann, one] = [await member(), await log()];
  const elsewhere = await writeRecord(ann, { ...said("elsewhere"), seq: 1, prev: null });
  const body = async (seq) => {
    if (seq === 1) await one.take(elsewhere);
    return { text: `number ${seq}` };
  };
  const rec = await one.append(ann, said("", { body }));
  assert.deepEqual([rec.seq, rec.prev, rec.body.text], [2, elsewhere.hash, "number 2"]);
  assert.deepEqual(one.forks(), []);
});

test("a record is kept before it is told, and all is there when the log is opened again", async () => {
  const store = await openStore(hex(random(8)));
  const kept = [];
  const slow = {
    ...store,
    put: async (rows) => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      kept.push(...rows.map(([kind]) => kind.split(" ")[0]));
      await store.put(rows);
    },
  };
  const [ann, one] = [await member(), await Log.open(slow, CIRCLE)];
  const first = await one.append(ann, said("first"));
  assert.deepEqual(kept, ["rec"]);
  const second = await one.append(ann, said("second"));
  await one.take(await writeRecord(ann, { ...said("", { kind: "delete", body: { of: first.hash, seq: 1 } }), seq: 3, prev: second.hash }));
  await one.noteLeft("service", "hint", [second.hash], 7, true);
  await one.move("service", "hint", { number: 9, mark: "m" });
  await one.noteGone(ann.author, [[1, 1]]);
  const again = await Log.open(store, CIRCLE);
  assert.deepEqual(held(again), held(one));
  assert.equal(again.get(first.hash), undefined);
  assert.deepEqual(again.get(second.hash), second);
  assert.deepEqual([again.tip(ann.author)[0], again.leftAt("service", second.hash)], [3, 7]);
  assert.deepEqual(again.place("service", "hint"), { number: 9, mark: "m" });
  assert.equal(await again.take(await writeRecord(ann, { ...said("fork"), seq: 1, prev: null })), "new");
});

test("two circles of one profile are apart, and one is forgotten without the other", async () => {
  const store = await openStore(hex(random(8)));
  const [one, two] = [await Log.open(store, CIRCLE), await Log.open(store, "d".repeat(32))];
  await numbered(one, "ann", 1, 2);
  await numbered(two, "ann", 1);
  await one.move("service", "hint", { number: 1, mark: "" });
  await one.erase();
  assert.deepEqual(held(await Log.open(store, CIRCLE)), []);
  assert.equal((await Log.open(store, CIRCLE)).place("service", "hint").number, 0);
  assert.equal(held(await Log.open(store, "d".repeat(32))).length, 1);
});

test("a chain may begin late and come in any order; what is missing is a hole inside", async () => {
  const one = await log();
  await numbered(one, "ann", 9, 5, 6, 12);
  await numbered(one, "bob", 3, 1);
  assert.deepEqual(one.missing(), [["ann", 7, 8], ["ann", 10, 11], ["bob", 2, 2]]);
  assert.deepEqual([one.tip("ann")[0], one.tip("bob")[0], one.tip("cleo")], [12, 3, [0, null]]);
  await numbered(one, "ann", 7, 8, 10, 11);
  assert.deepEqual(one.missing(), [["bob", 2, 2]]);
  assert.deepEqual(one.stretch("ann", 6, 8).map(({ seq }) => seq), [6, 7, 8]);
  assert.equal(await one.take(one.stretch("ann")[0]), "known");
});

test("a number that its author's deletion names is not missing, whether it was here or not", async () => {
  const one = await log();
  const gone = unsigned("ann", 2);
  await numbered(one, "ann", 1, 4);
  await one.take(deletion("ann", 5, gone));
  assert.deepEqual(one.missing(), [["ann", 3, 3]]);
  assert.equal(await one.take(gone), "refused");
  assert.deepEqual([one.get(gone.hash), one.has(gone.hash), one.gaps("ann")], [undefined, true, [[2, 2]]]);
  assert.deepEqual(one.stretch("ann").map(({ seq }) => seq), [1, 4, 5]);
});

test("who deletes drops its own texts alone, and nothing that lasts or was said later", async () => {
  const one = await log();
  const [text, other, fact, react] = [unsigned("ann", 1), unsigned("bob", 1), unsigned("ann", 2, { kind: "member" }), unsigned("ann", 3, { kind: "react" })];
  const late = unsigned("ann", 40);
  for (const rec of [text, other, fact, react, late]) await one.take(rec);
  let seq = 10;
  const bodies = [
    { of: other.hash, seq: 1 }, { of: fact.hash, seq: 2 }, { of: react.hash, seq: 3 }, { of: late.hash, seq: 40 }, { of: text.hash, seq: 2 },
    { of: text.hash, seq: 1.5 }, { of: text.hash, seq: "1" }, { of: "x", seq: 1 }, { of: null, seq: 1 }, { of: ["x"], seq: -1 }, {},
  ];
  for (const body of bodies) await one.take(unsigned("ann", (seq += 1), { kind: "delete", body }));
  for (const rec of [text, other, fact, react, late]) assert.equal(one.get(rec.hash), rec);
  await one.take(deletion("ann", 39, text));
  assert.deepEqual([one.get(text.hash), one.has(text.hash)], [undefined, true]);
});

test("of a number the sixteen records with the smallest hashes are kept, in whatever order they came", async () => {
  const recs = Array.from({ length: 40 }, () => unsigned("ann", 3));
  const smallest = recs.map(({ hash }) => hash).sort().slice(0, 16);
  for (const order of [recs, [...recs].reverse(), [...recs].sort((a, b) => (a.hash < b.hash ? 1 : -1))]) {
    const one = await log();
    for (const rec of order) await one.take(rec);
    assert.deepEqual([...one.records()].map(({ hash }) => hash).sort(), smallest);
    assert.deepEqual(one.forks(), [["ann", 3]]);
    assert.deepEqual(one.at("ann", 3).map(({ hash }) => hash), smallest);
    assert.deepEqual(one.tip("ann"), [3, smallest[0]]);
  }
});

test("what peers have dropped is not missing, as far as a chain is known; and they cannot say it without end", async () => {
  const one = await log();
  await numbered(one, "ann", 1, 10, 20);
  await one.noteGone("ann", [[15, 900], [2, 4], [5, 6], [3, 5]]);
  await one.noteGone("nobody", [[1, 2 ** 53 - 1]]);
  assert.deepEqual(one.missing(), [["ann", 7, 9], ["ann", 11, 14]]);
  await numbered(one, "ann", 5000);
  assert.deepEqual(one.missing().at(-1), ["ann", 21, 4999]);
  await one.noteGone("ann", Array.from({ length: 2000 }, (_, at) => [30 + 2 * at, 30 + 2 * at]));
  assert.equal(one.missing().length, 1000 + 1);
});

test("texts are dropped when they are older than their channel keeps them; facts stay, and so do numbers", async () => {
  const one = await log();
  const old = { at_ms: 5 * DAY };
  for (const [at, kind] of ["text", "edit", "react", "delete", "call", "member", "channel", "circle", "person", "services", "founder"].entries()) {
    await one.take(unsigned("ann", at + 1, { ...old, kind }));
  }
  await one.take(unsigned("bob", 1, { at_ms: 10 * DAY }));
  await one.take(unsigned("bob", 2, { ...old, channel: "f".repeat(32) }));
  await one.expire(15 * DAY, () => 30);
  assert.deepEqual(one.gaps("ann"), []);
  await one.expire(15 * DAY, (channel) => (channel[0] === "f" ? 0 : 7));
  assert.deepEqual([one.gaps("ann"), one.gaps("bob"), one.missing()], [[[1, 5]], [], []]);
  assert.deepEqual([one.tip("ann")[0], one.stretch("ann").length], [11, 6]);
});

test("what is to be left at a service is told in the order of the chain, until it was taken there", async () => {
  const START = Date.UTC(2026, 0, 1);
  const [ann, one] = [await member(), await log()];
  const recs = [];
  for (const kind of ["member", "text", "text"]) recs.push(await one.append(ann, said("", { kind, at_ms: START })));
  const late = await one.append(ann, said("", { epoch: 1, at_ms: START }));
  const due = (service, since = 0) => one.unleft(ann.author, service, 0, since).map(({ seq }) => seq);
  await one.noteLeft("a", "hint", [recs[0].hash, recs[2].hash], 500, false);
  assert.deepEqual([due("a"), due("b"), due("b", START + 1)], [[2], [1, 2, 3], []]);
  assert.deepEqual(one.unleft(ann.author, "b", 1, 0), [late]);
  assert.deepEqual([one.keptAt("a", "hint", recs[0].hash), one.keptAt("a", "hint", recs[2].hash)], [500, 0]);
  await one.noteLeft("a", "hint", [recs[0].hash], 400, true);
  assert.deepEqual([one.leftAt("a", recs[0].hash), one.keptAt("a", "hint", recs[0].hash)], [400, 500]);
  await one.doubt("a", false);
  assert.deepEqual(due("a"), [2, 3]);
  await one.doubt("a", true);
  assert.deepEqual([due("a"), one.keptAt("a", "hint", recs[0].hash)], [[1, 2, 3], 0]);
});

test("a record is sealed once for all services of an epoch, and anew in the next", async () => {
  const one = await log();
  let made = 0;
  const make = async () => new Uint8Array([(made += 1)]);
  const seal = async (hash, epoch) => (await one.sealed(hash, make, epoch))[0];
  assert.deepEqual([await seal("a", 0), await seal("a", 0), await seal("a", 1), await seal("b", 1)], [1, 1, 2, 3]);
  for (let at = 0; at < 200; at += 1) await seal(`${at}`, 0);
  assert.equal(await seal("199", 0), 203);
  assert.equal(await seal("a", 0), 204);
});

test("what is not kept is told once, and all goes on in memory", async () => {
  const store = await openStore(hex(random(8)));
  const [ann, one] = [await member(), await Log.open(store, CIRCLE)];
  const told = [];
  one.ontrouble = ({ reason }) => told.push(reason);
  for (const reason of [undefined, "STORAGE_FULL", "STORAGE_FULL", undefined, "STORAGE_FULL", "STORAGE_GONE"]) {
    store.trouble = reason && { reason };
    await one.append(ann, said(reason));
  }
  assert.deepEqual(told, ["STORAGE_FULL", "STORAGE_FULL", "STORAGE_GONE"]);
  assert.equal(one.stretch(ann.author).length, 6);
});

test("who is left out of the circle is forgotten beyond a number", async () => {
  const one = await log();
  await numbered(one, "ann", 1, 2, 3, 3, 4, 7);
  await numbered(one, "bob", 5);
  await one.dropBeyond("ann", 2);
  assert.deepEqual([one.tip("ann")[0], one.tip("bob")[0], held(one).length, one.missing()], [2, 5, 3, []]);
  await one.dropBeyond("bob", 0);
  assert.deepEqual([one.tip("bob"), [...(await one.runs()).keys()]], [[0, null], ["ann"]]);
});

test("a run is what is here without a hole up to the last record, and its digest tells forks", async () => {
  const one = await log();
  const recs = [1, 4, 5, 5, 6].map((seq) => unsigned("ann", seq));
  for (const rec of recs) await one.take(rec);
  const hashes = [recs[1].hash, ...[recs[2].hash, recs[3].hash].sort(), recs[4].hash];
  const digest = hex((await sha256(Buffer.from(hashes.join(""), "hex"))).subarray(0, 8));
  assert.deepEqual((await one.runs()).get("ann"), { first: 4, last: 6, hash: recs[4].hash, digest });
});

test("a chain of 130,000 records is no trouble", { timeout: 60_000 }, async () => {
  const one = await log();
  for (let seq = 130_000; seq > 1; seq -= 1) one.take(unsigned("ann", seq, { hash: seq.toString(16).padStart(64, "0") }));
  await one.take(unsigned("ann", 2 ** 53 - 1));
  assert.deepEqual(one.missing(), [["ann", 130_001, 2 ** 53 - 2]]);
  assert.equal((await one.runs()).get("ann").last, 2 ** 53 - 1);
  await one.dropBeyond("ann", 130_000);
  assert.deepEqual([one.tip("ann")[0], (await one.runs()).get("ann").first], [130_000, 2]);
});
