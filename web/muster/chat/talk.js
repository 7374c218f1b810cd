/**
 * What was said in a circle, as one member may read it: texts with their edits, deletions and reactions, in channels.
 *
 * Records are taken in any order, and twice is once. Facts are folded anew when they are asked for and have changed
 * (facts.js); what is closed is opened as soon as its key is known. What to say is in saying.js.
 * @module
 */
import { GENERAL, isHash } from "../seals.js";
import { Facts, isClosed } from "./facts.js";
import { read } from "./kinds.js";

/** @typedef {import("../seals.js").Rec} Rec */
/** @typedef {import("../keys.js").Member} Member */
/** @typedef {{hash: string, channel: string, member: string, seq: number, at: number, closed: boolean, name: string, text: string, reply: string}} Row a text */
/** @typedef {{hash: string, member: string, seq: number, channel: string, closed: boolean, text: string}} Edit */
/** @typedef {{hash: string, member: string, seq: number, channel: string, closed: boolean, on: boolean, emoji: string}} Reaction */

/**
 * @typedef {object} Message
 * @property {string} hash its name
 * @property {string} channel
 * @property {{id: string, name: string, key: string}} author `key` are letters that tell two of one name apart
 * @property {number} seq its number in the author's chain
 * @property {number} at_ms when it is shown to have been said
 * @property {string} text
 * @property {boolean} edited
 * @property {boolean} deleted
 * @property {string} reply the hash of what it answers, or nothing
 * @property {Record<string, string[]>} reactions members by emoji
 */

const FACTS = new Set(["member", "circle", "channel", "person", "call"]);
const FLOOR = Date.UTC(2020);
const AHEAD = 600_000;
const DAY = 86_400_000;
const MOST_EMOJI = 16;

/** @param {Row} a @param {Row} b */
const order = (a, b) => a.at - b.at || (a.hash < b.hash ? -1 : a.hash > b.hash ? 1 : 0);

/** The chat of one circle, as one member has it. */
export class Talk {
  /** Keys that passphrases made, by salt in b64, and that were brought, by the record that made them. @type {Map<string, Uint8Array>} */
  typed = new Map();
  #how;
  #cache = new Map();
  /** @type {Map<string, Rec>} */
  #factRecs = new Map();
  /** @type {Set<string>} */
  #taken = new Set();
  /** @type {Map<string, Row>} */
  #texts = new Map();
  /** @type {Map<string, Row[]>} by channel; sorted when it is read */
  #rows = new Map();
  /** @type {Set<string>} channels to be sorted */
  #mixed = new Set();
  /** @type {Map<string, Edit[]>} by what they edit */
  #edits = new Map();
  /** @type {Map<string, Map<string, Reaction>>} by what they are about, then author and emoji */
  #reactions = new Map();
  /** @type {Set<string>} author and hash of what was deleted */
  #deleted = new Set();
  /** @type {Map<string, Rec>} what could not be opened so far */
  #closed = new Map();
  /** @type {Promise<Facts> | null} */
  #facts = null;

  /**
   * @param {object} how
   * @param {string} how.circle
   * @param {Uint8Array} how.founder
   * @param {Member | null} how.member whose boxes can be opened
   * @param {() => number} how.now
   * @param {(hash: string) => void} [how.opened] what could not be read before can be now
   */
  constructor(how) {
    this.#how = how;
  }

