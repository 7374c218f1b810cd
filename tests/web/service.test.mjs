// A page at a service: that does all it should, that does its worst, that is older or newer; and nothing is lost.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { b64, concat, hex, random, u64, unb64, utf8 } from "../../web/muster/bytes.js";
import { Circle } from "../../web/muster/circle.js";
import { label, sha256, signer } from "../../web/muster/crypto.js";
import { Engine, joinRow, makeRow } from "../../web/muster/engine.js";
import { readInvite, readService } from "../../web/muster/invites.js";
import { Epoch, Member } from "../../web/muster/keys.js";
import { GENERAL, sealPresence, sealRecord, sealSignal, readRekey, unsealRecord, writeRecord } from "../../web/muster/seals.js";
import { Waker } from "../../web/muster/service.js";
import { openStore } from "../../web/muster/store.js";
import { Stub, inTime, pass, soon, until } from "./stub.mjs";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const unhandled = [];
process.on("unhandledRejection", (error) => unhandled.push(error));
process.on("uncaughtException", (error) => unhandled.push(error));
const open = new Set();
afterEach(() => assert.deepEqual(unhandled.splice(0), []));

/** A page: an engine, and what it has told. */
class Page {
  told = [];

  static async open(row, { store, ...options } = {}) {
    const page = new Page();
    page.store = store ?? (await openStore(hex(random(8))));
    page.row = row;
    page.engine = await Engine.open(page.store, row, (type, detail) => page.told.push({ type, detail }), { RTCPeerConnection: null, ...options });
    page.started = page.engine.start();
    open.add(page);
    return page;
  }

  static async make(stub, name = "Ada", options = {}) {
    return Page.open({ ...(await makeRow({ name: "Friends", services: [readService(stub.address)] })), me: name }, options);
  }

  /** Another member of the same circle. */
  async join(name = "Bob", options = {}) {
    return Page.open({ ...(await joinRow(await readInvite(await this.engine.invite()))), me: name }, options);
  }

  heard(type) {
    return this.told.filter((one) => one.type === type).map(({ detail }) => detail);
  }

  get reasons() {
    return [...new Set(this.heard("error").map(({ reason }) => reason))];
  }

  get attendant() {
    return this.engine.attendants[0];
  }

  get state() {
    return this.attendant.state;
  }

  until(state) {
    return until(() => this.state === state, `${state}, and not ${this.state} (${this.attendant.why})`, 5 * MINUTE);
  }

  post(text) {
    return soon(this.engine.post("general", text));
  }

  reads(...texts) {
    return until(() => texts.every((text) => this.known.includes(text)), `${texts} among ${this.known}`, 10 * MINUTE);
  }

  get known() {
    return [...this.engine.log.records()].filter(({ kind }) => kind === "text").map(({ body }) => body.text);
  }

  /** Texts that a service has in its mailbox, in its order. */
  async left(stub) {
    const found = [];
    for (const { messages } of stub.box(this.engine.epoch.hint)) {
      for (const sealed of messages) {
        const { kind, body } = JSON.parse(new TextDecoder().decode((await unsealRecord(this.engine.epoch, unb64(sealed))).text));
        if (kind === "text") found.push(body.text);
      }
    }
    return found;
  }

  untilLeft(stub, ...texts) {
    return until(async () => String(await this.left(stub)) === String(texts), `${texts} in the mailbox`, 40 * MINUTE);
  }

  async close() {
    open.delete(this);
    await soon(this.engine.stop());
  }
}

/** A test in time of its own, with a service; pages are closed behind it. */
const at = (script, { code = "" } = {}) =>
  inTime(async () => {
    const stub = await Stub.make();
    stub.code = code;
    try {
      await script(stub);
    } finally {
      for (const page of open) await page.close();
      await pass(30 * SECOND);
    }
  });

const syncs = (stub, from = 0) => stub.calls.slice(from).filter(({ call }) => call.endsWith("sync") || call.startsWith("SYNC"));

// What a service is for

test("who makes a circle and who joins it are live, read each other, and hear who leaves", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  await ada.post("hello");
  const bob = await ada.join();
  await bob.reads("hello");
  await bob.until("live");
  await bob.post("hello, Ada");
  await ada.reads("hello, Ada");
  assert.deepEqual(ada.heard("peer").at(-1).name, "Bob");
  assert.equal((await bob.engine.history("general")).find(({ mine }) => mine).left, 1);
  assert.deepEqual(bob.heard("state").map(({ state }) => state), ["connecting", "polling", "live"]);
  await bob.close();
  await until(() => ada.heard("left").length, "that Bob has left");
  assert.equal(ada.heard("left")[0].name, "Bob");
  assert.deepEqual([...ada.reasons, ...bob.reasons], []);
}));

test("a code opens a closed service, and who has none is told whom to ask", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  const row = { ...(await makeRow({ name: "", services: [{ ...readService(stub.address), code: "" }] })), me: "Eve" };
  const eve = await Page.open(row);
  await eve.until("offline");
  assert.match(eve.attendant.why, /NOT_ALLOWED/);
  await pass(5 * MINUTE);
  assert.deepEqual(eve.heard("error").map(({ reason }) => reason), ["NOT_ALLOWED"], "once, however often it is tried");
}, { code: "a code of some length" }));

test("where there is no WebSocket it polls as often as the service wishes, and says why", at(async (stub) => {
  delete globalThis.WebSocket;
  stub.nextS = 20;
  const ada = await Page.make(stub);
  await ada.until("polling");
  await until(() => ada.attendant.why, "why");
  assert.match(ada.attendant.why, /no WebSocket/);
  const bob = await ada.join();
  await bob.until("polling");
  await bob.post("by polling");
  await bob.untilLeft(stub, "by polling");
  await ada.reads("by polling");
  await until(() => ada.engine.peers.size && bob.engine.peers.size, "each other");
  await bob.close();
  await until(() => ada.heard("left").length, "that Bob has left", 20 * MINUTE);
  for (const [wish, seconds] of [[300, 300], [1, 5], [100_000, 900]]) {
    stub.nextS = wish;
    await pass(9 * MINUTE);
    const from = stub.calls.length;
    await pass(wish === 1 ? 9 * MINUTE : HOUR);
    const times = syncs(stub, from).filter(({ asked, node }) => node === ada.engine.node.id && asked.presence).map(({ at }) => at);
    const between = times.slice(1).map((time, index) => time - times[index]);
    assert.ok(between.some((ms) => Math.abs(ms - Math.min(seconds, 480) * SECOND) < 10 * SECOND), `${wish}: ${between}`);
    assert.ok(between.every((ms) => ms < Math.min(seconds, 480) * SECOND + 10 * SECOND));
  }
}));

