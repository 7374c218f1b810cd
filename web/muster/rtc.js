/**
 * One peer connection to another node: perfect negotiation, ICE restarts, and the channels on it.
 *
 * Descriptions and candidates go as signals, which their sender has signed and the caller has verified:
 * who alters a description on the way is refused. What a member itself lies in one is checked for shape
 * and size, and costs it its own connection.
 *
 * Channels are negotiated beforehand, by id: 0 carries the frames of the `connect` link, 1 datagrams,
 * 2 the frames of the `meet` link.
 * @module
 */

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
