/**
 * One node at one service: it reads all that is new, leaves what is not there yet, opens the socket and
 * keeps the node's presence up; without a socket it asks as often as the service wishes.
 *
 *     offline --info--> reading --> leaving --socket--> live
 *        ^                            |   no socket      |
 *        +------- back-off, jitter ---+---- polling -----+
 *
 * Every call is signed and every answer checked (docs/protocol2.md). Pushed events are hints: places in
 * a mailbox move by syncs alone.
 * @module
 */
import { b64, hex, unb64, utf8 } from "./bytes.js";
import { id, sha256 } from "./crypto.js";
import { integer, items, matching, members, parse } from "./json.js";
import { accessTag, authorization, checkAnswer, prove, vouch } from "./proofs.js";
import { Refused, malformed, within } from "./refused.js";
import { ID, checkTime, sealPresence, unsealPresence, unsealSignal } from "./seals.js";

/** @typedef {import("./keys.js").Node} Node */
/** @typedef {import("./invites.js").Service} Address */
/** @typedef {import("./seals.js").Presence} Presence */
/** @typedef {import("./seals.js").Signal} Signal */
/** @typedef {"connecting" | "live" | "polling" | "offline"} State */
/** @typedef {{number: number, mark: string}} Place in a mailbox: the last entry that was read, and what tells it from others */
/** @typedef {{sealed: Uint8Array, hash: string}} Leaving */

/**
 * What a service is attended for: the circle's engine, or a test.
 * @typedef {object} Home
 * @property {() => number} now the time that others are told, in milliseconds
 * @property {() => {name: string, abilities: string[], endpoints?: any[]}} presence
 * @property {(service: Attendant, node: string, found: Presence) => boolean} believe whether its node is there
 * @property {() => void} lookRound somebody may have left
 * @property {(signal: Signal) => void} signalled
 * @property {(from: string, payload: Uint8Array) => void} passed
 * @property {(service: Attendant, entry: {number: number, messages: Uint8Array[]}, latest: number) => Promise<void>} take
 * @property {(service: Attendant) => Place} place
 * @property {(service: Attendant, place: Place) => Promise<void>} move
 * @property {(service: Attendant, all: boolean) => Promise<void>} doubt leave again what was not seen there, or everything
 * @property {(service: Attendant, most: {count: number, bytes: number, each: number}) => Promise<Leaving[]>} leaving
 * @property {(service: Attendant, hashes: string[]) => Promise<void>} left
 * @property {(service: Attendant) => void} changed its state has
 * @property {(service: Attendant) => void} caughtUp
 * @property {(reason: string, message: string) => void} trouble what is told, and not fatal
 */

const DAY = 86_400_000;
const TTL_S = 660;
const KEEP_UP = 480_000;
const CONFIRM = 20_000;
const OLD = 900_000;
const ANSWER = 15_000;
const CHECK = 5_000;
const HELD = 30_000;
/** How far from the service's clock a signed time is good. */
const WINDOW = 120_000;
const LIVED = 30_000;
const MOST_LEFT = 50;
const MOST_LEFT_BYTES = 600_000;
const MOST_ANSWER = 4_194_304;
const UP_BYTES = 32_768;
const MOST_THERE = 1024;

/** @param {string} message */
const unreachable = (message) => new Refused("UNREACHABLE", message);

/** Wait, or be woken. */
export class Waker {
  #wake = () => {};
  #due = false;

  wake() {
    this.#due = true;
    this.#wake();
  }

  /** @param {number} ms @returns {Promise<boolean>} whether it was woken */
  sleep(ms) {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#wake = () => {};
        const due = this.#due;
        this.#due = false;
        resolve(due);
      };
      const timer = setTimeout(done, Math.min(ms, 2 ** 31 - 1));
      this.#wake = done;
      if (this.#due) done();
    });
  }
}