test("a newcomer reads a mailbox of many pages, and who comes again only what is new", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  const said = Array.from({ length: 450 }, (_, at) => `text ${at}`);
  for (const text of said) await ada.engine.post("general", text);
  await ada.untilLeft(stub, ...said);
  const bob = await ada.join();
  await until(() => bob.known.length === 450, "all of it");
  assert.deepEqual(await bob.engine.history("general", { after: "", limit: 3 }).then((page) => page.map(({ text }) => text)), said.slice(0, 3));
  const { number } = bob.engine.place(bob.attendant);
  assert.equal(number, stub.box(bob.engine.epoch.hint).at(-1).number);
  await bob.close();
  await ada.post("meanwhile");
  const from = stub.calls.length;
  const again = await Page.open(bob.row, { store: bob.store });
  await again.reads("meanwhile");
  const [first, second] = syncs(stub, from).filter(({ node }) => node === again.engine.node.id);
  assert.ok(first.asked.after.messages < again.engine.place(again.attendant).number);
  assert.deepEqual([first.asked.want.messages, second.asked.after.messages >= number], [1, true]);
}));

test("a presence is kept up every eight minutes, and told when it has another name or was away", at(async (stub) => {
  const ada = await Page.make(stub);
  const bob = await ada.join();
  await bob.until("live");
  await until(() => ada.engine.peers.size && bob.engine.peers.size, "each other");
  await soon(bob.engine.rename("Robert"));
  await until(() => ada.heard("peer").at(-1).name === "Robert", "the name");
  const from = stub.calls.length;
  await pass(20 * MINUTE);
  const kept = syncs(stub, from).filter(({ asked, node }) => node === bob.engine.node.id && asked.presence);
  assert.ok(kept.length === 2 || kept.length === 3, `${kept.length}`);
  for (const socket of stub.sockets) if (socket.node === bob.engine.node.id) socket.end();
  await until(() => ada.heard("left").length, "that Bob is away");
  await until(() => ada.engine.peers.size, "that Bob is back", MINUTE);
}));

test("a page and another exchange frames, and who has no socket is named so", at(async (stub) => {
  const ada = await Page.make(stub);
  const bob = await ada.join();
  await Promise.all([ada.until("live"), bob.until("live")]);
  await until(() => ada.engine.peers.size && bob.engine.peers.size, "each other");
  await soon(ada.engine.send("x", { a: 1 }, { reliable: true, ticket: "1" }));
  await until(() => bob.heard("pipe").length, "what was sent");
  assert.deepEqual(bob.heard("pipe")[0].data, { a: 1 });
  await assert.rejects(soon(ada.attendant.frame("0".repeat(32), new Uint8Array(1))), { reason: "PEER_NOT_ATTACHED" });
  await bob.close();
  stub.sockets_are = "refused";
  for (const socket of stub.sockets) socket.end();
  await ada.until("polling");
  await assert.rejects(soon(ada.attendant.frame("0".repeat(32), new Uint8Array(1))), { reason: "CLOSED" });
}));

test("STUN and TURN servers are asked for when they are needed", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  assert.deepEqual(await soon(ada.engine.ice()), [{ urls: ["stun:stun.test"] }]);
  for (const ice of [undefined, null, 5, [], "x", {}, { servers: {} }, { servers: Array(17).fill({}) }]) {
    stub.say = (answer, { asked }) => (asked.want?.ice ? { ...answer, ice } : answer);
    await pass(61 * MINUTE);
    assert.ok(Array.isArray(await soon(ada.engine.ice())), JSON.stringify(ice));
  }
}));

// What no honest service says

const resigned = async (stub, { key = stub.key, name = key.public, proof = random(72), status = 200, body }) => {
  const at = Date.now();
  const lines = [hex(await sha256(proof)), status, hex(await sha256(body)), at].map((line) => `${line}\n`).join("");
  return b64(concat(name, u64(at), await key.sign(concat(label("answer"), utf8(lines)))));
};
const FORGED = {
  "that is not signed": [(reply) => delete reply.headers["Muster-Answer"]],
  "that another service has signed": [async (reply, stub) => (reply.headers["Muster-Answer"] = await resigned(stub, { ...reply, key: await signer(random(32)) })), "DISTRUSTED"],
  "that another has signed in its name": [async (reply, stub) => (reply.headers["Muster-Answer"] = await resigned(stub, { ...reply, key: await signer(random(32)), name: stub.key.public })), "DISTRUSTED"],
  "that was signed for another call": [async (reply, stub) => (reply.headers["Muster-Answer"] = await resigned(stub, reply)), "DISTRUSTED"],
  "of which the body was altered": [(reply) => (reply.body = utf8(new TextDecoder().decode(reply.body).replace("true", "true "))), "DISTRUSTED"],
  "of which the status was altered": [(reply) => (reply.status = 201), "DISTRUSTED"],
  "whose signature is no base64": [(reply) => (reply.headers["Muster-Answer"] = "§§"), "DISTRUSTED"],
  "whose signature is too short": [(reply) => (reply.headers["Muster-Answer"] = b64(random(99))), "DISTRUSTED"],
  "of a proxy": [(reply) => Object.assign(reply, { status: 502, headers: {}, body: utf8("<html>bad gateway") })],
  "of a proxy, in JSON": [(reply) => Object.assign(reply, { status: 401, headers: {}, body: utf8('{"code":"INVALID_SIGNATURE","message":7}') })],
  "of five megabytes": [(reply) => (reply.body = new Uint8Array(5_000_000))],
  "without an end": [(reply) => (reply.body = new ReadableStream({ pull: (control) => control.enqueue(new Uint8Array(65_536)) }))],
  "that never goes on": [(reply) => (reply.body = new ReadableStream({ pull: () => new Promise(() => {}) }))],
};

test("an answer that is not the service's is not believed, and what was posted is left when it is again", at(async (stub) => {
  for (const [what, [spoil, reason]] of Object.entries(FORGED)) {
    const ada = await Page.make(stub);
    stub.spoil = async (reply, { call }) => {
      if (call === "POST /v2/sync") await spoil(reply, stub);
      return reply;
    };
    await ada.until("offline");
    assert.deepEqual(ada.reasons, reason ? [reason] : [], what);
    await ada.post("to be left");
    await pass(10 * SECOND);
    assert.deepEqual([ada.state, ada.attendant.isRead], ["offline", false], what);
    stub.spoil = (reply) => reply;
    await ada.until("live");
    await ada.untilLeft(stub, "to be left");
    await ada.close();
  }
}));

test("the same on a socket: it is closed, and the page begins again", at(async (stub) => {
  for (const what of ["that is not signed", "that another service has signed", "that was signed for another call", "of which the body was altered"]) {
    const ada = await Page.make(stub);
    await ada.until("live");
    stub.spoil = async (reply, { call }) => {
      if (call === "SYNC /v2/socket") await FORGED[what][0](reply, stub);
      return reply;
    };
    await ada.post("to be left");
    await until(() => ada.state !== "live", what);
    await pass(MINUTE);
    assert.notEqual(ada.state, "live");
    stub.spoil = (reply) => reply;
    await ada.until("live");
    await ada.untilLeft(stub, "to be left");
    await ada.close();
  }
}));

