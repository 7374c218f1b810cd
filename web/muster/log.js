/**
 * What was said in one circle: signed records in the chains of their authors, in memory and kept.
 *
 * A chain may begin late; only a hole inside is missing, unless its author has deleted what was there, or a peer
 * has dropped it. Two records with one number are a fork: both are kept. Our own chain grows one record
 * at a time, and each is kept before it is told. Where nothing can be kept, all goes on in memory.
 * @module
 */
import { hex, unhex } from "./bytes.js";
import { sha256 } from "./crypto.js";
import { isHash, writeRecord } from "./seals.js";

/** @typedef {import("./seals.js").Rec} Rec */
/** @typedef {import("./keys.js").Member} Member */
/** @typedef {import("./store.js").Store} Store */
/** @typedef {[first: number, last: number]} Range numbers of one author */
/** @typedef {{first: number, last: number, hash: string, digest: string}} Run what is here of an author without a hole up to the last */
/** @typedef {{last: number, at: Map<number, string[]>}} Chain hashes by number, the smallest first */

const DAY = 86_400_000;
/** Before this nobody said anything: the clock was wrong. */
const FLOOR = Date.UTC(2020);
const MOST_FORKS = 16;
const MOST_GONE = 1000;
const MOST_SEALS = 128;
const NOTHING = new Uint8Array();
/** Kinds that do not expire, ... */
export const LASTING = new Set(["member", "services", "founder", "channel", "circle", "person"]);
/** ... and with these, kinds that are not deleted. */
const NOT_DELETED = new Set([...LASTING, "delete", "call", "react"]);
/**
 * What is kept: records by hash; when a service had one last, and whether it was seen there; since when a mailbox has one that
 * lasts; up to where it was read; author, number and hash of what was deleted; ranges that peers have dropped, by author.
 */
const KINDS = ["rec", "left", "kept", "place", "erased", "gone"];

/** @param {Rec} rec */
const isKept = ({ text }) => text.length > 0;

/** What is left of a record that is dropped. @param {Rec} rec @returns {Rec} */
const stub = (rec) => ({ ...rec, text: NOTHING, signature: NOTHING, body: {} });

/** @param {number[]} one @param {number[]} two */
const byNumber = ([one], [two]) => one - two;

/** The records of one circle. */
export class Log {
  /** What could not be kept; once for each reason in turn. @type {(error: any) => void} */
  ontrouble = () => {};
  #store;
  #circle;
  #trouble = "";
  /** @type {Record<string, Map<string, any>>} */
  #rows = {};
  /** @type {Map<string, Chain>} */
  #chains = new Map();
  /** @type {Map<string, Uint8Array>} */
  #seals = new Map();
  #turn = Promise.resolve();

  /** @param {Store} store @param {string} circle */
  constructor(store, circle) {
    this.#store = store;
    this.#circle = circle;
  }

  /** Read all that was kept of a circle. @param {Store} store @param {string} circle @returns {Promise<Log>} */
  static async open(store, circle) {
    const log = new Log(store, circle);
    const found = await Promise.all(KINDS.map((kind) => store.all(`${kind} ${circle}`)));
    KINDS.forEach((kind, at) => (log.#rows[kind] = new Map(found[at])));
    for (const rec of log.records()) log.#place(rec);
    return log;
  }

  /** Note rows, and keep them; what cannot be kept stays in memory. @param {[kind: string, id: string, value: any][]} rows */
  async #put(rows) {
    for (const [kind, id, value] of rows) {
      if (value === undefined) this.#rows[kind].delete(id);
      else this.#rows[kind].set(id, value);
    }
    if (!rows.length) return;
    await this.#store.put(rows.map(([kind, id, value]) => [`${kind} ${this.#circle}`, id, value]));
    const { trouble } = this.#store;
    if (trouble && trouble.reason !== this.#trouble) this.ontrouble(trouble);
    this.#trouble = trouble?.reason ?? "";
  }

  /** @param {string} author @returns {Chain} */
  #chain(author) {
    return this.#chains.get(author) ?? { last: 0, at: new Map() };
  }

  /** @param {Rec} rec */
  #place({ author, seq, hash }) {
    const chain = this.#chain(author);
    this.#chains.set(author, chain);
    chain.at.set(seq, [...(chain.at.get(seq) ?? []), hash].sort());
    chain.last = Math.max(chain.last, seq);
  }

  // Records

  /** All that is here, in any order; of what was dropped the text is empty. @returns {Iterable<Rec>} */
  records() {
    return this.#rows.rec.values();
  }

