// Links over a relay that does its worst, both sides in one process.
import assert from "node:assert/strict";
import { test } from "node:test";

import { b64, concat, readU32, u32 } from "../../web/muster/bytes.js";
import { agreer } from "../../web/muster/crypto.js";
import { readNegotiation } from "../../web/muster/rtc.js";
import { ANN, BOB, Relay, linked } from "./pair.mjs";

const read = async (link, count) => {
  const found = [];
  while (found.length < count) found.push((await link.next()).value);
  return found;
};
const numbers = (found) => found.map((data) => readU32(data));
const upTo = (count) => Array.from({ length: count }, (_, at) => at);
const refused = (reason) => (error) => error.reason === reason;

test("two nodes talk over the relay, both ways, and both hear the end", async () => {
  const { ann, one, two } = await linked(new Relay());
  assert.deepEqual([one.path, two.path, ann.path(BOB), ann.path(ANN)], ["relay", "relay", "relay", "none"]);
  await one.send(u32(7));
  await two.send(u32(8));
  assert.deepEqual(numbers([...(await read(two, 1)), ...(await read(one, 1))]), [7, 8]);
  await assert.rejects(one.send(new Uint8Array(16_001)), refused("TOO_LARGE"));
  await one.send(new Uint8Array(16_000));
  assert.equal((await read(two, 1))[0].length, 16_000);
  await one.close();
  assert.equal((await two.next()).done, true);
  assert.deepEqual([one.path, two.path, one.closed, two.closed], ["none", "none", true, true]);
  await assert.rejects(two.send(u32(1)), refused("CLOSED"));
  await assert.rejects(one.drained().then(() => one.send(u32(1))), refused("CLOSED"));
});

test("20,000 messages come once and in order over a relay that loses, repeats and reorders", { timeout: 120_000 }, async () => {
  const relay = new Relay(5);
  const { one, two } = await linked(relay);
  Object.assign(relay, { lose: 0.0005, repeat: 0.05, swap: 0.05 });
  const count = 20_000;
  const sending = (async () => {
    for (let at = 0; at < count; at += 1) await one.send(u32(at));
    await one.drained();
  })();
  assert.deepEqual(numbers(await read(two, count)), upTo(count));
  two.next();
  await sending;
  assert.equal(one.waiting, 0);
  one.abort();
  two.abort();
});

test("what the relay did not pass is sent when it does again, and the path says so", { timeout: 30_000 }, async () => {
  const relay = new Relay();
  const { one, two } = await linked(relay);
  const paths = [];
  one.addEventListener("path", () => paths.push(one.path));
  for (let at = 0; at < 100; at += 1) await one.send(u32(at));
  relay.cut = true;
  for (let at = 100; at < 200; at += 1) await one.send(u32(at));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(one.path, "none");
  relay.cut = false;
  one.check();
  assert.deepEqual(numbers(await read(two, 200)), upTo(200));
  assert.deepEqual(paths, ["none", "relay"]);
  one.abort();
  two.abort();
});

test("who reads slowly makes the other wait, and nothing is lost", { timeout: 30_000 }, async () => {
  const { one, two } = await linked(new Relay());
  let sent = 0;
  const sending = (async () => {
    for (; sent < 1000; sent += 1) await one.send(u32(sent));
  })();
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.ok(sent <= 257, `${sent} were sent and none was read`);
  assert.deepEqual(numbers(await read(two, 1000)), upTo(1000));
  await sending;
  one.abort();
  two.abort();
});

test("of two links opened at once one stands, the lower node id's, for both", async () => {
  const relay = new Relay();
  const ann = relay.node(ANN);
  const bob = relay.node(BOB);
  const [one, two] = await Promise.all([ann.open(BOB), bob.open(ANN)]);
  assert.equal(one.session, two.session);
  assert.equal(await ann.open(BOB), one);
  await two.send(u32(1));
  assert.deepEqual(numbers(await read(one, 1)), [1]);
  await Promise.all([ann.close(), bob.close()]);
});

test("a connect and a meet link of the same nodes stay apart", async () => {
  const relay = new Relay();
  const { ann, bob, one, two } = await linked(relay);
  const come = new Promise((resolve) => ann.addEventListener("link", (event) => resolve(event.detail)));
  const three = await bob.open(ANN, "meet");
  const { link: four, purpose } = await come;
  assert.equal(purpose, "meet");
  await one.send(u32(1));
  await three.send(u32(2));
  assert.deepEqual(numbers([...(await read(two, 1)), ...(await read(four, 1))]), [1, 2]);
  await ann.close();
  assert.equal((await three.next()).done, true);
  await bob.close();
});

test("a node that began anew replaces its link, and an old signal opens none", { timeout: 20_000 }, async () => {
  const relay = new Relay();
  const { bob, two } = await linked(relay);
  relay.nodes.get(ANN).reset();
  const come = new Promise((resolve) => bob.addEventListener("link", (event) => resolve(event.detail.link)));
  const fresh = await relay.node(ANN).open(BOB);
  const three = await come;
  assert.notEqual(three.session, two.session);
  await fresh.send(u32(3));
  assert.deepEqual(numbers(await read(three, 1)), [3]);
  const links = [];
  bob.addEventListener("link", (event) => links.push(event));
  const { public: key } = await agreer(new Uint8Array(32).fill(9));
  bob.signalled({ node: ANN, session: "c".repeat(32), kind: "connect", body: { key: b64(key) }, at_ms: 5 }, u32(1));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(links.length, 0);
  await bob.close();
});