test("a clock that is an hour off is corrected, for this service", at(async (stub) => {
  for (const skew of [HOUR, -HOUR, 23 * HOUR]) {
    stub.skew = skew;
    const ada = await Page.make(stub);
    await ada.until("live");
    assert.ok(Math.abs(ada.attendant.offset - skew) < SECOND);
    assert.ok(Math.abs(ada.engine.now() - stub.now()) < SECOND);
    await ada.post("on time");
    await ada.untilLeft(stub, "on time");
    stub.skew = 0; // and it is set right while a page is there
    await pass(9 * MINUTE);
    await ada.until("live");
    await ada.post("and again");
    await ada.untilLeft(stub, "on time", "and again");
    await ada.close();
  }
}));

test("a clock that is days off is not believed, and the reason is told", at(async (stub) => {
  stub.skew = 3 * DAY;
  const ada = await Page.make(stub);
  await ada.until("offline");
  assert.match(ada.attendant.why, /CLOCK_WRONG/);
  assert.ok(!ada.attendant.offset);
  assert.deepEqual(ada.reasons, ["CLOCK_WRONG"]);
  stub.skew = 0;
  await ada.until("live");
}));

test("a service that asks for patience gets it, whatever is said meanwhile, an hour at the most", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  for (const [header, least, most] of [["120", 120, 180], ["100000", 3600, 3640], ["soon", 0, 40], ["-5", 0, 40]]) {
    stub.spoil = (reply) => ({ ...reply, headers: { ...reply.headers, "Retry-After": header } });
    stub.say = () => ({ status: 429, ok: false, code: "RATE_LIMITED", message: "later" });
    for (const socket of stub.sockets) socket.end();
    await ada.until("offline");
    await until(() => /RATE_LIMITED/.test(ada.attendant.why), "that it is too much", 5 * MINUTE);
    const [began, from] = [Date.now(), stub.calls.length];
    for (let said = 0; said < 5; said += 1) {
      await pass(5 * SECOND);
      await ada.post(`${header} ${said}`);
      ada.attendant.signal("0".repeat(32), new Uint8Array(256));
    }
    await until(() => stub.calls.length > from, "the next call", 2 * HOUR);
    const took = (stub.calls[from].at - began) / SECOND;
    assert.ok(took >= least - 1 && took <= most, `${header}: ${took} s`);
    Object.assign(stub, { spoil: (reply) => reply, say: (answer) => answer });
    await until(() => ada.state === "live", "live", 3 * HOUR);
  }
  await until(async () => (await ada.left(stub)).length === 20, "all of it");
}));

const WRONG = [null, 5, -1, 1.5, "7", "__proto__", true, false, [], [[]], {}, [null], ["x"], [{}], { length: 9 }];

test("members of answers in every wrong form stop nothing for good, and leave nothing behind", at(async (stub) => {
  const ada = await Page.make(stub);
  const bob = await ada.join();
  await Promise.all([ada.until("live"), bob.until("live")]);
  await ada.post("first");
  await bob.reads("first");
  await bob.close();
  const number = Date.now() + HOUR;
  const cases = ["peers", "signals", "entries", "more", "next_s", "refused"].flatMap((name) => WRONG.map((value) => [name, value]));
  for (const value of WRONG) {
    cases.push(["peers", [{ node_id: value, sealed: value, until_ms: value }]], ["peers", [{ node_id: "a".repeat(32), sealed: value }]]);
    cases.push(["signals", [{ number: value, from: value, sealed: value }]], ["entries", [{ number: value, messages: [] }]], ["entries", [{ number, messages: [value] }]]);
    cases.push(["refused", Object.fromEntries(["presence", "send.messages", "send.signals", "peers", "signals"].map((part) => [part, value]))], ["refused", { messages: value }]);
  }
  cases.push(["more", ["messages", "signals", "peers", "more"]], ["refused", { presence: { code: { toString: 1, valueOf: 1 }, message: { toString: 1 } } }]);
  for (const [name, value] of cases) {
    const shown = `${name} is ${JSON.stringify(value)}`;
    stub.say = (answer, { call }) => (call.endsWith("sync") ? { ...answer, [name]: value } : answer);
    for (const socket of stub.sockets) socket.end();
    const from = stub.calls.length;
    await until(() => syncs(stub, from).length, shown, 5 * MINUTE);
    await pass(2 * SECOND);
    assert.ok(stub.calls.length - from < 60, `${shown}: ${stub.calls.length - from} calls in a moment`);
    const place = ada.engine.place(ada.attendant);
    assert.ok(Number.isSafeInteger(place.number) && place.number <= Date.now() + HOUR, `${shown}: ${JSON.stringify(place)}`);
  }
  stub.say = (answer) => answer;
  await ada.post("last");
  await ada.until("live");
  await ada.untilLeft(stub, "first", "last");
}));

test("events in every wrong form stop nothing, and what is right beside them is heard", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  const [socket] = stub.sockets;
  const frames = ["", "{", "[]", "null", "5", '"x"', "[".repeat(100), "{}", '{"t":5}', '{"t":"NEWS","n":1}', '{"t":"FRAME"}', '{"t":"TAKEN","n":77}', '{"t":"SYNCED"}'];
  for (const value of WRONG) {
    frames.push({ t: value }, { t: "FRAME", from: value, payload: value }, { t: "FRAME", from: "a".repeat(32), payload: value });
    frames.push({ t: "SYNCED", n: value, status: value, answer: value, body: value }, { t: "ERROR", n: value, code: value, message: value });
    for (const name of ["peers", "left", "entries", "signals"]) frames.push({ t: "EVENT", [name]: value }, { t: "EVENT", [name]: [value] });
  }
  for (const frame of frames) {
    socket.hear(frame);
    await pass(200);
  }
  const bob = await ada.join();
  await bob.post("still there");
  await ada.reads("still there");
  await until(() => ada.engine.peers.size, "Bob");
  assert.equal(stub.sockets.has(socket), true);
}));

const mailed = async (page, ...texts) => {
  const member = await Member.make(page.row.id, random(32));
  const found = [];
  for (const [at, text] of texts.entries()) {
    const rec = await writeRecord(member, { epoch: 0, seq: at + 1, prev: found.at(-1)?.hash ?? null, at_ms: Date.now(), channel: GENERAL, kind: "text", body: { text } });
    found.push({ hash: rec.hash, sealed: b64(await sealRecord(page.engine.epoch, rec)) });
  }
  return found.map(({ sealed }) => sealed);
};

