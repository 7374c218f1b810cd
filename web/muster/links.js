/**
 * Links: two nodes joined by the relay from the first moment, and by a data channel as soon as one opens.
 *
 *     opener                                  other
 *       | connect (ephemeral key) ---signal---> |
 *       | <---signal--- connect (ephemeral key) |
 *       | <======= relay frames, sealed ======> |
 *       | <--- descriptions and candidates ---> |   the data channel takes over, and gives back
 *
 * What two nodes send each other is numbered, whatever path carries it: each number counts once and in its
 * order; what the other side has not taken is kept, and sent again on the next path (docs/protocol2.md, Links).
 * A message is taken when the app asks for the next one: who reads slowly slows down who writes.
 * @module
 */
import { b64, concat, hex, random, readU64, u64, unb64, unhex } from "./bytes.js";
import { agreer, hkdf, open, seal, sha256 } from "./crypto.js";
import { Refused, malformed, within } from "./refused.js";

/** @typedef {"webrtc" | "relay" | "none"} PathKind */
/** @typedef {"connect" | "meet"} Purpose */
/** @typedef {{kind: number, number: number, taken: number, payload: Uint8Array}} Frame */
/** @typedef {import("./crypto.js").Agreer} Agreer */
/** @typedef {import("./rtc.js").Direct} Direct */
/** @typedef {import("./rtc.js").Rtc} Rtc */

/** How large one message of a link may be, in bytes. */
export const MESSAGE = 16_000;
const HEAD = 17;
const WINDOW = 256;
const MOST_FLYING = 64;
/** Above this a channel takes no more, until it has come down to 256 KiB. In bytes. */
const MOST_BUFFERED = 1_048_576;
const TELL_EVERY = 16;
const TELL_MS = 100;
const AGAIN_MS = 2000;
const MOST_TRIES = 8;
const ANSWER_MS = 15_000;
const END_MS = 1000;
const MOST_LINKS = 64;
const MOST_ASKED = 1024;
const MOST_QUEUED = 512;
const MOST_DATAGRAMS = 65_536;
const [HELLO, DATA, TOOK, END] = [0, 1, 2, 3];
const NOTHING = new Uint8Array();

// Frames

/** @param {number} kind @param {number} number @param {number} taken @param {Uint8Array} [payload] */
const writeFrame = (kind, number, taken, payload = NOTHING) => concat(Uint8Array.of(kind), u64(number), u64(taken), payload);

/**
 * Take a link frame apart; `Refused` (`MALFORMED`, `TOO_LARGE`).
 * @param {Uint8Array} raw
 * @returns {Frame}
 */
export const readFrame = (raw) => {
  if (raw.length < HEAD || raw[0] > END) throw malformed("link frame");
  const [number, taken] = [readU64(raw, 1), readU64(raw, 9)];
  if (!Number.isSafeInteger(number) || !Number.isSafeInteger(taken)) throw malformed("number");
  if (raw.length > HEAD + MESSAGE) throw new Refused("TOO_LARGE");
  return { kind: raw[0], number, taken, payload: raw.subarray(HEAD) };
};

/**
 * Derive the keys of a session over the relay; `Refused` (`WEAK_KEY`).
 * @param {Agreer} mine
 * @param {Uint8Array} theirs
 * @param {Uint8Array} openerText the signal of who has opened it
 * @param {Uint8Array} otherText
 */
export const relayKeys = async (mine, theirs, openerText, otherText) => {
  const salt = concat(await sha256(openerText), await sha256(otherText));
  const shared = await mine.agree(theirs);
  const [opener, other] = await Promise.all(["relay opener", "relay other"].map((what) => hkdf(shared, salt, what)));
  return { opener, other };
};

/** @param {Uint8Array} counter */
const nonce = (counter) => concat(new Uint8Array(4), counter);

/** Seal a link frame for the relay; a counter is used once for a key. @param {Uint8Array} key @param {number} counter @param {Uint8Array} frame */
export const closeFrame = async (key, counter, frame) => concat(u64(counter), await seal(key, nonce(u64(counter)), frame));

/**
 * Open what came by the relay; `Refused` (`MALFORMED`, `UNREADABLE`).
 * @param {Uint8Array} key
 * @param {Uint8Array} payload
 */
export const openFrame = async (key, payload) => {
  if (payload.length < 8 + HEAD + 16) throw malformed("relay payload");
  return { counter: readU64(payload), frame: await open(key, nonce(payload.subarray(0, 8)), payload.subarray(8)) };
};

