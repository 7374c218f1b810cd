// Tabs of one profile, with locks and channels of the test's own: one leads, and every ask is answered once.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { Refused } from "../../web/muster/refused.js";
import { Tab } from "../../web/muster/tabs.js";
import { inTime, pass, soon, until } from "./stub.mjs";

const unhandled = [];
process.on("unhandledRejection", (error) => unhandled.push(error));
process.on("uncaughtException", (error) => unhandled.push(error));
afterEach(() => assert.deepEqual(unhandled.splice(0), []));

/** Web Locks of one name: who holds it, and who waits. */
class Locks {
  held = null;
  queue = [];
  refuses = null;

  request(name, options, work = options) {
    if (this.refuses) return Promise.reject(this.refuses);
    const how = typeof options === "function" ? {} : options;
    return new Promise((resolve, reject) => {
      const one = { work, resolve, reject };
      if (how.steal) {
        const before = this.held;
        this.held = null;
        this.#grant(one);
        before?.reject(new DOMException("stolen", "AbortError"));
      } else if (!this.held) this.#grant(one);
      else if (how.ifAvailable) resolve(work(null));
      else this.queue.push(one);
    });
  }

  #grant(one) {
    this.held = one;
    const freed = (value) => {
      one.resolve(value);
      if (this.held !== one) return;
      this.held = null;
      const next = this.queue.shift();
      if (next) this.#grant(next);
    };
    Promise.resolve().then(() => one.work({})).then(freed, one.reject);
  }
}

/** A channel of which every side hears the others, but one that is frozen: it hears them when it thaws. */
class Channel {
  static all = new Set();
  static frozen = new Set();
  onmessage = Object;
  #late = [];

  constructor(name) {
    this.name = name;
    Channel.all.add(this);
  }

  postMessage(message) {
    if (!Channel.all.has(this)) throw new DOMException("it is closed", "InvalidStateError");
    const data = structuredClone(message);
    for (const other of Channel.all) if (other !== this && other.name === this.name) setImmediate(() => other.hear({ data }));
  }

  hear(event) {
    if (Channel.frozen.has(this)) this.#late.push(event);
    else if (Channel.all.has(this)) this.onmessage(event);
  }

  thaw() {
    Channel.frozen.delete(this);
    for (const event of this.#late.splice(0)) this.hear(event);
  }

  close() {
    Channel.all.delete(this);
  }
}

let locks;
let made;
/** An engine that notes what it is asked for. */
class Fake {
  said = [];
  stopped = 0;
  gates = [];

  constructor(number, emit) {
    Object.assign(this, { number, emit });
  }

  async hello() {
    return { by: this.number };
  }

  async post(text) {
    if (this.stopped) throw new Refused("CLOSED", "the circle was left");
    this.said.push(text);
    if (text === "slow") await new Promise((done) => this.gates.push(done));
    if (text === "no") throw new Refused("NO_CHANNEL", "there is none");
    if (text === "broken") throw new Error("a fault");
    if (text === "function") return () => {};
    return `${text} by ${this.number}`;
  }

  async stop() {
    this.stopped += 1;
    await new Promise((done) => setTimeout(done, 500)); // its goodbye
  }
}

/** A tab, and what it has told. */
const tab = (make = async (emit) => made[made.push(new Fake(made.length + 1, emit)) - 1]) => {
  const told = [];
  const before = new Set(Channel.all);
  const one = new Tab("profile", make, (type, detail) => told.push([type, detail]));
  one.told = told;
  one.begun = one.begin();
  [one.channel] = [...Channel.all].filter((channel) => !before.has(channel));
  one.begun.catch(() => {});
  return one;
};
const last = (one, type) => one.told.filter(([found]) => found === type).at(-1)?.[1];

const tabs = (script) =>
  inTime(async () => {
    const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
    const { BroadcastChannel } = globalThis;
    locks = new Locks();
    made = [];
    Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true, writable: true });
    globalThis.BroadcastChannel = Channel;
    try {
      await script();
    } finally {
      Channel.all.clear();
      Channel.frozen.clear();
      globalThis.BroadcastChannel = BroadcastChannel;
      if (before) Object.defineProperty(globalThis, "navigator", before);
      else delete globalThis.navigator;
    }
  });

