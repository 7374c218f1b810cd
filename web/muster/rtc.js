/**
 * Peer connections to another node, one at a time: perfect negotiation, ICE restarts, and the channels that carry
 * links. Loaded with the first link.
 *
 * Descriptions and candidates go as signals, which their sender has signed and the caller has verified:
 * who alters a description on the way is refused. What a member itself lies in one is checked for shape
 * and size, and costs it its own connection.
 *
 * Channels are negotiated beforehand, by id: 0 carries the frames of the `connect` link, 1 datagrams,
 * 2 the frames of the `meet` link.
 * @module
 */

import { hex } from "./bytes.js";
import { MESSAGE, hello, readFrame } from "./links.js";
import { within } from "./refused.js";

/** @typedef {import("./links.js").Link} Link */
/** @typedef {import("./links.js").Purpose} Purpose */
/** @typedef {{type: RTCSdpType, sdp: string}} Description */
/** @typedef {{description?: Description, candidates?: RTCIceCandidateInit[]}} Negotiation */

const LOW = 262_144;
const MOST_DESCRIPTION = 16_384;
const MOST_AT_ONCE = 32;
const MOST_CANDIDATES = 256;
const MOST_EARLY = 64;
const MOST_DECLINED = 16;
const GATHER_MS = 80;
const DISCONNECTED_MS = 3000;
const PATIENCE_MS = 15_000;
const RESTARTS = 2;
const ICE_MS = 5000;
const LOGIN_MS = 45_000;
/** How long the higher node id leaves it to the lower to open one; and how soon another is made, at first and at last. */
const [TURN_MS, FIRST_MS, LAST_MS] = [5000, 1000, 600_000];
const MOST_UNANSWERED = 3;
/** @type {Record<Purpose, number>} the data channel of each */
const CHANNEL = { connect: 0, meet: 2 };
const PURPOSES = /** @type {Purpose[]} */ (Object.keys(CHANNEL));

/** @param {any} value @param {number} most */
const isText = (value, most) => typeof value === "string" && value.length <= most;

/**
 * Read what another node says about the connection; null if it has another form or is too large.
 * @param {any} body of a signal
 * @returns {Negotiation | null}
 */
export const readNegotiation = ({ description, candidates }) => {
  if (description) {
    const { type, sdp } = description;
    return ["offer", "answer"].includes(type) && isText(sdp, MOST_DESCRIPTION) ? { description: { type, sdp } } : null;
  }
  if (!Array.isArray(candidates) || candidates.length > MOST_AT_ONCE) return null;
  const found = candidates.map((one) => {
    const { candidate, sdpMid = null, sdpMLineIndex = null, usernameFragment = null } = one ?? {};
    const good = isText(candidate, 1024) && isText(sdpMid ?? "", 64) && isText(usernameFragment ?? "", 256) &&
      (sdpMLineIndex === null || (Number.isInteger(sdpMLineIndex) && sdpMLineIndex >= 0 && sdpMLineIndex < 256));
    return good && { candidate, sdpMid, sdpMLineIndex, usernameFragment };
  });
  return found.every(Boolean) ? { candidates: /** @type {any} */ (found) } : null;
};

/** Which peer connection made a description: its session id lasts as long as it. @param {string} sdp */
const maker = (sdp) => /^o=\S+ (\d{1,20})/m.exec(sdp)?.[1] ?? "";

/** A peer connection, until it is `dead`; the caller then makes another one. */
export class Rtc {
  dead = false;
  /** What takes the other side's tracks; without one they are declined. @type {((event: RTCTrackEvent) => void) | null} */
  media = null;
  /** What was declined, for a call that begins later. @type {RTCTrackEvent[]} */
  declined = [];
  /** @type {Record<number, RTCDataChannel>} */
  channels = {};
  #how;
  #theirs = "";
  #making = false;
  /** @type {RTCIceCandidateInit[]} */
  #early = [];
  /** @type {RTCIceCandidateInit[]} */
  #found = [];
  #taken = 0;
  #restarts = 0;
  /** @type {any} */
  #gathering;
  /** @type {any} */
  #timer;
  /** @type {Promise<void>} */
  #work = Promise.resolve();

