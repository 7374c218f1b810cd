/**
 * Calls: sound and pictures on the peer connections that links have, for two or a few, or from one to some.
 *
 *     const call = new Call(links, await navigator.mediaDevices.getUserMedia({ audio: true, video: true }), [node]);
 *     call.addEventListener("track", ({ detail }) => (video.srcObject = detail.stream));
 *     call.end();
 *
 * Who is in a call is said by records (docs/chat.md); media go to the nodes that were named here, and come from no
 * others. Each side looks after what it sends: pictures get smaller where the path is narrow, and what was cut off by
 * another connection, or by a peer that came back, is sent anew. Loaded when a call begins.
 * @module
 */
import { Refused } from "./refused.js";

/** @typedef {import("./links.js").Links} Links */
/** @typedef {import("./rtc.js").Rtc} Rtc */
/** @typedef {{kind: string, track: MediaStreamTrack | null}} Place what is sent: a track, or for now nothing */
/** @typedef {{send: boolean, take: boolean}} Ways whether a node gets what we send, and whether we take what it sends */

/**
 * @typedef {object} Health how a node of a call is reached
 * @property {"connecting" | "connected" | "poor" | "failed"} state
 * @property {number | null} rtt_ms
 * @property {number} loss of packets, 0 to 1, the worse of both ways
 * @property {"direct" | "turn" | null} path
 */

/**
 * @typedef {object} Rate what a sender of pictures is told
 * @property {number} maxBitrate bits a second
 * @property {number} scaleResolutionDownBy
 * @property {number} maxFramerate
 * @property {RTCDegradationPreference} degradationPreference
 * @property {number} step of the ladder, 0 is the best
 * @property {number} calm how often in a row nothing was wrong
 */

/**
 * @typedef {object} Measured what the browser's figures say of one connection
 * @property {number | undefined} available bits a second that the path seems to carry
 * @property {number | null} rtt_ms
 * @property {number} sent part of what we sent that was lost
 * @property {number} lost packets, of what came
 * @property {number} came packets
 * @property {"direct" | "turn" | null} path
 */

/** Everybody sends to everybody: more than these need a server between. */
export const MOST_OTHERS = 8;
const KEPT = 16;
const LOOK_MS = 2000;
const PATIENCE_MS = 20_000;
const [SLOW_MS, LOSSY] = [500, 0.05];
const AUDIO = 40_000;
/** What all pictures together may take of the way out, so that eight receivers are no eight full streams. */
const UPLINK = 4_000_000;
const [LEAST, MOST_CAMERA, MOST_SCREEN] = [60_000, 1_500_000, 2_500_000];
/** From how many bits a second: how much smaller, and how many pictures a second. @type {[number, number, number][]} */
const CAMERA = [[1_000_000, 1, 30], [500_000, 1.5, 30], [250_000, 2, 24], [120_000, 3, 15], [0, 4, 10]];
/** Of a screen the letters count, and not the movement. @type {[number, number, number][]} */
const SCREEN = [[800_000, 1, 15], [300_000, 1, 8], [150_000, 1.5, 5], [0, 2, 3]];

/**
 * Decide how large a picture is sent. It shrinks at once, and grows when twice in a row nothing was wrong.
 * @param {object} how
 * @param {number} [how.available] bits a second; nothing is known of it at first
 * @param {number} [how.loss] part of the packets, 0 to 1
 * @param {number} [how.receivers] to how many it is sent
 * @param {boolean} [how.screen]
 * @param {Rate | null} [how.before] what was decided last
 * @returns {Rate}
 */
