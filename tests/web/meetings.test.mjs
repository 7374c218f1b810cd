// Meetings of two nodes over a link that ends and loses at will, and of one that does its worst.
import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { b64, concat, random, u32, utf8 } from "../../web/muster/bytes.js";
import { Meeting } from "../../web/muster/meetings.js";
import { writeRecord } from "../../web/muster/seals.js";
import { held, log, member, messages, pair, peer, said, unsigned, until } from "./records.mjs";

/** Let two meet until a check holds; with a fault, until the link has ended or nothing more comes. */
const met = async (one, two, { check = () => same(one, two), ...fault } = {}) => {
  const [here, there] = pair(fault);
  const over = Promise.all([one.meet(here), two.meet(there)]);
  if (Object.keys(fault).length) await Promise.race([over, new Promise((resolve) => setTimeout(resolve, 200))]);
  else await until(check, "the same records");
  here.abort();
  await over;
  return [here, there];
};
const same = (one, two) => String(held(one.log)) === String(held(two.log));
const count = (link, type) => messages(link).filter(({ t }) => t === type).length;

/** Two nodes with something of everything: own chains, a common one, a fork, holes, deletions. */
const scene = async () => {
  const [one, two, ann, bob, cleo] = [await peer(), await peer(), await member(), await member(), await member()];
  for (const text of ["a", "b", "c"]) await one.log.append(ann, said(text));
  for (const text of ["d", "e"]) await two.log.append(bob, said(text));
  const chain = [];
  for (let seq = 1; seq <= 9; seq += 1) chain.push(await writeRecord(cleo, { ...said(`${seq}`), seq, prev: chain[seq - 2]?.hash ?? null }));
  for (const at of [0, 1, 2, 7, 8]) await one.log.take(chain[at]);
  for (const at of [2, 3, 4, 5, 6]) await two.log.take(chain[at]);
  return { one, two, ann, bob, cleo, chain };
};

test("two who meet have the same records afterwards, chains with holes and those that began late too", async () => {
  const { one, two, chain } = await scene();
  const [here] = await met(one, two);
  assert.equal(held(one.log).length, 14);
  assert.deepEqual([one.log.missing(), two.log.missing()], [[], []]);
  assert.equal(two.log.get(chain[0].hash).seq, 1);
  assert.equal(count(here, "TIPS"), 1);
  assert.ok(count(here, "RECORD") <= 8);
});

test("wherever a meeting is cut, or loses something, the next makes up for it", { timeout: 120_000 }, async () => {
  for (const fault of ["cut", "lose"]) {
    for (let at = 0; at < 14; at += 1) {
      const { one, two } = await scene();
      await met(one, two, { [fault]: at });
      await met(one, two);
      assert.equal(held(two.log).length, 14);
    }
  }
});

test("what is said during a meeting is told at once, and never back", async () => {
  const [one, two, three, ann, bob] = [await peer(), await peer(), await peer(), await member(), await member()];
  const [a, b] = pair();
  const [c, d] = pair();
  const all = Promise.all([one.meet(a), two.meet(b), two.meet(c), three.meet(d)]);
  await one.say(ann, "first");
  await until(() => same(one, three), "the first");
  for (let turn = 0; turn < 20; turn += 1) {
    await one.say(ann, `ann ${turn}`);
    await three.say(bob, `bob ${turn}`);
  }
  await until(() => held(one.log).length === 41 && same(one, two) && same(one, three), "what was said");
  assert.deepEqual([count(a, "RECORD"), count(b, "RECORD"), count(c, "RECORD"), count(d, "RECORD")], [21, 20, 21, 20]);
  a.abort();
  c.abort();
  await all;
});

test("a backlog of 1,500 records comes once, while more is said", { timeout: 120_000 }, async () => {
  const [one, two, ann, bob] = [await peer(), await peer(), await member(), await member()];
  for (let at = 0; at < 1500; at += 1) await one.log.append(ann, said(`${at}`));
  const [here, there] = pair();
  const all = Promise.all([one.meet(here), two.meet(there)]);
  await until(() => held(two.log).length > 100, "the first hundred");
  for (let at = 0; at < 20; at += 1) {
    await one.say(ann, `more ${at}`);
    await two.say(bob, `other ${at}`);
  }
  await until(() => held(one.log).length === 1540 && same(one, two), "all of it", 60_000);
  assert.deepEqual([count(here, "RECORD"), count(there, "RECORD")], [1520, 20]);
  here.abort();
  await all;
  const [again] = await met(one, two);
  assert.equal(count(again, "RECORD"), 0);
});