test("entries out of order, repeated or of the future are not read, and a service that gives them is named", at(async (stub) => {
  for (const what of ["out of order", "repeated", "of the future"]) {
    const ada = await Page.make(stub);
    await ada.until("live");
    await ada.post("before");
    const [one, two] = await mailed(ada, "one", "two");
    const now = Date.now() + 1000;
    const numbers = { "out of order": [now + 5, now], repeated: [now, now], "of the future": [now, now + 2 * DAY] }[what];
    stub.say = (answer, { asked }) => (asked.after?.messages !== undefined && asked.want?.messages > 1
      ? { ...answer, entries: [{ number: numbers[0], messages: [one] }, { number: numbers[1], messages: [two] }], more: ["messages"] } : answer);
    for (const socket of stub.sockets) socket.end();
    await until(() => ada.reasons.includes("DISTRUSTED"), what);
    assert.deepEqual(ada.known.slice(0, 2), ["before", "one"], what);
    assert.equal(ada.known.includes("two"), false, what);
    assert.equal(ada.engine.place(ada.attendant).number, numbers[0]);
    stub.say = (answer) => answer;
    await ada.post("after");
    await ada.until("live");
    await ada.untilLeft(stub, "before", "after");
    await ada.close();
  }
}));

test("`more` that gives nothing, or that names what nobody knows, does not make a page ask without end", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  for (const more of [["messages"], ["signals"], ["peers"], ["messages", "signals", "peers"], ["calls"], ["messages", "messages"], "peers"]) {
    stub.say = (answer, { call }) => (call.endsWith("sync") ? { ...answer, more } : answer);
    const from = stub.calls.length;
    for (const socket of stub.sockets) socket.end();
    await pass(2 * SECOND);
    assert.ok(stub.calls.length - from < 20, `${more}: ${stub.calls.length - from} calls`);
    stub.say = (answer) => answer;
    await ada.until("live");
  }
}));

test("who lists peers by thousands is heard up to a bound", at(async (stub) => {
  const ada = await Page.make(stub);
  let page = 0;
  stub.say = (answer, { asked }) => (asked.want?.peers
    ? { ...answer, more: ["peers"], peers: Array.from({ length: 64 }, (_, at) => ({ node_id: (page++ * 64 + at).toString(16).padStart(32, "0"), sealed: b64(random(640)), until_ms: 1 })) } : answer);
  await until(() => ada.state !== "connecting", "an end");
  assert.ok(page < 3000, `${page}`);
  stub.say = (answer) => answer;
  await ada.until("live");
}));

test("what members leave that is nobody's or unreadable is passed over", at(async (stub) => {
  const ada = await Page.make(stub);
  const bob = await ada.join();
  await Promise.all([ada.until("live"), bob.until("live")]);
  const { epoch, node } = ada.engine;
  const other = await (await Member.make(ada.row.id, random(32))).node(epoch);
  const there = stub.presences.get(epoch.hint);
  const until_ = Date.now() + DAY;
  const { sealed: true_ } = await sealPresence(other, { name: "Eve", at_ms: Date.now() });
  const { sealed: late } = await sealPresence(other, { name: "Eve", at_ms: Date.now() + DAY });
  there.set("e".repeat(32), { sealed: b64(true_), until: until_, at: 1 });
  there.set("d".repeat(32), { sealed: b64(random(640)), until: until_, at: 1 });
  there.set(other.id, { sealed: b64(late), until: until_, at: 1 });
  const signal = await sealSignal(other, { to: node.id, session: "1".repeat(32), kind: "odd", body: {}, at_ms: Date.now() });
  const stale = await sealSignal(other, { to: node.id, session: "2".repeat(32), kind: "odd", body: {}, at_ms: Date.now() - HOUR });
  const elsewhere = await sealSignal(other, { to: bob.engine.node.id, session: "3".repeat(32), kind: "odd", body: {}, at_ms: Date.now() });
  const waiting = [signal, signal, stale, elsewhere].map(({ sealed }, at) => ({ number: Date.now() + at, from: other.id, sealed: b64(sealed), until: until_ }));
  stub.box(epoch.hint).push({ number: Date.now(), messages: [b64(random(512)), b64(random(100)), ...(await mailed(ada, "readable"))] });
  ada.attendant.wake(true);
  await pass(11 * MINUTE);
  assert.deepEqual([...ada.engine.peers.keys()], [bob.engine.node.id]);
  assert.ok(ada.known.includes("readable"));
  for (const { number, from, sealed } of [...waiting, waiting[0]]) for (const socket of stub.sockets) if (socket.node === node.id) socket.hear({ t: "EVENT", signals: [{ number, from, sealed }] });
  await pass(SECOND);
  assert.equal(ada.heard("signal").length, 0, "it is older than ten minutes");
  const fresh = await sealSignal(other, { to: node.id, session: "4".repeat(32), kind: "odd", body: {}, at_ms: Date.now() });
  for (const socket of stub.sockets) for (let turn = 0; turn < 3; turn += 1) if (socket.node === node.id) socket.hear({ t: "EVENT", signals: [{ number: Date.now(), from: other.id, sealed: b64(fresh.sealed) }] });
  await pass(SECOND);
  assert.deepEqual(ada.heard("signal").map(({ session }) => session), ["4".repeat(32)]);
}));

test("signals that wait are read by a sync, also those that no event told of; a cursor that is refused begins anew", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  const { epoch, node } = ada.engine;
  const other = await (await Member.make(ada.row.id, random(32))).node(epoch);
  const make = async (session) => b64((await sealSignal(other, { to: node.id, session: session.repeat(32), kind: "odd", body: {}, at_ms: Date.now() })).sealed);
  const put = async (session, number, pushed) => {
    const signal = { number, from: other.id, sealed: await make(session), until: Date.now() + HOUR };
    const key = `${epoch.hint} ${node.id}`;
    stub.signals.set(key, [...(stub.signals.get(key) ?? []), signal].sort((a, b) => a.number - b.number));
    if (pushed) for (const socket of stub.sockets) socket.hear({ t: "EVENT", signals: [signal] });
  };
  const now = Date.now();
  await put("1", now + 1, false); // its event was lost
  await put("2", now + 2, true);
  ada.attendant.wake(true);
  await until(() => ada.heard("signal").length === 2, "both");
  stub.skew = HOUR; // it was ahead, and is set back
  for (const socket of stub.sockets) socket.hear({ t: "EVENT", signals: [{ number: now + 40 * DAY, from: other.id, sealed: await make("3") }] });
  const far = [{ number: now + 40 * DAY, from: other.id, sealed: await make("5") }];
  stub.say = (answer, { asked }) => (asked.want?.signals ? { ...answer, signals: far } : answer);
  ada.attendant.wake(true);
  await pass(SECOND);
  stub.say = (answer) => answer;
  stub.skew = 0;
  ada.attendant.wake(true);
  await pass(SECOND);
  await put("4", Date.now(), false);
  ada.attendant.wake(true);
  await until(() => ada.heard("signal").some(({ session }) => session[0] === "4"), "what came after", MINUTE);
}));

// What may happen to an honest one

