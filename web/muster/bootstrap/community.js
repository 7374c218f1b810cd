/**
 * A public community: its peers from every source at once, and ourselves known to them.
 *
 * Cache, beacons and capsules are asked in the same moment and none delays another. What a verified
 * manifest names is asked too, one step far. As long as the page is online it leaves a signed ticket at
 * every beacon each minute; while it is connected to few it searches everywhere again, less and less often.
 * @module
 */
import { matching, members, parse } from "../json.js";
import { Refused, malformed } from "../refused.js";
import { Cache } from "./cache.js";
import { openCapsule, pause, read } from "./fetch.js";
import { Gathering } from "./gathering.js";
import { COMMUNITY } from "./manifests.js";
import { digest, requireEd25519 } from "./signatures.js";
import { MAINNET, folder, mayFollow, onLoopback, readBeaconUrl, readCapsuleUrl } from "./sources.js";
import { TTL_MS, believe, makeTicket } from "./tickets.js";
import { begin } from "./trust.js";

/** @typedef {import("./sources.js").Source} Source */
/** @typedef {import("./gathering.js").Peer} Peer */
/** @typedef {import("./trust.js").State} State */
/** @typedef {import("./tickets.js").Ticket} Ticket */
/** @typedef {import("./tickets.js").Rules} Rules */

/**
 * @typedef {object} Options
 * @property {string} [root] base64 of the root key, for capsules whose URL has no `#KEY`
 * @property {string} [pinned] base64 of the capsule's own key, for those without a manifest
 * @property {string} [community] if the capsule's folder does not say
 * @property {readonly string[]} [beacons] base URLs
 * @property {string} [peerId] how others reach us, as in our ticket; made from our key if it is not given
 * @property {string} [userId]
 * @property {readonly string[]} [manualPeers] ids that a person typed
 * @property {number} [minPeers] below so many connections it searches again
 * @property {string} [profile] whose identity and cache
 * @property {boolean} [announce] false: find others, and be found by nobody
 * @property {number} [ttlMs] how long a ticket lives
 * @property {number} [everyMs] between two announcements, at the most
 * @property {number} [deadlineMs] for each source
 * @property {Rules} [rules] which tickets to believe
 * @property {() => number} [now] milliseconds since 1970
 */

/**
 * @typedef {object} SourceState how it went with one source, as `diagnostics` says it
 * @property {Source["kind"]} kind
 * @property {string} url
 * @property {boolean} learned whether a manifest named it
 * @property {boolean} ok the last time
 * @property {string} reason why not; `Refused` has the words
 * @property {string} message
 * @property {number} peers how many tickets were believed the last time
 * @property {Record<string, number>} skipped why others were not
 * @property {boolean | null} announced whether our ticket was taken; null where none was left
 * @property {string} notAnnounced why it was not
 * @property {number} successes
 * @property {number} failures
 * @property {number} lastMs how long the last answer took
 * @property {number} averageMs
 */

/** @typedef {{source: Source, state: SourceState, stop?: AbortController, totalMs: number, nextAt: number}} Entry */

const MAX_LISTING_BYTES = 1_048_576;
const MAX_LISTED = 1000;
const MAX_LEARNED = 8;
const MAX_HELD = 10_000;
const LONGEST_WAIT_MS = 3_600_000;
const SEARCH_AGAIN_MS = 30_000;
const SEARCH_LATEST_MS = 600_000;
/** How much longer a ticket lives, at least, than until the next announcement. */
const MARGIN_MS = 15_000;

/** @param {number} ms */
const rounded = (ms) => Math.round(ms * 10) / 10;

/** @param {Refused} error @returns {{again?: boolean, waitMs?: number, state?: State}} */
const more = (error) => /** @type {any} */ (error);

/**
 * Events: `peer` (a new `Peer`), `left` (a `Peer` whose ticket is over), `source` (a `SourceState`, after each
 * answer), `error` (a `Refused`: our ticket is not taken, nothing can be kept). All in `detail`.
 */