export const fitting = ({ available, loss = 0, receivers = 1, screen = false, before = null }) => {
  const most = Math.min(screen ? MOST_SCREEN : MOST_CAMERA, UPLINK / Math.max(1, receivers));
  const last = before?.maxBitrate ?? most;
  const room = Number.isFinite(available) ? (/** @type {number} */ (available) - AUDIO) * 0.9 : last;
  let wanted = Math.min(room, before ? last * 2 : most);
  if (loss > 0.1) wanted = Math.min(room, last * 0.6);
  else if (loss > 0.03) wanted = Math.min(room, last);
  const maxBitrate = Math.round(Math.min(most, Math.max(LEAST, wanted)));
  const ladder = screen ? SCREEN : CAMERA;
  const rung = (/** @type {number} */ bits) => ladder.findIndex(([least]) => bits >= least);
  const calm = loss > 0.03 || (before && maxBitrate < last) ? 0 : (before?.calm ?? 0) + 1;
  let step = rung(maxBitrate);
  if (before && step < before.step && (calm < 2 || rung(maxBitrate / 1.1) >= before.step)) step = Math.min(before.step, ladder.length - 1);
  const [, scaleResolutionDownBy, maxFramerate] = ladder[step];
  return { maxBitrate, scaleResolutionDownBy, maxFramerate, degradationPreference: screen ? "maintain-resolution" : "balanced", step, calm };
};

/** Read what the browser says of a connection (W3C webrtc-stats). @param {Map<string, any> | RTCStatsReport} report @returns {Measured} */
export const measured = (report) => {
  /** @type {any[]} */
  const all = [...(/** @type {Map<string, any>} */ (report)).values()];
  const chosen = all.find(({ type }) => type === "transport")?.selectedCandidatePairId;
  const pair = all.find(({ id, type, nominated, state }) => type === "candidate-pair" && (chosen ? id === chosen : nominated && state === "succeeded"));
  const kind = (/** @type {string} */ id) => all.find((one) => one.id === id)?.candidateType;
  const sum = (/** @type {string} */ name) => all.reduce((found, one) => found + (one.type === "inbound-rtp" ? (one[name] ?? 0) : 0), 0);
  const trip = pair?.currentRoundTripTime;
  return {
    available: pair?.availableOutgoingBitrate,
    rtt_ms: trip === undefined ? null : Math.round(trip * 1000),
    sent: Math.max(0, ...all.map(({ type, fractionLost }) => (type === "remote-inbound-rtp" ? (fractionLost ?? 0) : 0))),
    lost: sum("packetsLost"),
    came: sum("packetsReceived"),
    path: pair ? ([kind(pair.localCandidateId), kind(pair.remoteCandidateId)].includes("relay") ? "turn" : "direct") : null,
  };
};

/**
 * Say how a connection is.
 * @param {string} state as the browser calls it; nothing without a connection
 * @param {number} waited_ms since it was not connected
 * @param {Measured | null} now
 * @param {Measured | null} before
 * @returns {Health}
 */
export const healthOf = (state, waited_ms, now, before) => {
  const lost = Math.max(0, (now?.lost ?? 0) - (before?.lost ?? 0));
  const came = Math.max(0, (now?.came ?? 0) - (before?.came ?? 0));
  const loss = Math.max(now?.sent ?? 0, lost + came ? lost / (lost + came) : 0);
  const figures = { rtt_ms: now?.rtt_ms ?? null, loss, path: now?.path ?? null };
  if (state === "connected") return { state: (figures.rtt_ms ?? 0) > SLOW_MS || loss > LOSSY ? "poor" : "connected", ...figures };
  if (state === "failed" || waited_ms > PATIENCE_MS) return { state: "failed", ...figures };
  return { state: state === "disconnected" ? "poor" : "connecting", ...figures };
};

/** @param {RTCRtpTransceiver} one */
const isLive = ({ direction, currentDirection }) => direction !== "stopped" && currentDirection !== "stopped";

/** @param {MediaStreamTrack} track */
const isScreen = ({ contentHint }) => contentHint === "detail" || contentHint === "text";

/**
 * @typedef {object} There a node of the call
 * @property {MediaStream} stream what it sends
 * @property {Rtc | null} rtc
 * @property {Ways} ways
 * @property {Map<Place, RTCRtpTransceiver>} sent
 * @property {Map<Place, Rate>} rates
 * @property {Measured | null} figures
 * @property {number} waiting since when it is not connected
 * @property {Health} health
 */

/**
 * One call. Events: `track` (detail: `{node, track, stream}`, the same stream for all tracks of a node), `removed`
 * (detail: `{node, track, stream}`), `health` (detail: `{node, state, rtt_ms, loss, path}`, looked at every two seconds).
 */
