/**
 * Meetings: what two nodes of a circle tell each other over a link, without any service (docs/chat.md,
 * Between nodes).
 *
 * Both tell up to where they have each author, leave what the other lacks, then what is new; and who else is
 * there. What is passed on was signed by its author: nobody has to be believed.
 * @module
 */
import { b64, concat, readU32, text as decode, u32, unb64, utf8 } from "./bytes.js";
import { items, members, parse } from "./json.js";
import { isHash } from "./seals.js";

/** @typedef {import("./seals.js").Rec} Rec */
/** @typedef {import("./seals.js").Said} Said */
/** @typedef {import("./log.js").Log} Log */
/** @typedef {import("./log.js").Run} Run */

/**
 * @typedef {object} Gossip who is there
 * @property {() => Promise<Said[]>} presences to tell, our own first
 * @property {(found: Said[]) => void} heard
 * @property {(host: string) => void} seen from where the other side sees this node call
 */

const MOST_MESSAGE = 2 * 1_048_576;
const PIECE = 16_000;
const TIPS_PAGE = 500;
const MOST_TIPS = 10_000;
const RANGES_PAGE = 500;
const PEERS_PAGE = 32;
const MOST_LEAVING = 10_000;
const MOST_REFUSED = 100;
/** How many records are checked and kept at a time. */
const AT_ONCE = 32;
const SECOND = 1000;
/** Seconds; a page that the browser slows down counts slower seconds, and so believes its peers for longer. */
const SILENT = 20;
const PEERS = 2 * SECOND;
const HERE = 7 * SECOND;
const WHO = 21 * SECOND;
const DIGEST = /^[0-9a-f]{16}$/;

/** @param {unknown} first @param {unknown} last */
const isRange = (first, last) => Number.isSafeInteger(first) && Number.isSafeInteger(last) && 0 < Number(first) && Number(first) <= Number(last);

/** One meeting; `run` it until its link ends. */
export class Meeting {
  #link;
  #log;
  #take;
  #gossip;
  #wanted;
  /** @type {Map<string, Run>} */
  #theirs = new Map();
  #known = false;
  /** @type {Rec[]} */
  #leaving = [];
  /** @type {WeakSet<Uint8Array>} texts of records that the other has told: it has them */
  #heard = new WeakSet();
  /** @type {Promise<void>[]} */
  #taking = [];
  #wake = () => {};
  #over = false;
  #quiet = 0;
  #saidAt = -Infinity;
  #whoAt = -Infinity;
  #peersAt = -Infinity;
  #refused = 0;
  /** @type {Uint8Array} */
  #buffer = new Uint8Array(PIECE);
  #size = 0;
  #writing = Promise.resolve();
  /** @type {any} */
  #timer;

  /**
   * @param {object} how
   * @param {any} how.link
   * @param {Log} how.log
   * @param {(said: Said, epoch: number) => Promise<any>} how.take throws for what nobody has signed
   * @param {Gossip} how.gossip
   * @param {(rec: Rec) => boolean} [how.wanted] whether a new record is worth telling
   */
  constructor({ link, log, take, gossip, wanted = () => true }) {
    this.#link = link;
    this.#log = log;
    this.#take = take;
    this.#gossip = gossip;
    this.#wanted = wanted;
  }