  /**
   * @param {object} how
   * @param {typeof RTCPeerConnection} how.make
   * @param {RTCConfiguration} how.configuration
   * @param {boolean} how.polite the smaller node id is
   * @param {(body: Negotiation) => Promise<any>} how.tell
   * @param {(id: number, data: ArrayBuffer) => void} how.hear
   * @param {() => void} how.change a channel or the connection has another state
   * @param {(id: number) => void} how.room a channel takes more again
   */
  constructor(how) {
    this.#how = how;
    const pc = new how.make(how.configuration);
    this.pc = pc;
    pc.onnegotiationneeded = async () => {
      try {
        this.#making = true;
        await pc.setLocalDescription();
        this.#describe();
      } catch {
        // closed meanwhile, or rolled back
      } finally {
        this.#making = false;
      }
    };
    pc.onicecandidate = ({ candidate }) => {
      if (!candidate?.candidate) return;
      this.#found.push(candidate.toJSON());
      this.#gathering ??= setTimeout(() => this.#flush(), GATHER_MS);
    };
    pc.onconnectionstatechange = () => this.#changed();
    pc.ontrack = (event) => {
      if (this.media) return this.media(event);
      if (event.transceiver.direction === "stopped") return; // it was in their call, which we have left meanwhile
      event.transceiver.direction = "inactive";
      this.declined = [...this.declined, event].slice(-MOST_DECLINED);
    };
    pc.ondatachannel = ({ channel }) => channel.close();
    for (const id of [0, 1, 2]) {
      const loose = id === 1 && { ordered: false, maxRetransmits: 0 };
      const channel = pc.createDataChannel("muster", { negotiated: true, id, ...loose });
      this.channels[id] = channel;
      channel.binaryType = "arraybuffer";
      channel.bufferedAmountLowThreshold = LOW;
      channel.onbufferedamountlow = () => how.room(id);
      channel.onmessage = ({ data }) => data instanceof ArrayBuffer && how.hear(id, data);
      channel.onopen = how.change;
      channel.onclose = () => this.close();
    }
    this.#wait(PATIENCE_MS);
  }

  /** Whether frames arrive, as far as can be known. */
  get up() {
    return !this.dead && !/disconnected|failed|closed/.test(this.pc.connectionState);
  }

  /**
   * Whether a description is of another peer connection of theirs than the one of before: then ours is of no use.
   * @param {Negotiation} body
   */
  isOther({ description }) {
    return description?.type === "offer" && this.#theirs !== "" && maker(description.sdp) !== this.#theirs;
  }

  /** Take what was read by `readNegotiation`, one after the other. @param {Negotiation} body */
  take(body) {
    this.#work = this.#work.then(() => this.#take(body)).catch(() => {});
    return this.#work;
  }

  /** @param {Negotiation} body */
  async #take({ description, candidates = [] }) {
    const { pc } = this;
    if (this.dead) return;
    if (description) {
      const offers = description.type === "offer";
      if (offers && !this.#how.polite && (this.#making || pc.signalingState !== "stable")) return;
      const theirs = maker(description.sdp);
      if (!offers && this.#theirs && theirs !== this.#theirs) return;
      await pc.setRemoteDescription(description);
      this.#theirs = theirs;
      if (offers) {
        await pc.setLocalDescription();
        this.#describe();
      }
    }
    // Candidates wait for the description that they belong to.
    const waiting = [...this.#early, ...candidates];
    const sdp = pc.remoteDescription?.sdp;
    const isDue = (/** @type {RTCIceCandidateInit} */ { usernameFragment: name }) => sdp && (!name || sdp.includes(`ice-ufrag:${name}\r`));
    this.#early = waiting.filter((one) => !isDue(one)).slice(-MOST_EARLY);
    for (const one of waiting.filter(isDue)) {
      this.#taken += 1;
      if (this.#taken <= MOST_CANDIDATES) await pc.addIceCandidate(one).catch(() => {});
    }
  }

  /** Tell what our description is now; candidates go after it. */
  #describe() {
    const { type, sdp } = /** @type {RTCSessionDescription} */ (this.pc.localDescription);
    this.#how.tell({ description: { type, sdp } }).catch(() => {});
  }

  #flush() {
    this.#gathering = undefined;
    while (this.#found.length && !this.dead) {
      this.#how.tell({ candidates: this.#found.splice(0, MOST_AT_ONCE) }).catch(() => {});
    }
  }

  #changed() {
    const { connectionState: state } = this.pc;
    if (state === "connected") {
      clearTimeout(this.#timer);
      this.#restarts = this.#taken = 0;
    }
    // It may come back by itself: never closed, but asked after.
    if (state === "disconnected") this.#wait(DISCONNECTED_MS * (this.#how.polite ? 1 : 1.6));
    if (state === "failed") this.#again();
    this.#how.change();
  }

  /** @param {number} ms */
  #wait(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#again(), ms);
  }

