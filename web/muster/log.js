/**
 * What was said in one circle: signed records in the chains of their authors, in memory and kept.
 *
 * A chain may begin late; only a hole inside is missing, unless its author has deleted what was there, or a peer
 * has dropped it. Two records with one number are a fork: both are kept. Our own chain grows one record
 * at a time, and each is kept before it is told. Where nothing can be kept, all goes on in memory.
 * @module
 */
import { concat, hex, unhex } from "./bytes.js";
import { sha256 } from "./crypto.js";
import { HASH, writeRecord } from "./seals.js";

/** @typedef {import("./seals.js").Rec} Rec */
/** @typedef {import("./keys.js").Member} Member */
/** @typedef {import("./store.js").Store} Store */
/** @typedef {{first: number, last: number, hash: string, digest: string}} Run what is here of an author without a hole up to the last */

const DAY = 86_400_000;
const MOST_FORKS = 16;
const MOST_GONE = 4000;
/** Kinds that do not expire, ... */
export const LASTING = new Set(["member", "services", "founder", "channel", "circle", "person"]);
/** ... and with these, kinds that are not deleted. */
const NOT_DELETED = new Set([...LASTING, "delete", "call", "react"]);

/** @param {Rec} rec */
const isKept = ({ text }) => text.length > 0;

/** What is left of a record that is dropped. @param {Rec} rec @returns {Rec} */
const stub = (rec) => ({ ...rec, text: new Uint8Array(), signature: new Uint8Array(), body: {} });

/** The records of one circle. */
export class Log {
  /** What could not be kept. @type {(error: any) => void} */
  ontrouble = () => {};
  #store;
  #circle;
  /** @type {Map<string, Rec>} */
  #recs = new Map();
  /** @type {Map<string, Map<number, string[]>>} hashes by author and number */
  #chains = new Map();
  /** @type {Map<string, [at: number, seen: boolean]>} */
  #left = new Map();
  /** @type {Map<string, number>} */
  #kept = new Map();
  /** @type {Map<string, {number: number, mark: string}>} */
  #places = new Map();
  /** @type {Set<string>} author, number and hash of what was deleted */
  #erased = new Set();
  /** @type {Map<string, [number, number][]>} what peers have dropped, by author */
  #gone = new Map();
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
    const all = (/** @type {string} */ kind) => store.all(`${kind} ${circle}`);
    const [recs, ...maps] = await Promise.all([all("rec"), all("left"), all("kept"), all("place"), all("erased"), all("gone")]);
    for (const [, rec] of recs) log.#place(rec);
    [log.#left, log.#kept, log.#places] = maps.map((rows) => new Map(rows));
    log.#erased = new Set(maps[3].map(([id]) => id));
    log.#gone = new Map(maps[4]);
    return log;
  }