  /** Meet until the link ends. */
  async run() {
    this.#tell().catch(() => {});
    this.#tick();
    try {
      for await (const data of this.#link) {
        this.#quiet = 0;
        for (const raw of this.#whole(data)) await this.#hear(raw);
        if (this.#refused > MOST_REFUSED) break;
        this.#here(); // timers of a page that nobody looks at come late
      }
    } finally {
      this.#over = true;
      clearTimeout(this.#timer);
      this.#wake();
      this.#link.abort();
    }
  }

  /** Tell a new record soon; of a fork all that is kept, for the other may have any of it. @param {Rec} rec */
  tell(rec) {
    const { author, seq, text } = rec;
    const forks = this.#log.at(author, seq);
    const { first = 0, last = 0 } = this.#theirs.get(author) ?? {};
    if (forks.length > 1) this.#leaving.push(...forks);
    else if (!this.#heard.has(text) && (seq < first || seq > last)) this.#leaving.push(rec);
    this.#wake();
    if (this.#leaving.length > MOST_LEAVING) this.#link.abort(); // what it lacks is left when it comes again
  }

  /** End it, with a word to the other side. */
  close() {
    return this.#link.close();
  }

  // Telling

  /** Send a message of any size: its length, then as many pieces as it takes. @param {object} message */
  #write(message) {
    const raw = utf8(JSON.stringify(message));
    if (raw.length > MOST_MESSAGE) return Promise.resolve(); // no mailbox takes it either
    const whole = concat(u32(raw.length), raw);
    const sent = this.#writing.then(async () => {
      for (let at = 0; at < whole.length; at += PIECE) await this.#link.send(whole.subarray(at, at + PIECE));
    });
    this.#writing = sent.catch(() => {});
    return sent;
  }

  /** @param {Rec[]} recs */
  async #leave(recs) {
    for (const { epoch, text, signature } of recs) {
      if (!this.#heard.has(text)) await this.#write({ t: "RECORD", epoch, text: b64(text), signature: b64(signature) });
    }
  }

  async #tell() {
    const tips = [...(await this.#log.runs())].map(([author, { last, hash, first, digest }]) => [author, [last, hash, first, digest]]);
    for (let at = 0; at < Math.max(tips.length, 1); at += TIPS_PAGE) {
      await this.#write({ t: "TIPS", tips: Object.fromEntries(tips.slice(at, at + TIPS_PAGE)), last: at + TIPS_PAGE >= tips.length });
    }
    while (!this.#known && !this.#over) await this.#woken();
    this.#leaving = []; // it is among what is missing
    for (const [author, mine] of await this.#log.runs()) {
      const { first, last, digest } = this.#theirs.get(author) ?? { first: 1, last: 0, digest: "" };
      // with the same numbers and another digest there is a fork that one of us has not seen
      const isForked = first === mine.first && last === mine.last && digest !== mine.digest;
      await this.#leave(this.#log.stretch(author, 1, isForked ? last : first - 1));
      await this.#leave(this.#log.stretch(author, last + 1, mine.last));
      const gaps = this.#log.gaps(author);
      for (let at = 0; at < gaps.length; at += RANGES_PAGE) await this.#write({ t: "GONE", author, ranges: gaps.slice(at, at + RANGES_PAGE) });
    }
    while (!this.#over) {
      await this.#leave(this.#leaving.splice(0).filter(this.#wanted));
      if (!this.#leaving.length) await this.#woken();
    }
  }

  /** @returns {Promise<void>} */
  #woken() {
    return new Promise((resolve) => (this.#wake = resolve));
  }

  /** End what is silent on a direct path; the relay costs, and services tell who is there. */
  #tick() {
    this.#quiet = this.#link.path === "relay" ? 0 : this.#quiet + 1;
    if (this.#quiet > SILENT) this.#link.abort();
    if (this.#over) return;
    this.#here();
    this.#timer = setTimeout(() => this.#tick(), SECOND);
  }

  /** Say on a direct path that we are there, and now and then who else is. */
  #here() {
    const now = performance.now();
    if (this.#link.path === "relay" ? this.#saidAt > 0 : now < this.#saidAt + HERE) return;
    this.#saidAt = now;
    this.#who(now).catch(() => {});
  }

  /** @param {number} now */
  async #who(now) {
    const isDue = now >= this.#whoAt + WHO;
    if (isDue) this.#whoAt = now;
    const said = isDue ? await this.#gossip.presences() : [];
    await this.#write({ t: "PEERS", peers: said.slice(0, PEERS_PAGE).map(({ text, signature }) => ({ text: decode(text), signature: b64(signature) })) });
  }

  // Hearing

  /** Put pieces together. @param {Uint8Array} data @returns {Uint8Array[]} the messages that are whole */
  #whole(data) {
    const end = this.#size + data.length;
    if (end > this.#buffer.length) this.#buffer = concat(this.#buffer.subarray(0, this.#size), new Uint8Array(2 * end - this.#size));
    this.#buffer.set(data, this.#size);
    const found = [];
    let at = 0;
    while (end - at >= 4) {
      const next = at + 4 + readU32(this.#buffer, at);
      if (next - at > MOST_MESSAGE + 4) this.#refused = Infinity;
      if (next > end) break;
      found.push(this.#buffer.slice(at + 4, next));
      at = next;
    }
    this.#buffer.copyWithin(0, at, end);
    this.#size = end - at;
    return found;
  }

  /** @param {Uint8Array} raw */
  async #hear(raw) {
    try {
      const message = members(parse(raw), "a message");
      if (message.t === "RECORD") {
        this.#taking.push(this.#record(message));
        if (this.#taking.length < AT_ONCE) return;
      }
      await Promise.all(this.#taking.splice(0));
      if (message.t === "TIPS") this.#tips(message);
      if (message.t === "GONE") {
        unb64(message.author, 32);
        await this.#log.noteGone(message.author, items(message, "ranges", RANGES_PAGE).filter(([first, last]) => isRange(first, last)));
      }
      if (message.t === "PEERS" && performance.now() >= this.#peersAt + PEERS) {
        const found = items(message, "peers", 64).slice(0, PEERS_PAGE);
        if (found.length) this.#peersAt = performance.now();
        this.#gossip.heard(found.map(({ text, signature }) => ({ text: utf8(String(text)), signature: unb64(signature, 64) })));
        if (typeof message.seen === "string") this.#gossip.seen(message.seen);
      }
    } catch {
      // of a newer version, or of a member who plays
    }
  }

  /** @param {any} message */
  async #record({ epoch, text: written, signature }) {
    try {
      const text = unb64(written);
      this.#heard.add(text);
      await this.#take({ text, signature: unb64(signature, 64) }, epoch);
    } catch {
      this.#refused += 1;
    }
  }

  /** @param {any} message */
  #tips({ tips, last: isLast }) {
    if (this.#known) return; // it was told before: once is enough
    for (const [author, value] of Object.entries(members(tips, "tips"))) {
      const [last, hash, first, digest] = Array.isArray(value) ? value : [];
      if (!isRange(first, last) || !isHash(hash) || typeof digest !== "string" || !DIGEST.test(digest) || this.#theirs.size >= MOST_TIPS) continue;
      unb64(author, 32);
      this.#theirs.set(author, { last, hash, first, digest });
    }
    if (isLast) {
      this.#known = true;
      this.#wake();
    }
  }
}