  /** Not connected: say once more what we said, or gather anew; after some times, give up. */
  #again() {
    if (this.dead || this.pc.connectionState === "connected") return;
    this.#restarts += 1;
    if (this.#restarts > RESTARTS) this.close();
    else this.restart();
  }

  /** Find a way anew: the network is another one, or logins are. @param {RTCIceServer[]} [servers] */
  restart(servers) {
    if (this.dead) return;
    if (servers) this.pc.setConfiguration({ ...this.pc.getConfiguration(), iceServers: servers });
    if (this.pc.signalingState === "have-local-offer") this.#describe();
    else this.pc.restartIce();
    if (this.pc.connectionState !== "connected") this.#wait(PATIENCE_MS);
  }

  /** Close it; the other side hears it at once. */
  close() {
    if (this.dead) return;
    this.dead = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#gathering);
    this.pc.close();
    this.#how.change();
  }
}

/**
 * The way to one node by peer connections: it has one while there is a link, and lets it carry what it can.
 *
 * @typedef {object} There the node at the other end, as `Links` knows it
 * @property {string} node
 * @property {Partial<Record<Purpose, Link>>} links
 * @property {Map<string, any>} relays by session
 */
export class Direct {
  /** @type {Rtc | null} */
  rtc = null;
  #how;
  #there;
  #made;
  /** @type {Partial<Record<Purpose, string>>} the session that our hello on the channel has named */
  #told = {};
  /** @type {Partial<Record<Purpose, string>>} the same of theirs */
  #said = {};
  /** @type {Partial<Record<Purpose, boolean>>} they have said over the relay that they are there */
  #left = {};
  /** @type {[string, any, number][]} what came before its link */
  #early = [];
  /** @type {Promise<any>} */
  #work = Promise.resolve();
  #queued = 0;
  #tries = 0;
  #saidAt = 0;
  #making = false;
  #closed = false;
  /** @type {any} */
  #timer;
  /** @type {any} */
  #login;

  /** @param {any} how what `Links` was made with @param {There} there @param {(rtc: Rtc) => void} made */
  constructor(how, there, made) {
    this.#how = how;
    this.#there = there;
    this.#made = made;
  }

