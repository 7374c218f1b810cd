// How long a small payload takes to another client and back, in turns through all servers of one machine.
// Usage: latency.mjs '{"library", "muster", "peerjs", "y_webrtc", "bare", "count", "warm", "bytes"}'
// Each client is a socket of the same implementation; ours has the library's service.js around it.
import { pathToFileURL } from "node:url";
import { join } from "node:path";
import WebSocket from "ws";

const given = JSON.parse(process.argv[2]);
globalThis.WebSocket = WebSocket; // Node 20 has none

const within = (promise, what, told = () => "") => {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`${what}: nothing in 10 s ${told()}`)), 10_000)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

/** An open socket; *take* hears frames of JSON from the first one on. */
const open = (url, take) =>
  within(
    new Promise((resolve, reject) => {
      const socket = new WebSocket(url);
      socket.onmessage = ({ data }) => take(JSON.parse(data));
      socket.onopen = () => resolve(socket);
      socket.onerror = ({ message }) => reject(new Error(`${url}: ${message}`));
    }),
    url,
  );

/** A promise, and what keeps it. */
const awaited = () => {
  let keep;
  const promise = new Promise((resolve) => (keep = resolve));
  return { promise, keep };
};

// A way is {send: [to the second, to the first], heard: [by the first, by the second]}.

const bare = async () => {
  const way = { send: [], heard: [] };
  for (const at of [0, 1]) {
    const socket = await open(`ws://127.0.0.1:${given.bare}`, ({ payload }) => way.heard[at](payload));
    way.send[at] = (payload) => socket.send(JSON.stringify({ payload }));
  }
  return way;
};

/** PeerJS 1.5: a candidate for a peer by its id. */
const peerjs = async () => {
  const way = { send: [], heard: [] };
  const ids = ["bench-one", "bench-two"];
  for (const at of [0, 1]) {
    const opened = awaited();
    const query = `key=peerjs&id=${ids[at]}&token=${ids[at]}&version=1.5.5`;
    const socket = await open(`ws://127.0.0.1:${given.peerjs}/peerjs?${query}`, ({ type, payload }) => {
      if (type === "OPEN") opened.keep();
      if (type === "CANDIDATE") way.heard[at](payload.candidate);
    });
    await within(opened.promise, "OPEN");
    const more = { type: "data", connectionId: "dc_bench" };
    way.send[at] = (candidate) => socket.send(JSON.stringify({ type: "CANDIDATE", dst: ids[1 - at], payload: { candidate, ...more } }));
  }
  return way;
};

/** y-webrtc 10.3: published to a topic, which the sender hears too. */
const yWebrtc = async () => {
  const way = { send: [], heard: [] };
  for (const at of [0, 1]) {
    const answered = awaited();
    const socket = await open(`ws://127.0.0.1:${given.y_webrtc}`, ({ type, data }) => {
      if (type === "pong") answered.keep();
      if (type === "publish" && data.to === at) way.heard[at](data.signal);
    });
    socket.send(JSON.stringify({ type: "subscribe", topics: ["bench"] }));
    socket.send(JSON.stringify({ type: "ping" }));
    await within(answered.promise, "pong");
    const more = { type: "signal", from: at, to: 1 - at };
    way.send[at] = (signal) => socket.send(JSON.stringify({ type: "publish", topic: "bench", data: { ...more, signal } }));
  }
  return way;
};

/** Ours: signals are signed, sealed, opened and checked; frames are bytes. */
const muster = async () => {
  const library = (name) => import(pathToFileURL(join(given.library, name)).href);
  const { hex, random, text, utf8 } = await library("bytes.js");
  const { id, signer } = await library("crypto.js");
  const { readService } = await library("invites.js");
  const { Epoch, Member } = await library("keys.js");
  const { sealSignal } = await library("seals.js");
  const { Attendant } = await library("service.js");
  const circle = await id("circle", (await signer(random(32))).public);
  const epoch = await Epoch.make(circle, 0, random(32));
  const signals = { send: [], heard: [] };
  const frames = { send: [], heard: [] };
  const nodes = [];
  const attendants = [];
  for (const at of [0, 1]) {
    nodes[at] = await (await Member.make(circle, random(32))).node(epoch);
    const home = {
      now: () => Date.now(),
      presence: () => ({ name: "bench", abilities: [] }),
      believe: () => true,
      signalled: ({ body }) => signals.heard[at]?.(body.payload),
      passed: (_, payload) => frames.heard[at]?.(text(payload)),
      place: () => ({ number: 0, mark: "" }),
      leaving: async () => [],
      trouble: (reason, message) => console.error(reason, message),
    };
    const quiet = new Proxy(home, { get: (known, name) => known[name] ?? (() => {}) }); // nothing is kept here
    attendants[at] = new Attendant(quiet, readService(given.muster), nodes[at]);
  }
  const alive = async () => {
    while (attendants.some(({ state }) => state !== "live")) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  await within(alive(), "a socket of ours", () => attendants.map(({ state, why }) => `${state} ${why}`).join());
  const session = hex(random(16));
  for (const at of [0, 1]) {
    const to = () => nodes[1 - at].id;
    signals.send[at] = async (payload) => {
      const { sealed } = await sealSignal(nodes[at], { to: to(), session, kind: "connect", body: { payload }, at_ms: Date.now() });
      attendants[at].signal(to(), sealed);
    };
    frames.send[at] = (payload) => attendants[at].frame(to(), utf8(payload));
  }
  return { signals, frames, close: () => Promise.all(attendants.map((attendant) => attendant.close())) };
};

/** One payload there and back, in milliseconds. */
const roundTrip = async ({ send, heard }, payload) => {
  const done = new Promise((resolve, reject) => {
    heard[1] = (there) => Promise.resolve(send[1](there)).catch(reject);
    heard[0] = resolve;
  });
  const began = performance.now();
  await send[0](payload);
  const back = await done;
  const took = performance.now() - began;
  if (back !== payload) throw new Error("another payload came back");
  return took;
};

const ours = await muster();
const ways = { bare: await bare(), muster_signal: ours.signals, muster_relay: ours.frames, peerjs: await peerjs(), y_webrtc: await yWebrtc() };
const found = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
for (let turn = -given.warm; turn < given.count; turn += 1) {
  for (const [name, way] of Object.entries(ways)) {
    const payload = `${turn} `.padEnd(given.bytes, "x");
    const took = await within(roundTrip(way, payload), name);
    if (turn >= 0) found[name].push(took);
  }
}
await ours.close();
process.stdout.write(JSON.stringify(found), () => process.exit()); // a pipe takes 64 KiB at a time
