/**
 * Calls of one circle, as one person has them: who rings, who is in, and what is sent.
 *
 *     records (act "call") ──> who may be in, who rings, what is over
 *     abilities, pipe "call" ─> which nodes are in now, muted or not ──> Call (media) ──> tiles
 *
 * Records decide; the pipe only makes it quick, and what it says counts for its own sender. The host of a broadcast
 * sends to as many viewers as it has set and to no more, in the order in which they came.
 * @module
 */
import { batch, signal } from "../ui.js";
import { callText } from "../text.js";
import { recall, remember } from "./settings.js";

/** @typedef {import("../muster/circle.js").Circle} Circle */
/** @typedef {import("../muster/circle.js").CallInfo} CallInfo */
/** @typedef {import("../muster/circle.js").Peer} Peer */
/** @typedef {import("../muster/calls.js").Call} Call */
/** @typedef {import("../muster/calls.js").Health} Health */
/** @typedef {"host" | "participant" | "viewer"} Role */
/** @typedef {"audio" | "video" | "speaker"} Kind */
/** @typedef {{audio: string, video: string, speaker: string}} Chosen device ids; empty for what the system has chosen */

/**
 * @typedef {object} Settings
 * @property {RTCIceServer[]} [turn] the circle was opened with them
 * @property {number} [viewers] how many may watch a broadcast
 * @property {{value: Chosen}} [devices] a signal
 * @property {{value: boolean}} [ring] a signal: whether it may be heard that somebody calls
 */

/** @typedef {{hash: string, channel: string, role: Role, media: string, since: number}} Mine the call that this page is in */
/** @typedef {{hash: string, channel: string, from: string, name: string, media: string}} Ringing */
/** @typedef {{reason: string, title: string, advice: string}} Problem what is wrong, in words, and what to do */
/** @typedef {CallInfo & {missed: boolean}} Known */
/** @typedef {CallInfo & {inNow: number, watching: number}} Ongoing and how many others are in it now, whatever records say */
/** @typedef {"rings" | "silent" | "declined" | "came"} Answer of a member whom one has called */

/**
 * @typedef {object} Tile
 * @property {string} node
 * @property {string} member
 * @property {string} name
 * @property {MediaStream} stream
 * @property {boolean} isMe
 * @property {boolean} speaking
 * @property {boolean} microphone whether there is one at all
 * @property {boolean} muted
 * @property {boolean} camera
 * @property {boolean} screen
 * @property {Health} health
 * @property {Role} role
 */

/** @typedef {{node: string, member: string, name: string, admitted: boolean}} Viewer */
/** @typedef {{call: string, at: number, in: boolean, microphone: boolean, muted: boolean, camera: boolean, screen: boolean}} Said what a node says of itself */

const RING_MS = 45_000;
const TICK_MS = 2000;
const SOON_MS = 40;
const LEVEL_MS = 250;
const [LOUD, HOLD_MS] = [0.02, 900];
/** How long a node is believed to be in, or out, that has said so, while its presence does not say it yet. */
const [BELIEVED_MS, GOODBYE_MS] = [60_000, 10_000];
const GLARE_MS = 30_000;
const MOST_OTHERS = 8;
const MOST_SAID = 4096;
const MOST_DECLINED = 50;
/** So far ahead a clock of another is believed (docs/chat.md). */
const AHEAD_MS = 600_000;
/** From one member so many calls ring in five minutes; others show as missed. */
const [MOST_RINGS, RINGS_MS] = [4, 300_000];
const HASH = /^[0-9a-f]{64}$/;
const WELL = /** @type {Health} */ ({ state: "connected", rtt_ms: null, loss: 0, path: null });

/** The model whose call this page is in: there is one microphone. @type {CallModel | null} */
let active = null;

/** What went wrong with a device, by the browser's name of it. @param {any} error */
const reasonOf = ({ name }) =>
  ({ NotAllowedError: "DENIED", SecurityError: "DENIED", NotFoundError: "NONE", OverconstrainedError: "NONE", NotReadableError: "BUSY", AbortError: "BUSY" })[name] ?? "FAILED";

/** Whether this browser has peer connections: some are told not to. */
const hasWebRtc = () => {
  try {
    new RTCPeerConnection().close();
    return true;
  } catch {
    return false;
  }
};

/** @param {MediaStreamTrack | null} track */
const isOn = (track) => track !== null && track.readyState === "live";

/** Whether a node can be in calls: a browser can, a terminal cannot. @param {{abilities: string[]}} node */
export const canCall = ({ abilities }) => abilities.includes("webrtc");

