// What a page of test_links.py runs: `Links` and `Pipes`, whose signals and frames go by a BroadcastChannel.
import { hex, random, readU32, u32, utf8 } from "/web/muster/bytes.js";
import { Links } from "/web/muster/links.js";
import { Pipes } from "/web/muster/pipes.js";

export const NODES = { ann: "a".repeat(32), bob: "b".repeat(32) };
const state = { cut: false, signals: [], sizes: [], heard: [], path: [], frames: 0, logins: 0, peak: 0 };
let links, pipes, link, other;

const wire = (channel, mine) => {
  const wires = new BroadcastChannel(channel);
  let at = Date.now();
  wires.onmessage = ({ data: { to, from, signal, text, payload } }) => {
    if (to !== mine) return;
    if (signal) links.signalled(signal, text);
    else if (!state.cut) links.passed(from, payload);
  };
  return {
    signal: async (to, session, kind, body) => {
      const signal = { node: mine, session, kind, body: JSON.parse(JSON.stringify(body)), at_ms: (at = Math.max(at + 1, Date.now())) };
      const text = utf8(JSON.stringify(signal));
      state.signals.push(Object.keys(body)[0]);
      state.sizes.push(text.length);
      wires.postMessage({ to, from: mine, signal, text });
      return text;
    },
    frame: async (to, payload) => {
      if (state.cut) throw Object.assign(new Error("cut"), { code: "CLOSED" });
      state.frames += 1;
      wires.postMessage({ to, from: mine, payload });
    },
  };
};

const use = (found) => {
  link = found;
  state.path.push(link.path);
  link.addEventListener("path", () => state.path.push(link.path));
};

/** A login at a TURN server as coturn's shared secret makes it, good for some seconds. */
const login = async ({ urls, secret, lasts }) => {
  const username = `${Math.floor(Date.now() / 1000) + lasts}:${(state.logins += 1)}`;
  const key = await crypto.subtle.importKey("raw", utf8(secret), { name: "HMAC", hash: "SHA-1" }, false, ["sign"]);
  const mac = new Uint8Array(await crypto.subtle.sign("HMAC", key, utf8(username)));
  return { urls, username, credential: btoa(String.fromCharCode(...mac)) };
};

/** Be one of the two nodes; *turn* and *policy* are for ICE. */
export const begin = (name, channel, { turn, policy, rtc = true } = {}) => {
  other = NODES[name === "ann" ? "bob" : "ann"];
  links = new Links({
    nodeId: () => NODES[name],
    ...wire(channel, NODES[name]),
    ice: async () => (turn ? [await login(turn)] : []),
    now: () => Date.now(),
    RTCPeerConnection: rtc ? RTCPeerConnection : null,
    iceTransportPolicy: policy,
  });
  links.addEventListener("link", ({ detail }) => use(detail.link));
  pipes = new Pipes({ links });
};

export const open = async () => {
  const found = await links.open(other);
  if (found !== link) use(found);
};