test("a fork that one of them has not seen shows, in the past and while they meet", async () => {
  const [one, two, ann] = [await peer(), await peer(), await member()];
  const first = await writeRecord(ann, { ...said("first"), seq: 1, prev: null });
  const forks = [];
  for (const text of ["x", "y", "z"]) forks.push(await writeRecord(ann, { ...said(text), seq: 2, prev: first.hash }));
  for (const { log } of [one, two]) await log.take(first);
  await one.log.take(forks[0]);
  await two.log.take(forks[1]);
  const [here, there] = pair();
  const all = Promise.all([one.meet(here), two.meet(there)]);
  await until(() => same(one, two), "both");
  assert.deepEqual(one.log.forks(), [[ann.author, 2]]);
  await one.log.take(forks[2]);
  one.tell(forks[2]);
  await until(() => two.log.has(forks[2].hash), "the third");
  here.abort();
  await all;
});

test("of a fork that two others tell each hears all", async () => {
  const [hub, one, two, ann] = [await peer(), await peer(), await peer(), await member()];
  const forks = [];
  for (const text of ["x", "y"]) forks.push(await writeRecord(ann, { ...said(text), seq: 1, prev: null }));
  await one.log.take(forks[0]);
  await two.log.take(forks[1]);
  const [a, b] = pair();
  const [c, d] = pair();
  const all = Promise.all([hub.meet(a), one.meet(b), hub.meet(c), two.meet(d)]);
  await until(() => held(one.log).length === 2 && same(one, two), "both");
  a.abort();
  c.abort();
  await all;
});

test("who has dropped a text says so, and nobody misses it", async () => {
  const [one, two, ann] = [await peer(), await peer(), await member()];
  const recs = [];
  for (let at = 0; at < 6; at += 1) recs.push(await one.log.append(ann, said(`${at}`)));
  await two.log.take(recs[0]);
  await one.log.drop([recs[2].hash, recs[3].hash]);
  await met(one, two, { check: () => held(two.log).length === 4 && !two.log.missing().length });
  assert.deepEqual(one.log.gaps(ann.author), [[3, 4]]);
});

const alone = async (send, how) => {
  const told = { heard: [], seen: [] };
  const one = await peer();
  one.gossip = { presences: async () => [], heard: (found) => told.heard.push(found), seen: (host) => told.seen.push(host) };
  const [link, other] = pair(how);
  const over = { done: false };
  const running = one.meet(link).then(() => (over.done = true));
  const say = async (message) => {
    const raw = message instanceof Uint8Array ? message : utf8(JSON.stringify(message));
    const whole = concat(u32(raw.length), raw);
    for (let at = 0; at < whole.length; at += 16_000) await other.send(whole.subarray(at, at + 16_000));
  };
  await send({ one, link, other, say, told, over });
  link.abort();
  await running;
};
const b = () => b64(random(32));
const record = ({ epoch, text, signature }) => ({ t: "RECORD", epoch, text: b64(text), signature: b64(signature) });

test("nothing that a member may write harms a meeting", async () => {
  await alone(async ({ one, say, told, over, other }) => {
    const ann = await member();
    const rec = await writeRecord(ann, { ...said("at last"), seq: 1, prev: null });
    const other_circle = await writeRecord(Object.assign(Object.create(ann), { circle: "d".repeat(32) }), { ...said("no"), seq: 1, prev: null }).catch(() => rec);
    await one.log.take(unsigned(b(), 5));
    const tip = [5, "a".repeat(64), 1, "b".repeat(16)];
    const bad = [
      1, null, [], "x", {}, { t: 1 }, { t: "NEWER", what: 1 }, utf8("{"), new Uint8Array(), new Uint8Array([255, 254]), utf8("[".repeat(100)),
      { t: "TIPS" }, { t: "TIPS", tips: [] }, { t: "TIPS", tips: { x: tip } }, { t: "TIPS", tips: { [b()]: 5 } }, { t: "TIPS", tips: { [b()]: [] } },
      { t: "TIPS", tips: { [b()]: [5, "a", 1, "b".repeat(16)], [b()]: [1, "a".repeat(64), 5, "b".repeat(16)], [b()]: [2 ** 60, "a".repeat(64), 0.5, "b"] } },
      { t: "GONE" }, { t: "GONE", author: 5, ranges: [] }, { t: "GONE", author: b(), ranges: [1, null, [], [1], ["a", "b"], [3, 2], [0, 9], [1, 1e300]] },
      { t: "GONE", author: b(), ranges: Array(501).fill([1, 2]) }, { t: "GONE", author: "__proto__", ranges: [[1, 2]] },
      { t: "RECORD" }, { t: "RECORD", epoch: 0, text: 1, signature: null }, { ...record(rec), signature: b64(random(64)) }, { ...record(rec), text: b64(random(99)) },
      record(other_circle === rec ? { ...rec, text: utf8("{}") } : other_circle),
      { t: "PEERS" }, { t: "PEERS", peers: {} }, { t: "PEERS", peers: Array(65).fill({}) }, { t: "PEERS", peers: [null] }, { t: "PEERS", peers: [], seen: 7 },
    ];
    for (const message of bad) await say(message);
    await say(utf8('{"t":"TIPS","tips":{"__proto__":[1,"a",1,"b"]},"last":false}'));
    await say({ t: "TIPS", tips: {}, last: true });
    await say({ t: "TIPS", tips: { [ann.author]: [9, "a".repeat(64), 1, "b".repeat(16)] }, last: true });
    await say(record(rec));
    await until(() => one.log.has(rec.hash), "what is true");
    assert.deepEqual([over.done, told.seen, held(one.log).length], [false, [], 2]);
    await until(() => messages({ sent: other.come.concat() }).some(({ t }) => t === "RECORD"), "what the other lacks");
  });
});

