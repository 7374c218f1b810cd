/**
 * A circle, as an app holds it: who is there, what is said, and pipes between pages.
 *
 *     const circle = await Circle.join(location.hash, { name: "Ada" });
 *     circle.addEventListener("peer", ({ detail }) => draw(detail.id, detail.name, detail.path));
 *     await circle.post("general", "dinner at eight?");
 *     for await (const message of circle.messages("general")) say(message.author.name, message.text);
 *
 * Several tabs may hold the same circle: one of them is there for all (tabs.js).
 * @module
 */
import { Engine, checkName, joinRow, makeRow } from "./engine.js";
import { readInvite, readService } from "./invites.js";
import { Refused } from "./refused.js";
import { openStore } from "./store.js";
import { Tab } from "./tabs.js";
import { provide } from "./crypto.js";

/** @typedef {import("./engine.js").Peer} Peer */
/** @typedef {import("./engine.js").Row} Row */

/**
 * @typedef {object} Options
 * @property {string} [name] how you are called, at most 64 bytes
 * @property {string} [profile] which of several people of this browser; `default` if absent
 * @property {string[]} [abilities] words that others see of this node
 * @property {RTCIceServer[]} [iceServers] beside those that the service gives
 * @property {RTCIceTransportPolicy} [iceTransportPolicy] `relay` for TURN alone
 * @property {typeof RTCPeerConnection | null} [RTCPeerConnection] `null` for relay frames alone
 * @property {number} [most] bytes of files that are taken from a peer at once, by pipes that have no bound of their own; 1 GiB if absent
 * @property {() => Promise<import("./crypto.js").Fallback>} [fallback] Ed25519 and X25519 for older browsers
 */

/**
 * @typedef {object} Message
 * @property {string} hash its name
 * @property {string} channel
 * @property {{id: string, name: string, key: string}} author `key` tells two of one name apart
 * @property {string} text
 * @property {number} at_ms when, as its author says
 * @property {boolean} mine
 * @property {number} [left] with how many services, if it is mine
 * @property {boolean} [edited]
 * @property {boolean} [deleted]
 * @property {string} [reply] the hash of what it answers
 * @property {Record<string, string[]>} [reactions]
 */

/**
 * What an object tells, by the names of its events.
 * @template {Record<string, any>} Events
 * @typedef {{addEventListener<Type extends keyof Events & string>(type: Type, hear: (event: CustomEvent<Events[Type]>) => void, how?: boolean | AddEventListenerOptions): void} & EventTarget} Telling
 */

/** @typedef {{message: {from: Peer, data: any}, lost: {from: Peer, reason: string}}} PipeEvents `lost` is of a message that does not come whole */

/**
 * @typedef {object} CircleEvents
 * @property {{state: string, why: string, services: {id: string, url: string, state: string, why: string}[]}} state how services are reached has changed
 * @property {Peer} peer somebody is there, or has changed
 * @property {Peer} left somebody has gone
 * @property {Message} message a text that was not here before
 * @property {{channel: string, kind: string, hash: string}} change something else was said
 * @property {{reason: string, message: string}} error what is worth knowing and stops nothing
 * @property {{hash: string, kind: string, author: string, at_ms: number, body: any}} record one of an app's own kind
 * @property {{epoch: number}} rekeyed the founder has given the circle new keys
 * @property {{name: string, me: {id: string, name: string, node: string, founder: boolean, out: boolean}, services: string[], epoch: number, leads: boolean}} circle what the circle is, or what oneself is in it, has changed
 * @property {{}} erased it was erased in this browser, here or in another tab
 */

/**
 * @typedef {object} CallInfo a call, as records say
 * @property {string} hash its name
 * @property {string} channel
 * @property {string} host the member who began it
 * @property {"audio" | "video" | "broadcast"} media
 * @property {number} at_ms
 * @property {number} age_ms
 * @property {string[]} participants members
 * @property {string[]} viewers
 * @property {boolean} on whether it is the one that is on in its channel
 * @property {boolean} ended by its host
 * @property {number} ended_ms when it was, or who left last has left; 0 if that is not known
 * @property {string[] | null} ring whom it rings; null for everybody
 * @property {boolean} rings whether it rings, or has rung, for this member
 * @property {boolean} took whether this member was ever in
 * @property {string} word what a node in it has among its abilities
 */