  /** What is true of the circle, as far as it is known here. @returns {Promise<Facts>} */
  facts() {
    this.#facts ??= (async () => {
      const { circle, founder, member } = this.#how;
      const facts = await Facts.of({ circle, founder, member, typed: this.typed, cache: this.#cache }, this.#factRecs.values());
      for (const rec of this.#closed.values()) await this.#open(facts, rec);
      return facts;
    })();
    return this.#facts;
  }

  /** Take a record; one that nobody can read counts for nothing, and stops nothing. @param {Rec} rec */
  async take(rec) {
    if (this.#taken.has(rec.hash)) return;
    this.#taken.add(rec.hash);
    await this.#take(rec).catch(() => {});
  }

  /** @param {Rec} rec */
  async #take(rec) {
    if (!rec.text.length) return; // it is kept no longer
    if (FACTS.has(rec.kind)) {
      this.#factRecs.set(rec.hash, rec);
      this.#facts = null;
    } else if (rec.kind === "delete") this.#talk(rec, rec.body, false);
    else if (/^(text|edit|react)$/.test(rec.kind)) {
      if (!isClosed(rec)) this.#talk(rec, rec.body, false);
      else if (rec.body.from == null || isHash(rec.body.from)) {
        this.#closed.set(rec.hash, rec);
        if (this.#facts) await this.#open(await this.#facts, rec);
      }
    }
  }

  /** A key has come otherwise than by a record. @param {string} name the salt, or the record that made it @param {Uint8Array} key */
  remember(name, key) {
    this.typed.set(name, key);
    this.#facts = null;
  }

  /** @param {Facts} facts @param {Rec} rec */
  async #open(facts, rec) {
    const body = await facts.open(rec);
    if (!body || !this.#closed.delete(rec.hash)) return; // it was opened meanwhile
    this.#talk(rec, body, true);
    if (rec.kind === "text") this.#how.opened?.(rec.hash);
  }

  /** @param {Rec} rec @param {any} body @param {boolean} closed */
  #talk({ kind, hash, channel, member, seq, at_ms, come }, body, closed) {
    const said = read(kind, body);
    if (!said) return;
    const { of = "", text, emoji } = said;
    const one = { hash, channel, member, seq, closed };
    if (kind === "text") {
      const now = this.#how.now();
      const at = at_ms >= FLOOR && at_ms <= (come ?? now) + AHEAD ? at_ms : (come ?? now); // no clock of another is believed far
      const row = { ...one, at, name: said.name ?? "", text, reply: said.reply ?? "" };
      this.#texts.set(hash, row);
      const rows = this.#rows.get(channel) ?? [];
      this.#rows.set(channel, rows);
      rows.push(row);
      if (rows.length > 1 && order(rows[rows.length - 2], row) > 0) this.#mixed.add(channel);
    } else if (kind === "edit") {
      const known = this.#edits.get(of) ?? [];
      this.#edits.set(of, known);
      known.push({ ...one, text });
    } else if (kind === "delete") this.#deleted.add(`${member} ${of}`);
    else {
      const known = this.#reactions.get(of) ?? new Map();
      this.#reactions.set(of, known);
      const before = known.get(`${member} ${emoji}`);
      if (before && (before.seq > seq || (before.seq === seq && before.hash < hash))) return;
      known.set(`${member} ${emoji}`, { ...one, emoji, on: said.on ?? true });
      const mine = [...known.keys()].filter((name) => name.startsWith(member)).sort(byUtf8);
      for (const name of mine.slice(MOST_EMOJI)) known.delete(name);
    }
  }

  // Reading

  /** @param {Facts} facts @param {{channel: string, closed: boolean, member: string, seq: number}} one */
  #counts(facts, { channel, closed, member, seq }) {
    const known = facts.channels.get(channel);
    return closed === (known !== undefined && known.mode !== "public") && (!known || facts.hears(known, member, seq));
  }