  /** @param {string} hash */
  has(hash) {
    return this.#rows.rec.has(hash);
  }

  /** @param {string} hash @returns {Rec | undefined} */
  get(hash) {
    const rec = this.#rows.rec.get(hash);
    return rec && isKept(rec) ? rec : undefined;
  }

  /** What is kept of one number; several are a fork. @param {string} author @param {number} seq @returns {Rec[]} */
  at(author, seq) {
    return (this.#chain(author).at.get(seq) ?? []).map((hash) => this.#rows.rec.get(hash)).filter(isKept);
  }

  /** What is kept of a stretch of a chain, in its order. @param {string} author @param {number} [first] @param {number} [last] @returns {Rec[]} */
  stretch(author, first = 1, last = Infinity) {
    return this.#numbers(author).flatMap((seq) => (seq >= first && seq <= last ? this.at(author, seq) : []));
  }

  /** @param {string} author */
  #numbers(author) {
    return [...this.#chain(author).at.keys()].sort((one, two) => one - two);
  }

  /**
   * Take a record that was checked; resolves when it is kept.
   * @param {Rec} rec
   * @returns {Promise<"new" | "known" | "refused">} refused is one fork too many, and what its author has deleted
   */
  async take(rec) {
    const { author, seq, hash, kind } = rec;
    if (this.has(hash)) return "known";
    const forks = this.#chain(author).at.get(seq) ?? [];
    const last = forks[MOST_FORKS - 1];
    if (last <= hash) return "refused";
    const gone = !NOT_DELETED.has(kind) && this.#rows.erased.has(`${author} ${seq} ${hash}`);
    this.#place(rec);
    const kept = this.#put([["rec", hash, gone ? stub(rec) : rec], ...(kind === "delete" ? this.#erasing(rec) : [])]);
    if (last) await this.#forget(author, [last]);
    await kept;
    return gone ? "refused" : "new";
  }

  /** What follows from a deletion: what it names is dropped, now or when it comes. @param {Rec} rec @returns {[string, string, any][]} */
  #erasing({ author, seq, body: { of, seq: number } }) {
    const found = this.#rows.rec.get(of);
    const isIts = !found || (!NOT_DELETED.has(found.kind) && found.author === author && found.seq === number);
    if (!isIts || !isHash(of) || !(Number.isSafeInteger(number) && number > 0 && number < seq)) return [];
    return [["erased", `${author} ${number} ${of}`, 1], ...this.#stubs([of])];
  }

  /** @param {string[]} hashes @returns {[string, string, any][]} */
  #stubs(hashes) {
    return hashes.filter((hash) => this.get(hash)).map((hash) => ["rec", hash, stub(this.#rows.rec.get(hash))]);
  }

  /** Forget what records say; hash and number stay. @param {string[]} hashes */
  drop(hashes) {
    return this.#put(this.#stubs(hashes));
  }

  /** @param {string} author @param {string[]} hashes */
  #forget(author, hashes) {
    const chain = this.#chain(author);
    for (const hash of hashes) {
      const { seq } = this.#rows.rec.get(hash);
      const rest = /** @type {string[]} */ (chain.at.get(seq)).filter((one) => one !== hash);
      if (rest.length) chain.at.set(seq, rest);
      else chain.at.delete(seq);
    }
    chain.last = this.#numbers(author).pop() ?? 0;
    return this.#put(hashes.map((hash) => ["rec", hash, undefined]));
  }

  /** Forget what an author said after a number: it was left out of the circle then. @param {string} author @param {number} beyond */
  dropBeyond(author, beyond) {
    return this.#forget(author, [...this.#chain(author).at].flatMap(([seq, hashes]) => (seq > beyond ? hashes : [])));
  }

  /**
   * Drop what is older than it is kept; of our own only what some service has taken.
   * @param {number} now
   * @param {(channel: string) => number} daysOf 0 is for ever
   * @param {string} [own] the author that we are
   */
  expire(now, daysOf, own) {
    const taken = new Set([...this.#rows.left.keys()].map((id) => id.split(" ")[1]));
    const old = [...this.records()].filter((rec) => {
      if (rec.author === own && !taken.has(rec.hash)) return false;
      const days = isKept(rec) && !LASTING.has(rec.kind) && daysOf(rec.channel);
      return days && rec.at_ms < now - days * DAY;
    });
    return this.drop(old.map(({ hash }) => hash));
  }

  /** The last number of an author, and its hash. @param {string} author @returns {[seq: number, hash: string | null]} */
  tip(author) {
    const { last, at } = this.#chain(author);
    return [last, at.get(last)?.[0] ?? null];
  }

  /**
   * Up to where an author is heard who is shut out: the end of the stretch from its first record on. The last number
   * alone would be one that it has made up, and everything up to it would count for ever.
   * @param {string} author
   * @returns {[seq: number, hash: string | null]}
   */
  reach(author) {
    const { at } = this.#chain(author);
    const erased = new Set([...this.#rows.erased.keys()].filter((id) => id.startsWith(`${author} `)).map((id) => Number(id.split(" ")[1])));
    let last = 0;
    for (const seq of [...at.keys(), ...erased].sort((a, b) => a - b)) {
      if (last && seq > last + 1) break;
      last = seq;
    }
    while (last && !at.has(last)) last -= 1;
    return [last, at.get(last)?.[0] ?? null];
  }

  /**
   * Say the next record of our chain, one at a time; resolves when it is kept.
   * @param {Member} member
   * @param {{epoch: number, at_ms: number, channel: string, kind: string, body: any | ((seq: number) => any)}} what
   * @returns {Promise<Rec>}
   */
  append(member, what) {
    const work = this.#turn.then(async () => {
      for (;;) {
        const [last, prev] = this.tip(member.author);
        const body = typeof what.body === "function" ? await what.body(last + 1) : what.body;
        const rec = await writeRecord(member, { ...what, body, seq: last + 1, prev });
        if (this.tip(member.author)[1] !== prev) continue; // what this member has said elsewhere has come meanwhile
        await this.take(rec);
        return rec;
      }
    });
    this.#turn = work.then(() => {}, () => {});
    return work;
  }

  /** The holes inside chains: author, first and last number. @returns {[author: string, first: number, last: number][]} */
  missing() {
    const deleted = [...this.#rows.erased.keys()].map((id) => id.split(" "));
    return [...this.#chains.keys()].flatMap((author) => {
      const here = this.#numbers(author);
      const erased = deleted.filter(([by]) => by === author).map(([, seq]) => Number(seq));
      const ranges = [...here, ...erased].map((seq) => [seq, seq]).concat(this.#rows.gone.get(author) ?? []);
      /** @type {[string, number, number][]} */
      const found = [];
      let [next] = here;
      for (const [first, last] of ranges.sort(byNumber)) {
        if (first > next) found.push([author, next, first - 1]);
        next = Math.max(next, last + 1);
      }
      return found;
    });
  }

  /** Where an author has said two things as one number. @returns {[author: string, seq: number][]} */
  forks() {
    return [...this.#chains].flatMap(([author, { at }]) =>
      [...at].filter(([, hashes]) => hashes.length > 1).map(([seq]) => /** @type {[string, number]} */ ([author, seq])));
  }

  // Meetings

  /** What is here of each author without a hole up to the last. @returns {Promise<Map<string, Run>>} */
  async runs() {
    /** @type {Map<string, Run>} */
    const runs = new Map();
    for (const [author, { last, at }] of this.#chains) {
      const [hash] = at.get(last) ?? [];
      if (!hash) continue;
      let first = last;
      while (at.has(first - 1)) first -= 1;
      let all = "";
      for (let seq = first; seq <= last; seq += 1) all += at.get(seq)?.join("");
      runs.set(author, { first, last, hash, digest: hex((await sha256(unhex(all))).subarray(0, 8)) });
    }
    return runs;
  }

  /** The stretches of a chain that were here, and are kept no longer. @param {string} author @returns {Range[]} */
  gaps(author) {
    const gone = this.#numbers(author).filter((seq) => !this.at(author, seq).length);
    return joined(gone.map((seq) => [seq, seq]));
  }

  /** A peer has had these, and keeps them no longer: nobody holds them back. @param {string} author @param {Range[]} ranges */
  noteGone(author, ranges) {
    const known = this.#rows.gone.get(author) ?? [];
    const { last } = this.#chain(author);
    const found = [...known, ...ranges.map(([from, to]) => [from, Math.min(to, last)])].filter(([from, to]) => from <= to);
    const all = joined(found).slice(0, MOST_GONE);
    return this.#put(String(all) === String(known) ? [] : [["gone", author, all]]);
  }

  // Services

  /** Up to where a mailbox was read. @param {string} service @param {string} hint @returns {{number: number, mark: string}} */
  place(service, hint) {
    return this.#rows.place.get(`${service} ${hint}`) ?? { number: 0, mark: "" };
  }

  /** @param {string} service @param {string} hint @param {{number: number, mark: string}} place */
  move(service, hint, place) {
    return this.#put([["place", `${service} ${hint}`, place]]);
  }

  /** When a service had a record last. @param {string} service @param {string} hash @returns {number | undefined} */
  leftAt(service, hash) {
    return this.#rows.left.get(`${service} ${hash}`)?.[0];
  }

  /** When a mailbox had a lasting record last. @param {string} service @param {string} hint @param {string} hash @returns {number} */
  keptAt(service, hint, hash) {
    return this.#rows.kept.get(`${service} ${hint} ${hash}`) ?? 0;
  }

  /**
   * Note that a service has taken records, or that they were *seen* there.
   * @param {string} service
   * @param {string} hint
   * @param {string[]} hashes
   * @param {number} at milliseconds
   * @param {boolean} seen
   */
  noteLeft(service, hint, hashes, at, seen) {
    return this.#put(hashes.flatMap((hash) => {
      const id = `${service} ${hash}`;
      /** @type {[string, string, any][]} */
      const rows = [["left", id, [at, seen || Boolean(this.#rows.left.get(id)?.[1])]]];
      if (LASTING.has(this.#rows.rec.get(hash)?.kind)) {
        rows.push(["kept", `${service} ${hint} ${hash}`, Math.max(at, this.keptAt(service, hint, hash))]);
      }
      return rows;
    }));
  }

  /** Leave again at a service what was not seen there; or everything, if it has lost data. @param {string} service @param {boolean} all */
  doubt(service, all) {
    return this.#put((all ? ["left", "kept"] : ["left"]).flatMap((kind) =>
      [...this.#rows[kind]]
        .filter(([id, value]) => id.startsWith(`${service} `) && (all || !value[1]))
        .map(([id]) => /** @type {[string, string, any]} */ ([kind, id, undefined]))));
  }

  /**
   * An epoch has lost its place to another of its number: what was said since is left anew, and the mailbox before it read anew.
   * @param {number} epoch
   * @param {string} hint of the epoch before
   */
  again(epoch, hint) {
    const hashes = new Set([...this.records()].filter((rec) => rec.epoch >= epoch).map((rec) => rec.hash));
    for (const id of this.#seals.keys()) if (hashes.has(id.split(" ")[0])) this.#seals.delete(id);
    const isStale = (/** @type {string} */ kind, /** @type {string} */ id) => (kind === "place" ? id.endsWith(` ${hint}`) : hashes.has(id.split(" ")[1]));
    return this.#put(["left", "place"].flatMap((kind) =>
      [...this.#rows[kind].keys()].filter((id) => isStale(kind, id)).map((id) => /** @type {[string, string, any]} */ ([kind, id, undefined]))));
  }

  /**
   * What an author has said in an epoch and a service has not yet, the first said first.
   * @param {string} author
   * @param {string} service
   * @param {number} epoch
   * @param {number} since milliseconds
   * @returns {Rec[]}
   */
  unleft(author, service, epoch, since) {
    return this.stretch(author).filter((rec) =>
      rec.epoch === epoch && (rec.at_ms >= since || rec.at_ms < FLOOR) && !this.#rows.left.has(`${service} ${rec.hash}`));
  }

  /**
   * How a record is sealed: in the same bytes for all services of an epoch, and once more if an answer was lost.
   * @param {string} hash
   * @param {() => Promise<Uint8Array>} make
   * @param {number} [epoch]
   */
  async sealed(hash, make, epoch) {
    const id = `${hash} ${epoch}`;
    const sealed = this.#seals.get(id) ?? (await make());
    this.#seals.set(id, sealed);
    for (const old of this.#seals.keys()) if (this.#seals.size > MOST_SEALS) this.#seals.delete(old);
    return sealed;
  }

  /** Forget the circle. */
  erase() {
    return this.#put(KINDS.flatMap((kind) => [...this.#rows[kind].keys()].map((id) => /** @type {[string, string, any]} */ ([kind, id, undefined]))));
  }
}

/** Ranges in their order, those that touch as one. @param {number[][]} ranges @returns {Range[]} */
const joined = (ranges) => {
  /** @type {Range[]} */
  const found = [];
  for (const [first, last] of ranges.sort(byNumber)) {
    const before = found[found.length - 1];
    if (before && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else found.push([first, last]);
  }
  return found;
};