export const until = async (found, what = "it", ms = 30_000) => {
  const end = Date.now() + ms;
  while (!(await found())) {
    if (Date.now() > end) throw new Error(`${what} has not come: ${JSON.stringify({ ...state, heard: state.heard.length })}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
};
export const path = (wanted) => until(() => link?.path === wanted, wanted);

export const untilPaths = (wanted) => until(() => String(state.path) === String(wanted), String(wanted));

/** Read numbers for as long as the link lasts. */
export const reads = async () => {
  for await (const data of link) state.heard.push(readU32(data));
};

/** Send numbers, a few each millisecond, so that paths change among them. */
export const sends = async (from, to) => {
  for (let at = from; at < to; at += 1) {
    await link.send(u32(at));
    if (at % 4 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await link.drained();
};

export const heard = async (count) => {
  await until(() => state.heard.length >= count, `${count} messages`);
  await new Promise((resolve) => setTimeout(resolve, 200));
  return state.heard.length === count && state.heard.every((number, at) => number === at);
};

export const closePeerConnection = () => links.rtc(other).pc.close();
export const restart = () => links.rtc(other).restart();
export const cut = (is) => (state.cut = is);
export const said = () => state;
export const check = () => links.check();
export const close = () => links.close();
export const ufrag = () => /ice-ufrag:(\S+)/.exec(links.rtc(other).pc.localDescription.sdp)[1];

/** The kinds of both candidates that carry it, and how much went over it. */
export const stats = async () => {
  const found = [...(await links.stats(other)).values()];
  const { selectedCandidatePairId } = found.find(({ type }) => type === "transport");
  const pair = found.find(({ id }) => id === selectedCandidatePairId);
  const kind = (id) => found.find((one) => one.id === id)?.candidateType;
  // of all pairs: a connection may go over to another one meanwhile
  const sent = found.filter(({ type }) => type === "transport").reduce((sum, { bytesSent }) => sum + bytesSent, 0);
  return { local: kind(pair.localCandidateId), remote: kind(pair.remoteCandidateId), sent };
};

/** Collect what comes by pipes: of files their name, type, size and hash. */
export const listens = () => {
  pipes.attach(link);
  const before = memory();
  const looking = setInterval(() => {
    globalThis.gc?.();
    state.peak = Math.max(state.peak, memory() - before);
  }, 100);
  pipes.addEventListener("message", async ({ detail: { name, data } }) => {
    if (!(data instanceof Blob)) return state.heard.push([name, data]);
    clearInterval(looking);
    const hash = await crypto.subtle.digest("SHA-256", await data.arrayBuffer());
    return state.heard.push([name, { name: data.name, type: data.type, size: data.size, hash: hex(new Uint8Array(hash)) }]);
  });
};

export const sendFile = async (size) => {
  const parts = [];
  for (let at = 0; at < size; at += 65_536) parts.push(random(Math.min(65_536, size - at)));
  const file = new File(parts, "holiday.bin", { type: "application/x-test" });
  const hash = hex(new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer())));
  const began = performance.now();
  let told = 0;
  await pipes.send("files", file, { to: other, progress: (sent) => (told = sent) });
  return { hash, told, ms: performance.now() - began };
};

export const sendPipe = (name, data, how = {}) => pipes.send(name, data, { to: other, ...how });

/** How many bytes of memory this page uses. */
export const memory = () => performance.memory.usedJSHeapSize;

/** Say something as a member who lies: a signal of the right shape and any content. */
export const lie = async (body, at = Date.now() + 5) => {
  links.signalled({ node: other, session: link.session, kind: "connect", body, at_ms: at }, utf8("x"));
};

/** What a peer connection of another kind offers. */
export const offer = async (change) => {
  const pc = new RTCPeerConnection();
  change(pc);
  await pc.setLocalDescription();
  const { type, sdp } = pc.localDescription;
  return { type, sdp };
};
export const peerConnection = () => {
  const { pc, dead } = links.rtc(other);
  return { dead, state: pc.connectionState, directions: pc.getTransceivers().map(({ currentDirection }) => currentDirection) };
};
// Calls

let call;
const tracks = new Map();

/** A picture that moves and a sound, as the browser makes them up. */
export const startCall = async (what = { audio: true, video: true }) => {
  const { Call } = await import("/web/muster/calls.js");
  const stream = what && (await navigator.mediaDevices.getUserMedia(what));
  call = new Call(links, stream, [other]);
  call.addEventListener("track", ({ detail: { track } }) => tracks.set(track.id, track));
  call.addEventListener("removed", ({ detail: { track } }) => tracks.delete(track.id));
};
export const kinds = () => [...tracks.values()].map(({ kind }) => kind).sort();
export const untilKinds = (wanted) => until(() => String(kinds()) === wanted, `tracks of ${wanted}`);
export const mute = (kind, is) => call.mute(kind, is);
export const endCall = () => call.end();
export const removeTrack = (kind) => call.remove(call.stream.getTracks().find((track) => track.kind === kind));
export const addTrack = async (what) => call.add((await navigator.mediaDevices.getUserMedia(what)).getTracks()[0]);
export const replaceTrack = async () => {
  const [track] = (await navigator.mediaDevices.getUserMedia({ video: { width: 320 } })).getTracks();
  await call.replace(call.stream.getVideoTracks()[0], track);
};

/** How many frames of pictures and bytes of sound have come. */
export const media = async () => {
  const found = [...((await links.stats(other)) ?? new Map()).values()].filter(({ type }) => type === "inbound-rtp");
  const sum = (kind, what) => found.filter((one) => one.kind === kind).reduce((all, one) => all + (one[what] ?? 0), 0);
  return { frames: sum("video", "framesDecoded"), sound: sum("audio", "bytesReceived") };
};
export const untilMedia = async () => {
  const { frames, sound } = await media();
  await until(async () => {
    const now = await media();
    return now.frames > frames + 5 && now.sound > sound;
  }, "pictures and sound");
};

export const until_heard = (count) => until(() => state.heard.length >= count, `${count} messages`);
export const until_declined = () =>
  until(() => peerConnection().directions.every((one) => one === "inactive" || one === null), "the decline");