export class Call extends EventTarget {
  #links;
  /** @type {Place[]} */
  #places = [];
  /** @type {Map<string, There>} */
  #nodes = new Map();
  /** @type {(event: any) => void} */
  #made;
  /** Energy and seconds of sound at the last look, by the name of the browser's figures. @type {Map<string, [number, number]>} */
  #energies = new Map();
  /** @type {any} */
  #timer;

  /**
   * Begin a call, or go into one.
   * @param {Links} links
   * @param {MediaStream | null} stream what we send; null to watch and listen
   * @param {string[]} to nodes
   */
  constructor(links, stream, to) {
    super();
    this.#links = links;
    this.stream = stream ?? new MediaStream();
    for (const track of this.stream.getTracks()) this.#places.push({ kind: track.kind, track });
    // Another peer connection may take the place of one that died: tracks go on over it.
    this.#made = ({ detail: { node, rtc } }) => this.#use(node, rtc);
    links.addEventListener("rtc", this.#made);
    for (const node of to) this.join(node);
    this.#timer = setInterval(() => void this.look(), LOOK_MS);
  }

  /** The nodes of the call. */
  get nodes() {
    return [...this.#nodes.keys()];
  }

  /** How each node is reached. @returns {Map<string, Health>} */
  get health() {
    return new Map([...this.#nodes].map(([node, { health }]) => [node, health]));
  }

  /** What a node sends. @param {string} node @returns {MediaStream | undefined} */
  from(node) {
    return this.#nodes.get(node)?.stream;
  }

  /**
   * Have another node in the call, or change what goes which way: a viewer takes and does not send.
   * @param {string} node
   * @param {Partial<Ways>} [ways] both, if absent
   */
  join(node, { send = true, take = true } = {}) {
    const known = this.#nodes.get(node);
    if (known) {
      if (known.ways.send === send && known.ways.take === take) return;
      known.ways = { send, take };
      if (!take) for (const track of known.stream.getTracks()) this.#removed(node, track);
      return this.#apply(node);
    }
    if (this.#nodes.size >= MOST_OTHERS) throw new Refused("TOO_MANY", `a call has at most ${MOST_OTHERS} others`);
    this.#nodes.set(node, {
      stream: new MediaStream(), rtc: null, ways: { send, take }, sent: new Map(), rates: new Map(), figures: null,
      waiting: performance.now(), health: { state: "connecting", rtt_ms: null, loss: 0, path: null },
    });
    const rtc = this.#links.rtc(node);
    if (rtc) this.#use(node, rtc);
    else this.#links.open(node).catch(() => {}); // it is used as soon as there is one
  }

  /** Have a node in the call no longer: nothing is sent to it from now on, whatever it says. @param {string} node */
  leave(node) {
    const there = this.#nodes.get(node);
    if (!there) return;
    for (const track of there.stream.getTracks()) this.#removed(node, track);
    this.#nodes.delete(node);
    const { rtc } = there;
    if (!rtc || rtc.dead) return;
    rtc.media = null;
    rtc.declined = [];
    for (const transceiver of rtc.pc.getTransceivers()) {
      if (!isLive(transceiver)) continue;
      rtc.pc.removeTrack(transceiver.sender); // at once, and the track is free for a sender that comes after
      transceiver.stop();
    }
    for (const [, { rates }] of this.#nodes) rates.clear(); // there are fewer receivers now
  }

  /** Send another track too, to all; in the place of one that was taken away, nothing is negotiated. @param {MediaStreamTrack} track */
  add(track) {
    const empty = this.#places.find((place) => !place.track && place.kind === track.kind);
    if (empty) empty.track = track;
    else this.#places.push({ kind: track.kind, track });
    this.stream.addTrack(track);
    this.#each();
  }

  /** Send a track no longer, and tell the others so. @param {MediaStreamTrack} track */
  remove(track) {
    const place = this.#places.find((one) => one.track === track);
    this.stream.removeTrack(track);
    if (!place) return;
    this.#places = this.#places.filter((one) => one !== place);
    for (const { sent } of this.#nodes.values()) {
      sent.get(place)?.sender.replaceTrack(null).catch(() => {});
      sent.delete(place);
    }
    this.#each();
  }

  /**
   * Send another track in the place of one, of the same kind, or null to send nothing for a while; nothing is negotiated.
   * @param {MediaStreamTrack} old
   * @param {MediaStreamTrack | null} track
   */
  async replace(old, track) {
    const place = this.#places.find((one) => one.track === old);
    if (!place) throw new Refused("MALFORMED", "that track is not sent");
    place.track = track;
    this.stream.removeTrack(old);
    if (track) this.stream.addTrack(track);
    const replaced = [...this.#nodes.values()].map(async ({ sent, ways, rates }) => {
      rates.delete(place);
      if (ways.send) await sent.get(place)?.sender.replaceTrack(track).catch(() => {}); // the connection has died: the next one has it
    });
    await Promise.all(replaced);
    this.#each();
  }

  /** Be silent, or not be seen: the track stays, and says nothing. @param {"audio" | "video"} kind @param {boolean} [muted] */
  mute(kind, muted = true) {
    for (const { track } of this.#places) if (track?.kind === kind) track.enabled = !muted;
  }

  /** Hang up; our tracks are the app's to stop. */
  end() {
    clearInterval(this.#timer);
    this.#links.removeEventListener("rtc", this.#made);
    for (const node of this.nodes) this.leave(node);
  }

  /**
   * How loud each node was since this was asked last, 0 to 1; of our own microphone by the name of nothing.
   * @returns {Promise<Map<string, number>>}
   */
  async levels() {
    /** @type {Map<string, number>} */
    const found = new Map();
    for (const [node, { rtc }] of this.#nodes) {
      if (!rtc || rtc.dead) continue;
      for (const { receiver, sender } of rtc.pc.getTransceivers()) {
        if (receiver.track.kind !== "audio") continue;
        for (const one of (await receiver.getStats()).values()) if (one.type === "inbound-rtp") found.set(node, Math.max(found.get(node) ?? 0, this.#level(one)));
        if (found.has("") || !sender.track?.enabled) continue;
        for (const one of (await sender.getStats()).values()) if (one.type === "media-source") found.set("", this.#level(one));
      }
    }
    return found;
  }

  /** From the energy of sound, which misses nothing between two looks (W3C webrtc-stats, totalAudioEnergy). @param {any} stats */
  #level({ id, audioLevel = 0, totalAudioEnergy: energy, totalSamplesDuration: lasted }) {
    if (energy === undefined || lasted === undefined) return audioLevel;
    const [before, until] = this.#energies.get(id) ?? [energy, lasted];
    this.#energies.set(id, [energy, lasted]);
    return lasted > until && energy > before ? Math.sqrt((energy - before) / (lasted - until)) : 0;
  }

  /** Look after all nodes: how they are, how large their pictures are, and whether they get what they should. */
  async look() {
    await Promise.all(this.nodes.map((node) => this.#look(node).catch(() => {})));
  }

  /** @param {string} node */
  async #look(node) {
    const there = this.#nodes.get(node);
    if (!there) return;
    const pc = there.rtc?.dead ? undefined : there.rtc?.pc;
    const state = pc?.connectionState ?? "";
    if (state === "connected") there.waiting = performance.now();
    const now = pc ? measured(await pc.getStats()) : null;
    if (this.#nodes.get(node) !== there) return;
    const health = healthOf(state, performance.now() - there.waiting, now, there.figures);
    there.figures = now;
    if (JSON.stringify(health) !== JSON.stringify(there.health)) {
      there.health = health;
      this.dispatchEvent(new CustomEvent("health", { detail: { node, ...health } }));
    }
    this.#apply(node);
    if (state === "connected" && now) await this.#fit(there, now);
  }

  /** Have pictures as large as the path carries. @param {There} there @param {Measured} now */
  async #fit({ sent, rates, ways }, { available, sent: loss }) {
    const receivers = [...this.#nodes.values()].filter((one) => one.ways.send).length;
    for (const [place, { sender }] of sent) {
      if (place.kind !== "video" || !place.track || !ways.send) continue;
      const before = rates.get(place) ?? null;
      const rate = fitting({ available, loss, receivers, screen: isScreen(place.track), before });
      rates.set(place, rate);
      if (before && before.step === rate.step && before.maxBitrate === rate.maxBitrate) continue;
      const parameters = /** @type {RTCRtpSendParameters & {degradationPreference?: string}} */ (sender.getParameters());
      if (!parameters.encodings?.length) continue;
      const { maxBitrate, scaleResolutionDownBy, maxFramerate, degradationPreference } = rate;
      Object.assign(parameters.encodings[0], { maxBitrate, scaleResolutionDownBy, maxFramerate });
      parameters.degradationPreference = degradationPreference;
      await sender.setParameters(parameters).catch(() => {}); // it was negotiated anew meanwhile: next time
    }
  }

  #each() {
    for (const node of this.#nodes.keys()) this.#apply(node);
  }

  /** Send what is to be sent, and take what is to be taken, and no more; what is so already is not negotiated. @param {string} node */
  #apply(node) {
    const there = this.#nodes.get(node);
    if (!there?.rtc || there.rtc.dead) return;
    const { rtc: { pc }, sent, ways: { send, take } } = there;
    for (const [place, one] of sent) if (!isLive(one)) sent.delete(place);
    for (const place of this.#places) {
      const track = send ? place.track : null;
      if (!sent.has(place) && track) sent.set(place, this.#send(pc, track, new Set(sent.values())));
      const sender = sent.get(place)?.sender;
      if (sender && sender.track !== track) sender.replaceTrack(track).catch(() => {});
    }
    const ours = new Set(sent.values());
    for (const one of pc.getTransceivers()) {
      if (!isLive(one)) continue;
      const wanted = send && ours.has(one) ? (take ? "sendrecv" : "sendonly") : take ? "recvonly" : "inactive";
      if (one.direction !== wanted) one.direction = wanted;
    }
  }

  /** Send a track in a place that is free, so that descriptions do not grow: a signal has 16 KiB. @param {RTCPeerConnection} pc @param {MediaStreamTrack} track @param {Set<RTCRtpTransceiver>} ours */
  #send(pc, track, ours) {
    const free = pc.getTransceivers().find((one) =>
      isLive(one) && !ours.has(one) && !one.sender.track && one.receiver.track.kind === track.kind && /recvonly|inactive/.test(one.direction));
    if (!free) {
      try {
        const sender = pc.addTrack(track, this.stream); // it shares a place with what the other side begins to send meanwhile
        return /** @type {RTCRtpTransceiver} */ (pc.getTransceivers().find((one) => one.sender === sender));
      } catch {
        return pc.addTransceiver(track, { streams: [this.stream] }); // the place that it would have taken is being given up
      }
    }
    free.sender.setStreams(this.stream);
    return free;
  }

  /** Send and take media by a peer connection; all at once, so that it is negotiated once. @param {string} node @param {Rtc} rtc */
  #use(node, rtc) {
    const there = this.#nodes.get(node);
    if (!there || there.rtc === rtc) return;
    Object.assign(there, { rtc, sent: new Map(), rates: new Map(), figures: null });
    for (const track of there.stream.getTracks()) this.#removed(node, track);
    if (rtc.pc.connectionState === "connected") there.health = { ...there.health, state: "connected" }; // figures come with the first look
    rtc.media = (event) => this.#come(node, event);
    this.#apply(node);
    for (const event of rtc.declined.splice(0)) this.#come(node, event); // they were in the call before us
  }

  /** @param {string} node @param {RTCTrackEvent} event */
  #come(node, { track, streams, transceiver }) {
    const there = this.#nodes.get(node);
    if (!there || !isLive(transceiver)) return;
    this.#apply(node);
    if (!there.ways.take || there.stream.getTracks().length >= KEPT) return;
    const { stream } = there;
    stream.addTrack(track);
    for (const theirs of streams) theirs.addEventListener("removetrack", (event) => this.#removed(node, event.track));
    track.addEventListener("ended", () => this.#removed(node, track));
    this.dispatchEvent(new CustomEvent("track", { detail: { node, track, stream } }));
  }

  /** @param {string} node @param {MediaStreamTrack} track */
  #removed(node, track) {
    const stream = this.#nodes.get(node)?.stream;
    if (!stream?.getTrackById(track.id)) return;
    stream.removeTrack(track);
    this.dispatchEvent(new CustomEvent("removed", { detail: { node, track, stream } }));
  }
}