/** The calls of one circle. */
export class CallModel {
  /** The call that is on, by channel id. */
  ongoing = signal(/** @type {Record<string, Ongoing>} */ ({}));
  /** All calls that are known of, by channel id, the oldest first: for the log. */
  cards = signal(/** @type {Record<string, Known[]>} */ ({}));
  mine = signal(/** @type {Mine | null} */ (null));
  /** Whether a call is being begun or gone into. */
  busy = signal(false);
  ringing = signal(/** @type {Ringing | null} */ (null));
  missed = signal(/** @type {Known[]} */ ([]));
  tiles = signal(/** @type {Tile[]} */ ([]));
  /** Who watches, for the host. */
  viewers = signal(/** @type {Viewer[]} */ ([]));
  /** Whether this viewer waits for a place. */
  waiting = signal(false);
  /** Members who have declined the call that this member began. */
  declined = signal(/** @type {string[]} */ ([]));
  /** Members who are here and whom the call rings that this page began, and what has come of it. */
  rung = signal(/** @type {Record<string, Answer> | null} */ (null));
  problem = signal(/** @type {Problem | null} */ (null));
  devices = signal(/** @type {Record<Kind, {id: string, name: string}[]>} */ ({ audio: [], video: [], speaker: [] }));
  /** What this page sends. */
  sending = signal({ microphone: false, muted: false, camera: false, screen: false });

  #circle;
  #settings;
  #pipe;
  /** @type {Call | null} */
  #call = null;
  /** @type {MediaStreamTrack | null} */
  #audio = null;
  /** @type {MediaStreamTrack | null} */
  #video = null;
  #cameraBefore = false;
  /** What was got, before it is sent. @type {MediaStreamTrack[]} */
  #got = [];
  /** @type {Map<string, Said>} by node */
  #said = new Map();
  /** @type {Map<string, number>} until when a node counts as speaking */
  #loud = new Map();
  /** @type {string[]} nodes of viewers, in the order in which they came */
  #queue = [];
  /** Members whom this host has just shut out. @type {Set<string>} */
  #shut = new Set();
  /** @type {Map<string, string>} what a viewer was told last */
  #told = new Map();
  /** @type {Map<string, number>} when a call was first heard of */
  #seen = new Map();
  /** @type {Map<string, number[]>} when a member has rung */
  #rang = new Map();
  #declinedCalls = new Set(recall("declined calls", /** @type {string[]} */ ([])));
  /** @type {Ringing | null} */
  #shown = null;
  /** @type {any} */
  #soon;
  /** @type {any} */
  #ticking;
  /** @type {any} */
  #levels;
  #closed = new AbortController();
  #turn = 0;
  /** @type {Promise<any>} */
  #work = Promise.resolve();