/** What only peer connections need is loaded with the first of them. */
const loadRtc = () => import("./rtc.js");

/** What a path begins with: which session it carries. @param {string} session */
export const hello = (session) => writeFrame(HELLO, 0, 0, unhex(session));

/**
 * A stream of messages to another node, each once and in order: `send`, and `for await`.
 *
 * Events: `path` when something else carries it, `datagram` (detail: bytes), `close`.
 */
export class Link extends EventTarget {
  /** Whether it is over: nothing more is sent, what has come can still be read. */
  closed = false;
  /** Whether the other node has gone from all services, and was not heard since. */
  isGone = false;
  /** @type {[number, Uint8Array][]} kind and payload of what the other side has not taken */
  #out = [];
  #base = 1;
  #sent = 1;
  #filled = 0;
  /** @type {Map<number, Uint8Array | null>} what came before its turn; null for the end */
  #held = new Map();
  #heard = 0;
  /** @type {Uint8Array[]} */
  #come = [];
  #lent = 0;
  #told = 0;
  #owes = false;
  #over = false;
  #down = false;
  #tries = 0;
  #credit = 32;
  /** @type {RTCDataChannel | null} */
  #rtc = null;
  /** @type {PathKind} */
  #path = "none";
  /** @type {any} */
  #telling;
  /** @type {any} */
  #again;
  /** @type {[number, () => void][]} who waits until a number is taken */
  #waiters = [];
  /** @type {(() => void)[]} */
  #readers = [];
  /** @type {((_: any) => void)[]} */
  #doubts = [];
  #sending = Promise.resolve();
  #queued = 0;
  #relay;
  #loose;
  #ended;

  /**
   * Only `Links` makes links.
   * @param {{other: string, session: string, purpose: Purpose, relay: (raw: Uint8Array) => Promise<void>, loose: () => RTCDataChannel | undefined, ended: () => void}} how
   */
  constructor({ other, session, purpose, relay, loose, ended }) {
    super();
    /** The other node, in hex. */
    this.other = other;
    this.session = session;
    this.purpose = purpose;
    this.#relay = relay;
    this.#loose = loose;
    this.#ended = ended;
    this.#look();
  }

  /** What carries its frames now. @returns {PathKind} */
  get path() {
    return this.#path;
  }

  /** How many messages the other side has not taken yet. */
  get waiting() {
    return this.#out.length + this.#queued;
  }