export class Community extends EventTarget {
  /** @type {string} */
  name;
  /** Ours; "" where nothing is announced. */
  peerId = "";
  #gathering;
  /** @type {Set<string>} */
  #held = new Set();
  /** @type {Cache} */
  #cache = /** @type {any} */ (null);
  /** @type {import("../crypto.js").Signer | undefined} */
  #signer;
  /** @type {Required<Pick<Options, "minPeers" | "profile" | "announce" | "ttlMs" | "everyMs" | "deadlineMs" | "now">> & Options} */
  #options;
  /** What a pinned capsule must be of; undefined: anybody's. @type {string | undefined} */
  #expected;
  /** @type {Map<string, Entry>} */
  #sources = new Map();
  /** @type {Map<string, State>} by the key that the caller named */
  #states = new Map();
  /** @type {Promise<unknown>} */
  #lock = Promise.resolve();
  /** @type {Ticket | undefined} */
  #ticket;
  /** @type {Refused | undefined} */
  #damage;
  #began = performance.now();
  /** @type {number | null} */
  #firstPeerMs = null;
  /** @type {number | null} */
  #firstConnectionMs = null;
  #counts = { connections: 0, announced: 0, notAnnounced: 0 };
  #searchAt = 0;
  #searchGapMs = SEARCH_AGAIN_MS;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #timerAt = Infinity;
  #closed = false;
  /** What happened before whoever joins could listen. @type {CustomEvent[] | undefined} */
  #early = [];
  #wake = (/** @type {Event} */ { type }) => {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (type === "online") this.#searchAt = 0;
    this.#soon(Math.random() * 500);
  };

  /** @param {string | readonly string[]} capsules @param {Options} options */
  constructor(capsules, options) {
    super();
    const defaults = { minPeers: 3, profile: "default", announce: true, ttlMs: TTL_MS, everyMs: 60_000, deadlineMs: 5000, now: Date.now };
    this.#options = { ...defaults, ...options };
    const found = [capsules].flat().map((url) => readCapsuleUrl(url, options));
    const named = options.community ?? found.map(folder).find(Boolean);
    this.name = named === undefined ? MAINNET : matching({ community: named }, "community", COMMUNITY);
    this.#expected = named;
    this.#gathering = new Gathering(this.#held);
    this.#add({ kind: "cache", url: "cache" });
    for (const source of [...found, ...(options.beacons ?? []).map(readBeaconUrl)]) this.#add(source);
  }

  /**
   * Join a community: its peers come as `peer` events from then on, and in `peers`.
   * @param {string | readonly string[]} capsules `URL#KEY` with the root's key, `URL#capsule=KEY` with the
   *   capsule's own, or a URL and `root` or `pinned` among the options; [] for beacons alone
   * @param {Options} [options]
   * @returns {Promise<Community>} `Refused`: `MALFORMED` (a URL, a key, a name), `UNSUPPORTED`
   */
  static async join(capsules, options = {}) {
    const community = new Community(capsules, options);
    await community.#open();
    return community;
  }

  /**
   * @param {"peer" | "left" | "source" | "error"} type
   * @param {((event: any) => void) | EventListenerObject | null} listener of a `CustomEvent`
   * @param {boolean | AddEventListenerOptions} [options]
   */
  addEventListener(type, listener, options) {
    super.addEventListener(type, listener, options);
  }

  /** Who is known now, by peerId. @returns {Map<string, Peer>} */
  get peers() {
    return this.#gathering.peers;
  }

  /** Say that the page is connected to a peer. @param {string} peerId */
  connected(peerId) {
    if (this.#held.has(peerId) || this.#held.size >= MAX_HELD) return;
    this.#held.add(peerId);
    this.#counts.connections += 1;
    this.#firstConnectionMs ??= this.#elapsed();
    if (!this.#isFew()) this.#searchGapMs = SEARCH_AGAIN_MS;
  }

  /** Say that it no longer is: with few others left, all sources are asked again. @param {string} peerId */
  disconnected(peerId) {
    if (!this.#held.delete(peerId) || !this.#isFew()) return;
    this.#searchGapMs = SEARCH_AGAIN_MS;
    this.#searchAt = 0;
    this.#soon(Math.random() * 500);
  }

  /** Name a peer by hand; it stays until the page is closed. @param {string} peerId */
  addPeer(peerId) {
    this.#take("manual", null, { peerId: String(peerId).slice(0, 256) });
  }

  /** How it goes, as plain JSON for the page's own panel; nothing of it is sent anywhere. */
  diagnostics() {
    const sources = [...this.#sources.values()].map(({ state }) => ({ ...state, skipped: { ...state.skipped } }));
    const sum = (/** @type {"successes" | "failures"} */ what) => sources.reduce((total, one) => total + one[what], 0);
    return {
      community: this.name,
      peerId: this.peerId,
      durable: this.#cache.durable,
      firstPeerMs: this.#firstPeerMs,
      firstConnectionMs: this.#firstConnectionMs,
      peers: this.peers.size,
      connected: this.#held.size,
      ...this.#counts,
      successes: sum("successes"),
      failures: sum("failures"),
      sources: sources.filter((one) => one.successes + one.failures > 0),
    };
  }

  /** End it: nobody is asked any more; our ticket ends by itself, within `ttlMs`. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const { stop } of this.#sources.values()) stop?.abort();
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    this.#cache.close();
  }

  async #open() {
    await requireEd25519();
    const { profile, announce, peerId, manualPeers = [] } = this.#options;
    this.#cache = await Cache.open(profile, (error) => this.#tell("error", error));
    if (announce) {
      this.#signer = await this.#cache.identity();
      this.peerId = peerId ?? (await digest(this.#signer.public)).slice(0, 32);
      await this.#sign();
    } else {
      this.peerId = peerId ?? "";
    }
    for (const { source } of this.#sources.values()) {
      if (source.key) this.#states.set(source.key, (await this.#remembered(source.key)) ?? begin(source.key));
    }
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
    // in a task of its own: whoever waits for join has added its listeners by then
    this.#timer = setTimeout(() => {
      const early = this.#early ?? [];
      this.#early = undefined;
      for (const event of early) this.dispatchEvent(event);
      for (const id of manualPeers) this.addPeer(id);
      void this.#ask("cache");
      this.#round();
    });
  }

  /** @param {string} key */
  async #remembered(key) {
    try {
      return await this.#cache.state(key);
    } catch (error) {
      this.#damage = /** @type {Refused} */ (error);
      return undefined;
    }
  }

  // Rounds

  /** Announce at every beacon that wants it now, and search where that is due. */
  #round() {
    const { everyMs, announce } = this.#options;
    for (const peer of this.#gathering.prune(this.#options.now(), this.#revoked())) this.#tell("left", peer);
    const now = performance.now();
    const search = this.#isFew() && now >= this.#searchAt;
    this.#timerAt = Infinity;
    this.#soon(everyMs * (0.75 + Math.random() * 0.25));
    if (globalThis.navigator?.onLine === false) return;
    if (search) {
      this.#searchAt = now + this.#searchGapMs;
      this.#searchGapMs = Math.min(this.#searchGapMs * 2, SEARCH_LATEST_MS);
    }
    for (const [url, { source, nextAt }] of this.#sources) {
      const wanted = source.kind === "beacon" ? announce || search : source.kind === "capsule" && search;
      if (wanted && nextAt <= now) void this.#ask(url);
    }
  }

  /** Begin the next round in so many milliseconds, unless it comes sooner. @param {number} ms */
  #soon(ms) {
    const at = performance.now() + ms;
    if (this.#closed || at >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(() => this.#round(), ms);
  }

  #isFew() {
    return this.#held.size < this.#options.minPeers;
  }

  #elapsed() {
    return rounded(performance.now() - this.#began);
  }

  // One source

  /** @param {Source} source */
  #add(source) {
    const name = source.kind === "beacon" ? `${source.url}/` : source.url;
    if (this.#sources.has(name)) return undefined;
    const { kind, url, learned = false } = source;
    /** @type {SourceState} */
    const state = {
      ...{ kind, url, learned, ok: false, reason: "", message: "", peers: 0, skipped: {}, announced: null, notAnnounced: "" },
      ...{ successes: 0, failures: 0, lastMs: 0, averageMs: 0 },
    };
    this.#sources.set(name, { source, state, totalMs: 0, nextAt: 0 });
    return name;
  }

  /** Ask one source; whatever happens becomes its state. @param {string} name */
  async #ask(name) {
    const entry = /** @type {Entry} */ (this.#sources.get(name));
    if (entry.stop) return;
    const { source, state } = entry;
    const stop = (entry.stop = new AbortController());
    const timer = setTimeout(() => stop.abort(), this.#options.deadlineMs);
    const began = performance.now();
    Object.assign(state, { ok: true, reason: "", message: "", peers: 0, skipped: {} });
    let waitMs = 0;
    try {
      await { cache: this.#recall, beacon: this.#list, capsule: this.#unpack }[source.kind].call(this, source, state, stop.signal);
    } catch (error) {
      const refusal = error instanceof Refused ? error : new Refused("UNREACHABLE", String(error));
      Object.assign(state, { ok: false, reason: refusal.reason, message: refusal.message });
      waitMs = more(refusal).waitMs ?? 0;
    }
    clearTimeout(timer);
    entry.stop = undefined;
    if (this.#closed) return;
    state.lastMs = rounded(performance.now() - began);
    entry.totalMs += state.lastMs;
    state[state.ok ? "successes" : "failures"] += 1;
    state.averageMs = rounded(entry.totalMs / (state.successes + state.failures));
    entry.nextAt = performance.now() + Math.max(Math.min(waitMs, LONGEST_WAIT_MS), this.#options.everyMs / 6);
    this.#tell("source", { ...state });
    await this.#remember();
  }

  /** @param {string} url @param {AbortSignal} stop @param {RequestInit} [request] */
  async #fetch(url, stop, request) {
    const how = { redirect: /** @type {const} */ ("error"), headers: { Accept: "application/json" }, ...request };
    try {
      return await read(url, MAX_LISTING_BYTES, stop, how);
    } catch (error) {
      if (!more(/** @type {Refused} */ (error)).again) throw error;
    }
    await pause(125 + Math.random() * 125, stop);
    return read(url, MAX_LISTING_BYTES, stop, how);
  }

  /** @param {Source} source @param {SourceState} state */
  async #recall(source, state) {
    const known = await this.#cache.known(this.name);
    await this.#believe(source, state, known.tickets);
    this.#follow(known.places);
    if (this.#damage) throw this.#damage;
  }

  /** @param {Source} source @param {SourceState} state @param {AbortSignal} stop */
  async #list({ url, ...source }, state, stop) {
    const query = `?community=${encodeURIComponent(this.name)}`;
    let data;
    if (this.#signer) {
      state.announced = false;
      const body = JSON.stringify({ ticket: (await this.#sign()).envelope, community: this.name });
      const headers = { Accept: "application/json", "Content-Type": "application/json" };
      data = readListing(await this.#fetch(`${url}/announce${query}`, stop, { method: "POST", headers, body }));
      const why = data.ok === false ? reasonOf(data) : "";
      if (why && why !== state.notAnnounced) this.#tell("error", new Refused(why, `${url} does not take our ticket`));
      Object.assign(state, { announced: !why, notAnnounced: why });
      this.#counts[why ? "notAnnounced" : "announced"] += 1;
    }
    if (!state.announced) data = readListing(await this.#fetch(`${url}/peers${query}`, stop));
    await this.#believe({ url, ...source }, state, data?.peers ?? []);
  }

  /** @param {Source} source @param {SourceState} state @param {AbortSignal} stop */
  async #unpack(source, state, stop) {
    const key = /** @type {string} */ (source.key);
    const { pinned, url } = source;
    if (pinned && this.#revoked().includes(key)) throw new Refused("REVOKED_KEY", "the pinned key was revoked");
    const accepted = await openCapsule(url, {
      community: pinned ? this.#expected : this.name,
      now: Math.floor(this.#options.now() / 1000),
      rules: this.#rules(),
      pinned: pinned ? key : undefined,
      stop,
      request: { redirect: "error" },
      learn: (ask) => this.#learn(key, ask),
      seen: ({ manifest }) => {
        if (source.learned) return;
        const place = (/** @type {"beacon" | "capsule"} */ kind) => (/** @type {string} */ at) => ({ kind, url: at.replace(/\/+$/, ""), key, learned: true });
        this.#follow([...manifest.beacons.map(place("beacon")), ...manifest.capsules.map(place("capsule"))]);
      },
    });
    for (const { reason } of accepted.skipped) count(state, reason);
    for (const ticket of accepted.tickets) this.#heard(source, state, ticket, true);
  }

  /** @param {Source} source @param {SourceState} state @param {any[]} entries */
  async #believe(source, state, entries) {
    const how = { nowMs: this.#options.now(), rules: this.#rules() };
    const skip = (/** @type {string} */ reason) => count(state, reason);
    await believe(entries, how, (ticket) => this.#heard(source, state, ticket, false), skip);
  }

  /** @param {Source} source @param {SourceState} state @param {Ticket} ticket @param {boolean} vouched */
  #heard({ url }, state, ticket, vouched) {
    state.peers += 1;
    this.#take(url, ticket, { peerId: ticket.peerId, vouched });
  }

  /** @param {string} source @param {Ticket | null} ticket @param {{peerId: string, vouched?: boolean}} said */
  #take(source, ticket, { peerId, vouched = false }) {
    if (this.#closed || !peerId || peerId === this.peerId) return;
    const { peer, lost } = this.#gathering.take(ticket, { peerId, source, vouched, foundMs: this.#elapsed() });
    if (lost) this.#tell("left", lost);
    if (!peer) return;
    this.#firstPeerMs ??= peer.foundMs;
    this.#tell("peer", peer);
  }

  /** Ask further places: those of a root key that the caller named, and not too many. @param {Source[]} places */
  #follow(places) {
    const named = [...this.#sources.values()].map(({ source }) => source);
    const own = named.filter(({ kind, learned }) => !learned && (kind === "beacon" || kind === "capsule"));
    const local = own.some(({ url }) => onLoopback(url));
    let left = MAX_LEARNED - named.filter(({ learned }) => learned).length;
    for (const place of places) {
      const isKnown = own.some(({ key, pinned }) => key === place.key && !pinned);
      if (left < 1 || !isKnown || !mayFollow(place.url, local)) continue;
      const name = this.#add(place);
      if (!name) continue;
      left -= 1;
      void this.#ask(name);
    }
  }

  // What is believed and kept

  /** @returns {string[]} the keys that any of the roots has revoked */
  #revoked() {
    return [...this.#states.values()].flatMap((state) => state.revocations.verify_keys);
  }

  /** @returns {Rules} */
  #rules() {
    const { rules } = this.#options;
    return { ...rules, revoked: [...(rules?.revoked ?? []), ...this.#revoked()] };
  }

  /**
   * Ask by the state under a key, one after the other, and keep what comes of it.
   * @template {{state: State}} Found
   * @param {string} key
   * @param {(state: State) => Promise<Found>} ask
   * @returns {Promise<Found>}
   */
  #learn(key, ask) {
    const asked = this.#lock.then(async () => {
      const before = /** @type {State} */ (this.#states.get(key));
      try {
        const found = await ask(before);
        await this.#keep(key, before, found.state);
        return found;
      } catch (error) {
        await this.#keep(key, before, more(/** @type {Refused} */ (error)).state ?? before);
        throw error;
      }
    });
    this.#lock = asked.catch(() => undefined);
    return asked;
  }

  /** @param {string} key @param {State} before @param {State} after */
  async #keep(key, before, after) {
    if (JSON.stringify(after) === JSON.stringify(before)) return;
    this.#states.set(key, after);
    this.#states.set(key, await this.#cache.keepState(key, after));
  }

  /** Keep who is there and where to look; what was known before is worth more than nothing. */
  async #remember() {
    const tickets = this.#gathering.tickets(this.#options.now());
    const places = [...this.#sources.values()].map(({ source }) => source).filter(({ learned }) => learned);
    if (tickets.length || places.length) await this.#cache.keepKnown(this.name, { tickets, places });
  }

  /** Our ticket; signed again when the old one is about to end, or the clock was set back. @returns {Promise<Ticket>} */
  async #sign() {
    const { now, ttlMs, everyMs, userId } = this.#options;
    const nowMs = now();
    const fits = this.#ticket && this.#ticket.issuedAt <= nowMs && this.#ticket.expiresAt - nowMs >= Math.min(everyMs + MARGIN_MS, ttlMs / 2);
    if (!fits && this.#signer) this.#ticket = await makeTicket(this.#signer, { peerId: this.peerId, userId, nowMs, ttlMs });
    return /** @type {Ticket} */ (this.#ticket);
  }

  /** @param {"peer" | "left" | "source" | "error"} type @param {Peer | SourceState | Refused} detail */
  #tell(type, detail) {
    const event = new CustomEvent(type, { detail });
    if (this.#early) this.#early.push(event);
    else if (!this.#closed) this.dispatchEvent(event);
  }
}

/** @param {SourceState} state @param {string} reason */
const count = ({ skipped }, reason) => {
  skipped[reason] = (skipped[reason] ?? 0) + 1;
};

/** Read a beacon's answer. @param {Uint8Array} raw */
const readListing = (raw) => {
  const data = members(parse(raw), "the answer");
  if (!Array.isArray(data.peers)) throw malformed("the answer has no peers; is this a beacon?");
  if (data.peers.length > MAX_LISTED) throw new Refused("TOO_MANY_ENTRIES", `a beacon lists at most ${MAX_LISTED} tickets`);
  return data;
};

/** Why a beacon did not take our ticket, in few and harmless words. @param {Record<string, any>} data @returns {string} */
const reasonOf = (data) => (/^[A-Z_]{1,40}$/.test(data.validation?.reason) ? data.validation.reason : "REFUSED");