/** Keeps one node at one service; *old* for an epoch that is only read. */
export class Attendant {
  /** @type {State} */
  state = "connecting";
  /** Why it is not live. */
  why = "";
  /** Everything was read once. */
  isRead = false;
  /** Everything was read once, or that has failed. */
  isTried = false;
  /** @type {Map<string, Presence>} who is there */
  there = new Map();
  /** How far the service's clock is from ours, as it has signed. */
  offset = /** @type {number | undefined} */ (undefined);
  /** When everything was read, first. */
  readAt = 0;

  #waker = new Waker();
  #home;
  #closed = false;
  #socketUrl = "";
  #each = MOST_LEFT_BYTES;
  /** @type {Uint8Array | undefined} */
  #credential;
  #until = 0;
  #last = 0;
  #signalsAfter = 0;
  /** @type {Set<string>} */
  #seen = new Set();
  /** @type {{to: string, sealed: string, ttl_s: number}[]} */
  #signals = [];
  #next = 30_000;
  #presenceDue = true;
  #outdated = false;
  #told = "";
  #replaced = false;
  #heldUntil = 0;
  #failures = 0;
  #without = 0;
  /** @type {Socket | null} */
  #socket = null;
  /** @type {Promise<any>} */
  #working = Promise.resolve();
  /** Whether what waited before this node came was passed over. */
  #hasCome = false;
  /** @type {Map<string, boolean>} who has come or gone while a list was on its way, which does not know it */
  #meanwhile = new Map();
  /** @type {Promise<any>} what was pushed is taken one after the other */
  #hearing = Promise.resolve();

  /** @param {Home} home @param {Address} address @param {Node} node @param {boolean} [old] */
  constructor(home, address, node, old = false) {
    this.#home = home;
    this.address = address;
    this.node = node;
    this.old = old;
    this.id = address.id;
    this.done = this.#run();
  }

  /** Whether the socket is open, and who has taken the place of this node if another has. */
  get live() {
    return this.#socket !== null;
  }

  /** Leave soon what is to be left, and the presence too if it has changed. @param {boolean} [presence] */
  wake(presence = false) {
    this.#presenceDue ||= presence;
    this.#waker.wake();
  }