  get #taken() {
    return this.closed ? this.#heard : this.#heard - this.#come.length - this.#lent;
  }

  /**
   * Send a message; resolves when there is room for the next one. The bytes must not be changed afterwards.
   * @param {Uint8Array} data at most 16,000 bytes
   * @returns {Promise<void>} `Refused` (`CLOSED`, `TOO_LARGE`)
   */
  send(data) {
    this.#queued += 1;
    const sent = this.#sending.then(async () => {
      this.#queued -= 1;
      if (data.length > MESSAGE) throw new Refused("TOO_LARGE");
      if (this.#out.length >= WINDOW) await this.#until(this.#base);
      this.#check();
      this.#out.push([DATA, data]);
      this.#pump();
    });
    this.#sending = sent.catch(() => {});
    return sent;
  }

  /** Resolves when the other side has taken what was sent so far; `Refused` (`CLOSED`). @returns {Promise<void>} */
  async drained() {
    await this.#sending;
    const last = this.#base + this.#out.length - 1;
    await this.#until(last);
    if (this.#base <= last) this.#check();
  }

  /**
   * Send a datagram: it may be lost, and comes in no order.
   * @param {Uint8Array} data
   * @returns {boolean} whether the path has datagrams at all
   */
  datagram(data) {
    const channel = this.#rtc && this.#loose();
    if (channel?.readyState !== "open") return false;
    if (channel.bufferedAmount < MOST_DATAGRAMS) channel.send(/** @type {any} */ (data));
    return true;
  }

  /** Wait for the next message. @returns {Promise<IteratorResult<Uint8Array, undefined>>} */
  async next() {
    this.#lent = 0;
    this.#tell();
    while (!this.#come.length) {
      if (this.closed) return { done: true, value: undefined };
      await new Promise((resolve) => this.#readers.push(() => resolve(undefined)));
    }
    this.#lent = 1;
    return { done: false, value: /** @type {Uint8Array} */ (this.#come.shift()) };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** End it on both sides; what was sent before is still taken, if that is soon. */
  async close() {
    if (this.#over) return;
    this.#over = true;
    this.#out.push([END, NOTHING]);
    this.#pump();
    if (this.#path !== "none") await within(this.#until(this.#base + this.#out.length - 1), END_MS, "").catch(() => {});
    this.abort();
  }

  /** End it without a word. */
  abort() {
    if (this.closed) return;
    this.#over = this.closed = true;
    clearTimeout(this.#telling);
    clearTimeout(this.#again);
    this.#rtc = null;
    this.#look();
    for (const [, wake] of this.#waiters.splice(0)) wake();
    this.#wake();
    this.#ended();
    this.dispatchEvent(new Event("close"));
  }

  // What Links tells it

  /** Use a data channel, or none. @param {RTCDataChannel | null} channel */
  attach(channel) {
    if (this.closed || channel === this.#rtc) return;
    this.#rtc = channel;
    this.#sent = this.#base;
    this.#look();
    this.#write(TOOK);
    this.#pump();
  }

  /** Say over the relay that the data channel carries nothing any more. */
  wave() {
    if (!this.closed) this.#relay(hello(this.session)).catch(() => {});
  }

  /** The other node is not there, as far as services know; it may come back. */
  gone() {
    this.isGone = !this.#rtc;
    this.#arm();
  }

  /** Whether the other side still has this link, where that is in doubt. */
  async answers() {
    if (this.isGone && !this.closed) {
      this.#write(DATA, NOTHING, this.#base - 1); // what it has already: it says so
      await new Promise((resolve) => {
        this.#doubts.push(resolve);
        setTimeout(resolve, END_MS);
      });
    }
    return !this.isGone && !this.#over;
  }

  /** See whether more can be sent. */
  check() {
    if (this.#down) this.#sent = this.#base;
    this.#pump(this.#down);
  }

  /** Take a frame from any path. @param {Frame} frame */
  hear({ kind, number, taken, payload }) {
    if (this.closed) return;
    this.#tries = 0;
    this.isGone = false;
    for (const resolve of this.#doubts.splice(0)) resolve(undefined);
    if (taken >= this.#base && taken < this.#base + this.#out.length) {
      this.#credit = Math.min(MOST_FLYING, this.#credit + taken - this.#base + 1);
      this.#out.splice(0, taken - this.#base + 1);
      this.#base = taken + 1;
      this.#sent = Math.max(this.#sent, this.#base);
      while (this.#waiters.length && this.#waiters[0][0] <= taken) /** @type {any} */ (this.#waiters.shift())[1]();
    } else if (kind === TOOK && taken + 1 === this.#base && this.#sent > taken + 1 && !this.#rtc && this.#filled <= taken) {
      this.#filled = this.#base; // it waits for this one, perhaps
      this.#write(...this.#out[0], this.#base);
    }
    if (kind === DATA || kind === END) {
      if (number <= this.#heard) this.#owes = true; // it was not heard that we have it
      else if (number <= this.#taken + WINDOW) {
        this.#held.set(number, kind === END ? null : payload);
        this.#owes ||= number > this.#heard + 1;
      }
      for (let found; (found = this.#held.get(this.#heard + 1)) !== undefined; ) {
        this.#held.delete((this.#heard += 1));
        if (found) this.#come.push(found);
        else {
          this.#told = this.#heard;
          const last = writeFrame(TOOK, 0, this.#heard);
          if (this.#rtc) this.#over || this.#channelSend(last);
          else this.#relay(last).catch(() => {});
          return this.abort();
        }
      }
      this.#wake();
    }
    this.#tell();
    this.#pump();
  }

  #check() {
    if (this.#over) throw new Refused("CLOSED", "the link is closed");
  }

  #wake() {
    for (const wake of this.#readers.splice(0)) wake();
  }

  /** @param {number} number @returns {Promise<void>} */
  #until(number) {
    return new Promise((resolve) => {
      if (this.closed || number < this.#base) resolve();
      else this.#waiters.push([number, resolve]);
    });
  }

  /** See what carries it, and say if that is another path than before. */
  #look() {
    const path = this.closed ? "none" : this.#rtc ? "webrtc" : this.#down ? "none" : "relay";
    if (path === this.#path) return;
    this.#path = path;
    this.dispatchEvent(new Event("path"));
  }

  /** Tell the other side what was taken: at once if that is much, else soon. */
  #tell() {
    const untold = this.#taken - this.#told;
    if (this.closed || !(untold || this.#owes)) return;
    if (untold >= TELL_EVERY) this.#write(TOOK);
    else {
      this.#telling ??= setTimeout(() => {
        this.#telling = undefined;
        if (!this.closed && (this.#owes || this.#taken > this.#told)) this.#write(TOOK);
      }, TELL_MS);
    }
  }

  /** Send what may be sent; with *probe* one frame by a relay that has passed none lately. */
  #pump(probe = false) {
    const flying = this.#down ? Number(probe) : this.#credit;
    while (!this.closed && this.#sent < this.#base + this.#out.length) {
      if (this.#rtc ? this.#rtc.bufferedAmount >= MOST_BUFFERED : this.#sent - this.#base >= flying) break;
      if (!this.#write(...this.#out[this.#sent - this.#base], this.#sent)) return;
      this.#sent += 1;
    }
    this.#arm();
  }

  /** @param {number} kind @param {Uint8Array} [payload] @param {number} [number] */
  #write(kind, payload, number = 0) {
    this.#told = this.#taken;
    this.#owes = false;
    const raw = writeFrame(kind, number, this.#told, payload);
    if (this.#rtc) return this.#channelSend(raw);
    this.#relay(raw).then(
      () => {
        if (!this.#down) return;
        this.#down = false;
        this.#look();
        this.#pump();
      },
      ({ reason }) => {
        this.#credit = Math.max(2, this.#credit >> 1);
        this.#down ||= reason !== "RATE_LIMITED";
        this.#look();
        this.#arm();
      },
    );
    return true;
  }

  /** @param {Uint8Array} raw */
  #channelSend(raw) {
    try {
      /** @type {RTCDataChannel} */ (this.#rtc).send(/** @type {any} */ (raw));
      return true;
    } catch {
      this.attach(null); // it was closed under us
      return false;
    }
  }

  /** Frames of the relay may be lost: send again what was not taken for a while. */
  #arm() {
    if (this.#again || this.#rtc || this.closed || !(this.#out.length || this.isGone)) return;
    const base = this.#base;
    this.#again = setTimeout(
      () => {
        this.#again = undefined;
        if (this.#rtc || this.closed) return;
        if (base === this.#base) {
          if (!this.#down || this.isGone) this.#tries += 1;
          if (this.#tries > MOST_TRIES) return this.abort();
          this.#credit = Math.max(2, this.#credit >> 1);
          this.#sent = base;
          this.#pump(true);
        }
        this.#arm();
      },
      AGAIN_MS * 2 ** Math.min(this.#tries, 3),
    );
  }
}

/**
 * @typedef {object} Peer all that joins us with one node
 * @property {string} node
 * @property {Partial<Record<Purpose, Link>>} links
 * @property {Partial<Record<Purpose, any>>} openings
 * @property {Map<string, (payload: Uint8Array) => Promise<Frame | null>>} relays what opens relay payloads, by session
 * @property {Direct | null} direct the way by peer connections
 * @property {Promise<void>} work what came, in its order
 * @property {number} queued
 */

/**
 * All links of a node. Events: `link` (detail: `{link, purpose}`) when another node has opened one, `path`
 * (detail: `{node, path}`), `rtc` (detail: `{node, rtc}`) for each peer connection that is made.
 */
export class Links extends EventTarget {
  #how;
  /** @type {Map<string, Peer>} */
  #peers = new Map();
  /** @type {Map<string, number>} */
  #asked = new Map();

  /**
   * @param {object} how
   * @param {() => string} how.nodeId ours
   * @param {(to: string, session: string, kind: string, body: object) => Promise<Uint8Array>} how.signal leaves a signal, resolves with its signed text
   * @param {(to: string, payload: Uint8Array) => Promise<void>} how.frame passes a frame over the relay; rejects if it did not
   * @param {() => Promise<RTCIceServer[]>} how.ice
   * @param {() => number} how.now in milliseconds
   * @param {typeof RTCPeerConnection | null} [how.RTCPeerConnection] without one the relay carries everything
   * @param {RTCIceTransportPolicy} [how.iceTransportPolicy]
   * @param {(node: string) => boolean} [how.able] whether a node has peer connections; all have, if absent
   */
  constructor(how) {
    super();
    this.#how = how;
    if (how.RTCPeerConnection) loadRtc().catch(() => {}); // while there is a network
  }

  get #count() {
    return [...this.#peers.keys()].flatMap((node) => this.#of(node)).length;
  }

  /**
   * Open a link to a node, or return the one that stands.
   * @param {string} to
   * @param {Purpose} [purpose] `meet` for a meeting
   * @returns {Promise<Link>} `Refused` (`NO_ANSWER`, `TOO_MANY`), or what `signal` rejects with
   */
  async open(to, purpose = "connect") {
    const known = this.#peers.get(to);
    const link = known?.links[purpose];
    if (link && (await link.answers())) return link;
    if (!known?.openings[purpose] && this.#count >= MOST_LINKS) throw new Refused("TOO_MANY", "too many links");
    const peer = this.#peer(to);
    const opening = (peer.openings[purpose] ??= this.#ask(to, purpose));
    try {
      return await within(Promise.race([opening.done, opening.failed]), ANSWER_MS, "NO_ANSWER");
    } finally {
      if (peer.openings[purpose] === opening) delete peer.openings[purpose];
      this.#forget(peer);
    }
  }

  /** @param {string} to @param {Purpose} purpose */
  #ask(to, purpose) {
    const session = hex(random(16));
    const mine = agreer(random(32));
    const text = mine.then(({ public: half }) => this.#how.signal(to, session, purpose, { key: b64(half) }));
    /** @type {(link: Link) => void} */
    let resolve = () => {};
    const done = new Promise((found) => (resolve = found));
    return { session, mine, text, done, resolve, failed: text.then(() => done) };
  }

  /**
   * Take a verified signal, if it is about links.
   * @param {{node: string, session: string, kind: string, body: any, at_ms: number}} signal
   * @param {Uint8Array} text what its sender has signed
   * @returns {boolean}
   */
  signalled(signal, text) {
    const { node, session, kind, body, at_ms } = signal;
    if (kind !== "connect" && kind !== "meet") return false;
    if ("key" in body) this.#queue(node, () => this.#keyed(node, session, kind, unb64(body.key, 32), at_ms, text));
    else this.#queue(node, () => this.#directly(this.#peer(node), (direct) => direct.take(session, body, at_ms)));
    return true;
  }

  /** Take a frame that another node's socket has passed. @param {string} from @param {Uint8Array} payload */
  passed(from, payload) {
    this.#queue(from, async () => {
      const peer = this.#peers.get(from);
      for (const [session, unseal] of peer?.relays ?? []) {
        const frame = await unseal(payload).catch(() => null);
        if (!peer || !frame) continue;
        const link = Object.values(peer.links).find((one) => one.session === session);
        if (link && frame.kind === HELLO) peer.direct?.left(link.purpose);
        return link?.hear(frame);
      }
    });
  }

  /** A node's presence has gone from all services. @param {string} node */
  gone(node) {
    for (const link of this.#of(node)) link.gone();
  }

  /** @param {string} node @returns {Link[]} */
  #of(node) {
    return Object.values(this.#peers.get(node)?.links ?? {});
  }

  /** How a node is reached. @param {string} node @returns {PathKind} */
  path(node) {
    const paths = this.#of(node).map(({ path }) => path);
    return /** @type {PathKind[]} */ (["webrtc", "relay"]).find((path) => paths.includes(path)) ?? "none";
  }

  /** The peer connection with a node, if there is one. @param {string} node @returns {Rtc | null} */
  rtc(node) {
    return this.#peers.get(node)?.direct?.rtc ?? null;
  }

  /** What the browser knows of the connection with a node; undefined without one. @param {string} node @returns {Promise<RTCStatsReport | undefined>} */
  async stats(node) {
    return this.rtc(node)?.pc.getStats();
  }

  /** Look after everything at once: the page is seen again, or the network is another one. */
  check() {
    for (const peer of this.#peers.values()) {
      peer.direct?.check();
      for (const link of Object.values(peer.links)) link.check();
    }
  }

  /** End all links, without leaving a word: our node is another one now. */
  reset() {
    for (const peer of [...this.#peers.values()]) {
      for (const link of Object.values(peer.links)) link.abort();
      peer.direct?.close();
    }
    this.#peers.clear();
  }

  /** End all links, with a goodbye. */
  async close() {
    await Promise.all([...this.#peers.keys()].flatMap((node) => this.#of(node)).map((link) => link.close()));
    this.reset();
  }

  // Sessions

  /** @param {string} node @returns {Peer} */
  #peer(node) {
    let peer = this.#peers.get(node);
    if (!peer) {
      peer = {
        node, links: {}, openings: {}, relays: new Map(), direct: null, work: Promise.resolve(), queued: 0,
      };
      this.#peers.set(node, peer);
    }
    return peer;
  }

  /** Do what came from a node, in its order; what is too much is lost, and sent again. @param {string} node @param {() => any} work */
  #queue(node, work) {
    if (this.#peers.size >= 4 * MOST_LINKS && !this.#peers.has(node)) return;
    const peer = this.#peer(node);
    if (peer.queued >= MOST_QUEUED) return;
    peer.queued += 1;
    peer.work = peer.work.then(work).catch(() => {}).then(() => {
      peer.queued -= 1;
      this.#forget(peer);
    });
  }

  /** @param {Peer} peer */
  #forget(peer) {
    const { links, openings, queued, node } = peer;
    if (queued || Object.keys(links).length || Object.keys(openings).length || this.#peers.get(node) !== peer) return;
    this.#peers.delete(node);
    peer.direct?.close();
  }

  /** @param {string} node @param {string} session @param {Purpose} purpose @param {Uint8Array} key @param {number} at @param {Uint8Array} text */
  async #keyed(node, session, purpose, key, at, text) {
    const peer = this.#peer(node);
    const opening = peer.openings[purpose];
    if (opening?.session === session) {
      const keys = await relayKeys(await opening.mine, key, await opening.text, text);
      return opening.resolve(this.#made(peer, session, purpose, keys.opener, keys.other));
    }
    if (peer.relays.has(session)) return;
    if (opening && this.#how.nodeId() < node) return; // both have opened one: the lower node id's stands
    // Signals wait, and come in any order: what was opened before something else is of the past.
    const name = purpose + node;
    const before = this.#asked.get(name) ?? -1;
    this.#asked.delete(name);
    this.#asked.set(name, Math.max(before, at));
    if (this.#asked.size > MOST_ASKED) this.#asked.delete([...this.#asked.keys()][0]);
    if (at <= before || (!peer.links[purpose] && this.#count >= MOST_LINKS)) return;
    const mine = await agreer(random(32));
    const answer = await within(this.#how.signal(node, session, purpose, { key: b64(mine.public) }), ANSWER_MS, "NO_ANSWER");
    const keys = await relayKeys(mine, key, text, answer);
    const link = this.#made(peer, session, purpose, keys.other, keys.opener);
    if (opening) opening.resolve(link);
    else this.dispatchEvent(new CustomEvent("link", { detail: { link, purpose } }));
  }

  /** @param {Peer} peer @param {string} session @param {Purpose} purpose @param {Uint8Array} send @param {Uint8Array} hear */
  #made(peer, session, purpose, send, hear) {
    const { node } = peer;
    let counter = 0;
    let sealing = Promise.resolve();
    const relay = (/** @type {Uint8Array} */ raw) => {
      // In their order, but without waiting until each has come.
      const sealed = sealing.then(() => closeFrame(send, (counter += 1), raw));
      const passed = sealed.then((payload) => ({ done: this.#how.frame(node, payload) }));
      sealing = passed.then(() => {}, () => {});
      return passed.then(({ done }) => done);
    };
    /** @type {Set<number>} counters of late, as frames may come in another order */
    const seen = new Set();
    peer.relays.set(session, async (payload) => {
      const { counter: number, frame } = await openFrame(hear, payload);
      const [floor = 0] = seen.size >= WINDOW ? seen : [];
      if (number <= floor || seen.has(number)) throw malformed("counter");
      seen.add(number);
      if (seen.size > WINDOW) seen.delete(floor);
      return readFrame(frame);
    });
    const ended = () => {
      peer.relays.delete(session);
      if (peer.links[purpose] === link) delete peer.links[purpose];
      setTimeout(() => this.#forget(peer), END_MS); // what was written last still leaves
    };
    const link = new Link({ other: node, session, purpose, relay, ended, loose: () => peer.direct?.rtc?.channels[1] });
    link.addEventListener("path", () => this.dispatchEvent(new CustomEvent("path", { detail: { node, path: this.path(node) } })));
    const before = peer.links[purpose];
    peer.links[purpose] = link;
    void before?.close(); // the other side has begun anew
    this.#peers.set(node, peer);
    this.#directly(peer, (direct) => direct.linked());
    return link;
  }

  /** Do something about peer connections, where there are some; frames do not wait for it. @param {Peer} peer @param {(direct: Direct) => void} what */
  #directly(peer, what) {
    if (!this.#how.RTCPeerConnection) return;
    const made = (/** @type {Rtc} */ rtc) => this.dispatchEvent(new CustomEvent("rtc", { detail: { node: peer.node, rtc } }));
    loadRtc().then(({ Direct }) => what((peer.direct ??= new Direct(this.#how, peer, made)))).catch(() => {});
  }
}