test("a mailbox that was restored from a backup is read anew, and what is not there is left again", at(async (stub) => {
  const ada = await Page.make(stub);
  const bob = await ada.join();
  await Promise.all([ada.until("live"), bob.until("live")]);
  await ada.post("one");
  await ada.untilLeft(stub, "one");
  const backup = structuredClone(stub.mail);
  const { hint } = ada.engine.epoch;
  await ada.post("two");
  await bob.post("three");
  await ada.reads("three");
  await until(async () => (await ada.left(stub)).length === 3, "all three");
  await pass(MINUTE); // places move
  const last = stub.box(hint).at(-1).number;
  assert.equal(ada.engine.place(ada.attendant).number, last);
  backup.get(hint).push({ number: last, messages: await mailed(ada, "another as that number") });
  stub.restore(backup);
  await until(async () => (await ada.left(stub)).length === 4, "what was lost", 5 * MINUTE);
  assert.deepEqual([...(await ada.left(stub))].sort(), ["another as that number", "one", "three", "two"]);
  await bob.reads("another as that number");
  const eve = await ada.join("Eve");
  await eve.reads("one", "two", "three");
}));

test("a mailbox that is empty, or whose numbers begin again, is filled again", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  for (const text of ["one", "two"]) await ada.post(text);
  await ada.untilLeft(stub, "one", "two");
  await pass(MINUTE);
  stub.restore(new Map());
  await ada.untilLeft(stub, "one", "two");
  await ada.until("live");
}));

test("an answer that was lost leaves nothing twice that a reader sees, and nothing is lost", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  let lost = 0;
  stub.spoil = (reply, { asked }) => {
    if (!asked.send?.messages || (lost += 1) > 3) return reply;
    for (const socket of stub.sockets) socket.end();
    throw new TypeError("fetch failed");
  };
  await ada.post("said once");
  await pass(5 * MINUTE);
  await ada.until("live");
  assert.deepEqual(await ada.left(stub), ["said once"]);
  assert.equal((await ada.engine.history("general")).at(-1).left, 1);
}));

test("a presence that is OUTDATED is signed later, once, and a time that no service knows is not believed", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  const there = stub.presences.get(ada.engine.epoch.hint);
  const mine = there.get(ada.engine.node.id);
  Object.assign(mine, { at: Date.now() + MINUTE, sealed: "old" });
  ada.attendant.wake(true);
  await until(() => there.get(ada.engine.node.id).sealed !== "old", "a later one", 10 * SECOND);
  assert.deepEqual(ada.reasons, []);
  for (const at_ms of [undefined, null, "9", 1.5, `${Date.now() + MINUTE}`, Date.now() + 0.5, -1, 0, 2 ** 60, Date.now() + 2 * DAY, Date.now() + HOUR]) {
    stub.refuse = (asked) => (asked.presence ? { presence: { code: "OUTDATED", message: "later", at_ms } } : {});
    const from = stub.calls.length;
    ada.attendant.wake(true);
    await pass(10 * SECOND);
    assert.ok(stub.calls.length - from <= 3, `${at_ms}: ${stub.calls.length - from} calls`);
    assert.ok(ada.reasons.includes("OUTDATED"), `${at_ms}`);
    stub.refuse = () => ({});
    ada.attendant.wake(true);
    await until(() => Math.abs(there.get(ada.engine.node.id).at - Date.now()) < 3 * MINUTE, `a presence after ${at_ms}`, MINUTE);
  }
  stub.refuse = (asked) => (asked.presence ? { presence: { code: "OUTDATED", message: "later", at_ms: Date.now() + 1 } } : {});
  const from = stub.calls.length;
  ada.attendant.wake(true);
  await pass(10 * SECOND);
  assert.ok(stub.calls.length - from <= 4, `${stub.calls.length - from} calls`);
}));

test("messages that are refused are held for as long as the service says, told, and left after it", at(async (stub) => {
  const ada = await Page.make(stub);
  const bob = await ada.join();
  await Promise.all([ada.until("live"), bob.until("live")]);
  for (const [asks, least, most] of [[undefined, 30, 60], [90, 90, 120], [5000, 900, 960], ["x", 30, 60]]) {
    stub.refuse = ({ send }) => (send?.messages ? { "send.messages": { code: "CIRCLE_FULL", message: "the mailbox is full", retry_after_s: asks } } : {});
    const before = await ada.left(stub);
    await ada.post(`one ${asks}`);
    await ada.post(`two ${asks}`);
    await until(() => ada.reasons.includes("CIRCLE_FULL"), "the reason");
    const began = Date.now();
    assert.deepEqual([(await ada.engine.history("general")).at(-1).left, ada.state], [0, "live"]);
    stub.refuse = () => ({});
    await bob.post(`meanwhile ${asks}`);
    await ada.reads(`meanwhile ${asks}`);
    await until(async () => (await ada.left(stub)).length === before.length + 3, "that they are left", 20 * MINUTE);
    const took = (Date.now() - began) / SECOND;
    assert.ok(took > least - 5 && took < most, `${asks}: ${took} s`);
  }
}));

test("a part that no frame can hold is read by HTTP, whichever it is", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  const { hint } = ada.engine.epoch;
  const large = await mailed(ada, ...Array.from({ length: 12 }, (_, at) => `${at}`.padEnd(20_000)));
  stub.box(hint).push(...large.map((sealed, at) => ({ number: Date.now() + at, messages: [sealed] })));
  await pass(9 * MINUTE);
  assert.equal(ada.known.filter((text) => text.length === 20_000).length, 12);
  assert.ok(stub.calls.some(({ call, asked }) => call === "POST /v2/sync" && asked.want && !asked.presence));
  assert.equal(ada.state, "live");
}));

test("who is there stays there when a service cannot list it", at(async (stub) => {
  const ada = await Page.make(stub);
  const bob = await ada.join();
  await Promise.all([ada.until("live"), bob.until("live")]);
  await until(() => ada.engine.peers.size, "Bob");
  stub.refuse = ({ want }) => (want?.peers ? { peers: { code: "UNAVAILABLE", message: "the store is slow" } } : {});
  await pass(20 * MINUTE);
  assert.deepEqual(ada.heard("left"), []);
  stub.refuse = ({ want }) => (want?.peers ? { peers: { code: "PAYLOAD_TOO_LARGE", message: "by HTTP" } } : {});
  await pass(10 * MINUTE);
  assert.deepEqual(ada.heard("left"), []);
}));

test("a mailbox that cannot be read now is read later, and is not taken for read", at(async (stub) => {
  stub.refuse = ({ want }) => (want?.messages ? { messages: { code: "UNAVAILABLE", message: "the store is slow" } } : {});
  const ada = await Page.make(stub);
  await ada.until("offline");
  assert.deepEqual([ada.attendant.isRead, ada.attendant.isTried], [false, true]);
  stub.refuse = () => ({});
  await ada.until("live");
  stub.refuse = ({ want, send }) => (want?.messages && !send ? { messages: { code: "PAYLOAD_TOO_LARGE", message: "by HTTP" } } : {});
  for (const socket of stub.sockets) socket.end();
  await pass(MINUTE);
  assert.equal(ada.state === "live", false, "by HTTP it was refused too");
  stub.refuse = () => ({});
  await ada.until("live");
}));

