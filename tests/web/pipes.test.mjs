// Pipes: the golden file that Python is held to, and messages of every size between two sides.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { concat, hex, text, u32, unhex, utf8 } from "../../web/muster/bytes.js";
import { parse } from "../../web/muster/json.js";
import { Pipes, readBegin, readDatagram } from "../../web/muster/pipes.js";
import { ANN, BOB, Relay, linked } from "./pair.mjs";

const golden = JSON.parse(readFileSync(new URL("../golden/pipes.json", import.meta.url), "utf8"));
const refused = (reason) => (error) => error.reason === reason;
const tick = (ms = 0) => new Promise((resolve) => setTimeout(resolve, ms));

/** A link that keeps what is sent, and hands over what it is given. */
class Told extends EventTarget {
  other = BOB;
  isGone = false;
  waiting = 0;
  sent = [];
  #come = [];
  #wake = () => {};

  async send(data) {
    this.sent.push(hex(data));
  }
  async drained() {}
  datagram() {
    return false;
  }
  give(...pieces) {
    this.#come.push(...pieces);
    this.#wake();
  }
  async *[Symbol.asyncIterator]() {
    for (;;) {
      while (this.#come.length) yield this.#come.shift();
      await new Promise((resolve) => (this.#wake = resolve));
    }
  }
}

const listening = (links = { open: async () => assert.fail("a link was opened") }) => {
  const pipes = new Pipes({ links });
  const [come, lost] = [[], []];
  pipes.addEventListener("message", ({ detail }) => come.push(detail));
  pipes.addEventListener("lost", ({ detail }) => lost.push(detail));
  return { pipes, come, lost };
};

/** A message as the golden file has it. */
const shown = async ({ name: pipe, data }) => {
  if (data instanceof Blob) {
    const more = { ...(data.name && { name: data.name }), ...(data.type && { type: data.type }) };
    return { pipe, as: "file", data: hex(new Uint8Array(await data.arrayBuffer())), ...more };
  }
  if (data instanceof Uint8Array) return { pipe, as: "bytes", data: hex(data) };
  return { pipe, as: typeof data === "string" ? "text" : "json", data };
};

for (const { name, rest, expect, header, data } of golden.begins) {
  test(`begin: ${name}`, () => {
    if (expect !== "ok") return assert.throws(() => readBegin(unhex(rest)), refused(expect));
    const found = readBegin(unhex(rest));
    assert.deepEqual({ header: found.header, data: hex(found.data) }, { header, data });
  });
}

for (const { name, raw, expect, pipe, data } of golden.datagrams) {
  test(`datagram: ${name}`, () => {
    if (expect !== "ok") return assert.throws(() => readDatagram(unhex(raw)), refused(expect));
    const found = readDatagram(unhex(raw));
    assert.deepEqual([found.pipe, found.data instanceof Uint8Array ? hex(found.data) : found.data], [pipe, data]);
  });
}

for (const { name, pieces, messages, answers } of golden.streams) {
  test(`stream: ${name}`, async () => {
    const link = new Told();
    const { pipes, come } = listening();
    pipes.most = { ...golden.limits };
    pipes.attach(link);
    link.give(...pieces.map(unhex));
    await tick(5);
    assert.deepEqual(await Promise.all(come.map(shown)), messages);
    assert.deepEqual(link.sent, answers);
  });
}

for (const { pipe, as, data, name, type, pieces } of golden.sent) {
  test(`sent: ${as} of ${data.length / 2} bytes`, async () => {
    const link = new Told();
    const { pipes } = listening();
    pipes.attach(link);
    const raw = unhex(data);
    const blob = () => (name ? new File([raw], name, { type }) : new Blob([raw]));
    const value = { json: () => parse(raw), text: () => text(raw), bytes: () => raw, file: blob }[as]();
    await pipes.send(pipe, value, { to: BOB });
    assert.deepEqual(link.sent, pieces);
  });
}

const two = async (relay = new Relay()) => {
  const { ann, bob, one, two: other } = await linked(relay);
  const [hers, his] = [listening(ann), listening(bob)];
  hers.pipes.attach(one);
  his.pipes.attach(other);
  return { relay, hers, his, one, other, end: () => Promise.all([ann.close(), bob.close()]) };
};

test("JSON, text, bytes and files come as they were sent, over a relay that loses and repeats", { timeout: 60_000 }, async () => {
  const { relay, hers, his, end } = await two(new Relay(9));
  Object.assign(relay, { lose: 0.01, repeat: 0.1, swap: 0.1 });
  const bytes = Uint8Array.from({ length: 300_000 }, (_, at) => at * 7);
  const file = new File([bytes], "../a\\b.bin", { type: "x/y" });
  const told = [];
  await Promise.all([
    hers.pipes.send("a", { deep: [1, null, "é"] }, { to: BOB }),
    hers.pipes.send("b", "x".repeat(100_000), { to: BOB }),
    hers.pipes.send("c", bytes.buffer, { to: [BOB] }),
    hers.pipes.send("d", file, { to: BOB, progress: (sent, size) => told.push([sent, size]) }),
    hers.pipes.send("e", new Uint16Array([1, 2]).subarray(1)),
    his.pipes.send("f", new Blob([])),
  ]);
  const found = Object.fromEntries(his.come.map(({ name, data }) => [name, data]));
  assert.deepEqual(found.a, { deep: [1, null, "é"] });
  assert.equal(found.b, "x".repeat(100_000));
  assert.equal(hex(found.c), hex(bytes));
  assert.deepEqual([found.d.name, found.d.type, found.d.size], [".._a_b.bin", "x/y", 300_000]);
  assert.equal(hex(new Uint8Array(await found.d.arrayBuffer())), hex(bytes));
  assert.deepEqual([...found.e], [2, 0]);
  assert.deepEqual([hers.come[0].from, hers.come[0].data.size, hers.come[0].data.name], [BOB, 0, ""]);
  assert.deepEqual(told.at(-1), [300_000, 300_000]);
  assert.ok(told.every(([sent], at) => !at || sent > told[at - 1][0]));
  Object.assign(relay, { lose: 0, swap: 0 });
  await end();
});

test("a large message does not hold up small ones, and those come in their order", { timeout: 30_000 }, async () => {
  const { hers, his, end } = await two();
  const large = [1, 2].map((at) => hers.pipes.send("file", new Blob([new Uint8Array(3_000_000 + at)])));
  const small = Array.from({ length: 50 }, (_, at) => hers.pipes.send("n", at));
  await Promise.all([...small, ...large]);
  const order = his.come.map(({ name, data }) => (name === "n" ? data : name));
  assert.deepEqual(order.filter((one) => one !== "file"), Array.from({ length: 50 }, (_, at) => at));
  assert.equal(order.at(-1), "file");
  await end();
});

test("more large messages than may be open at a time come all", { timeout: 60_000 }, async () => {
  const { hers, his, end } = await two();
  await Promise.all(Array.from({ length: 100 }, (_, at) => hers.pipes.send("x", new Uint8Array(20_000 + at), { to: BOB })));
  assert.equal(his.come.length, 100);
  await end();
});

test("datagrams over the relay are dropped while it has no room", async () => {
  const { hers, his, end, one } = await two();
  await hers.pipes.send("cursor", [1, 2], { reliable: false });
  await tick(200);
  assert.deepEqual(his.come.map(({ data }) => data), [[1, 2]]);
  for (let at = 0; at < 100; at += 1) await hers.pipes.send("cursor", [at], { reliable: false });
  assert.ok(one.waiting < 20);
  await assert.rejects(hers.pipes.send("cursor", new Uint8Array(15_934), { reliable: false }), refused("TOO_LARGE"));
  await end();
});

test("what is too large is stopped, what was cancelled does not come, and the next one does", { timeout: 30_000 }, async () => {
  const { hers, his, end } = await two();
  his.pipes.most = { memory: 1000, file: 500_000 };
  await assert.rejects(hers.pipes.send("x", "y".repeat(1001), { to: BOB }), refused("TOO_LARGE"));
  await assert.rejects(hers.pipes.send("x", new Blob([new Uint8Array(500_001)]), { to: BOB }), refused("TOO_LARGE"));
  await hers.pipes.send("x", "y".repeat(1001)); // to everybody: who cannot take it does not hold up others
  his.pipes.most.file = 50_000_000;
  const stop = new AbortController();
  const sending = hers.pipes.send("x", new Blob([new Uint8Array(20_000_000)]), { to: BOB, signal: stop.signal, progress: () => stop.abort() });
  await assert.rejects(sending, { name: "AbortError" });
  await hers.pipes.send("x", new Blob([new Uint8Array(50_000_000)]).slice(0, 100_000), { to: BOB });
  assert.deepEqual(his.come.map(({ data }) => data.size), [100_000]);
  assert.deepEqual(his.lost.map(({ name, reason }) => [name, reason]), [["x", "TOO_LARGE"], ["x", "TOO_LARGE"], ["x", "TOO_LARGE"], ["x", "CANCELLED"]]);
  await end();
});

test("a pipe with a bound of its own takes that much, whatever is taken by others, until it is taken back", async () => {
  const { hers, his, end } = await two();
  his.pipes.most.file = 0;
  his.pipes.bound("one", "wanted", 50_000);
  his.pipes.bound("two", "small", 10);
  const takes = async (pipe, data) => hers.pipes.send(pipe, data, { to: BOB }).then(() => true, ({ reason }) => reason);
  const file = (size) => new Blob([new Uint8Array(size)]);
  assert.deepEqual(await Promise.all([takes("wanted", file(30_000)), takes("wanted", file(30_000))]), [true, "TOO_LARGE"], "both at once are too much");
  assert.deepEqual([await takes("wanted", file(50_000)), await takes("wanted", file(50_001)), await takes("other", file(1))], [true, "TOO_LARGE", "TOO_LARGE"]);
  assert.deepEqual([await takes("small", "x".repeat(10)), await takes("small", "x".repeat(11)), await takes("other", "x".repeat(11))], [true, "TOO_LARGE", true]);
  his.pipes.bound("one");
  assert.equal(await takes("wanted", file(1)), "TOO_LARGE");
  await end();
});

test("a file that cannot be read any more is cancelled", async () => {
  const { hers, his, end } = await two();
  class Torn extends Blob {
    slice(from, to) {
      if (from > 300_000) throw new Error("the file is gone");
      return super.slice(from, to);
    }
  }
  await assert.rejects(hers.pipes.send("x", new Torn([new Uint8Array(900_000)]), { to: BOB }), /gone/);
  await hers.pipes.send("x", 1, { to: BOB });
  assert.deepEqual(his.come.map(({ data }) => data), [1]);
  await end();
});

test("sending opens a link where there is none, and ends with it", { timeout: 30_000 }, async () => {
  const relay = new Relay();
  const [ann, bob] = [relay.node(ANN), relay.node(BOB)];
  const [hers, his] = [listening(ann), listening(bob)];
  bob.addEventListener("link", ({ detail }) => his.pipes.attach(detail.link));
  await hers.pipes.send("x", "first", { to: BOB });
  assert.deepEqual([hers.pipes.has(BOB), his.pipes.has(ANN), his.come[0].data], [true, true, "first"]);
  assert.deepEqual([hers.pipes.path(BOB), hers.pipes.path(ANN)], ["relay", "none"]);
  const sending = hers.pipes.send("x", new Blob([new Uint8Array(9_000_000)]), { to: BOB });
  setTimeout(() => bob.close(), 20);
  await assert.rejects(sending, refused("CLOSED"));
  for (let turn = 0; turn < 200 && his.pipes.has(ANN); turn += 1) await tick(20);
  assert.deepEqual([hers.pipes.has(BOB), his.pipes.has(ANN)], [false, false]);
  await ann.close();
});

test("what cannot be sent is said at once", async () => {
  const { pipes } = listening();
  await assert.rejects(pipes.send("", 1), refused("MALFORMED"));
  await assert.rejects(pipes.send("x\n", 1), refused("MALFORMED"));
  await assert.rejects(pipes.send("x", undefined), refused("MALFORMED"));
  await assert.rejects(pipes.send("x", 1, { signal: AbortSignal.abort() }), { name: "AbortError" });
  await pipes.send("x", 1); // nobody is there
});

test("tiny pieces of a message that promises much take no more memory than has come", async () => {
  const link = new Told();
  const { pipes, come } = listening();
  pipes.attach(link);
  const head = utf8('{"as":"bytes","pipe":"x","size":16000000}');
  const more = Array.from({ length: 20_000 }, (_, at) => concat(Uint8Array.of(2), u32(at % 64), Uint8Array.of(7)));
  const before = process.memoryUsage().arrayBuffers;
  link.give(...Array.from({ length: 64 }, (_, at) => concat(Uint8Array.of(1), u32(at), Uint8Array.of(0, head.length), head)), ...more);
  await tick(50);
  assert.ok(process.memoryUsage().arrayBuffers - before < 2_000_000);
  assert.deepEqual([come.length, link.sent.length], [0, 0]);
});

test("messages that are not whole take at most 64 MiB together", { timeout: 60_000 }, async () => {
  const link = new Told();
  const { pipes } = listening();
  pipes.attach(link);
  const head = utf8('{"as":"bytes","pipe":"x","size":16000000}');
  const data = new Uint8Array(15_995);
  for (let at = 0; at < 10; at += 1) link.give(concat(Uint8Array.of(1), u32(at), Uint8Array.of(0, head.length), head));
  for (let round = 0; round < 999; round += 1) {
    for (let at = 0; at < 10; at += 1) link.give(concat(Uint8Array.of(2), u32(at), data));
    if (round % 100 === 0) await tick();
  }
  await tick(100);
  const stops = link.sent.filter((raw) => raw.startsWith("04") && raw.endsWith("02"));
  assert.ok(stops.length >= 6, `${stops.length} were stopped`);
});