test("a node that was away for a moment keeps its link; of one that began anew it is opened again", async () => {
  const { ann, bob, one, two } = await linked(new Relay());
  ann.gone(BOB);
  assert.equal(one.isGone, true);
  assert.equal(await ann.open(BOB), one);
  assert.equal(one.isGone, false);
  ann.gone(BOB);
  bob.reset();
  const come = new Promise((resolve) => bob.addEventListener("link", (event) => resolve(event.detail.link)));
  const [fresh, theirs] = [await ann.open(BOB), await come];
  assert.notEqual(fresh, one);
  await fresh.send(u32(6));
  assert.deepEqual(numbers(await read(theirs, 1)), [6]);
  assert.equal(two.closed, true);
  await Promise.all([ann.close(), bob.close()]);
});

test("a service that wants fewer frames makes it slower, and the path stays", { timeout: 30_000 }, async () => {
  const relay = new Relay();
  const { one, two } = await linked(relay);
  const paths = [];
  one.addEventListener("path", () => paths.push(one.path));
  relay.burst = 200;
  const sending = (async () => {
    for (let at = 0; at < 1500; at += 1) await one.send(u32(at));
  })();
  assert.deepEqual(numbers(await read(two, 1500)), upTo(1500));
  await sending;
  assert.deepEqual(paths, []);
  one.abort();
  two.abort();
});

test("who does not answer is said, and signals of others are not taken", { timeout: 20_000 }, async () => {
  const relay = new Relay();
  const ann = relay.node(ANN);
  assert.equal(ann.signalled({ node: BOB, session: "0", kind: "offer", body: {}, at_ms: 1 }, u32(1)), false);
  await assert.rejects(ann.open(BOB), refused("NO_ANSWER"));
  const deaf = relay.node(ANN, { signal: async () => Promise.reject(new Error("no service")) });
  await assert.rejects(deaf.open(BOB), /no service/);
});

test("hostile signals and frames change nothing", async () => {
  const relay = new Relay();
  const { ann, bob, one, two } = await linked(relay);
  for (const body of [{ key: "AA" }, { key: 7 }, { key: b64(new Uint8Array(32)) }, {}, { description: 5 }, { candidates: [null] }]) {
    assert.equal(bob.signalled({ node: ANN, session: "d".repeat(32), kind: "connect", body, at_ms: Date.now() + 60_000 }, u32(1)), true);
  }
  for (const payload of [new Uint8Array(), new Uint8Array(41), concat(new Uint8Array(8).fill(255), new Uint8Array(16_100))]) {
    bob.passed(ANN, payload);
    bob.passed("e".repeat(32), payload);
  }
  // as one who has the keys: numbers out of every order
  two.hear({ kind: 1, number: 2 ** 53 - 1, taken: 2 ** 53 - 1, payload: u32(9) });
  two.hear({ kind: 1, number: 0, taken: 0, payload: u32(9) });
  await one.send(u32(4));
  assert.deepEqual(numbers(await read(two, 1)), [4]);
  await Promise.all([ann.close(), bob.close()]);
});

test("at most 64 links are open", { timeout: 60_000 }, async () => {
  const relay = new Relay();
  const bob = relay.node(BOB);
  const made = [];
  for (let at = 0; at < 64; at += 1) {
    const node = at.toString(16).padStart(32, "0");
    made.push(relay.node(node));
    await made[at].open(BOB);
  }
  await assert.rejects(bob.open(ANN), refused("TOO_MANY"));
  await Promise.all(made.map((links) => links.close()));
  await bob.close();
});

test("descriptions and candidates have a shape and a size", () => {
  const offer = { type: "offer", sdp: "v=0" };
  const candidate = { candidate: "candidate:1", sdpMid: "0", sdpMLineIndex: 0, usernameFragment: "x", more: 1 };
  assert.deepEqual(readNegotiation({ description: { ...offer, more: 1 } }), { description: offer });
  assert.deepEqual(readNegotiation({ candidates: [candidate] }), {
    candidates: [{ candidate: "candidate:1", sdpMid: "0", sdpMLineIndex: 0, usernameFragment: "x" }],
  });
  for (const body of [
    {},
    { description: { type: "rollback", sdp: "" } },
    { description: { type: "offer", sdp: 5 } },
    { description: { type: ["offer"], sdp: "" } },
    { description: { type: "offer", sdp: "x".repeat(16_385) } },
    { candidates: "x" },
    { candidates: Array(33).fill(candidate) },
    { candidates: [{ ...candidate, candidate: "x".repeat(1025) }] },
    { candidates: [{ ...candidate, sdpMLineIndex: -1 }] },
    { candidates: [{ ...candidate, usernameFragment: {} }] },
  ]) {
    assert.equal(readNegotiation(body), null, JSON.stringify(body).slice(0, 60));
  }
});