test("a record that a service does not take stays here, is told, and holds up nothing", at(async (stub) => {
  stub.messageBytes = 1024;
  const ada = await Page.make(stub);
  await ada.until("live");
  await ada.post("x".repeat(2000));
  await ada.post("short");
  await ada.untilLeft(stub, "short");
  assert.deepEqual(ada.reasons, ["TOO_LARGE"]);
  stub.messageBytes = 262_144;
}));

test("what is larger than a frame goes by HTTP", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  const from = stub.calls.length;
  const texts = Array.from({ length: 8 }, (_, at) => `${at} ${"y".repeat(100_000)}`);
  for (const text of texts) await ada.post(text);
  await ada.untilLeft(stub, ...texts);
  assert.ok(stub.calls.slice(from).some(({ call, asked }) => call === "POST /v2/sync" && asked.send));
  assert.equal(ada.state, "live");
}));

// Sockets

test("a socket that is refused, never opens, or never answers leaves a page that polls, and goes on", at(async (stub) => {
  for (const [fault, why] of [["refused", /takes no socket/], ["silent", /did not open/]]) {
    stub.sockets_are = fault;
    const ada = await Page.make(stub);
    await until(() => ada.state === "polling" && ada.attendant.why, fault);
    assert.match(ada.attendant.why, why);
    await ada.post("without");
    await ada.untilLeft(stub, "without");
    const from = stub.calls.length;
    await pass(10 * MINUTE);
    assert.ok(stub.calls.length - from < 150, `${stub.calls.length - from} calls`);
    stub.sockets_are = "";
    await ada.until("live");
    await ada.close();
  }
  stub.sockets_are = "mute";
  const ada = await Page.make(stub);
  await until(() => ada.state === "offline", "that it does not answer", MINUTE);
  assert.match(ada.attendant.why, /not answered in 15 s/);
  await ada.post("left by HTTP as it begins again");
  await ada.untilLeft(stub, "left by HTTP as it begins again");
  stub.sockets_are = "";
  await ada.until("live");
}));

test("a socket that closes at once, or after a while, is opened again, ever later while it does not live", at(async (stub) => {
  stub.sockets_are = "closed";
  const ada = await Page.make(stub);
  await pass(10 * MINUTE);
  const opened = stub.calls.filter(({ call }) => call === "GET /v2/socket").length;
  assert.ok(opened > 5 && opened < 120, `${opened} in ten minutes`);
  await ada.post("nevertheless");
  await ada.untilLeft(stub, "nevertheless");
  stub.sockets_are = "";
  await ada.until("live");
  await pass(MINUTE);
  for (let turn = 0; turn < 3; turn += 1) {
    const began = Date.now();
    for (const socket of stub.sockets) socket.end();
    await until(() => ada.state !== "live", "that it is closed");
    await ada.until("live");
    assert.ok(Date.now() - began < 3 * SECOND, `${Date.now() - began} ms`);
    await pass(MINUTE);
  }
}));

test("a WebSocket that cannot be made is none", at(async (stub) => {
  globalThis.WebSocket = class {
    constructor() {
      throw new DOMException("mixed content", "SecurityError");
    }
  };
  const ada = await Page.make(stub);
  await until(() => ada.attendant.why === "mixed content", "why");
  assert.equal(ada.state, "polling");
}));

test("a path that stands is left alone by a check, and one that does not is replaced", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  const [socket] = stub.sockets;
  ada.engine.check();
  await pass(10 * SECOND);
  assert.equal(stub.sockets.has(socket), true);
  stub.sockets_are = "mute";
  ada.engine.check();
  await pass(6 * SECOND);
  assert.equal(stub.sockets.has(socket), false);
  stub.sockets_are = "";
  await ada.until("live");
  stub.spoil = () => {
    throw new TypeError("fetch failed");
  };
  for (const one of stub.sockets) one.end();
  await pass(5 * MINUTE);
  stub.spoil = (reply) => reply;
  ada.engine.check();
  await pass(SECOND);
  assert.equal(ada.state, "live", "it is tried at once");
}));

test("whose place another copy has taken stays away, says so, and still leaves what is posted", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  const copy = await Page.open(ada.row);
  await copy.until("live");
  await until(() => ada.state === "polling" && ada.attendant.why, "why");
  assert.match(ada.attendant.why, /another tab or copy/);
  const opened = () => stub.calls.filter(({ call }) => call === "GET /v2/socket").length;
  const before = opened();
  const [presences] = stub.presences.values();
  const { at } = presences.get(ada.engine.node.id);
  await ada.post("from the copy that lost");
  await until(async () => (await ada.left(stub)).includes("from the copy that lost"), "what was posted");
  await pass(HOUR);
  assert.deepEqual([opened(), copy.state, ada.state], [before, "live", "polling"]);
  await ada.close();
  assert.ok(presences.get(ada.engine.node.id).at >= at && presences.get(ada.engine.node.id).sealed, "it says no goodbye for the other");
}));

// Old and new

test("an old page at a newer service: members, parts, words and frames that it does not know change nothing", at(async (stub) => {
  stub.say = (answer, { call }) => {
    const peers = answer.peers?.map((one) => ({ ...one, mood: [1] }));
    const entries = answer.entries?.map((one) => ({ ...one, sum: "x" }));
    return { ...answer, ...(peers && { peers }), ...(entries && { entries }), news: { of: [1] }, ...(answer.more && { more: [...answer.more, "calls"] }),
      refused: { ...answer.refused, calls: { code: "NEW_CODE", message: "it is new", why: [] } },
      ...(call === "GET /v2/info" && { limits: { ...answer.limits, calls: 5 }, versions: [2, 3] }) };
  };
  const ada = await Page.make(stub);
  const bob = await ada.join();
  await Promise.all([ada.until("live"), bob.until("live")]);
  for (const socket of stub.sockets) {
    for (const frame of [{ t: "NEWS", n: 1 }, { t: "EVENT", calls: [1] }, { t: "EVENT", peers: null, entries: null }, { t: "PONG" }]) socket.hear(frame);
    for (let n = 1; n < 50; n += 1) socket.hear({ t: "PROGRESS", n });
  }
  const { hear } = [...stub.sockets][0].constructor.prototype;
  for (const socket of stub.sockets) {
    socket.hear = (frame) => {
      if (frame.n) hear.call(socket, { t: "PROGRESS", n: frame.n, done: 1 }); // a word about a call that is under way
      hear.call(socket, { ...frame, more: 1 });
    };
  }
  await ada.post("hello");
  await bob.reads("hello");
  await bob.post("hello too");
  await ada.reads("hello too");
  const from = stub.calls.length;
  await pass(10 * MINUTE);
  assert.deepEqual([ada.state, bob.state], ["live", "live"]);
  assert.ok(stub.calls.length - from < 60, `${stub.calls.length - from} calls`);
}));