test("one leads, and the others ask it and hear what it tells", tabs(async () => {
  const all = [tab(), tab(), tab()];
  for (const one of all) assert.deepEqual(await soon(one.begun), { by: 1 });
  assert.deepEqual([made.length, ...all.map(({ engine }) => Boolean(engine))], [1, true, false, false]);
  assert.deepEqual(await soon(Promise.all(all.map((one, at) => one.ask("post", `${at}`)))), ["0 by 1", "1 by 1", "2 by 1"]);
  made[0].emit("message", { text: "hello" });
  await pass(10);
  for (const one of all) assert.deepEqual(last(one, "message"), { text: "hello" });
}));

test("where there are no locks, or they are refused, a tab leads for itself", tabs(async () => {
  locks.refuses = new DOMException("not in this frame", "SecurityError");
  assert.deepEqual(await soon(tab().begun), { by: 1 });
  globalThis.navigator = {};
  assert.deepEqual(await soon(tab().begun), { by: 2 });
  globalThis.navigator = undefined;
  const alone = tab();
  assert.deepEqual(await soon(alone.begun), { by: 3 });
  assert.equal(await soon(alone.ask("post", "x")), "x by 3");
  await soon(alone.close());
}));

test("what is refused is told with its reason, in every tab, and what an engine has not is not asked of it", tabs(async () => {
  const [one, two] = [tab(), tab()];
  await soon(two.begun);
  for (const asks of [one, two]) {
    await assert.rejects(soon(asks.ask("post", "no")), { reason: "NO_CHANNEL", message: /there is none/ });
    await assert.rejects(soon(asks.ask("stop")), { reason: "MALFORMED" });
    await assert.rejects(soon(asks.ask("constructor")), { reason: "MALFORMED" });
    await assert.rejects(soon(asks.ask("post", "broken")), /a fault/);
  }
  await assert.rejects(soon(two.ask("post", "function")), { reason: "FAILED" });
  assert.equal(await soon(two.ask("post", "still")), "still by 1");
}));

test("what cannot be told to another tab is refused at once, and spoils nothing", tabs(async () => {
  const [one, two] = [tab(), tab()];
  await soon(two.begun);
  await assert.rejects(soon(two.ask("post", () => {})), { name: "DataCloneError" });
  await soon(one.close());
  await until(() => two.engine, "the next");
  assert.equal(await soon(two.ask("post", "after")), "after by 2");
  assert.deepEqual(made[1].said, ["after"]);
}));

test("when the leader closes the next leads, and what was asked meanwhile is answered once", tabs(async () => {
  const [one, two, three] = [tab(), tab(), tab()];
  await soon(Promise.all([two.begun, three.begun]));
  const before = two.ask("post", "before");
  const slow = three.ask("post", "slow");
  await until(() => made[0].said.includes("slow"), "that it is asked");
  const closing = one.close();
  const during = [two.ask("post", "during"), three.ask("post", "during too")];
  made[0].gates[0](); // it was done before the end, and so its answer is heard
  await soon(closing);
  assert.deepEqual(await soon(Promise.all([before, slow])), ["before by 1", "slow by 1"]);
  assert.deepEqual(await soon(Promise.all(during)), ["during by 2", "during too by 2"]);
  assert.deepEqual([made.length, made[0].stopped, Boolean(two.engine), Boolean(three.engine)], [2, 1, true, false]);
  assert.deepEqual(made[1].said.filter((text) => text.startsWith("during")).sort(), ["during", "during too"]);
  assert.equal(made[1].said.includes("before"), false);
  assert.deepEqual(last(three, "hello"), { by: 2 });
  await assert.rejects(one.ask("post", "too late"), { reason: "CLOSED" });
  await soon(two.close());
  assert.equal(await soon(three.ask("post", "the last")), "the last by 3");
  assert.deepEqual(made[2].said.filter((text) => text === "the last"), ["the last"]);
}));