const MOST_PAGE = 200;
const MOST_ABILITIES = 4;
const WORD = /^[a-z][a-z0-9_]{0,31}$/;

/** Named messages between pages: `send`, and the event `message` with `{ from, data }`. */
export class Pipe extends /** @type {new () => Telling<PipeEvents>} */ (EventTarget) {
  #ask;
  /** @param {string} name @param {{reliable?: boolean, to?: Peer | string}} how @param {(name: string, data: any, how: any) => Promise<void>} ask */
  constructor(name, how, ask) {
    super();
    this.name = name;
    this.how = how;
    this.#ask = ask;
  }

  /**
   * Send JSON, text, bytes or a file; to everybody who is there, or to one. Resolves when it was taken.
   * @param {any} data
   * @param {{to?: Peer | string, progress?: (sent: number, size: number) => void, signal?: AbortSignal}} [how]
   * @returns {Promise<void>}
   */
  send(data, how = {}) {
    return this.#ask(this.name, data, { ...this.how, ...how });
  }

  /** Hear nothing more. */
  close() {
    this.closed();
  }

  /** Set by its circle. @internal */
  closed = () => {};
}

/** One circle. Make one by `Circle.join`, `Circle.create` or `Circle.open`. */
export class Circle extends /** @type {new () => Telling<CircleEvents>} */ (EventTarget) {
  /** @type {Map<string, Peer>} who is there, by node */
  peers = new Map();
  /** How services are reached: connecting, live, polling or offline, and why. */
  state = { state: "connecting", why: "", services: /** @type {{id: string, url: string, state: string, why: string}[]} */ ([]) };
  /** This member and its node here. */
  me = { id: "", name: "", node: "", founder: false, out: false };
  id = "";
  name = "";
  #invite = "";
  #about = "";
  #out = false;
  /** What this tab has said of how much is taken, for who leads next. @type {Map<string, [name: string, most: number]>} */
  #bounds = new Map();
  #tab;
  #store;
  /** @type {Map<string, Set<Pipe>>} */
  #pipes = new Map();
  #numbers = 0;
  #left = new AbortController();

  /** @param {Tab} tab @param {import("./store.js").Store} store @internal */
  constructor(tab, store) {
    super();
    this.#tab = tab;
    this.#store = store;
  }

  /**
   * Go in by an invite: a code, a link, or the fragment of one. Who was in before is the same person again;
   * without an invite the circle of before is opened.
   * @param {string} invite
   * @param {Options} [options]
   * @returns {Promise<Circle>}
   */
  static async join(invite, options = {}) {
    if (!String(invite ?? "").replace("#", "")) return Circle.open(undefined, options);
    const found = await readInvite(invite);
    return begin(found.epoch.circle, options, async (row) => {
      if (!row) return joinRow(found);
      const fresh = found.services.filter(({ id }) => !row.services.some((known) => known.id === id));
      const services = [...row.services, ...fresh].slice(0, 8); // a link evicts none that are known
      // Who is in follows the founder; only who was left out is let in anew by what a link says.
      const last = Math.max(...row.epochs.map(({ number }) => number));
      if (!row.out || found.epoch.number < last) return { ...row, services };
      const others = row.epochs.filter(({ number }) => number !== found.epoch.number);
      const epochs = [...others, { number: found.epoch.number, secret: found.epoch.secret, began: Date.now() }];
      return { ...row, services, epochs, out: false, introduced: "" }; // it says who it is in this epoch
    });
  }

  /**
   * Make a circle, which this device leads.
   * @param {Options & {circle?: string, services?: string[]}} [options] its name, and the addresses of services
   * @returns {Promise<Circle>}
   */
  static async create({ circle = "", services = [], ...options } = {}) {
    checkName(circle);
    const row = await makeRow({ name: circle, services: services.map(readService) });
    return begin(row.id, options, async (kept) => kept ?? row);
  }