test("who tells a hundred records that nobody has signed is met no longer", async () => {
  await alone(async ({ say, over }) => {
    for (let at = 0; at < 100; at += 1) await say({ t: "RECORD", epoch: 0, text: b64(random(50)), signature: b64(random(64)) });
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(over.done, false);
    await assert.rejects(async () => {
      for (let at = 0; at < 10_000; at += 1) await say({ t: "RECORD", epoch: 0, text: b64(random(50)), signature: b64(random(64)) });
    }, /closed/);
    await until(() => over.done, "the end");
  });
});

test("a message may have two mebibytes, in pieces of any size, and no more", async () => {
  await alone(async ({ say, other, over, told }) => {
    await say(utf8(JSON.stringify({ t: "PEERS", peers: [], seen: "a".repeat(2_000_000) })));
    const small = utf8(JSON.stringify({ t: "PEERS", peers: [], seen: "host" }));
    for (const byte of concat(u32(small.length), small, u32(small.length), small)) await other.send(new Uint8Array([byte]));
    await until(() => told.seen.length === 3, "all three");
    assert.deepEqual([told.seen[0].length, told.seen[1], over.done], [2_000_000, "host", false]);
    await other.send(concat(u32(small.length), small, u32(2 * 1_048_576 + 1)));
    await until(() => over.done, "the end");
    assert.equal(told.seen.length, 4);
  });
});

test("presences are read every two seconds at the most, and 32 of them", async () => {
  await alone(async ({ say, told }) => {
    const peers = Array.from({ length: 40 }, () => ({ text: "é", signature: b64(random(64)) }));
    for (let at = 0; at < 5; at += 1) await say({ t: "PEERS", peers, seen: "192.0.2.7" });
    await until(() => told.heard.length, "presences");
    assert.deepEqual([told.heard.length, told.heard[0].length, told.seen], [1, 32, ["192.0.2.7"]]);
    assert.deepEqual(told.heard[0][0].text, utf8("é"));
  });
});

test("a node that takes nothing is met no longer when ten thousand records wait", async () => {
  await alone(async ({ one, say, over }) => {
    await say({ t: "TIPS", tips: {}, last: true });
    for (let seq = 1; seq <= 10_001; seq += 1) one.tell(unsigned("ann", seq));
    await until(() => over.done, "the end");
  });
});

const ticking = async (path, script) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  let now = 1e6;
  mock.method(performance, "now", () => now);
  const [link, other] = pair({ path });
  const gossip = { presences: async () => [{ text: utf8("{}"), signature: random(64) }], heard: () => {}, seen: () => {} };
  const meeting = new Meeting({ link, log: await log(), take: async () => {}, gossip });
  const running = meeting.run();
  const settle = async () => {
    for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
  };
  const pass = async (seconds) => {
    for (let at = 0; at < seconds; at += 1) {
      await settle();
      now += 1000;
      mock.timers.tick(1000);
    }
    await settle();
  };
  try {
    await script({ link, other, pass, peers: () => messages(link).filter(({ t }) => t === "PEERS").map(({ peers }) => peers.length) });
  } finally {
    mock.timers.reset();
    mock.restoreAll();
    await meeting.close();
    await running;
  }
};
const EMPTY = concat(u32(24), utf8('{"t":"PEERS","peers":[]}'));

test("on a direct path a node says every 7 seconds that it is there, every 21 who else is, and 20 of silence end it", () =>
  ticking("webrtc", async ({ link, other, pass, peers }) => {
    for (let at = 0; at < 43; at += 1) {
      await pass(1);
      await other.send(EMPTY);
    }
    assert.deepEqual(peers(), [1, 0, 0, 1, 0, 0, 1]);
    await pass(19);
    assert.equal(link.closed, false);
    await pass(2);
    assert.equal(link.closed, true);
  }));

test("over the relay it says so once, silence is none, and a path that becomes direct has its time", () =>
  ticking("relay", async ({ link, pass, peers }) => {
    await pass(100);
    assert.deepEqual(peers(), [1]);
    link.path = "webrtc";
    await pass(18);
    assert.deepEqual([link.closed, peers().length > 1], [false, true]);
    await pass(3);
    assert.equal(link.closed, true);
  }));

test("a page whose timers are late answers who is there", () =>
  ticking("webrtc", async ({ other, pass, peers }) => {
    await pass(0);
    mock.method(performance, "now", () => 2e6);
    await other.send(EMPTY);
    await pass(0);
    assert.deepEqual(peers(), [1, 1]);
  }));