test("what a leader had done when it closed is not done again", tabs(async () => {
  const [one, two] = [tab(), tab()];
  await soon(two.begun);
  const answer = two.ask("post", "once");
  await until(() => made[0].said.length, "that it is done");
  await soon(one.close());
  assert.equal(await soon(answer), "once by 1");
  await until(() => made.length === 2, "the next");
  await pass(10_000);
  assert.deepEqual(made.flatMap(({ said }) => said), ["once"]);
}));

test("what the leader tells of itself makes nobody ask twice", tabs(async () => {
  const [, two] = [tab(), tab()];
  await soon(two.begun);
  const slow = two.ask("post", "slow");
  for (let turn = 0; turn < 5; turn += 1) {
    await pass(100);
    made[0].emit("hello", { by: 1, turn });
    two.channel.postMessage({ from: "another", n: turn, name: "hello", args: [] });
  }
  made[0].gates[0]();
  assert.equal(await soon(slow), "slow by 1");
  assert.deepEqual(made[0].said, ["slow"]);
}));

test("an ask that takes long makes nobody take the lock from who is at it", tabs(async () => {
  const [one, two] = [tab(), tab()];
  await soon(two.begun);
  const slow = two.ask("post", "slow");
  await pass(60_000);
  assert.deepEqual([made.length, Boolean(one.engine)], [1, true]);
  made[0].gates[0]();
  assert.equal(await soon(slow), "slow by 1");
}));

test("a leader that does not answer is replaced, whether it has heard an ask or not, and steps back when it thaws", tabs(async () => {
  for (const heard of [false, true]) {
    const from = made.length;
    const [one, two, three] = [tab(), tab(), tab()];
    await soon(Promise.all([two.begun, three.begun]));
    const slow = heard && two.ask("post", "slow");
    if (slow) await until(() => made[from].said.length, "that it is heard");
    Channel.frozen.add(one.channel);
    const asked = heard ? null : two.ask("post", "anybody?");
    await until(() => two.engine, "another leader", 20_000);
    if (asked) assert.equal(await soon(asked), `anybody? by ${from + 2}`);
    else made[from + 1].gates[0]();
    if (slow) assert.equal(await soon(slow), `slow by ${from + 2}`);
    assert.equal(await soon(three.ask("post", "x")), `x by ${from + 2}`);
    one.channel.thaw();
    await until(() => made[from].stopped, "that it steps back");
    assert.equal(one.engine, null);
    assert.equal(await soon(one.ask("post", "as one of the others")), `as one of the others by ${from + 2}`);
    assert.deepEqual(last(one, "hello"), { by: from + 2 });
    await soon(two.close());
    await until(() => three.engine || one.engine, "the next in the queue");
    assert.equal(made.filter(({ stopped }) => !stopped).length, 1);
    await soon(Promise.all([one.close(), three.close()]));
    await pass(1000);
    assert.equal(made.filter(({ stopped }) => !stopped).length, 0);
  }
}));

test("who has led once, and leads no more, still notices when the next one freezes", tabs(async () => {
  const [one, two] = [tab(), tab()];
  await soon(two.begun);
  await soon(two.take());
  assert.deepEqual([Boolean(two.engine), made.length], [true, 2]);
  await until(() => last(one, "hello").by === 2, "who leads");
  Channel.frozen.add(two.channel);
  assert.equal(await soon(one.ask("post", "there?")), "there? by 3");
  await soon(one.take());
  assert.equal(made.length, 3);
}));