  /** Open a circle of before, by default the one that was used last. @param {string} [id] @param {Options} [options] @returns {Promise<Circle>} */
  static async open(id, options = {}) {
    const known = await Circle.list(options);
    const found = id ?? known[0]?.id;
    if (!known.some((one) => one.id === found)) throw new Refused("NO_INVITE", "this browser is in no circle yet: ask a member for an invite");
    return begin(found, options, async (row) => {
      if (!row) throw new Refused("NO_INVITE", "this browser is in that circle no longer");
      return row;
    });
  }

  /** The circles of a profile, the one used last first. @param {Options} [options] @returns {Promise<{id: string, name: string, used: number}[]>} */
  static async list({ profile = "default" } = {}) {
    const store = await openStore(`muster ${profile}`);
    const rows = await store.all("circles");
    store.close();
    return rows.map(([id, { name, used }]) => ({ id, name, used })).sort((a, b) => b.used - a.used);
  }

  /** Ask the engine. @param {string} name @param {...any} args @returns {Promise<any>} */
  #ask(name, ...args) {
    return this.#tab.ask(name, ...args);
  }

  /**
   * Say a text in a channel; resolves when it is kept here, and it is left and told as soon as somebody is
   * reached.
   * @param {string} channel its name or id
   * @param {string} text
   * @param {{reply?: string}} [how]
   * @returns {Promise<Message>}
   */
  post(channel, text, how) {
    return this.#ask("post", channel, text, how);
  }

  /**
   * Say anything else of the chat (docs/web.md): `edit`, `delete`, `react`, `create`, `join`, …
   * @param {string} op
   * @param {...any} args
   * @returns {Promise<{hash: string, channel: string}>} the last record that was said for it
   */
  act(op, ...args) {
    return this.#ask("act", op, ...args);
  }

  /**
   * What was said in a channel, a page of it, oldest first.
   * @param {string} channel
   * @param {{after?: string, before?: string, limit?: number}} [page] after or before a hash; the newest if absent
   * @returns {Promise<Message[]>}
   */
  history(channel, page) {
    return this.#ask("history", channel, page);
  }

  /** One message by its hash, if it is here. @param {string} hash @returns {Promise<Message | undefined>} */
  message(hash) {
    return this.#ask("message", hash);
  }

  /**
   * What was said in a channel after a message, and then what is said, each once, until the circle is left.
   * @param {string} channel
   * @param {{after?: string, signal?: AbortSignal}} [how]
   * @returns {AsyncGenerator<Message, void, void>}
   */
  async *messages(channel, { after, signal } = {}) {
    /** @type {Message[]} */
    const come = [];
    /** @type {Set<string>} */
    const seen = new Set();
    let wake = () => {};
    const id = await this.#ask("channelId", channel);
    const hear = (/** @type {any} */ { detail }) => {
      if (detail.channel !== id) return;
      come.push(detail);
      wake();
    };
    const end = () => wake();
    const isOver = () => this.#left.signal.aborted || signal?.aborted;
    this.addEventListener("message", hear);
    for (const one of [this.#left.signal, signal]) one?.addEventListener("abort", end);
    try {
      let page = await this.history(id, { after: after ?? "", limit: MOST_PAGE });
      while (page.length && !isOver()) {
        for (const message of page) {
          seen.add(message.hash);
          yield message;
        }
        page = page.length < MOST_PAGE ? [] : await this.history(id, { after: page[page.length - 1].hash, limit: MOST_PAGE });
      }
      while (!isOver()) {
        const message = come.shift();
        if (!message) await new Promise((resolve) => (wake = () => resolve(undefined)));
        else if (!seen.has(message.hash)) {
          seen.add(message.hash);
          yield message;
        }
      }
    } finally {
      this.removeEventListener("message", hear);
      for (const one of [this.#left.signal, signal]) one?.removeEventListener("abort", end);
    }
  }

  /** The newest messages of a channel that hold all these words. @param {string} channel @param {string} words @param {number} [limit] @returns {Promise<Message[]>} */
  search(channel, words, limit) {
    return this.#ask("search", channel, words, limit);
  }

  /** Channels that this member can read. @returns {Promise<any[]>} */
  channels() {
    return this.#ask("channels");
  }

  /** The call that is on in a channel. @param {string} channel @returns {Promise<CallInfo | undefined>} */
  ongoing(channel) {
    return this.#ask("ongoing", channel);
  }

  /**
   * The newest calls that are known of, in one channel or in all, the oldest first: those that are over too, to be shown in a log.
   * @param {string} [channel]
   * @returns {Promise<CallInfo[]>}
   */
  calls(channel) {
    return this.#ask("calls", channel);
  }

  /** Say to the others that this node is in a call now, or by null in none. @param {string | null} call its hash @returns {Promise<void>} */
  inCall(call) {
    return this.#ask("inCall", call);
  }

  /** Whether this tab is the one that is there for all; calls are of that one. */
  get leads() {
    return Boolean(this.#tab.engine);
  }

  /** The addresses of the circle's services, as they are given to `Circle.create`; codes included. @returns {Promise<string[]>} */
  services() {
    return this.#ask("services");
  }

  /**
   * Meet at a service no longer, from here: the others go on there until each of them removes it. A founder's members who
   * are there are told first where else the circle meets. The last one stays.
   * @param {string} service its id, or its address
   * @returns {Promise<void>}
   */
  removeService(service) {
    return this.#ask("removeService", service);
  }

  /** Everybody who was ever heard of. @returns {Promise<any[]>} */
  people() {
    return this.#ask("people");
  }

  /**
   * Give the circle new keys, as its founder (`me.founder`): everybody follows but the members that are named, who read nothing
   * that is said after it. Invites of before lead in no longer.
   * @param {{without?: string[], only?: string[]}} [how] members: of a person with several devices, each; *only* names who alone is to stay
   *   beside this one, where somebody has filled the circle with names
   * @returns {Promise<{epoch: number, left: number, weak: string[]}>} *left* with how many services; members who could not stay, as
   *   their key for secrets is none
   */
  rekey(how = {}) {
    return this.#ask("rekey", how);
  }

  /** Be called otherwise. @param {string} name @returns {Promise<void>} */
  rename(name) {
    return this.#ask("rename", name);
  }

  /**
   * Open a pipe: named messages to the pages and programs that are there.
   * @param {string} name 1 to 64 bytes
   * @param {{reliable?: boolean, to?: Peer | string, most?: number}} [how] not reliable: the newest counts, what is lost is lost;
   *   *most* is how many bytes are taken from a peer: files at once, and each message of JSON, text or bytes
   * @returns {Pipe}
   */
  pipe(name, { most, ...how } = {}) {
    const pipe = new Pipe(name, how, (...args) => this.#send(...args));
    const known = this.#pipes.get(name) ?? new Set();
    this.#pipes.set(name, known.add(pipe));
    const by = `${(this.#numbers += 1)} ${Math.random()}`;
    if (most !== undefined) {
      this.#bounds.set(by, [name, most]);
      this.#bound(by, name, most);
    }
    pipe.closed = () => {
      known.delete(pipe);
      if (!known.size && this.#pipes.get(name) === known) this.#pipes.delete(name);
      if (this.#bounds.delete(by)) this.#bound(by);
    };
    return pipe;
  }

  /** Tell who leads how much is taken by a pipe. @param {string} by @param {string} [name] @param {number} [most] */
  #bound(by, name, most) {
    this.#ask("bound", by, name, most).catch(() => {}); // the circle was left
  }

  /** @param {string} name @param {any} data @param {any} how */
  async #send(name, data, { to, reliable = true, progress, signal }) {
    signal?.throwIfAborted();
    const ticket = `${this.me.node} ${(this.#numbers += 1)} ${Math.random()}`;
    const told = (/** @type {any} */ { detail }) => detail.ticket === ticket && progress(detail.sent, detail.size);
    if (progress) this.addEventListener("progress", told);
    const stop = () => this.#ask("cancel", ticket).catch(() => {});
    signal?.addEventListener("abort", stop, { once: true });
    try {
      await this.#ask("send", name, data, { to: to?.id ?? to, reliable, ticket, progress: Boolean(progress) });
      signal?.throwIfAborted();
    } finally {
      this.removeEventListener("progress", told);
      signal?.removeEventListener("abort", stop);
    }
  }

  /**
   * What lets somebody in: a link to the app of the circle's first service, or to a page of one's own; a code where
   * there is neither.
   * @param {string | URL | Location} [page]
   * @returns {string}
   */
  invite(page) {
    if (page === undefined) return this.#invite;
    return `${String(page).replace(/#.*$/, "")}#${this.#invite.replace(/^.*#/, "")}`;
  }

  /**
   * Say a record of an app's own kind: it is signed, waits as texts do, and is told by the event `record`.
   * @param {string} kind a lower-case word
   * @param {object} body JSON without fractions
   * @returns {Promise<{hash: string, kind: string, author: string, at_ms: number, body: any}>}
   */
  record(kind, body) {
    return this.#ask("record", kind, body);
  }

  /** The records of an app's own kind that are here. @param {string} kind @returns {Promise<{hash: string, kind: string, author: string, at_ms: number, body: any}[]>} */
  records(kind) {
    return this.#ask("records", kind);
  }

  /**
   * Send sound and pictures to peers, and take theirs: both sides do (docs/web.md, Calls). This tab leads from now on.
   * @param {MediaStream | null} stream null to watch and listen
   * @param {(Peer | string)[]} peers
   * @returns {Promise<import("./calls.js").Call>}
   */
  async call(stream, peers) {
    const { Call } = await import("./calls.js");
    await this.#tab.take();
    const { engine } = this.#tab;
    if (!engine) throw new Refused("CLOSED", "the circle was left");
    return new Call(engine.links, stream, peers.map((peer) => (typeof peer === "string" ? peer : peer.id)));
  }

  /** How the connection to a peer is, for a page's own diagnostics. @param {Peer | string} peer @returns {Promise<any>} */
  stats(peer) {
    return this.#ask("stats", typeof peer === "string" ? peer : peer.id);
  }

  /**
   * What this browser has of the circle, to be brought to another device: an invite, keys of channels, and what was
   * said, as lines of a file (docs/web.md, Another device). No secret of this member is in it.
   * @returns {Promise<import("./chat/transfer.js").Line[]>}
   */
  copy() {
    return this.#ask("copy");
  }

  /**
   * Take in what another device has copied of this circle. Each line is checked as whatever comes from elsewhere; what
   * does not hold is counted as refused, and left. What comes is told by `message` and `change`.
   * @param {import("./chat/transfer.js").Line[]} lines those of other circles are passed over
   * @param {{progress?: (done: number, all: number) => void}} [how]
   * @returns {Promise<{records: number, keys: number, refused: number}>} what was not here before
   */
  async take(lines, { progress } = {}) {
    const mine = lines.filter(({ circle }) => circle === this.id);
    const ordered = [...mine.filter(({ t }) => t === "record"), ...mine.filter(({ t }) => t === "key")];
    const came = { records: 0, keys: 0, refused: 0 };
    for (let at = 0; at < ordered.length; at += MOST_PAGE) {
      const { records, keys, refused } = await this.#ask("takeIn", ordered.slice(at, at + MOST_PAGE));
      came.records += records;
      came.keys += keys;
      came.refused += refused;
      progress?.(Math.min(at + MOST_PAGE, ordered.length), ordered.length);
    }
    return came;
  }

  /** Say goodbye and close; the circle stays in this browser. */
  async leave() {
    this.#left.abort();
    unwatch.get(this)?.();
    await this.#tab.close();
    this.#store.close();
  }

  /** Leave for good: keys and history are erased here. */
  async erase() {
    await this.#ask("erase").catch((error) => {
      if (error.reason !== "CLOSED") throw error; // it has closed itself, as all tabs do
    });
    await this.leave();
  }

  /** Tell what is so already. @internal */
  again() {
    this.dispatchEvent(new CustomEvent("state", { detail: this.state }));
    for (const detail of this.peers.values()) this.dispatchEvent(new CustomEvent("peer", { detail }));
    if (this.#out) this.dispatchEvent(new CustomEvent("error", { detail: { reason: "LEFT_OUT", message: "the founder has left this member out of the circle" } }));
  }

  /** @param {string} type @param {any} detail @returns {any} @internal */
  hear(type, detail) {
    if (type === "hello") {
      const { id, name, me, state, invite, services, epoch, out } = detail;
      const about = { name, me, services, epoch, leads: this.leads };
      const before = this.#about;
      this.#about = JSON.stringify(about);
      Object.assign(this, { id, name, me });
      this.#invite = invite;
      this.#out = out;
      for (const [by, bound] of this.#bounds) this.#bound(by, ...bound);
      if (before && before !== this.#about) this.dispatchEvent(new CustomEvent("circle", { detail: about }));
      const there = new Set(detail.peers.map((/** @type {Peer} */ peer) => peer.id));
      for (const peer of this.peers.values()) if (!there.has(peer.id)) this.hear("left", peer);
      for (const peer of detail.peers) this.hear("peer", peer);
      return this.hear("state", state);
    }
    if (type === "state") {
      if (JSON.stringify(this.state) === JSON.stringify(detail)) return undefined;
      this.state = detail;
    }
    if (type === "peer") {
      if (JSON.stringify(this.peers.get(detail.id)) === JSON.stringify(detail)) return undefined;
      this.peers.set(detail.id, detail);
    }
    if (type === "left" && !this.peers.delete(detail.id)) return undefined;
    if (type === "erased") void this.leave();
    if (type === "pipe" || type === "lost") {
      const { name, from, ...more } = detail;
      const told = { from: this.peers.get(from) ?? { id: from }, ...more };
      for (const pipe of this.#pipes.get(name) ?? []) pipe.dispatchEvent(new CustomEvent(type === "lost" ? type : "message", { detail: told }));
      return undefined;
    }
    return this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** @type {WeakMap<Circle, () => void>} */
const unwatch = new WeakMap();

/**
 * @param {string} id
 * @param {Options} options
 * @param {(row: Row | undefined) => Promise<Row>} change what is kept
 * @returns {Promise<Circle>}
 */
const begin = async (id, options, change) => {
  if (options.fallback) provide(options.fallback);
  const { profile = "default", name = "", abilities = [] } = options;
  checkName(name);
  if (abilities.length > MOST_ABILITIES || !abilities.every((word) => WORD.test(word))) {
    throw new Refused("MALFORMED", `at most ${MOST_ABILITIES} abilities, each a word in lower case of 32 letters, digits and _`);
  }
  const store = await openStore(`muster ${profile}`);
  const make = async (/** @type {(type: string, detail: any) => void} */ emit) => {
    const row = await change(await store.get("circles", id));
    if (options.name !== undefined) row.me = options.name;
    await store.put([["circles", id, { ...row, used: Date.now() }]]);
    const engine = await Engine.open(store, row, emit, options);
    await engine.start();
    return engine;
  };
  const tab = new Tab(`muster ${profile} ${id}`, make, (type, detail) => circle.hear(type, detail));
  const circle = new Circle(tab, store);
  circle.hear("hello", await tab.begin());
  watch(circle, tab);
  // what is so already is told when the app has had time to listen
  setTimeout(() => circle.again());
  return circle;
};

/** Come back at once when the page is seen again, or the network is; go when the page goes. @param {Circle} circle @param {Tab} tab */
const watch = (circle, tab) => {
  if (!globalThis.addEventListener) return;
  const check = () => tab.engine?.check();
  const seen = () => document.visibilityState === "visible" && check();
  const gone = (/** @type {PageTransitionEvent} */ { persisted }) => {
    tab.engine?.links.reset(); // others hear it at once
    if (!persisted) void circle.leave();
  };
  addEventListener("online", check);
  addEventListener("pageshow", check);
  addEventListener("pagehide", gone);
  globalThis.document?.addEventListener("visibilitychange", seen);
  unwatch.set(circle, () => {
    removeEventListener("online", check);
    removeEventListener("pageshow", check);
    removeEventListener("pagehide", gone);
    globalThis.document?.removeEventListener("visibilitychange", seen);
  });
};