test("a new page at an older service: members that may be absent are", at(async (stub) => {
  stub.say = ({ more, next_s, ice, refused, peers, entries, signals, ...answer }, { call }) => ({
    ...answer, ...(more?.length && { more }), ...(refused && Object.keys(refused).length && { refused }), ...(peers?.length && { peers }), ...(entries?.length && { entries }),
    ...(signals?.length && { signals }), ...(call === "GET /v2/info" && { limits: { message_bytes: 262_144 }, version: undefined, open: undefined, time_ms: undefined }),
  });
  const ada = await Page.make(stub);
  const bob = await ada.join();
  await Promise.all([ada.until("live"), bob.until("live")]);
  await ada.post("hello");
  await bob.reads("hello");
  assert.deepEqual(await soon(ada.engine.ice()), []);
  await pass(20 * MINUTE);
  assert.deepEqual([ada.state, bob.state, ada.engine.peers.size, ...ada.reasons], ["live", "live", 1]);
}));

test("a service without what a page needs is named, and tried again", at(async (stub) => {
  for (const [name, value] of [["socket", undefined], ["socket", "gopher://x"], ["limits", undefined], ["limits", { message_bytes: "x" }]]) {
    stub.say = (answer, { call }) => (call === "GET /v2/info" ? { ...answer, [name]: value } : answer);
    const ada = await Page.make(stub);
    await ada.until("offline");
    stub.say = (answer) => answer;
    await ada.until("live");
    await ada.close();
  }
}));

test("a service that answers in no JSON, or refuses in a strange form, is tried again", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  const told = [[], { status: 200 }, { status: 500 }, { status: 400, code: 5, message: {} }, { status: 400, code: "lower" }, { status: 400, code: "X", message: { toString: 1, valueOf: 1 } },
    { status: 503, code: "UNAVAILABLE", message: "x".repeat(9999) }, { status: 409, code: "OUTDATED" }];
  for (const answer of told) {
    stub.say = () => answer;
    for (const socket of stub.sockets) socket.end();
    await until(() => ada.state === "offline", JSON.stringify(answer));
    await pass(SECOND);
    stub.say = (true_) => true_;
    await ada.until("live");
  }
  await ada.post("after all");
  await ada.untilLeft(stub, "after all");
}));

// Ends

test("who leaves while nothing answers is gone at once, and nothing goes on behind it", at(async (stub) => {
  for (const before of ["connecting", "live"]) {
    const ada = await Page.make(stub);
    if (before === "live") await ada.until("live");
    stub.sockets_are = "mute";
    stub.spoil = () => new Promise(() => {});
    const began = Date.now();
    await ada.close();
    assert.ok(Date.now() - began < 3 * SECOND);
    await ada.engine.stop();
    await ada.attendant.close();
    stub.spoil = (reply) => reply;
    stub.sockets_are = "";
    await pass(MINUTE);
    const from = stub.calls.length;
    await pass(10 * MINUTE);
    assert.equal(stub.calls.length, from);
  }
}));

test("an old epoch's mailbox is read, and nothing is left or said there", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  await ada.post("of old");
  await ada.untilLeft(stub, "of old");
  const { hint } = ada.engine.epoch;
  const bob = await joinRow(await readInvite(await ada.engine.invite()));
  bob.epochs.push({ number: 1, secret: random(32), began: Date.now() });
  const from = stub.calls.length;
  const page = await Page.open({ ...bob, me: "Bob" });
  await page.reads("of old");
  await page.post("of the new epoch");
  await page.untilLeft(stub, "of the new epoch");
  await pass(20 * MINUTE);
  const { id } = await page.engine.member.node(await Epoch.make(bob.id, 0, bob.epochs[0].secret));
  const old = syncs(stub, from).filter(({ node }) => node === id);
  assert.ok(old.length >= 2);
  assert.deepEqual([old.filter(({ asked }) => asked.presence || asked.send).length, [...stub.presences.get(hint).keys()].includes(id)], [0, false]);
}));

// New keys

test("a founder gives the circle new keys: whoever is left out is told and reads no more, and whoever was away follows", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  const [bob, cleo, eve] = [await ada.join("Bob"), await ada.join("Cleo"), await ada.join("Eve")];
  for (const one of [bob, cleo, eve]) await one.until("live");
  await eve.post("before");
  for (const one of [ada, bob, cleo]) await one.reads("before");
  const id = ({ engine }) => engine.member.id;
  await until(async () => (await ada.engine.people()).length === 4, "that all have said who they are");
  await cleo.close();
  await assert.rejects(soon(bob.engine.rekey({ without: [id(eve)] })), { reason: "NOT_ALLOWED" });
  for (const without of [[id(ada)], ["0".repeat(32)]]) await assert.rejects(soon(ada.engine.rekey({ without })), { reason: "MALFORMED" });
  const old = await ada.engine.invite();
  assert.deepEqual(await soon(ada.engine.rekey({ without: [id(eve)] })), { epoch: 1, left: 1, weak: [] });
  await until(() => bob.engine.epoch.number === 1 && eve.reasons.includes("LEFT_OUT"), "that Bob has followed, and Eve was told");
  assert.equal(eve.heard("hello").at(-1).me.out, true);
  await ada.post("without Eve");
  await bob.reads("without Eve");
  await assert.rejects(soon(eve.engine.post("general", "me too")), { reason: "LEFT_OUT" });
  const back = await Page.open(cleo.row, { store: cleo.store });
  await back.reads("before", "without Eve");
  assert.deepEqual((await bob.engine.people()).filter(({ out }) => out).map(({ name }) => name), ["Eve"]);
  assert.equal(eve.known.includes("without Eve"), false);

  // An invite of before leads to where nobody is; whoever was left out stays so by the next keys.
  const late = await Page.open({ ...(await joinRow(await readInvite(old))), me: "Late" });
  await late.until("live");
  assert.equal(late.known.includes("without Eve"), false);
  await assert.rejects(soon(ada.engine.rekey({ only: ["0".repeat(32)] })), { reason: "MALFORMED" });
  await soon(ada.engine.rekey({ only: [id(bob), id(back), id(eve)] }));
  await until(() => bob.engine.epoch.number === 2, "that Bob has followed again");
  const second = await readRekey(ada.row.founder, ada.row.epochs.at(-1).rekey);
  assert.deepEqual(Object.keys(second.keep).sort(), [ada, bob, back].map(id).sort());
  assert.deepEqual((await ada.engine.people()).filter(({ out }) => out).map(({ name }) => name), ["Eve"]);

  // By a new invite it is in again, and stays by the next keys.
  const again = await Page.open({ ...eve.row, out: false, introduced: "", epochs: [{ number: 2, secret: ada.engine.epoch.secret, began: Date.now() }] });
  await eve.close();
  await again.reads("without Eve"); // as a newcomer does, from those who keep it
  await until(async () => !(await ada.engine.people()).some(({ out }) => out), "that Eve is back");
}));

test("a rekey is left again every twenty days for a year, and not by who has no founder's key", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  const { hint } = ada.engine.epoch;
  await soon(ada.engine.rekey());
  const [{ id }, { order }] = [readService(stub.address), ada.row.epochs[1]];
  const again = async () => {
    const before = stub.mail.get(hint).length;
    await ada.engine.log.noteLeft(id, hint, [order], Date.now() - 21 * DAY, true);
    await pass(16 * MINUTE);
    return stub.mail.get(hint).length - before;
  };
  assert.deepEqual([await again(), ada.engine.epoch.number], [1, 1]);
  ada.row.epochs[1].began -= 366 * DAY;
  assert.equal(await again(), 0);
  ada.row.epochs[1].began += 366 * DAY;
  ada.row.founderSeed = undefined;
  assert.equal(await again(), 0);
}));