  /** @param {{circle: Circle, settings?: Settings}} how */
  constructor({ circle, settings = {} }) {
    this.#circle = circle;
    this.#settings = settings;
    const { signal: until } = this.#closed;
    this.#pipe = circle.pipe("call", { most: MOST_SAID });
    this.#pipe.addEventListener("message", ({ detail: { from, data } }) => this.#hear(from, data));
    circle.addEventListener("change", ({ detail: { kind } }) => /^(call|channel|person)$/.test(kind) && this.#later(), { signal: until });
    circle.addEventListener("peer", () => this.#later(), { signal: until });
    circle.addEventListener("rekeyed", () => this.#later(), { signal: until });
    circle.addEventListener("left", ({ detail }) => {
      this.#said.delete(detail.id);
      this.#later();
    }, { signal: until });
    globalThis.addEventListener("pagehide", () => this.#hangUp(), { signal: until });
    globalThis.addEventListener("storage", ({ key }) => key?.endsWith("declined calls") && this.#later(), { signal: until });
    navigator.mediaDevices?.addEventListener("devicechange", () => void this.#readDevices(), { signal: until });
    this.#later();
  }

  /** Hang up, and hear nothing more. */
  close() {
    this.#hangUp();
    this.#closed.abort();
    this.#pipe.close();
    clearTimeout(this.#soon);
    clearTimeout(this.#ticking);
    this.ringing.value = null;
  }

  // What a person does

  /**
   * Begin a call; if one is on in the channel, go into that one, but for a call of some that none of them is in.
   * @param {string} channel
   * @param {"audio" | "video" | "broadcast"} [media]
   * @param {{ring?: string[]}} [how] whom it rings: member ids; everybody, if absent, and of a broadcast nobody
   */
  start(channel, media = "audio", { ring } = {}) {
    return this.#once(async () => {
      const on = await this.#circle.ongoing(channel);
      if (on && ring && ![on.host, ...on.participants].some((one) => ring.includes(one) || on.hash === this.mine.value?.hash)) return this.#wrong("OTHERS");
      if (on) return on.media === "broadcast" && on.host !== this.#circle.me.id ? this.#go("view", on, []) : this.#go("join", on, await this.#capture(true, on.media !== "audio" && media !== "audio"));
      const tracks = await this.#capture(true, media !== "audio");
      const rung = ring ?? (media === "broadcast" ? [] : undefined);
      const { hash, channel: place } = await this.#circle.act("call", channel, "create", media, rung && { ring: rung });
      await this.#enter({ hash, channel: place, role: "host", media, since: Date.now() }, tracks);
      const called = await this.#called(place, rung);
      if (this.mine.value?.hash === hash) this.rung.value = Object.fromEntries(called.map((one) => [one, this.declined.value.includes(one) ? "declined" : "rings"]));
      return this.refresh();
    });
  }

  /** Whom a call rings that is begun now: members who are here, and can take it. @param {string} channel @param {string[]} [ring] @returns {Promise<string[]>} */
  async #called(channel, ring) {
    const place = (await this.#circle.channels()).find(({ id }) => id === channel);
    const able = [...this.#circle.peers.values()].filter(canCall).map(({ member }) => member);
    return [...new Set(able)].filter((one) => one !== this.#circle.me.id && (ring ? ring.includes(one) : !place || place.mode === "public" || place.members.includes(one)));
  }

  /** Take the call that rings. @param {{video?: boolean}} [how] */
  accept({ video = false } = {}) {
    const { channel, hash } = this.ringing.value ?? {};
    return channel ? this.join(channel, { video, hash }) : Promise.resolve();
  }

  /** Do not take the call that rings, and tell its host. */
  decline() {
    const { hash, from } = this.ringing.value ?? {};
    if (!hash || !from) return;
    this.#declinedCalls = new Set([...recall("declined calls", /** @type {string[]} */ ([])), hash].slice(-MOST_DECLINED));
    remember("declined calls", [...this.#declinedCalls]);
    for (const { id, member } of this.#circle.peers.values()) if (member === from) this.#tell(id, { t: "declined", call: hash });
    this.ringing.value = null;
    this.#later();
  }

  /** Be in the call that is on in a channel, and be heard. @param {string} channel @param {{video?: boolean, hash?: string}} [how] in this one and no other */
  join(channel, { video = false, hash = "" } = {}) {
    return this.#once(async () => {
      const on = await this.#circle.ongoing(channel);
      if (!on || (hash && on.hash !== hash)) return this.#wrong("OVER");
      if (this.#nodesOf(on, on.participants).length > MOST_OTHERS) return this.#wrong("FULL");
      return this.#go("join", on, await this.#capture(true, video));
    });
  }

  /** Watch the call that is on in a channel. @param {string} channel */
  view(channel) {
    return this.#once(async () => {
      const on = await this.#circle.ongoing(channel);
      return on ? this.#go("view", on, []) : this.#wrong("OVER");
    });
  }

  /** As a viewer: be heard too. */
  becomeParticipant() {
    const { channel } = this.mine.value ?? {};
    return channel ? this.join(channel) : Promise.resolve();
  }

  /** Hang up. A call goes on without its host; a broadcast does not. */
  async leave() {
    const { mine } = this;
    const { hash, channel, role, media } = mine.value ?? {};
    if (!hash) return;
    if (role === "host" && media === "broadcast") return this.end();
    this.#hangUp();
    await this.#circle.act("call", channel, "leave", hash);
    this.#later();
  }

  /** End the call for all: its host can. */
  async end() {
    const { hash, channel, role } = this.mine.value ?? {};
    if (!hash) return;
    if (role !== "host") return this.leave();
    this.#hangUp();
    await this.#circle.act("call", channel, "end", hash);
    this.#later();
  }

  /** Shut somebody out, at once and for good, with all devices: the host can. @param {string} member */
  async revoke(member) {
    const { hash, channel, role } = this.mine.value ?? {};
    if (!hash || role !== "host") return;
    // first what flows is stopped, then it is said
    const stop = (/** @type {string} */ whose) => {
      this.#shut.add(whose);
      for (const { id, member: of } of this.#circle.peers.values()) if (of === whose) this.#call?.leave(id);
    };
    stop(member);
    const people = await this.#circle.people();
    const person = people.find(({ id }) => id === member)?.person;
    const devices = [member, ...people.filter((one) => person && one.person === person && one.id !== member).map(({ id }) => id)];
    devices.forEach(stop);
    for (const one of devices) await this.#circle.act("call", channel, "revoke", hash, one);
    await this.refresh();
  }

  /** Be silent, or be heard; who had no microphone gets one. */
  async toggleMicrophone() {
    if (!this.#call || this.mine.value?.role === "viewer") return;
    if (this.#audio && isOn(this.#audio)) this.#audio.enabled = !this.#audio.enabled;
    else await this.#take("audio");
    this.#changed();
  }

  /** Be seen, or not: the camera is switched off, and its light with it. */
  async toggleCamera() {
    if (!this.#call || this.mine.value?.role === "viewer") return;
    const { camera } = this.sending.value;
    this.#cameraBefore = false;
    if (camera) await this.#show(null);
    else await this.#take("video");
    this.#changed();
  }

  /** Show a screen, a window or a tab, in the place of the camera. */
  async shareScreen() {
    const call = this.#call;
    if (!call || this.mine.value?.role === "viewer") return;
    try {
      const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 15 } }, audio: false });
      const [track] = stream.getVideoTracks();
      if (!this.#isIn(call)) return track.stop(); // one has hung up meanwhile
      track.contentHint = "detail";
      this.#cameraBefore = this.sending.value.camera;
      await this.#show(track);
      track.addEventListener("ended", () => track === this.#video && void this.stopScreen());
    } catch (error) {
      if (error.name !== "NotAllowedError") this.#wrong("SCREEN"); // who thinks again is told nothing
    }
    this.#changed();
  }

  /** Show the screen no longer; the camera is there again if it was before. */
  async stopScreen() {
    if (!this.sending.value.screen) return;
    await this.#show(null);
    if (this.#cameraBefore) await this.#take("video");
    this.#cameraBefore = false;
    this.#changed();
  }

  /** Use another device, from now on. @param {Kind} kind @param {string} id empty for what the system has chosen */
  async choose(kind, id) {
    const { devices } = this.#settings;
    if (devices) devices.value = { ...devices.value, [kind]: id };
    if (kind === "audio" && this.#audio) await this.#take("audio");
    if (kind === "video" && this.sending.value.camera) await this.#take("video");
    this.#changed();
  }

  /** The speaker that was chosen. */
  get speaker() {
    return this.chosen.speaker;
  }

  /** The devices that were chosen. @returns {Chosen} */
  get chosen() {
    return this.#settings.devices?.value ?? { audio: "", video: "", speaker: "" };
  }

  /** Whether it may be heard that somebody calls. */
  get mayRing() {
    return this.#settings.ring?.value ?? true;
  }

  /** When the call began that this page is in. */
  get began() {
    const { hash = "", since = 0 } = this.mine.value ?? {};
    return Math.min(this.#info(hash)?.at_ms ?? since, since);
  }

  /** Whether this browser can share a screen: telephones cannot. */
  get canShare() {
    return Boolean(navigator.mediaDevices?.getDisplayMedia);
  }

  /** Have read what is wrong. */
  dismiss() {
    this.problem.value = null;
  }

  // Going in and out

  /** One thing after the other; what cannot be done is said. @param {() => Promise<any>} what @returns {Promise<void>} */
  #once(what) {
    this.#work = this.#work.then(async () => {
      this.busy.value = true;
      this.problem.value = null;
      try {
        if (hasWebRtc()) await what();
        else this.#wrong("BLOCKED");
      } catch (error) {
        if (!this.mine.value) this.#drop();
        if (!this.#closed.signal.aborted) this.#wrong(error.reason === "NOT_ALLOWED" ? "NOT_ALLOWED" : "FAILED", error.message);
      } finally {
        // what was got for nothing is given back: no camera shines without a call
        const sent = this.#call?.stream.getTracks() ?? [];
        for (const track of this.#got.splice(0)) if (!sent.includes(track)) track.stop();
        this.busy.value = false;
      }
    });
    return this.#work;
  }

  /** @param {"join" | "view"} op @param {CallInfo} call @param {MediaStreamTrack[]} tracks */
  async #go(op, { hash, channel, host, media }, tracks) {
    await this.#circle.act("call", channel, op, hash);
    this.#rang.delete(host); // who is answered does not ring too often
    const role = op === "view" ? "viewer" : host === this.#circle.me.id ? "host" : "participant";
    if (this.mine.value?.hash === hash && this.#call) {
      for (const track of tracks) await this.#use(track);
      this.mine.value = { ...this.mine.value, role };
      if (role === "viewer") this.#silence();
      this.waiting.value = false;
      this.#changed();
      return this.refresh();
    }
    return this.#enter({ hash, channel, role, media, since: Date.now() }, tracks);
  }

  /** @param {Mine} mine @param {MediaStreamTrack[]} tracks */
  async #enter(mine, tracks) {
    if (active && active !== this) await active.leave().catch(() => {}); // of another circle: there is one microphone
    this.#got.push(.../** @type {MediaStreamTrack[]} */ ([this.#audio, this.#video].filter(Boolean)));
    this.#hangUp(false);
    const call = await this.#circle.call(null, []);
    this.#call = call;
    active = this;
    if (this.#closed.signal.aborted) return this.#drop();
    for (const track of tracks) await this.#use(track);
    batch(() => {
      this.mine.value = mine;
      this.ringing.value = null;
      this.declined.value = [];
      this.rung.value = null;
    });
    for (const type of ["track", "removed", "health"]) call.addEventListener(type, () => this.#draw());
    this.#levels = setInterval(() => void this.#listen(), LEVEL_MS);
    await this.#circle.inCall(mine.hash);
    this.#changed();
    await this.refresh();
    void this.#readDevices();
  }

  /** Stop all that flows; nothing is said in the circle. @param {boolean} [stop] whether devices too */
  #hangUp(stop = true) {
    const { hash } = this.mine.value ?? {};
    if (!hash) return;
    for (const node of this.#call?.nodes ?? []) this.#tell(node, { t: "out", call: hash });
    this.#drop(stop);
    this.#queue = [];
    this.#told.clear();
    this.#shut.clear();
    this.#loud.clear();
    this.#circle.inCall(null).catch(() => {}); // the circle was left
    batch(() => {
      this.mine.value = null;
      this.tiles.value = [];
      this.viewers.value = [];
      this.declined.value = [];
      this.rung.value = null;
      this.waiting.value = false;
      this.sending.value = { microphone: false, muted: false, camera: false, screen: false };
    });
  }

  /** Let go of media. @param {boolean} [stop] */
  #drop(stop = true) {
    this.#call?.end();
    this.#call = null;
    clearInterval(this.#levels);
    if (active === this) active = null;
    if (stop) for (const track of [this.#audio, this.#video]) track?.stop();
    this.#audio = this.#video = null;
  }

  /** Give devices back: who watches sends nothing. */
  #silence() {
    for (const track of [this.#audio, this.#video]) {
      if (track) this.#call?.remove(track);
      track?.stop();
    }
    this.#audio = this.#video = null;
  }

  /** @param {string} reason @param {string} [detail] */
  #wrong(reason, detail) {
    const { title, advice } = callText.problems[reason] ?? callText.problems.FAILED;
    this.problem.value = { reason, title, advice: detail ? `${advice} (${detail})` : advice };
  }

  // Devices

  /**
   * Get a microphone, and a camera; without one or both it goes on, and is said.
   * @param {boolean} audio @param {boolean} video
   * @returns {Promise<MediaStreamTrack[]>}
   */
  async #capture(audio, video) {
    const found = [];
    if (audio) found.push(isOn(this.#audio) ? this.#audio : await this.#get("audio"));
    if (video) found.push(isOn(this.#video) ? this.#video : await this.#get("video"));
    const tracks = /** @type {MediaStreamTrack[]} */ (found.filter(Boolean));
    this.#got.push(...tracks);
    return tracks;
  }

  /** @param {"audio" | "video"} kind @returns {Promise<MediaStreamTrack | null>} */
  async #get(kind) {
    const id = this.#settings.devices?.value[kind];
    const device = id ? { deviceId: { ideal: id } } : {};
    const constraints = kind === "audio"
      ? { audio: { ...device, echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: { ideal: 1 } } }
      : { video: { ...device, width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } } };
    try {
      if (!navigator.mediaDevices) throw new DOMException("", "NotFoundError");
      const [track = null] = (await navigator.mediaDevices.getUserMedia(constraints)).getTracks();
      return track;
    } catch (error) {
      this.#wrong(`${kind === "audio" ? "MICROPHONE" : "CAMERA"}_${reasonOf(error)}`);
      return null;
    }
  }

  /** Have a device, and send what comes from it. @param {"audio" | "video"} kind */
  async #take(kind) {
    const call = this.#call;
    const track = await this.#get(kind);
    if (!track) return;
    if (!this.#isIn(call)) return track.stop(); // it was for a call that is over, and not for the next one
    this.problem.value = null;
    await this.#use(track);
  }

  /** Whether this page is still in a call, and sends. @param {Call | null} call */
  #isIn(call) {
    return call !== null && this.#call === call && this.mine.value?.role !== "viewer";
  }

  /** Send a track in the place of what there was of its kind. @param {MediaStreamTrack} track */
  async #use(track) {
    if (track.kind === "video") return this.#show(track);
    const before = this.#audio;
    if (before === track && this.#call?.stream.getTracks().includes(track)) return undefined;
    this.#audio = track;
    if (before && this.#call?.stream.getTracks().includes(before)) {
      track.enabled = before.enabled;
      await this.#call.replace(before, track);
      before.stop();
    } else this.#call?.add(track);
    track.addEventListener("ended", () => void this.#gone(track));
    return undefined;
  }

  /** Send a picture, or none. @param {MediaStreamTrack | null} track */
  async #show(track) {
    const before = this.#video;
    if (before === track && track && this.#call?.stream.getTracks().includes(track)) return;
    this.#video = track;
    if (before && this.#call?.stream.getTracks().includes(before)) {
      await this.#call.replace(before, track);
      before.stop();
    } else if (track) this.#call?.add(track);
    if (track && !track.contentHint) track.addEventListener("ended", () => void this.#gone(track));
  }

  /** A device was taken away, or its permission; stopping a track ourselves does not tell so. @param {MediaStreamTrack} track */
  async #gone(track) {
    if (track !== this.#audio && track !== this.#video) return;
    if (!this.#call) return;
    await this.#call.replace(track, null).catch(() => {});
    if (track === this.#audio) this.#audio = null;
    else this.#video = null;
    this.#wrong(track.kind === "audio" ? "MICROPHONE_GONE" : "CAMERA_GONE");
    this.#changed();
    void this.#readDevices();
  }

  async #readDevices() {
    const found = await navigator.mediaDevices?.enumerateDevices().catch(() => []);
    const of = (/** @type {string} */ kind) => (found ?? [])
      .filter((one) => one.kind === kind && one.deviceId && !["default", "communications"].includes(one.deviceId))
      .map(({ deviceId, label }, at) => ({ id: deviceId, name: label || callText.device(at + 1) }));
    this.devices.value = { audio: of("audioinput"), video: of("videoinput"), speaker: of("audiooutput") };
  }

  /** What this page sends has changed: show it, and tell the others. */
  #changed() {
    if (!this.mine.value) return;
    const screen = this.#video?.contentHint === "detail";
    this.sending.value = {
      microphone: isOn(this.#audio), muted: !this.#audio?.enabled, camera: isOn(this.#video) && !screen, screen: isOn(this.#video) && screen,
    };
    for (const node of this.#call?.nodes ?? []) this.#tellState(node);
    this.#draw();
  }

  // The pipe

  /** @param {string} node @param {any} data */
  #tell(node, data) {
    this.#pipe.send(data, { to: node }).catch(() => {}); // it has gone: records say the rest
  }

  /** @param {string} node */
  #tellState(node) {
    const { hash } = this.mine.value ?? {};
    if (hash) this.#tell(node, { t: "in", call: hash, ...this.sending.value });
  }

  /** What others say: of themselves alone, and as the host of this call. @param {{id: string}} from @param {any} data */
  #hear({ id }, data) {
    const peer = this.#circle.peers.get(id);
    if (!peer || typeof data !== "object" || data === null || typeof data.t !== "string" || !HASH.test(data.call)) return;
    const { t, call } = data;
    const mine = this.mine.value?.hash === call ? this.mine.value : null;
    if (t === "in" || t === "out") {
      const before = this.#said.get(id);
      const [microphone, muted, camera, screen] = ["microphone", "muted", "camera", "screen"].map((name) => data[name] === true);
      this.#said.set(id, { call, at: Date.now(), in: t === "in", microphone, muted, camera, screen });
      if (mine && t === "in" && !(before?.in && before.call === call)) this.#tellState(id);
      this.#later();
    } else if (t === "declined") {
      if (mine?.role === "host" && !this.declined.value.includes(peer.member)) this.declined.value = [...this.declined.value, peer.member];
      if (mine) this.#answered();
    } else if (t === "full" || t === "admitted") {
      if (mine?.role === "viewer" && this.#info(call)?.host === peer.member) this.waiting.value = t === "full";
    }
  }

  // What follows from records and presences

  /** @param {string} hash @returns {Known | undefined} */
  #info(hash) {
    return Object.values(this.cards.value).flat().find((one) => one.hash === hash);
  }

  #later() {
    this.#soon ??= setTimeout(() => void this.refresh(), SOON_MS);
  }

  /** Read what records say now, and do what follows. */
  async refresh() {
    clearTimeout(this.#soon);
    this.#soon = undefined;
    if (this.#closed.signal.aborted) return;
    const turn = (this.#turn += 1);
    const found = await this.#known();
    if (turn !== this.#turn || this.#closed.signal.aborted) return;
    const now = Date.now();
    this.#declinedCalls = new Set(recall("declined calls", /** @type {string[]} */ ([])));
    /** @type {Record<string, Known[]>} */
    const calls = {};
    /** @type {Record<string, Ongoing>} */
    const ongoing = {};
    for (const one of found) {
      if (!this.#seen.has(one.hash)) this.#seen.set(one.hash, now);
      // who has begun another at the same moment is in that one
      const met = found.some(({ took, channel, at_ms }) => took && channel === one.channel && Math.abs(at_ms - one.at_ms) < GLARE_MS);
      const missed = one.rings && !one.took && !one.on && !met && !this.#declinedCalls.has(one.hash);
      (calls[one.channel] ??= []).push({ ...one, missed });
      if (one.on) ongoing[one.channel] = { ...one, inNow: this.#nodesOf(one, one.participants).length, watching: this.#nodesOf(one, one.viewers).length };
    }
    batch(() => {
      this.cards.value = calls;
      if (JSON.stringify(Object.values(this.ongoing.value).map(plain)) !== JSON.stringify(Object.values(ongoing).map(plain))) this.ongoing.value = ongoing;
      this.missed.value = Object.values(calls).flat().filter(({ missed }) => missed);
      this.#ring(Object.values(ongoing));
      this.#answered();
    });
    await this.#meet(ongoing);
    clearTimeout(this.#ticking);
    if (this.mine.value || this.ringing.value || Object.keys(ongoing).length) this.#ticking = setTimeout(() => void this.refresh(), TICK_MS);
  }

  /** The calls that the circle tells of, but for those of a far future; the one that this page is in is not lost among many that others begin. @returns {Promise<CallInfo[]>} */
  async #known() {
    const now = Date.now();
    const found = (await this.#circle.calls().catch(() => [])).filter(({ at_ms }) => at_ms <= now + AHEAD_MS);
    const mine = this.mine.value;
    if (!mine || found.some(({ hash }) => hash === mine.hash)) return found;
    const on = await this.#circle.ongoing(mine.channel).catch(() => undefined);
    return on && !found.some((one) => one.hash === on.hash) ? [on, ...found] : found;
  }

  /** See what has come of those whom this page has called. */
  #answered() {
    const mine = this.mine.value;
    const before = this.rung.value;
    if (!mine || !before) return;
    const came = this.#info(mine.hash)?.participants ?? [];
    const isOver = Date.now() - mine.since >= RING_MS;
    const of = (/** @type {string} */ one) =>
      came.includes(one) || before[one] === "came" ? "came" : this.declined.value.includes(one) ? "declined" : isOver || before[one] === "silent" ? "silent" : "rings";
    const now = /** @type {Record<string, Answer>} */ (Object.fromEntries(Object.keys(before).map((one) => [one, of(one)])));
    if (JSON.stringify(now) !== JSON.stringify(before)) this.rung.value = now;
  }

  /** @param {CallInfo[]} on */
  #ring(on) {
    const now = Date.now();
    const rings = ({ hash, rings, took, age_ms, channel, host, participants }) =>
      rings && !took && !this.#declinedCalls.has(hash) && age_ms < RING_MS && now - (this.#seen.get(hash) ?? 0) < RING_MS &&
      this.mine.value?.channel !== channel && participants.includes(host);
    const one = on.find((call) => call.hash === this.#shown?.hash && rings(call)) ?? on.find((call) => rings(call) && this.#mayRing(call));
    if (one?.hash === this.#shown?.hash && Boolean(this.ringing.value) === Boolean(one)) return;
    const { hash = "", channel = "", host: from = "", media = "" } = one ?? {};
    this.#shown = one ? { hash, channel, from, media, name: this.#nameOf(from) } : null;
    this.ringing.value = this.#shown;
  }

  /** Whether a member has not rung too often. @param {CallInfo} call */
  #mayRing({ host }) {
    const now = Date.now();
    const times = (this.#rang.get(host) ?? []).filter((at) => now - at < RINGS_MS);
    if (times.length >= MOST_RINGS) return false;
    this.#rang.set(host, [...times, now]);
    return true;
  }

  /** @param {string} member */
  #nameOf(member) {
    return [...this.#circle.peers.values()].find((one) => one.member === member)?.name || member.slice(0, 6);
  }

  /** Which nodes of these members are in a call now: one of each member. @param {CallInfo} call @param {string[]} members @returns {Peer[]} */
  #nodesOf({ hash, word }, members) {
    const now = Date.now();
    const isIn = (/** @type {Peer} */ { id, abilities }) => {
      const said = this.#said.get(id);
      if (said?.call === hash && !said.in && now - said.at < GOODBYE_MS) return false;
      return abilities.includes(word) || Boolean(said?.in && said.call === hash && now - said.at < BELIEVED_MS);
    };
    /** @type {Map<string, Peer>} */
    const found = new Map();
    for (const peer of this.#circle.peers.values()) {
      if (!members.includes(peer.member) || peer.member === this.#circle.me.id || this.#shut.has(peer.member) || !isIn(peer)) continue;
      if (!found.has(peer.member) || this.#call?.nodes.includes(peer.id)) found.set(peer.member, peer);
    }
    return [...found.values()];
  }

  /** Have media go to whom they are to go, and to nobody else. @param {Record<string, CallInfo>} ongoing */
  async #meet(ongoing) {
    const mine = this.mine.value;
    if (!mine || !this.#call) return;
    if (!this.#circle.leads) return this.#hangUp(); // another tab of this browser has taken it
    const info = this.#info(mine.hash);
    const me = this.#circle.me.id;
    if (!info || info.ended || !(info.participants.includes(me) || info.viewers.includes(me))) {
      const elsewhere = Object.values(this.cards.value).flat().some((one) => one.hash !== mine.hash && [...one.participants, ...one.viewers].includes(me));
      this.#hangUp();
      if (!elsewhere) this.#wrong(info?.ended ? "ENDED" : "REVOKED");
      return;
    }
    // Two have begun at the same moment: who is alone goes into the call that stands (docs/chat.md).
    const standing = ongoing[mine.channel];
    const isAlone = info.participants.length === 1 && !info.viewers.length;
    if (standing && standing.hash !== mine.hash && mine.role === "host" && isAlone && Date.now() - mine.since < GLARE_MS) return this.#move(mine, standing);
    const talking = this.#nodesOf(info, info.participants);
    const isHost = info.host === me;
    /** @type {Map<string, {send: boolean, take: boolean}>} */
    const wanted = new Map();
    if (mine.role === "viewer") {
      for (const { id, member } of talking) if (member === info.host) wanted.set(id, { send: false, take: true });
    } else {
      for (const { id } of talking.slice(0, MOST_OTHERS)) wanted.set(id, { send: true, take: true });
      if (isHost) for (const id of this.#admit(info, MOST_OTHERS - wanted.size)) wanted.set(id, { send: true, take: false });
    }
    for (const node of this.#call.nodes) if (!wanted.has(node)) this.#call.leave(node);
    for (const [node, ways] of wanted) {
      const isNew = !this.#call.nodes.includes(node);
      this.#call.join(node, ways);
      if (isNew) this.#tellState(node);
    }
    this.#draw();
  }

  /** Who of those who watch is sent to: those who came first, as many as there are places. @param {CallInfo} info @param {number} places @returns {string[]} */
  #admit(info, places) {
    const watching = this.#nodesOf(info, info.viewers);
    const ids = watching.map(({ id }) => id);
    this.#queue = [...this.#queue.filter((id) => ids.includes(id)), ...ids.filter((id) => !this.#queue.includes(id))];
    const admitted = this.#queue.slice(0, Math.max(0, Math.min(places, this.#settings.viewers ?? 6)));
    for (const id of this.#queue) {
      const t = admitted.includes(id) ? "admitted" : "full";
      if (this.#told.get(id) !== t) this.#tell(id, { t, call: info.hash });
      this.#told.set(id, t);
    }
    for (const id of [...this.#told.keys()]) if (!ids.includes(id)) this.#told.delete(id);
    this.viewers.value = this.#queue.flatMap((id) => {
      const peer = watching.find((one) => one.id === id);
      return peer ? [{ node: id, member: peer.member, name: peer.name, admitted: admitted.includes(id) }] : [];
    });
    return admitted;
  }

  /** Go from the call that one has begun into the one that stands. @param {Mine} mine @param {CallInfo} standing */
  async #move(mine, { hash, channel, media }) {
    const op = media === "broadcast" ? "view" : "join";
    this.mine.value = { hash, channel, media, role: op === "view" ? "viewer" : "participant", since: mine.since };
    if (op === "view") this.#silence();
    try {
      await this.#circle.act("call", mine.channel, "end", mine.hash);
      await this.#circle.act("call", channel, op, hash);
      await this.#circle.inCall(hash);
    } catch (error) {
      this.#hangUp(); // its host has shut this member out, say
      return this.#wrong(error.reason === "NOT_ALLOWED" ? "REVOKED" : "FAILED");
    }
    this.#changed();
    this.#later();
  }

  // What is shown

  async #listen() {
    const levels = await this.#call?.levels().catch(() => null);
    const now = Date.now();
    for (const [node, level] of levels ?? []) if (level > LOUD) this.#loud.set(node, now + HOLD_MS);
    this.#draw();
  }

  #draw() {
    const mine = this.mine.value;
    if (!mine || !this.#call) return;
    const now = Date.now();
    const info = this.#info(mine.hash);
    const { health, stream, nodes } = this.#call;
    const isLoud = (/** @type {string} */ node) => (this.#loud.get(node) ?? 0) > now;
    const { id: member, node, name } = this.#circle.me;
    /** @type {Tile[]} */
    const tiles = mine.role === "viewer" ? [] : [{ node, member, name, stream, isMe: true, speaking: isLoud("") && !this.sending.value.muted, ...this.sending.value, health: WELL, role: mine.role }];
    for (const id of nodes) {
      const peer = this.#circle.peers.get(id);
      const theirs = this.#call.from(id);
      if (!peer || !theirs || !info || !info.participants.includes(peer.member)) continue;
      const said = this.#said.get(id);
      const { microphone = true, muted = false, camera = theirs.getVideoTracks().length > 0, screen = false } = said?.call === mine.hash && said.in ? said : {};
      tiles.push({
        node: id, member: peer.member, name: peer.name, stream: theirs, isMe: false, speaking: isLoud(id) && !muted, microphone, muted, camera, screen,
        health: health.get(id) ?? WELL, role: peer.member === info.host ? "host" : "participant",
      });
    }
    const told = (/** @type {Tile[]} */ all) => JSON.stringify(all.map(({ stream: one, ...tile }) => [tile, one.getTracks().map(({ id }) => id)]));
    if (told(tiles) !== told(this.tiles.value) || tiles.some(({ stream: one }, at) => one !== this.tiles.value[at].stream)) this.tiles.value = tiles;
  }
}

/** What of a call changes something on the screen. @param {Ongoing} call */
const plain = ({ hash, channel, participants, viewers, media, inNow, watching }) => [hash, channel, participants, viewers, media, inNow, watching];