  /** @param {Facts} facts @param {Row} row @returns {Message} */
  #message(facts, row) {
    const { hash, channel, member, seq, at, closed, name, text, reply } = row;
    const deleted = this.#deleted.has(`${member} ${hash}`);
    const [edit] = (this.#edits.get(hash) ?? [])
      .filter((one) => one.member === member && one.channel === channel && one.closed === closed)
      .filter((one) => this.#counts(facts, one) && !this.#deleted.has(`${member} ${one.hash}`))
      .sort((a, b) => b.seq - a.seq || (a.hash < b.hash ? -1 : 1));
    /** @type {Map<string, Set<string>>} an emoji may be called __proto__ */
    const reactions = new Map();
    for (const one of this.#reactions.get(hash)?.values() ?? []) {
      if (one.on && one.channel === channel && one.closed === closed && this.#counts(facts, one)) reactions.set(one.emoji, (reactions.get(one.emoji) ?? new Set()).add(one.member));
    }
    return {
      hash, channel, seq, at_ms: at, reply, deleted, edited: Boolean(edit) && !deleted,
      author: { id: member, name: facts.names.get(member) || name, key: member.slice(0, 6) },
      text: deleted ? "" : (edit?.text ?? text),
      reactions: Object.fromEntries([...reactions].map(([emoji, who]) => [emoji, [...who].sort()])),
    };
  }

  /** One message, if it is here and counts. @param {string} hash @returns {Promise<Message | undefined>} */
  async message(hash) {
    const facts = await this.facts();
    const row = this.#texts.get(hash);
    return row && this.#counts(facts, row) ? this.#message(facts, row) : undefined;
  }

  /**
   * A page of what was said in a channel, oldest first: the newest, or what is before or after a message.
   * @param {string} channel
   * @param {{before?: string, after?: string, limit?: number}} [page] hashes; after nothing begins with the first
   * @returns {Promise<Message[]>}
   */
  async messages(channel, { before, after, limit = 50 } = {}) {
    const facts = await this.facts();
    const rows = this.#rows.get(channel) ?? [];
    if (this.#mixed.delete(channel)) rows.sort(order);
    const days = facts.daysOf(channel);
    const oldest = days ? this.#how.now() - days * DAY : 0;
    const place = this.#texts.get(before ?? after ?? "");
    const found = [];
    const step = after === undefined ? -1 : 1;
    const inside = (/** @type {Row} */ row) => !place || (step < 0 ? order(row, place) < 0 : order(row, place) > 0);
    for (let at = step < 0 ? rows.length - 1 : 0; at >= 0 && at < rows.length && found.length < limit; at += step) {
      const row = rows[at];
      if (row.at >= oldest && inside(row) && this.#counts(facts, row)) found.push(this.#message(facts, row));
    }
    return step < 0 ? found.reverse() : found;
  }

  /** Channels in which something was said. */
  spoken() {
    return this.#rows.keys();
  }

  /** The messages of a channel that hold all these words, the newest last. @param {string} channel @param {string} words @param {number} [limit] */
  async search(channel, words, limit = 50) {
    const wanted = words.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    const all = await this.messages(channel, { limit: Infinity });
    return all.filter(({ text }) => wanted.every((word) => text.toLocaleLowerCase().includes(word))).slice(-limit);
  }

  /** Channels that this member can read, by name; `general` first. */
  async channels() {
    const facts = await this.facts();
    const me = this.#how.member?.id ?? "";
    const general = facts.channels.get(GENERAL);
    const found = [...facts.channels.values()].filter(({ creator, name, id }) => creator && name && id !== GENERAL);
    /** @param {{name: string, id: string}} one */
    const place = ({ name, id }) => `${name.toLowerCase()}\0${id}`;
    found.sort((a, b) => (place(a) < place(b) ? -1 : 1));
    return [
      { id: GENERAL, name: "general", mode: "public", topic: "", days: general?.days ?? facts.days, creator: "", managers: [], members: [], asking: [], isIn: true, isOut: false, manages: false },
      ...found.map(({ id, name, mode, topic, days, creator, managers, members, asking, cuts }) => ({
        id, name, mode, topic, days: days ?? facts.days, creator, managers: [...managers], members: [...members], asking: [...asking],
        isIn: members.has(me), isOut: cuts.has(me), manages: managers.has(me),
      })),
    ];
  }

  /** Everybody who has said who they are; devices of one person have the same `person`. Who `asks` says that they are this member's. */
  async people() {
    const facts = await this.facts();
    const asks = this.#how.member ? facts.asks(this.#how.member.id) : [];
    return [...facts.names].map(([id, name]) => ({ id, name, person: facts.person(id), key: id.slice(0, 6), asks: asks.includes(id) }));
  }
}

/** By UTF-8, as other languages sort. @param {string} a @param {string} b */
const byUtf8 = (a, b) => {
  const [one, other] = [[...a], [...b]];
  for (let at = 0; at < Math.min(one.length, other.length); at += 1) {
    const by = /** @type {number} */ (one[at].codePointAt(0)) - /** @type {number} */ (other[at].codePointAt(0));
    if (by) return by;
  }
  return one.length - other.length;
};