test("a tab that begins for long keeps its place, and one that loses it meanwhile asks the other", tabs(async () => {
  let open;
  const one = tab(async (emit) => {
    await new Promise((done) => (open = done));
    return made[made.push(new Fake(made.length + 1, emit)) - 1];
  });
  const two = tab();
  await pass(30_000);
  assert.equal(made.length, 0, "it is there, and not ready");
  const taken = two.take();
  await soon(taken);
  assert.equal(made.length, 1);
  open();
  assert.deepEqual(await soon(one.begun), { by: 1 });
  await until(() => made[1]?.stopped, "that the other is stopped");
  assert.deepEqual([one.engine, Boolean(two.engine), last(one, "error")], [null, true, undefined]);
  assert.equal(await soon(one.ask("post", "x")), "x by 1");
}));

test("who leaves while it begins leaves no engine behind", tabs(async () => {
  let open;
  const one = tab(async (emit) => {
    await new Promise((done) => (open = done));
    return made[made.push(new Fake(made.length + 1, emit)) - 1];
  });
  await pass(10);
  await soon(one.close());
  await soon(one.close());
  open();
  await until(() => made[0]?.stopped, "the end of it");
  await assert.rejects(soon(one.begun), { reason: "CLOSED" });
  await assert.rejects(soon(one.take().then(() => one.ask("hello"))), { reason: "CLOSED" });
}));

test("an engine that cannot begin is told with its reason, and the next tab is tried", tabs(async () => {
  const fails = async () => {
    throw new Refused("STORAGE_NEWER", "reload it");
  };
  const bad = tab(fails);
  await assert.rejects(soon(bad.begun), { reason: "STORAGE_NEWER" });
  const one = tab();
  assert.deepEqual(await soon(one.begun), { by: 1 });
  let broken = true;
  const two = tab(async (emit) => (broken ? Promise.reject(new Error("not now")) : made[made.push(new Fake(made.length + 1, emit)) - 1]));
  await soon(two.begun);
  await soon(one.close());
  const waits = two.ask("post", "when it can");
  await until(() => last(two, "error"), "the error");
  assert.deepEqual(last(two, "error"), { reason: "FAILED", message: "not now" });
  await pass(9000);
  broken = false;
  assert.equal(await soon(waits), "when it can by 2");
}));

test("nothing that is said on the channel by whoever it is is thrown, or does what it should not", tabs(async () => {
  const seen = [];
  const [one, two] = [tab(), tab()];
  await soon(two.begun);
  const stranger = new Channel("profile");
  const values = [undefined, null, 0, 1, "x", true, [], {}, [[]], { length: 1 }, 2n, NaN, new Map(), new Uint8Array(3)];
  for (const value of values) {
    for (const message of [value, { type: value }, { type: "hello", detail: value }, { type: "led", detail: value }, { to: value }, { from: value }, { from: "s", n: value, name: "post", args: value },
      { from: "s", name: value, n: value, args: [] }, { to: "s", n: value, value }, { from: value, heard: value, n: value }]) {
      stranger.postMessage(message);
    }
  }
  for (const name of ["stop", "emit", "__proto__", "constructor", "toString", "hasOwnProperty"]) stranger.postMessage({ from: "s", n: name, name, args: [] });
  two.told.push = (entry) => {
    seen.push(entry);
    throw new TypeError("the app did not expect that");
  };
  stranger.postMessage({ type: "hello", detail: 5 });
  await pass(1000);
  delete two.told.push;
  assert.deepEqual([seen.length > 0, made[0].stopped], [true, 0]);
  assert.equal(await soon(two.ask("post", "x")), "x by 1");
  assert.equal(await soon(one.ask("post", "y")), "y by 1");
}));

test("ten thousand asks may wait, and no more", tabs(async () => {
  const [one, two] = [tab(), tab()];
  await soon(two.begun);
  Channel.frozen.add(one.channel);
  const asks = Array.from({ length: 10_001 }, () => two.ask("hello"));
  for (const ask of asks) ask.catch(() => {});
  await assert.rejects(asks[10_000], { reason: "CLOSED" });
  await soon(two.close());
  await assert.rejects(asks[0], { reason: "CLOSED" });
}));
