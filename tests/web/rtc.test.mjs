// Peer connections without a browser: what negotiates is ours, what connects is made up. The browser's own are in
// tests/browser/test_links.py.
import assert from "node:assert/strict";
import { test } from "node:test";

import { readU32, u32, utf8 } from "../../web/muster/bytes.js";
import { Pipes } from "../../web/muster/pipes.js";
import { ANN, BOB, Relay, linked } from "./pair.mjs";

const tick = (ms = 0) => new Promise((resolve) => setTimeout(resolve, ms));
const until = async (found, what = "it", ms = 20_000) => {
  for (const end = Date.now() + ms; !found(); await tick(5)) assert.ok(Date.now() < end, `${what} has not come`);
};
const made = new Map();

/** A peer connection that connects when both sides have said so, unless `blocked`. */
class Fake {
  static blocked = false;
  signalingState = "stable";
  connectionState = "new";
  localDescription = null;
  remoteDescription = null;
  candidates = [];
  restarts = 0;
  channels = {};
  #needed = false;
  #id = String(1000 + made.size);
  #version = 0;

  constructor(configuration) {
    this.configuration = configuration;
    made.set(this.#id, this);
  }
  get other() {
    return made.get(/^o=- (\d+)/m.exec(this.remoteDescription?.sdp)?.[1]);
  }
  get ufrag() {
    return `u${this.#id}g${this.restarts}`;
  }
  getConfiguration = () => this.configuration;
  setConfiguration = (configuration) => void (this.configuration = configuration);
  getStats = async () => new Map([["T", { type: "transport" }]]);
  getTransceivers = () => [];

  createDataChannel(label, { id, negotiated }) {
    assert.ok(negotiated);
    const pc = this;
    this.channels[id] = {
      id, readyState: "connecting", bufferedAmount: 0,
      send(data) {
        if (this.readyState !== "open") throw new Error("InvalidStateError");
        const copy = data.slice().buffer;
        queueMicrotask(() => pc.other?.channels[id].onmessage?.({ data: copy }));
      },
      close() {},
    };
    this.#need();
    return this.channels[id];
  }
  #need() {
    if (this.#needed) return;
    this.#needed = true;
    setTimeout(() => {
      if (this.signalingState !== "stable" || !this.#needed) return;
      this.#needed = false;
      this.onnegotiationneeded();
    });
  }
  async setLocalDescription() {
    if (this.signalingState === "closed") throw new Error("InvalidStateError");
    const type = this.signalingState === "have-remote-offer" ? "answer" : "offer";
    const sdp = `v=0\r\no=- ${this.#id} ${(this.#version += 1)} IN IP4 0\r\na=ice-ufrag:${this.ufrag}\r\n`;
    this.localDescription = { type, sdp };
    this.signalingState = type === "offer" ? "have-local-offer" : "stable";
    const candidate = { candidate: "candidate:1", sdpMid: "0", sdpMLineIndex: 0, usernameFragment: this.ufrag };
    setTimeout(() => this.onicecandidate({ candidate: { candidate: "x", toJSON: () => candidate } }));
    setTimeout(() => this.onicecandidate({ candidate: null }), 1);
    this.#look();
  }
  async setRemoteDescription({ type, sdp }) {
    if (!/^v=0/.test(sdp)) throw new Error("OperationError");
    if (type === "answer" && this.signalingState !== "have-local-offer") throw new Error("InvalidStateError");
    this.#needed = false;
    this.signalingState = type === "offer" ? "have-remote-offer" : "stable";
    this.remoteDescription = { type, sdp };
    this.#look();
  }
  async addIceCandidate(candidate) {
    assert.ok(this.remoteDescription.sdp.includes(candidate.usernameFragment));
    this.candidates.push(candidate);
  }
  restartIce() {
    this.restarts += 1;
    this.#need();
  }
  #look() {
    const { other } = this;
    if (Fake.blocked || this.signalingState !== "stable" || other?.signalingState !== "stable" || other.other !== this) return;
    for (const pc of [this, other]) setTimeout(() => pc.become("connected"));
  }
  become(state) {
    if (this.connectionState === "closed") return;
    this.connectionState = state;
    if (state === "connected") {
      for (const channel of Object.values(this.channels)) {
        if (channel.readyState === "open") continue;
        channel.readyState = "open";
        channel.onopen();
      }
    }
    this.onconnectionstatechange();
  }
  close() {
    const { other } = this;
    this.connectionState = this.signalingState = "closed";
    for (const channel of Object.values(this.channels)) channel.readyState = "closed";
    setTimeout(() => {
      for (const channel of Object.values(other?.channels ?? {})) {
        channel.readyState = "closed";
        channel.onclose();
      }
    });
  }
}

const joined = async (options = {}, relay = new Relay()) => {
  const pair = await linked(relay, { RTCPeerConnection: Fake, ...options });
  return { relay, ...pair, end: () => Promise.all([pair.ann.close(), pair.bob.close()]) };
};
const direct = async (options, relay) => {
  const pair = await joined(options, relay);
  for (const link of [pair.one, pair.two]) await until(() => link.path === "webrtc", "webrtc");
  return pair;
};
const read = async (link, count) => {
  const found = [];
  while (found.length < count) found.push(readU32((await link.next()).value));
  return found;
};
const upTo = (count) => Array.from({ length: count }, (_, at) => at);

test("the data channel takes over, gives back, and takes over again; nothing is lost or doubled", { timeout: 30_000 }, async () => {
  const { ann, bob, one, two, end } = await joined();
  const reading = read(two, 1500);
  for (let at = 0; at < 1500; at += 1) {
    await one.send(u32(at));
    if (at === 500) await until(() => one.path === "webrtc" && two.path === "webrtc");
    if (at === 1000) bob.rtc(ANN).pc.close();
    if (at % 100 === 0) await tick(1);
  }
  assert.deepEqual(await reading, upTo(1500));
  await until(() => one.path === "relay" && two.path === "relay", "the relay");
  await until(() => one.path === "webrtc" && two.path === "webrtc", "another connection");
  assert.equal(ann.path(BOB), "webrtc");
  assert.equal((await ann.stats(BOB)).get("T").type, "transport");
  await end();
  assert.equal(ann.rtc(BOB), null);
});

test("disconnected is waited out: frames go by the relay, ICE begins again, nothing is closed", { timeout: 30_000 }, async () => {
  const { ann, bob, one, two, end } = await direct();
  const { pc } = ann.rtc(BOB);
  pc.become("disconnected");
  assert.equal(one.path, "relay");
  await until(() => two.path === "relay", "the other side's relay");
  for (let at = 0; at < 50; at += 1) await two.send(u32(at));
  assert.deepEqual(await read(one, 50), upTo(50));
  await until(() => pc.restarts === 1 && pc.connectionState === "connected", "an ICE restart");
  for (const link of [one, two]) await until(() => link.path === "webrtc", "webrtc");
  assert.equal(ann.rtc(BOB).pc, pc);
  pc.become("failed");
  await until(() => pc.restarts === 2, "a restart at once");
  ann.check();
  await until(() => one.path === "webrtc" && two.path === "webrtc", "webrtc");
  assert.equal(bob.rtc(ANN).dead, false);
  await end();
});

test("after two restarts another connection is made, and an offer of another takes the place of the one before", { timeout: 60_000 }, async () => {
  const { ann, bob, one, end } = await direct();
  const [hers, his] = [ann.rtc(BOB), bob.rtc(ANN)];
  Fake.blocked = true;
  for (let at = 0; at < 3; at += 1) hers.pc.become("failed");
  assert.deepEqual([hers.dead, one.path], [true, "relay"]);
  Fake.blocked = false;
  await until(() => one.path === "webrtc", "another connection");
  assert.notEqual(ann.rtc(BOB), hers);
  assert.equal(his.dead, true);
  await end();
});

test("both may begin at once: one offer stands", { timeout: 30_000 }, async () => {
  const { ann, bob, one, two, end } = await direct();
  ann.rtc(BOB).restart();
  bob.rtc(ANN).restart();
  await tick(300);
  assert.deepEqual([one.path, two.path], ["webrtc", "webrtc"]);
  assert.deepEqual([ann.rtc(BOB).pc.signalingState, bob.rtc(ANN).pc.signalingState], ["stable", "stable"]);
  await end();
});

test("a meeting goes over the same connection, on a channel of its own", { timeout: 30_000 }, async () => {
  const { ann, bob, one, two, end } = await direct();
  const come = new Promise((resolve) => ann.addEventListener("link", (event) => resolve(event.detail.link)));
  const three = await bob.open(ANN, "meet");
  const four = await come;
  for (const link of [three, four]) await until(() => link.path === "webrtc", "webrtc");
  await one.send(u32(1));
  await three.send(u32(2));
  assert.deepEqual([await read(two, 1), await read(four, 1)], [[1], [2]]);
  await three.close();
  await until(() => four.closed);
  assert.deepEqual([one.path, two.path], ["webrtc", "webrtc"]);
  await end();
});

test("datagrams go by the loose channel, and files by the other, while it has room", { timeout: 30_000 }, async () => {
  const { ann, bob, one, two, end } = await direct();
  const [hers, his] = [new Pipes({ links: ann }), new Pipes({ links: bob })];
  const come = [];
  his.addEventListener("message", ({ detail }) => come.push(detail));
  hers.attach(one);
  his.attach(two);
  await hers.send("cursor", [1], { reliable: false });
  await tick(5);
  assert.deepEqual(come, [{ name: "cursor", from: ANN, data: [1] }]);
  const { channels } = ann.rtc(BOB);
  channels[1].bufferedAmount = 65_536;
  await hers.send("cursor", [2], { reliable: false });
  channels[0].bufferedAmount = 1_048_576;
  const sending = hers.send("x", "waits", { to: BOB });
  await tick(300);
  assert.equal(come.length, 1);
  channels[0].bufferedAmount = 0;
  channels[0].onbufferedamountlow();
  await sending;
  assert.equal(come[1].data, "waits");
  channels[1].onmessage({ data: new ArrayBuffer(3) });
  channels[1].onmessage({ data: new ArrayBuffer(16_001) });
  channels[1].onmessage({ data: "text" });
  channels[0].onmessage({ data: new ArrayBuffer(3) });
  await end();
});

test("candidates wait for their description, and only so many are taken", { timeout: 30_000 }, async () => {
  const { ann, one, end } = await direct();
  const rtc = ann.rtc(BOB);
  const candidate = (name) => ({ candidate: "candidate:2", sdpMid: "0", sdpMLineIndex: 0, usernameFragment: name });
  const before = rtc.pc.candidates.length;
  await rtc.take({ candidates: [candidate("of the next one")] });
  assert.equal(rtc.pc.candidates.length, before);
  const { sdp } = rtc.pc.remoteDescription;
  await rtc.take({ description: { type: "offer", sdp: sdp.replace(/ufrag:\S+/, "ufrag:of the next one") } });
  assert.equal(rtc.pc.candidates.length, before + 1);
  for (let at = 0; at < 20; at += 1) await rtc.take({ candidates: Array(32).fill(candidate("of the next one")) });
  assert.ok(rtc.pc.candidates.length <= before + 257);
  assert.equal(one.path, "webrtc");
  await end();
});

test("what a member lies changes nothing", { timeout: 30_000 }, async () => {
  const { ann, bob, one, two, end } = await direct();
  const rtc = ann.rtc(BOB);
  const lies = [
    { description: { type: "offer", sdp: "nonsense" } },
    { description: { type: "answer", sdp: "v=0\r\no=- 5 5\r\n" } },
    { description: { type: "answer", sdp: rtc.pc.remoteDescription.sdp } },
    { description: { type: "pranswer", sdp: "v=0" } },
    { candidates: [5] },
  ];
  for (const body of lies) ann.signalled({ node: BOB, session: one.session, kind: "connect", body, at_ms: Date.now() + 1000 }, utf8("x"));
  ann.signalled({ node: BOB, session: "f".repeat(32), kind: "connect", body: lies[0], at_ms: 0 }, utf8("x"));
  await one.send(u32(3));
  assert.deepEqual(await read(two, 1), [3]);
  let closed = 0;
  rtc.pc.ondatachannel({ channel: { close: () => (closed += 1) } });
  const event = { transceiver: { direction: "recvonly" } };
  for (let at = 0; at < 20; at += 1) rtc.pc.ontrack(event);
  assert.deepEqual([closed, event.transceiver.direction, rtc.declined.length], [1, "inactive", 16]);
  await Promise.all([end(), bob.close()]);
});

test("logins at TURN servers are renewed before they end, and a relay policy is kept", { timeout: 30_000 }, async () => {
  let logins = 0;
  const ice = async () => [{ urls: "turn:a.example", username: `${Math.floor(Date.now() / 1000) + 48}:${(logins += 1)}`, credential: "x" }];
  const { ann, one, end } = await direct({ ice, iceTransportPolicy: "relay" });
  const { pc } = ann.rtc(BOB);
  const { username } = pc.configuration.iceServers[0];
  assert.equal(pc.configuration.iceTransportPolicy, "relay");
  await until(() => pc.configuration.iceServers[0].username !== username && pc.restarts === 1, "another login");
  assert.equal(pc.configuration.iceTransportPolicy, "relay");
  assert.equal(one.path, "webrtc");
  await end();
});

test("a browser that makes no peer connection, and a node that has none, go by the relay", { timeout: 30_000 }, async () => {
  class Refusing {
    constructor() {
      throw new Error("SyntaxError");
    }
  }
  const broken = await joined({ RTCPeerConnection: Refusing, ice: () => Promise.reject(new Error("no service")) });
  await broken.one.send(u32(1));
  assert.deepEqual([await read(broken.two, 1), broken.one.path], [[1], "relay"]);
  await tick(50);
  await broken.end();
  const asked = [];
  const unable = await joined({ able: (node) => void asked.push(node) });
  await tick(50);
  assert.deepEqual([unable.ann.rtc(BOB), asked.includes(BOB)], [null, true]);
  await unable.end();
});