  /** Keep rows; what cannot be kept stays in memory. @param {any[][]} rows kind, id and value */
  async #put(rows) {
    try {
      await this.#store.put(rows.map(([kind, id, value]) => [`${kind} ${this.#circle}`, id, value]));
    } catch (error) {
      this.ontrouble(error);
    }
  }

  /** @param {Rec} rec */
  #place(rec) {
    this.#recs.set(rec.hash, rec);
    const chain = this.#chains.get(rec.author) ?? new Map();
    this.#chains.set(rec.author, chain);
    chain.set(rec.seq, [...(chain.get(rec.seq) ?? []), rec.hash].sort());
  }

  // Records

  /** All that is here, in any order; of what was dropped the text is empty. @returns {Iterable<Rec>} */
  records() {
    return this.#recs.values();
  }

  /** @param {string} hash */
  has(hash) {
    return this.#recs.has(hash);
  }

  /** @param {string} hash @returns {Rec | undefined} */
  get(hash) {
    const rec = this.#recs.get(hash);
    return rec && isKept(rec) ? rec : undefined;
  }

  /**
   * Take a record that was checked; resolves when it is kept.
   * @param {Rec} rec
   * @returns {Promise<"new" | "known" | "refused">}
   */
  async take(rec) {
    if (this.#recs.has(rec.hash)) return "known";
    const { author, seq, hash } = rec;
    const forks = this.#chains.get(author)?.get(seq) ?? [];
    if (forks.length >= MOST_FORKS) {
      const last = forks[forks.length - 1];
      if (hash >= last) return "refused";
      this.#forget([last]);
    }
    const dropped = !NOT_DELETED.has(rec.kind) && this.#erased.has(`${author} ${seq} ${hash}`);
    const kept = dropped ? stub(rec) : rec;
    this.#place(kept);
    if (rec.kind === "delete") this.#erase(rec);
    await this.#put([["rec", hash, kept]]);
    return dropped ? "refused" : "new";
  }

  /** Drop what its author has deleted, now or when it comes. @param {Rec} rec */
  #erase({ author, seq, body }) {
    const { of, seq: number } = body;
    if (!HASH.test(of) || !Number.isSafeInteger(number) || number < 1 || number >= seq) return;
    const found = this.#recs.get(of);
    if (found && (NOT_DELETED.has(found.kind) || found.author !== author || found.seq !== number)) return;
    const id = `${author} ${number} ${of}`;
    this.#erased.add(id);
    this.#put([["erased", id, 1]]);
    if (found) this.drop([of]);
  }

  /** Forget what records say; hash and number stay. @param {string[]} hashes */
  async drop(hashes) {
    /** @type {[string, string, any][]} */
    const rows = [];
    for (const hash of hashes) {
      const rec = this.#recs.get(hash);
      if (!rec) continue;
      this.#recs.set(hash, stub(rec));
      rows.push(["rec", hash, stub(rec)]);
    }
    await this.#put(rows);
  }

  /** @param {string[]} hashes */
  #forget(hashes) {
    for (const hash of hashes) {
      const { author, seq } = /** @type {Rec} */ (this.#recs.get(hash));
      this.#recs.delete(hash);
      const chain = /** @type {Map<number, string[]>} */ (this.#chains.get(author));
      const rest = /** @type {string[]} */ (chain.get(seq)).filter((one) => one !== hash);
      if (rest.length) chain.set(seq, rest);
      else chain.delete(seq);
    }
    return this.#put(hashes.map((hash) => ["rec", hash, undefined]));
  }

  /** Forget what an author said after a number: it was left out of the circle then. @param {string} author @param {number} beyond */
  async dropBeyond(author, beyond) {
    await this.#forget([...this.#recs.values()].filter((rec) => rec.author === author && rec.seq > beyond).map(({ hash }) => hash));
  }

  /** Drop what is older than it is kept. @param {number} now @param {(channel: string) => number} daysOf 0 is for ever */
  async expire(now, daysOf) {
    const old = [...this.#recs.values()].filter((rec) => {
      const days = isKept(rec) && !LASTING.has(rec.kind) ? daysOf(rec.channel) : 0;
      return days && rec.at_ms < now - days * DAY;
    });
    await this.drop(old.map(({ hash }) => hash));
  }

  /** The last number of an author, and its hash. @param {string} author @returns {[seq: number, hash: string | null]} */
  tip(author) {
    const chain = this.#chains.get(author);
    if (!chain?.size) return [0, null];
    let last = 0;
    for (const seq of chain.keys()) if (seq > last) last = seq;
    return [last, /** @type {string[]} */ (chain.get(last))[0]];
  }

  /**
   * Say the next record of our chain, one at a time; resolves when it is kept.
   * @param {Member} member
   * @param {{epoch: number, at_ms: number, channel: string, kind: string, body: any | ((seq: number) => any)}} what
   * @returns {Promise<Rec>}
   */
  append(member, what) {
    const work = this.#turn.then(async () => {
      const [last, prev] = this.tip(member.author);
      const body = typeof what.body === "function" ? await what.body(last + 1) : what.body;
      const rec = await writeRecord(member, { ...what, body, seq: last + 1, prev });
      await this.take(rec);
      return rec;
    });
    this.#turn = work.then(() => {}, () => {});
    return work;
  }

  /** The holes inside chains: author, first and last number. @returns {[author: string, first: number, last: number][]} */
  missing() {
    /** @type {[string, number, number][]} */
    const found = [];
    for (const [author, chain] of this.#chains) {
      const erased = [...this.#erased].filter((id) => id.startsWith(`${author} `)).map((id) => Number(id.split(" ")[1]));
      const known = [...chain.keys(), ...erased.filter((seq) => seq > Math.min(...chain.keys()))].sort((a, b) => a - b);
      known.slice(1).forEach((seq, at) => {
        let first = known[at] + 1;
        for (const [from, to] of [...(this.#gone.get(author) ?? []), [seq, seq]]) {
          if (from > first && Math.min(from, seq) > first) found.push([author, first, Math.min(from, seq) - 1]);
          if (from <= seq) first = Math.max(first, to + 1);
        }
      });
    }
    return found;
  }

  /** Where an author has said two things as one number. @returns {[author: string, seq: number][]} */
  forks() {
    return [...this.#chains].flatMap(([author, chain]) =>
      [...chain].filter(([, hashes]) => hashes.length > 1).map(([seq]) => /** @type {[string, number]} */ ([author, seq])));
  }

  // Meetings

  /** What is here of each author without a hole up to the last. @returns {Promise<Map<string, Run>>} */
  async runs() {
    /** @type {Map<string, Run>} */
    const runs = new Map();
    for (const [author, chain] of this.#chains) {
      const [last, hash] = this.tip(author);
      if (!hash) continue;
      let first = last;
      while (chain.has(first - 1)) first -= 1;
      const hashes = [];
      for (let seq = first; seq <= last; seq += 1) hashes.push(.../** @type {string[]} */ (chain.get(seq)));
      runs.set(author, { first, last, hash, digest: hex((await sha256(concat(...hashes.map(unhex)))).subarray(0, 8)) });
    }
    return runs;
  }

  /** What is kept of a stretch of a chain, in its order. @param {string} author @param {number} first @param {number} last @returns {Rec[]} */
  stretch(author, first, last) {
    const chain = this.#chains.get(author) ?? new Map();
    const seqs = [...chain.keys()].filter((seq) => seq >= first && seq <= last).sort((a, b) => a - b);
    return seqs.flatMap((seq) => chain.get(seq)).map((hash) => /** @type {Rec} */ (this.#recs.get(hash))).filter(isKept);
  }

  /** The stretches of a chain that were here, and are kept no longer. @param {string} author @returns {[number, number][]} */
  gaps(author) {
    const chain = this.#chains.get(author) ?? new Map();
    /** @type {[number, number][]} */
    const found = [];
    for (const seq of [...chain.keys()].sort((a, b) => a - b)) {
      if (chain.get(seq).some((/** @type {string} */ hash) => isKept(/** @type {Rec} */ (this.#recs.get(hash))))) continue;
      const last = found[found.length - 1];
      if (last?.[1] === seq - 1) last[1] = seq;
      else found.push([seq, seq]);
    }
    return found;
  }

  /** A peer has had these, and keeps them no longer: nobody holds them back. @param {string} author @param {number} first @param {number} last */
  noteGone(author, first, last) {
    const known = this.#gone.get(author) ?? [];
    const end = Math.min(last, this.tip(author)[0]);
    if (end < first || known.length >= MOST_GONE || known.some(([from, to]) => from <= first && to >= end)) return;
    const ranges = /** @type {[number, number][]} */ ([...known, [first, end]]).sort((a, b) => a[0] - b[0]);
    this.#gone.set(author, ranges);
    this.#put([["gone", author, ranges]]);
  }

  // Services

  /** Up to where a mailbox was read. @param {string} service @param {string} hint */
  place(service, hint) {
    return this.#places.get(`${service} ${hint}`) ?? { number: 0, mark: "" };
  }

  /** @param {string} service @param {string} hint @param {{number: number, mark: string}} place */
  async move(service, hint, place) {
    this.#places.set(`${service} ${hint}`, place);
    await this.#put([["place", `${service} ${hint}`, place]]);
  }

  /** When a service had a record last. @param {string} service @param {string} hash @returns {number | undefined} */
  leftAt(service, hash) {
    return this.#left.get(`${service} ${hash}`)?.[0];
  }

  /** When a mailbox had a lasting record last. @param {string} service @param {string} hint @param {string} hash */
  keptAt(service, hint, hash) {
    return this.#kept.get(`${service} ${hint} ${hash}`) ?? 0;
  }

  /**
   * Note that a service has taken records, or that they were *seen* there.
   * @param {string} service
   * @param {string} hint
   * @param {string[]} hashes
   * @param {number} at milliseconds
   * @param {boolean} seen
   */
  async noteLeft(service, hint, hashes, at, seen) {
    /** @type {[string, string, any][]} */
    const rows = [];
    for (const hash of hashes) {
      const id = `${service} ${hash}`;
      const value = /** @type {[number, boolean]} */ ([at, seen || Boolean(this.#left.get(id)?.[1])]);
      this.#left.set(id, value);
      this.#seals.delete(hash);
      rows.push(["left", id, value]);
      if (!LASTING.has(this.#recs.get(hash)?.kind ?? "")) continue;
      const newest = Math.max(at, this.keptAt(service, hint, hash));
      this.#kept.set(`${service} ${hint} ${hash}`, newest);
      rows.push(["kept", `${service} ${hint} ${hash}`, newest]);
    }
    await this.#put(rows);
  }

  /** Leave again at a service what was not seen there; or everything, if it has lost data. @param {string} service @param {boolean} all */
  async doubt(service, all) {
    const ids = [...this.#left].filter(([id, [, seen]]) => id.startsWith(`${service} `) && (all || !seen)).map(([id]) => id);
    const kept = all ? [...this.#kept.keys()].filter((id) => id.startsWith(`${service} `)) : [];
    for (const id of ids) this.#left.delete(id);
    for (const id of kept) this.#kept.delete(id);
    await this.#put([...ids.map((id) => ["left", id, undefined]), ...kept.map((id) => ["kept", id, undefined])]);
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
    const chain = [...(this.#chains.get(author) ?? [])].sort(([a], [b]) => a - b);
    return chain
      .flatMap(([, hashes]) => hashes)
      .filter((hash) => !this.#left.has(`${service} ${hash}`))
      .map((hash) => /** @type {Rec} */ (this.#recs.get(hash)))
      .filter((rec) => isKept(rec) && rec.epoch === epoch && rec.at_ms >= since);
  }

  /** How a record is sealed: the same bytes for all services. @param {string} hash @param {() => Promise<Uint8Array>} make */
  async sealed(hash, make) {
    const sealed = this.#seals.get(hash) ?? (await make());
    if (this.#seals.size < 1024) this.#seals.set(hash, sealed);
    return sealed;
  }

  /** Forget the circle. */
  async erase() {
    for (const kind of ["rec", "left", "kept", "place", "erased", "gone"]) {
      const rows = await this.#store.all(`${kind} ${this.#circle}`);
      await this.#put(rows.map(([id]) => [kind, id, undefined]));
    }
  }
}
