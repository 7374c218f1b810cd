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
import { HASH } from "./seals.js";

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
const PEERS = 2000;
const HERE = 7000;
const WHO = 3;
const SILENT = 20_000;
const MOST_LEAVING = 10_000;
const MOST_REFUSED = 100;
const DIGEST = /^[0-9a-f]{16}$/;

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
  #wake = () => {};
  #over = false;
  #heardAt = Date.now();
  #peersAt = 0;
  #refused = 0;
  #parts = /** @type {Uint8Array[]} */ ([]);
  #size = 0;
  #writing = Promise.resolve();
  /** @type {any} */
  #timer;

  /**
   * @param {object} how
   * @param {any} how.link
   * @param {Log} how.log
   * @param {(said: Said, epoch: number) => Promise<any>} how.take
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
    this.#here(0);
    try {
      for await (const data of this.#link) {
        this.#heardAt = Date.now();
        for (const raw of this.#whole(data)) await this.#hear(raw);
        if (this.#refused > MOST_REFUSED) break;
      }
    } finally {
      this.#over = true;
      clearTimeout(this.#timer);
      this.#wake();
      this.#link.abort();
    }
  }

  /** Tell a new record soon. @param {Rec} rec */
  tell(rec) {
    this.#leaving.push(rec);
    this.#wake();
    if (this.#leaving.length > MOST_LEAVING) this.#link.abort(); // what it lacks is left when it comes again
  }

  /** End it, with a word to the other side. */
  close() {
    this.#link.close();
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

  /** @param {Rec} rec */
  #leave({ epoch, text, signature }) {
    return this.#write({ t: "RECORD", epoch, text: b64(text), signature: b64(signature) });
  }

  async #tell() {
    const ours = await this.#log.runs();
    const tips = [...ours].map(([author, { last, hash, first, digest }]) => [author, [last, hash, first, digest]]);
    for (let at = 0; at < Math.max(tips.length, 1); at += TIPS_PAGE) {
      await this.#write({ t: "TIPS", tips: Object.fromEntries(tips.slice(at, at + TIPS_PAGE)), last: at + TIPS_PAGE >= tips.length });
    }
    while (!this.#known && !this.#over) await this.#woken();
    this.#leaving = []; // it is among what is missing
    for (const [author, mine] of await this.#log.runs()) {
      const theirs = this.#theirs.get(author);
      /** @type {[number, number][]} */
      let stretches = [[1, (theirs?.first ?? 1) - 1], [(theirs?.last ?? 0) + 1, mine.last]];
      const same = theirs?.first === mine.first && theirs?.last === mine.last;
      if (same && theirs?.digest !== mine.digest) stretches = [[1, mine.last]]; // a fork that one of us has not seen
      for (const [first, last] of stretches) for (const rec of this.#log.stretch(author, first, last)) await this.#leave(rec);
      const gaps = this.#log.gaps(author);
      for (let at = 0; at < gaps.length; at += RANGES_PAGE) await this.#write({ t: "GONE", author, ranges: gaps.slice(at, at + RANGES_PAGE) });
    }
    while (!this.#over) {
      for (const rec of this.#leaving.splice(0)) {
        const theirs = this.#theirs.get(rec.author);
        const had = theirs && rec.seq >= theirs.first && rec.seq <= theirs.last;
        if (!had && this.#wanted(rec)) await this.#leave(rec);
      }
      if (!this.#leaving.length) await this.#woken();
    }
  }

  /** @returns {Promise<void>} */
  #woken() {
    return new Promise((resolve) => (this.#wake = resolve));
  }

  /** Say on a direct path that we are there, and now and then who else is; the relay costs. @param {number} turn */
  async #here(turn) {
    if (this.#over) return;
    const direct = this.#link.path !== "relay";
    if (direct && Date.now() - this.#heardAt > SILENT) return this.#link.abort();
    if (direct || !turn) {
      const said = turn % WHO ? [] : await this.#gossip.presences().catch(() => []);
      const peers = said.slice(0, PEERS_PAGE).map(({ text, signature }) => ({ text: decode(text), signature: b64(signature) }));
      this.#write({ t: "PEERS", peers }).catch(() => {});
    }
    this.#timer = setTimeout(() => this.#here(turn + 1), HERE);
  }

  // Hearing

  /** Put pieces together. @param {Uint8Array} data @returns {Uint8Array[]} the messages that are whole */
  #whole(data) {
    const found = [];
    this.#parts.push(data);
    this.#size += data.length;
    for (;;) {
      if (this.#size < 4) return found;
      if (this.#parts[0].length < 4) this.#parts = [concat(...this.#parts)];
      const size = readU32(this.#parts[0]);
      if (size > MOST_MESSAGE) {
        this.#link.abort();
        return found;
      }
      if (this.#size < 4 + size) return found;
      const all = concat(...this.#parts);
      found.push(all.slice(4, 4 + size));
      this.#parts = [all.subarray(4 + size)];
      this.#size -= 4 + size;
    }
  }

  /** @param {Uint8Array} raw */
  async #hear(raw) {
    try {
      const message = members(parse(raw), "a message");
      if (message.t === "RECORD") await this.#record(message);
      else if (message.t === "TIPS") this.#tips(message);
      else if (message.t === "GONE") {
        unb64(message.author, 32);
        for (const [first, last] of items(message, "ranges", RANGES_PAGE)) {
          if (Number.isSafeInteger(last) && Number.isSafeInteger(first) && first > 0 && first <= last) this.#log.noteGone(message.author, first, last);
        }
      } else if (message.t === "PEERS" && Date.now() - this.#peersAt >= PEERS) {
        const found = items(message, "peers", 64).slice(0, PEERS_PAGE);
        if (found.length) this.#peersAt = Date.now();
        this.#gossip.heard(found.map(({ text, signature }) => ({ text: utf8(String(text)), signature: unb64(signature, 64) })));
        if (typeof message.seen === "string") this.#gossip.seen(message.seen);
      }
    } catch {
      // of a newer version, or of a member who plays
    }
  }

  /** @param {any} message */
  async #record({ epoch, text, signature }) {
    try {
      await this.#take({ text: unb64(text), signature: unb64(signature, 64) }, epoch);
    } catch {
      this.#refused += 1;
    }
  }

  /** @param {any} message */
  #tips({ tips, last: isLast }) {
    if (this.#known) return; // it was told before: once is enough
    for (const [author, value] of Object.entries(members(tips, "tips"))) {
      const [last, hash, first, digest] = Array.isArray(value) ? value : [];
      const good = Number.isSafeInteger(last) && Number.isSafeInteger(first) && first > 0 && first <= last && HASH.test(hash) && DIGEST.test(digest);
      if (good && this.#theirs.size < MOST_TIPS) this.#theirs.set(author, { last, hash, first, digest });
    }
    if (isLast) {
      this.#known = true;
      this.#wake();
    }
  }
}