  /** See whether the path still stands: the machine has slept, or is elsewhere. */
  async check() {
    if (!this.#socket) return this.wake();
    const socket = this.#socket;
    await within(socket.sync({ want: {} }), CHECK, "UNREACHABLE", "it has not answered").catch(() => socket.close());
  }

  /** Leave a signal soon. @param {string} to @param {Uint8Array} sealed */
  signal(to, sealed) {
    if (this.#signals.length >= 256) this.#signals.shift();
    this.#signals.push({ to, sealed: b64(sealed), ttl_s: 120 });
    this.#waker.wake();
  }

  /** Pass bytes to another node's socket. @param {string} to @param {Uint8Array} payload @returns {Promise<void>} */
  async frame(to, payload) {
    if (!this.#socket) throw new Refused("CLOSED", "there is no socket");
    await this.#socket.frame(to, payload);
  }

  /** The service's STUN and TURN servers, with logins. @returns {Promise<{servers: RTCIceServer[], until_ms?: number}>} */
  async ice() {
    const { ice } = await this.#call("POST", "/v2/sync", { want: { ice: true } });
    return { servers: items(members(ice ?? { servers: [] }, "ice"), "servers", 16), until_ms: ice?.until_ms };
  }

  /** Stop; with *goodbye* tell the service that this node leaves. @param {boolean} [goodbye] */
  async close(goodbye = false) {
    if (this.#closed) return;
    this.#closed = true;
    if (goodbye && !this.old && !this.#replaced && this.isRead) {
      await within(this.#sync({ presence: null, quiet: true }), 2000, "UNREACHABLE", "no answer").catch(() => {});
    }
    this.#socket?.close();
    this.#waker.wake();
  }

  // The life of it

  async #run() {
    while (!this.#closed) {
      try {
        await this.#attend();
        this.#failures = 0;
      } catch (error) {
        if (this.#closed) return;
        this.#failures += 1;
        this.#fail(/** @type {Refused} */ (error));
        const asked = Math.min(/** @type {any} */ (error).retryAfter ?? 0, 3600);
        const until = Date.now() + asked * 1000;
        let left = asked * 1000 + Math.random() * Math.min(500 * 2 ** this.#failures, 30_000);
        do {
          await this.#waker.sleep(left); // who says something does not cut short what the service asked for
          left = until - Date.now();
        } while (left > 0 && !this.#closed);
      }
    }
  }

  async #attend() {
    const told = await this.#call("GET", "/v2/info");
    this.#each = integer(members(told.limits, "limits"), "message_bytes");
    this.#socketUrl = matching(told, "socket", /^wss?:\/\//);
    await this.#catchUp();
    this.#succeed();
    if (this.old) return void (await this.#waker.sleep(OLD));
    if (this.#replaced) return this.#poll(OLD);
    const Made = globalThis.WebSocket;
    try {
      if (!Made) throw unreachable("this runtime has no WebSocket");
      await this.#open(Made);
    } catch (error) {
      this.#show("polling", /** @type {Error} */ (error).message);
      this.#without += 1;
      return this.#poll(Made ? Math.min(1000 * 2 ** this.#without, 60_000) : KEEP_UP);
    }
    const began = Date.now();
    try {
      await this.#round({ presence: true });
      this.#show("live");
      await this.#follow();
    } finally {
      this.#socket?.close();
      this.#socket = null;
      const lived = Date.now() - began > LIVED;
      this.#without = lived ? 0 : this.#without + 1;
      this.#failures = lived ? 0 : this.#without;
    }
  }

  /** Ask as often as the service wishes. @param {number} ms */
  async #poll(ms) {
    const end = Date.now() + ms;
    while (!this.#closed && Date.now() < end) {
      await this.#waker.sleep(Math.min(this.#next, end - Date.now()));
      await this.#round({ presence: !this.#replaced });
    }
  }

  /** Leave what is to be left, until the socket ends. */
  async #follow() {
    const socket = /** @type {Socket} */ (this.#socket);
    let keepUp = Date.now() + KEEP_UP;
    void socket.closed.then(() => this.#waker.wake());
    while (!this.#closed) {
      const due = Math.min(keepUp, socket.confirm);
      const held = this.#heldUntil || Infinity;
      await this.#waker.sleep(Math.max(0, Math.min(due, held) - Date.now()));
      if (Date.now() >= held) this.#heldUntil = 0;
      if (socket.isClosed) throw new Refused("CLOSED", "the service has closed the socket");
      if (Date.now() >= due) {
        const whole = Date.now() >= keepUp;
        socket.confirm = Infinity;
        if (whole) keepUp = Date.now() + KEEP_UP;
        await this.#round({ presence: whole, peers: whole });
      } else if (this.#presenceDue) {
        await this.#round({ presence: true, peers: false });
      } else {
        await this.#flush();
      }
    }
  }

  #succeed() {
    if (!this.old) this.#show("polling");
    this.readAt ||= this.#home.now();
    this.isRead = this.isTried = true;
    this.#told = "";
    this.#home.caughtUp(this);
  }

  /** @param {Refused} error */
  #fail(error) {
    this.isTried = true;
    this.#presenceDue = true; // others were told that the socket has gone
    this.there.clear();
    this.#home.lookRound();
    const reason = ["KEY_MISMATCH", "SIGNATURE_INVALID", "MALFORMED"].includes(error.reason) ? "DISTRUSTED" : error.reason;
    if (TOLD.has(reason) && reason !== this.#told) this.#home.trouble(reason, `${this.address.url}: ${error.message}`);
    this.#told = reason;
    if (!this.old) this.#show("offline", error.message);
    this.#home.caughtUp(this);
  }

  /** @param {State} state @param {string} [why] */
  #show(state, why = "") {
    if (this.#replaced && state === "polling") why = "another tab or copy of this profile is this node";
    if (state === this.state && why === this.why) return;
    this.state = state;
    this.why = why;
    this.#home.changed(this);
  }

  // Calls

  /** The time as the service sees it, as far as it has signed one. */
  #now() {
    return Date.now() + (this.offset ?? 0);
  }

  /** @returns {number} */
  #at() {
    this.#last = Math.max(this.#now(), this.#last + 1);
    return this.#last;
  }

  /**
   * Sign a call; no two are signed at the same time.
   * @param {string} call
   * @param {Uint8Array} body
   */
  async #authorize(call, body) {
    const at = this.#at();
    if (!this.#credential || this.#until < at + DAY || this.#until > at + 8 * DAY) {
      this.#until = at + 7 * DAY;
      this.#credential = await vouch(this.node, at - DAY);
    }
    const credential = this.#credential;
    const proof = await prove(this.node, { call, service: this.id, body, credential, at });
    const { code } = this.address;
    const shown = authorization(credential, proof, ...(code ? [await accessTag(code, this.id, this.node)] : []));
    return { proof, shown };
  }

  /**
   * Make a call by HTTP; once more where the service has told its time.
   * @param {"GET" | "POST"} method
   * @param {string} path
   * @param {object} [asked]
   * @param {boolean} [again]
   * @returns {Promise<any>}
   */
  async #call(method, path, asked, again = true) {
    const body = asked ? utf8(JSON.stringify(asked)) : new Uint8Array();
    const { proof, shown } = await this.#authorize(`${method} ${path}`, body);
    let reply, raw;
    try {
      reply = await fetch(this.address.url + path, {
        method,
        headers: { Authorization: `Muster2 ${shown}`, ...(asked && { "Content-Type": "application/json" }) },
        body: asked ? /** @type {any} */ (body) : undefined,
        cache: "no-store",
        credentials: "omit",
        referrerPolicy: "no-referrer",
        redirect: "error",
        signal: AbortSignal.timeout(ANSWER),
      });
      raw = await drain(reply);
    } catch (error) {
      throw unreachable(`${this.address.url} is not reached: ${/** @type {Error} */ (error).message}`);
    }
    const answer = reply.headers.get("Muster-Answer");
    const retry = Math.max(0, Number(reply.headers.get("Retry-After")) || 0);
    if (answer === null) {
      const refused = refusal(reply.status, raw, retry, "UNREACHABLE");
      if (refused.code === "INVALID_SIGNATURE") throw unreachable(`${this.address.url} is a service with another id, or something on the way changes calls`);
      throw refused;
    }
    return this.#read(answer, proof, reply.status, raw, retry).catch((error) => {
      if (!again || error.reason !== "EXPIRED_TIMESTAMP") throw error;
      return this.#call(method, path, asked, false);
    });
  }

  /**
   * Check and read an answer; throws what the service refuses.
   * @param {unknown} answer
   * @param {Uint8Array} proof
   * @param {number} status
   * @param {Uint8Array} raw
   * @param {number} [retry]
   */
  async #read(answer, proof, status, raw, retry = 0) {
    const at = await checkAnswer(answer, { service: this.id, proof, status, body: raw });
    if (status === 200) {
      this.offset ??= 0; // it has taken our time
      return members(parse(raw), "the answer");
    }
    const refused = refusal(status, raw, retry);
    if (refused.reason === "EXPIRED_TIMESTAMP") {
      const offset = at - Date.now();
      if (Math.abs(offset) > DAY) throw new Refused("CLOCK_WRONG", "the clock of this device or of the service is days off");
      this.offset = offset;
      this.#last = 0;
    }
    throw refused;
  }