test("the founder's key is handed on, and of two that both use it the smaller word stands for all", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  const [bob, cleo] = [await ada.join("Bob"), await ada.join("Cleo")];
  for (const one of [bob, cleo]) await one.until("live");
  await until(async () => (await ada.engine.people()).length === 3 && (await bob.engine.people()).length === 3, "that all have said who they are");
  await assert.rejects(soon(bob.engine.act("founder", cleo.engine.member.id)), { reason: "NOT_ALLOWED" });
  await assert.rejects(soon(ada.engine.act("founder", ada.engine.member.id)), { reason: "MALFORMED" });
  await soon(ada.engine.act("founder", bob.engine.member.id));
  await until(() => bob.heard("hello").at(-1)?.me.founder, "that Bob has the key");
  assert.equal(cleo.heard("hello").some(({ me }) => me.founder), false);
  await soon(Promise.all([ada.engine.rekey(), bob.engine.rekey()]));
  await until(() => new Set([ada, bob, cleo].map(({ engine }) => engine.epoch.hint)).size === 1, "one epoch", HOUR);
  await ada.post("from Ada");
  await bob.post("from Bob");
  for (const one of [ada, bob, cleo]) await one.reads("from Ada", "from Bob");
}));

test("a waker that was woken before it sleeps does not sleep", inTime(async () => {
  const waker = new Waker();
  waker.wake();
  assert.equal(await waker.sleep(1e9), true);
  const long = waker.sleep(1e12);
  await pass(SECOND);
  waker.wake();
  assert.equal(await long, true);
  assert.equal(await soon(waker.sleep(10)), false);
}));

// Several services

test("a founder and members meet at a service that the founder adds, and each removes one from here, but the last", at(async (stub) => {
  const [second, third] = [await Stub.make(), await Stub.make()];
  const where = ({ engine }) => engine.services().map((one) => readService(one).url);
  const ada = await Page.make(stub);
  const bob = await ada.join();
  await bob.until("live");
  await assert.rejects(soon(ada.engine.removeService(stub.address)), { reason: "NOT_ALLOWED" });
  await assert.rejects(soon(bob.engine.act("services", [second.address])), { reason: "NOT_ALLOWED" });
  await soon(ada.engine.act("services", [stub.address, second.address]));
  await until(() => where(bob).length === 2, "that Bob has learnt of it");
  assert.deepEqual([where(ada), bob.heard("hello").at(-1).services], [[stub.url, second.url], ada.engine.services()]);
  await until(() => ada.heard("state").at(-1).services.every(({ state }) => state === "live"), "both");

  // Who is there alone learns by the way out where else the circle meets.
  await ada.engine.act("services", [stub.address, second.address, third.address]);
  const cleo = await Page.open({ ...(await joinRow(await readInvite(await ada.engine.invite()))), services: [readService(stub.address)], me: "Cleo" });
  await cleo.until("live");
  await soon(ada.engine.removeService(readService(stub.address).id));
  assert.deepEqual(where(ada), [second.url, third.url]);
  await until(() => where(cleo).length === 3, "that Cleo has learnt of them");
  await until(() => !stub.presences.get(ada.engine.epoch.hint).get(ada.engine.node.id).sealed, "that Ada has left");
  await ada.post("elsewhere");
  await cleo.reads("elsewhere");
  assert.equal((await readInvite(await ada.engine.invite())).services.length, 2);

  // One that answers nothing is removed too; by who is no founder from here alone.
  second.spoil = () => ({ status: 502, headers: {}, body: utf8("down") });
  for (const socket of second.sockets) socket.end();
  await until(() => ada.heard("state").at(-1).services.some(({ state }) => state === "offline"), "that it is down", HOUR);
  await soon(ada.engine.removeService(second.address));
  await soon(cleo.engine.removeService(second.address));
  assert.deepEqual([where(ada), where(cleo), where(bob).length], [[third.url], [stub.url, third.url], 3]);
  await assert.rejects(soon(cleo.engine.removeService(second.address)), { reason: "MALFORMED" });
}));

test("a page that is open for a moment drops what is kept no longer", at(async (stub) => {
  const ada = await Page.make(stub);
  await ada.until("live");
  await ada.post("of today");
  await ada.untilLeft(stub, "of today");
  await ada.close();
  await pass(31 * DAY);
  const again = await Page.open(ada.row, { store: ada.store });
  await again.until("live");
  await until(() => ![...again.engine.log.records()].some(({ kind, text }) => kind === "text" && text.length), "that the text is gone");
}));

// The same by real HTTP, as an app sees it

test("an app in Node joins, posts, reads and leaves by real HTTP", async () => {
  const stub = await Stub.make();
  const end = await stub.listen();
  try {
    const options = (profile) => ({ profile: `${profile} ${hex(random(8))}`, name: profile });
    const ada = await Circle.create({ ...options("Ada"), circle: "Friends", services: [stub.address] });
    await ada.post("general", "by real HTTP");
    assert.match(ada.invite(), /^http:\/\/127\.0\.0\.1:\d+\/app\/#muster2\./);
    assert.match(ada.invite("https://page.test/x#y"), /^https:\/\/page\.test\/x#muster2\./);
    const bobs = options("Bob");
    const bob = await Circle.join(ada.invite(), bobs);
    const { value } = await bob.messages("general").next();
    assert.equal(value.text, "by real HTTP");

    // What a circle is, and oneself in it, is told whenever it changes, and only then.
    const told = (circle) => new Promise((resolve) => circle.addEventListener("circle", ({ detail }) => resolve(detail), { once: true }));
    let changes = 0;
    bob.addEventListener("circle", () => (changes += 1));
    const named = told(bob);
    await ada.act("title", "Cousins");
    assert.deepEqual([(await named).name, bob.name], ["Cousins", "Cousins"]);
    await ada.act("create", "garden");
    const renamed = told(bob);
    await bob.rename("Robert");
    assert.deepEqual([(await renamed).me.name, bob.me.name, changes], ["Robert", "Robert", 2]);

    await Promise.all([ada.leave(), bob.leave()]);
    await assert.rejects(bob.post("general", "too late"), { reason: "CLOSED" });

    // Who was left out is told so after each start.
    const store = await openStore(`muster ${bobs.profile}`);
    await store.put([["circles", bob.id, { ...(await store.get("circles", bob.id)), out: true }]]);
    const out = await Circle.open(bob.id, bobs);
    const { detail } = await new Promise((resolve) => out.addEventListener("error", resolve, { once: true }));
    assert.equal(detail.reason, "LEFT_OUT");
    await out.leave();
  } finally {
    await end();
  }
});