  /** There is another link. */
  linked() {
    this.#improve();
    this.#settle();
    for (const early of this.#early.splice(0)) this.take(...early);
  }

  /** Take what the other side says about the connection. @param {string} session @param {any} said @param {number} at */
  take(session, said, at) {
    if (this.#queued >= MOST_EARLY) return;
    this.#queued += 1;
    this.#work = this.#work.then(() => this.#take(session, said, at)).catch(() => {}).then(() => (this.#queued -= 1));
  }

  /** They have said over the relay that the channel carries nothing for them. @param {Purpose} purpose */
  left(purpose) {
    this.#left[purpose] = true;
    this.#settle();
  }

  /** Look after it at once. */
  check() {
    if (!this.rtc) {
      this.#tries = 0;
      this.#improve();
    } else if (this.rtc.pc.connectionState !== "connected") this.rtc.restart();
  }

  /** Be done with it. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.rtc?.close();
  }

  /** Have a peer connection soon: the lower node id opens it, the other after a while without. */
  #improve() {
    const { able, nodeId } = this.#how;
    const { node } = this.#there;
    clearTimeout(this.#timer);
    if (this.#closed || this.rtc || (able && !able(node))) return;
    if (this.#tries >= MOST_UNANSWERED && !this.#saidAt) return; // it knows no peer connections
    const wait = this.#tries ? Math.min(FIRST_MS * 4 ** (this.#tries - 1), LAST_MS) : 0;
    this.#timer = setTimeout(() => this.#connect(), wait + (nodeId() < node ? 0 : TURN_MS));
  }

  async #connect() {
    const { ice, nodeId, RTCPeerConnection: make, iceTransportPolicy, signal } = this.#how;
    const { node, relays, links } = this.#there;
    if (this.rtc || this.#making) return;
    this.#making = true;
    try {
      const iceServers = await within(/** @type {Promise<RTCIceServer[]>} */ (ice()), ICE_MS, "").catch(() => []);
      if (!relays.size || this.#closed) return;
      const rtc = new Rtc({
        make,
        configuration: { iceServers, iceTransportPolicy },
        polite: nodeId() < node,
        tell: async (body) => {
          // of a link that stands: one that was replaced is still there for a moment, and they know it no longer
          const { session } = links.connect ?? links.meet ?? {};
          if (session) await signal(node, session, "connect", body);
        },
        hear: (id, data) => this.#heard(rtc, id, new Uint8Array(data)),
        change: () => this.#changed(rtc),
        room: (id) => links[PURPOSES.find((one) => CHANNEL[one] === id) ?? "connect"]?.check(),
      });
      this.rtc = rtc;
      this.#watchLogins(iceServers);
      this.#made(rtc);
    } catch {
      this.#tries += 1; // this browser makes none with these servers
      this.#improve();
    } finally {
      this.#making = false;
    }
  }

  /** Renew logins at TURN servers before they end: coturn's user names begin with the second. @param {RTCIceServer[]} servers */
  #watchLogins(servers) {
    const ends = servers.map(({ username }) => parseInt(/^\d{10}(?=:|$)/.exec(username ?? "")?.[0] ?? "", 10) * 1000).filter((at) => at);
    if (!ends.length) return;
    const wait = Math.max(Math.min(...ends) - LOGIN_MS - this.#how.now(), TURN_MS);
    this.#login = setTimeout(async () => {
      const fresh = await within(this.#how.ice(), ICE_MS, "").catch(() => null);
      try {
        if (fresh) this.rtc?.restart(fresh);
      } catch {
        // servers that this browser does not take
      }
      if (this.rtc) this.#watchLogins(fresh ?? servers);
    }, wait);
  }

  /** @param {string} session @param {any} said @param {number} at */
  async #take(session, said, at) {
    const body = readNegotiation(said);
    if (!body || this.#closed) return;
    if (!this.#there.relays.has(session)) return void (this.#early.length < MOST_EARLY && this.#early.push([session, said, at]));
    if (body.description) {
      if (at < this.#saidAt) return; // overtaken
      this.#saidAt = at;
    }
    if (this.rtc?.isOther(body)) this.rtc.close();
    if (!this.rtc && body.description?.type === "offer") {
      clearTimeout(this.#timer);
      await this.#connect();
    }
    void this.rtc?.take(body);
  }

  /** @param {Rtc} rtc @param {number} id @param {Uint8Array} data */
  #heard(rtc, id, data) {
    const { links } = this.#there;
    if (this.rtc !== rtc) return;
    if (id === 1) {
      if (data.length <= MESSAGE) links.connect?.dispatchEvent(new CustomEvent("datagram", { detail: data }));
      return;
    }
    const purpose = /** @type {Purpose} */ (PURPOSES.find((one) => CHANNEL[one] === id));
    let frame;
    try {
      frame = readFrame(data);
    } catch {
      return; // a member who plays
    }
    if (!frame.kind) this.#said[purpose] = hex(frame.payload.subarray(0, 16));
    this.#left[purpose] = false;
    this.#settle();
    const link = links[purpose];
    if (link && link.session === this.#said[purpose]) link.hear(frame);
  }

  /** @param {Rtc} rtc */
  #changed(rtc) {
    if (this.rtc !== rtc) return;
    if (rtc.pc.connectionState === "connected") this.#tries = 0;
    if (rtc.dead) {
      this.rtc = null;
      this.#said = {};
      this.#tries += 1;
      clearTimeout(this.#login);
    }
    this.#settle();
    if (rtc.dead && this.#there.relays.size) this.#improve();
  }

  /** Let each link use the data channel if both sides have said hello there, and it carries. */
  #settle() {
    for (const purpose of PURPOSES) {
      const link = this.#there.links[purpose];
      const channel = this.rtc?.up ? this.rtc.channels[CHANNEL[purpose]] : undefined;
      const carries = channel?.readyState === "open" ? channel : null;
      if (carries && link && this.#told[purpose] !== link.session) {
        carries.send(/** @type {any} */ (hello(link.session)));
        this.#told[purpose] = link.session;
      } else if (!carries && this.#told[purpose]) {
        delete this.#told[purpose];
        link?.wave();
      }
      link?.attach(this.#said[purpose] === link.session && !this.#left[purpose] ? carries : null);
    }
  }
}