  /** @param {any} Made */
  async #open(Made) {
    const { shown } = await this.#authorize("GET /v2/socket", new Uint8Array());
    const socket = new Socket(new Made(this.#socketUrl, ["muster.v2", shown]), this.#speak, this.#hear);
    await within(socket.opened, ANSWER, "UNREACHABLE", "the socket did not open").catch((error) => {
      socket.close();
      throw error;
    });
    if (this.#closed) socket.close();
    this.#socket = socket;
  }

  /** Sign and read one sync of the socket. @param {object} asked */
  #speak = async (asked) => {
    const body = JSON.stringify(asked);
    const { proof } = await this.#authorize("SYNC /v2/socket", utf8(body));
    return {
      frame: { t: "SYNC", proof: b64(proof), body },
      /** @param {any} told */
      read: (told) => {
        const raw = utf8(String(told.body));
        if (!told.answer) throw refusal(told.status, raw, 0, "UNREACHABLE");
        return this.#read(told.answer, proof, told.status, raw);
      },
    };
  };

  /** @param {object} asked @returns {Promise<any>} */
  #sync(asked) {
    if (!this.#socket || (JSON.stringify(asked).length * 9) / 8 + 512 > UP_BYTES) {
      return this.#call("POST", "/v2/sync", asked);
    }
    return this.#socket.sync(asked);
  }

  // Syncs

  /** Read everything; then leave what was not read there, in the order it was said. */
  async #catchUp() {
    const { number, mark } = this.#home.place(this);
    if (number) {
      const { entries = [] } = await this.#sync({ after: { messages: number - 1 }, want: { messages: 1 } });
      const found = entry(items({ entries }, "entries", 1000)[0] ?? { messages: [] });
      // a service restored from a backup gives numbers again: read from the beginning
      if (found.number !== number || (await markOf(found)) !== mark) {
        await this.#home.move(this, { number: 0, mark: "" });
        await this.#home.doubt(this, true);
      }
    }
    await this.#round({ presence: !this.old && !this.#replaced, leaving: false });
    await this.#home.doubt(this, false);
    this.isRead = true;
    await this.#round({ peers: false });
  }

  /** Leave what is to be left, and read nothing. */
  async #flush() {
    for (;;) {
      const { send, hashes } = await this.#leaving();
      if (!send) return;
      await this.#leave({ send }, hashes);
    }
  }

  /** Make syncs until everything is read and left: one at a time. @param {{presence?: boolean, peers?: boolean, leaving?: boolean}} what */
  #round(what) {
    const work = this.#working.catch(() => {}).then(() => this.#rounds(what));
    this.#working = work;
    return work;
  }

  /** @param {{presence?: boolean, peers?: boolean, leaving?: boolean}} what */
  async #rounds({ presence = false, peers = true, leaving = true }) {
    /** @type {Set<string> | null} */
    let listed = peers && !this.old ? new Set() : null;
    let page = "";
    if (listed) this.#meanwhile.clear();
    for (let turn = 0; turn < 10_000 && !this.#closed; turn += 1) {
      const before = [this.#home.place(this).number, this.#signalsAfter];
      /** @type {any} */
      const asked = { want: { messages: 200 }, after: { messages: before[0] } };
      if (presence && !this.old) {
        const { sealed } = await sealPresence(this.node, { ...this.#home.presence(), at_ms: this.#home.now() });
        asked.presence = { sealed: b64(sealed), ttl_s: TTL_S, tell: this.#presenceDue };
        presence = this.#presenceDue = false;
      }
      const { send, hashes } = leaving ? await this.#leaving() : { send: undefined, hashes: [] };
      if (send) asked.send = send;
      if (!this.old) {
        Object.assign(asked.want, { signals: 50, peers: listed !== null });
        Object.assign(asked.after, { signals: this.#signalsAfter, ...(page && { peers: page }) });
      }
      const answer = await this.#leave(asked, hashes);
      const refused = partsOf(answer);
      await this.#takeEntries(answer.entries ?? [], true);
      if (refused.signals) this.#signalsAfter = 0; // of a clock that was set back
      await this.#takeSignals(answer.signals ?? [], true);
      this.#hasCome ||= !(answer.more ?? []).includes?.("signals");
      const more = new Set(PARTS.filter((part) => !refused[part] && answer.more?.includes?.(part)));
      if (this.#home.place(this).number === before[0] && this.#signalsAfter === before[1]) {
        more.delete("messages"); // it names a page, and gives none
        more.delete("signals");
      }
      if (refused.peers) listed = null; // who was there is
      if (listed) {
        const found = await this.#takePeers(answer.peers ?? [], (node) => !this.#meanwhile.has(node));
        for (const node of found) listed.add(node);
        const last = found.at(-1) ?? "";
        if (more.delete("peers") && last > page && listed.size < MOST_THERE) {
          page = last;
          more.add("peers");
        } else {
          for (const node of this.there.keys()) if (!listed.has(node) && !this.#meanwhile.get(node)) this.there.delete(node);
          listed = null;
          this.#home.lookRound();
        }
      } else more.delete("peers");
      if (Number.isFinite(answer.next_s)) this.#next = Math.min(Math.max(answer.next_s, 5), 900) * 1000;
      if (!more.size && !(leaving && (hashes.length || this.#signals.length))) return;
    }
  }

  /** Make a sync that leaves something, and note what was taken. @param {any} asked @param {string[]} hashes @returns {Promise<any>} */
  async #leave(asked, hashes) {
    let answer = await this.#sync(asked);
    const refused = partsOf(answer);
    if (refused.presence) this.#presenceRefused(refused.presence);
    else if (asked.presence) this.#outdated = false;
    const held = refused["send.messages"];
    if (held) {
      this.#heldUntil = Date.now() + Math.min(Math.max(Number(held.retry_after_s) || 0, HELD / 1000), 900) * 1000;
      const { reason, message } = toldOf(held);
      this.#home.trouble(reason, `messages wait: ${message}`);
    } else if (hashes.length) await this.#home.left(this, hashes);
    if (refused.messages?.code === "PAYLOAD_TOO_LARGE") { // no frame can hold it
      answer = await this.#call("POST", "/v2/sync", { want: asked.want, after: asked.after });
    }
    const { messages } = partsOf(answer);
    if (messages) throw refusedAs(messages);
    return answer;
  }

  /** Sign what comes later than what stands; once, and only where that is a time of this service. @param {any} refused */
  #presenceRefused(refused) {
    const { code, at_ms } = refused;
    const again = code === "OUTDATED" && !this.#outdated && Number.isSafeInteger(at_ms) && at_ms > this.#last && at_ms < this.#now() + WINDOW;
    this.#outdated = again;
    if (again) {
      this.#last = at_ms;
      this.wake(true);
    } else {
      const { reason, message } = toldOf(refused);
      this.#home.trouble(reason, message);
    }
  }

  async #leaving() {
    const held = this.#heldUntil > Date.now() || (!this.isRead && this.old);
    const most = { count: MOST_LEFT, bytes: MOST_LEFT_BYTES, each: this.#each };
    const found = held ? [] : await this.#home.leaving(this, most);
    const signals = this.#signals.splice(0, 16);
    const send = {
      ...(found.length && { messages: found.map(({ sealed }) => b64(sealed)) }),
      ...(signals.length && { signals }),
    };
    return { send: found.length || signals.length ? send : undefined, hashes: found.map(({ hash }) => hash) };
  }

  // What comes

  /** What the service says by itself. @param {any} frame */
  #hear = (frame) => {
    if (frame.t === "FRAME") {
      this.#home.passed(matching(frame, "from", ID), unb64(frame.payload));
    } else if (frame.t === "REPLACED") {
      this.#replaced = true;
      this.#socket?.close();
    } else if (frame.t === "SYNCED") {
      this.wake(true); // a quiet sync of which something was refused
    } else if (frame.t === "EVENT") {
      this.#hearing = this.#hearing.then(() => this.#takeEvent(frame)).catch(() => {});
    }
  };

  /** @param {any} frame */
  async #takeEvent(frame) {
    const [peers, left, entries, signals] = ["peers", "left", "entries", "signals"].map((part) => frame[part] ?? []);
    for (const node of await this.#takePeers(peers)) this.#meanwhile.set(node, true);
    for (const node of left.slice(0, MOST_THERE)) {
      this.#meanwhile.set(node, false);
      this.there.delete(node);
    }
    if (peers.length || left.length) this.#home.lookRound();
    await this.#takeEntries(entries, false);
    await this.#takeSignals(signals, false);
    if (entries.length && this.#socket) {
      this.#socket.confirm = Math.min(this.#socket.confirm, Date.now() + CONFIRM);
      this.#waker.wake();
    }
  }

  /** Take what a mailbox holds, and move the place with it; pushes move nothing. @param {any} found @param {boolean} isPage */
  async #takeEntries(found, isPage) {
    const latest = Math.max(this.#home.now(), this.#now()) + DAY;
    let { number } = this.#home.place(this);
    for (const one of items({ entries: found }, "entries", 10_000)) {
      const read = entry(one);
      if (isPage && (read.number <= number || read.number > latest)) {
        return this.#home.trouble("DISTRUSTED", `${this.address.url}: its entries are out of order, or of the future`);
      }
      await this.#home.take(this, read, latest);
      if (isPage) await this.#home.move(this, { number: (number = read.number), mark: await markOf(read) });
    }
  }

  /** @param {any} found @param {(node: string) => boolean} [counts] @returns {Promise<string[]>} the nodes that were named */
  async #takePeers(found, counts = () => true) {
    const named = items({ peers: found }, "peers", 1000).map((one) => matching(members(one, "peer"), "node_id", ID));
    await Promise.all(
      found.map(async (/** @type {any} */ one) => {
        if (!counts(one.node_id)) return;
        try {
          const presence = await unsealPresence(this.node.epoch, one.node_id, unb64(one.sealed));
          if (this.#home.believe(this, one.node_id, presence) && this.there.size < MOST_THERE) this.there.set(one.node_id, presence);
          else this.there.delete(one.node_id);
        } catch {
          // a member may have left it: it is nobody
        }
      }),
    );
    this.#home.lookRound();
    return named;
  }

  /**
   * What waited before this node came was for what was here before it: it opens nothing. Pushes move nothing.
   * @param {any} found
   * @param {boolean} isPage
   */
  async #takeSignals(found, isPage) {
    for (const one of items({ signals: found }, "signals", 1000)) {
      try {
        const number = integer(members(one, "signal"), "number");
        if (isPage) this.#signalsAfter = Math.max(this.#signalsAfter, number);
        if (!this.#hasCome) continue;
        const sealed = unb64(one.sealed);
        const name = hex((await sha256(sealed)).subarray(0, 16));
        if (this.#seen.has(name)) continue;
        if (this.#seen.size >= 1024) this.#seen.clear();
        this.#seen.add(name);
        const signal = await unsealSignal(this.node.epoch, matching(one, "from", ID), this.node.id, sealed);
        checkTime(signal, this.#home.now());
        this.#home.signalled(signal);
      } catch {
        // of a member who plays, or too old: nobody waits for it
      }
    }
  }
}

/** A node's open socket: syncs and frames go out, events and frames come in. */
class Socket {
  confirm = Infinity;
  isClosed = false;
  #numbers = 0;
  #socket;
  #speak;
  /** @type {Map<number, {resolve: (told: any) => void, reject: (error: Error) => void}>} */
  #waiting = new Map();
  /** @type {Promise<any>} */
  #turn = Promise.resolve();

  /** @param {WebSocket} socket @param {(asked: object) => Promise<any>} speak @param {(frame: any) => void} hear */
  constructor(socket, speak, hear) {
    this.#socket = socket;
    this.#speak = speak;
    /** @type {Promise<void>} */
    this.opened = new Promise((resolve, reject) => {
      socket.onopen = () => resolve();
      socket.onerror = () => reject(unreachable("the service takes no socket"));
    });
    this.opened.catch(() => {});
    /** @type {Promise<void>} */
    this.closed = new Promise((resolve) => {
      socket.onclose = () => {
        this.isClosed = true;
        for (const { reject } of this.#waiting.values()) reject(new Refused("CLOSED", "the socket is closed"));
        resolve();
      };
    });
    socket.onmessage = ({ data }) => {
      try {
        const frame = members(parse(String(data)), "a frame");
        const waiting = ANSWERS.has(frame.t) && this.#waiting.get(frame.n);
        if (waiting) waiting.resolve(frame);
        else hear(frame);
      } catch {
        // of a newer version, or not for us
      }
    };
  }

  close() {
    this.#socket.close();
  }

  /** Make a sync as a frame, one at a time. @param {any} asked @returns {Promise<any>} */
  sync(asked) {
    const work = this.#turn.catch(() => {}).then(async () => {
      const { frame, read } = await this.#speak(asked);
      if (asked.quiet) {
        this.#send({ ...frame, n: (this.#numbers += 1) });
        return {};
      }
      return read(await this.#ask(frame));
    });
    this.#turn = work;
    return work;
  }

  /** @param {string} to @param {Uint8Array} payload */
  async frame(to, payload) {
    await this.#ask({ t: "FRAME", to, payload: b64(payload) });
  }

  /** @param {object} frame @returns {Promise<any>} */
  async #ask(frame) {
    const n = (this.#numbers += 1);
    const told = new Promise((resolve, reject) => this.#waiting.set(n, { resolve, reject }));
    try {
      this.#send({ ...frame, n });
      const found = await within(told, ANSWER, "UNREACHABLE", "the service has not answered");
      if (found.t === "ERROR") throw refusedAs(found);
      return found;
    } finally {
      this.#waiting.delete(n);
    }
  }

  /** @param {object} frame */
  #send(frame) {
    if (this.#socket.readyState !== 1) throw new Refused("CLOSED", "the socket is closed");
    this.#socket.send(JSON.stringify(frame));
  }
}

/** Why a service fails that somebody has to do something about. */
const TOLD = new Set(["DISTRUSTED", "CLOCK_WRONG", "NOT_ALLOWED"]);
/** What of an answer has pages. */
const PARTS = ["peers", "messages", "signals"];
const ANSWERS = new Set(["SYNCED", "TAKEN", "ERROR"]);

/** What of a sync was refused, by part. @param {any} answer @returns {Record<string, any>} */
const partsOf = (answer) => members(answer.refused ?? {}, "refused");

/** What a service says of a refusal, whatever form it gives it. @param {any} told */
const toldOf = ({ code, message }) => ({
  reason: typeof code === "string" && /^[A-Z_]{1,64}$/.test(code) ? code : "REFUSED",
  message: typeof message === "string" ? message.slice(0, 300) : "",
});

/** @param {any} told @returns {Refused} */
const refusedAs = (told) => {
  const { reason, message } = toldOf(told);
  return new Refused(reason, message);
};

/** @param {any} one @returns {{number: number, messages: Uint8Array[], raw: string}} */
const entry = (one) => {
  const messages = items(members(one, "an entry"), "messages", 1000);
  return { number: integer({ number: 0, ...one }, "number"), messages: messages.map((sealed) => unb64(sealed)), raw: messages.join("") };
};

/** What tells an entry from another with its number. @param {{raw: string}} entry */
const markOf = ({ raw }) => id("entry", utf8(raw));

/** Read an answer of a bounded size. @param {Response} reply @returns {Promise<Uint8Array>} */
const drain = async (reply) => {
  const reader = reply.body?.getReader();
  const parts = [];
  let size = 0;
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true };
    if (done) break;
    parts.push(value);
    size += value.length;
    if (size > MOST_ANSWER) {
      await reader?.cancel();
      throw malformed("the answer is too large");
    }
  }
  return new Uint8Array(await new Blob(/** @type {any} */ (parts)).arrayBuffer());
};

/**
 * What a service refuses; without its signature it is only a broken path.
 * @param {number} status
 * @param {Uint8Array} raw
 * @param {number} retryAfter seconds
 * @param {string} [reason]
 * @returns {Refused & {retryAfter?: number, code?: string}}
 */
const refusal = (status, raw, retryAfter, reason) => {
  let told;
  try {
    told = parse(raw);
  } catch {
    told = {};
  }
  const { reason: code, message } = toldOf(told ?? {});
  return Object.assign(new Refused(reason ?? code, code === "REFUSED" ? `it answered ${status}` : message), { retryAfter, code });
};
