/**
 * Facts: what is true of a circle's chat, by one rule, in whatever order records came (docs/chat.md, One rule).
 *
 * All facts are folded anew, author by author in the order of their chains. What an author says later replaces what
 * it said before; what several may say is decided by a number, then by time, then by the smaller hash; who may say it
 * is judged by who may now.
 * @module
 */
import { b64, concat, u64, unb64, unhex, utf8 } from "../bytes.js";
import { id, label, sha256, verify } from "../crypto.js";
import { hex } from "../bytes.js";
import { members, readStrict, strict } from "../json.js";
import { memberId } from "../keys.js";
import { GENERAL, isHash, forBody, forChannelKey, openBody, unbox } from "../seals.js";
import { read } from "./kinds.js";

/** @typedef {import("../seals.js").Rec} Rec */
/** @typedef {import("../keys.js").Member} Member */
/** @typedef {{n: number, at: number, hash: string, by: string, value: any}} Latest what an author said last of one thing */
/** @typedef {{hash: string, number: number, by: string, boxes: Set<string>, salt: Uint8Array | null, fact: Rec}} Source a record that makes a key */

/**
 * @typedef {object} Channel
 * @property {string} id
 * @property {string} creator empty while its creation has not come
 * @property {Latest | null} created
 * @property {number} seq
 * @property {"public" | "key" | "invite"} mode
 * @property {string} name
 * @property {string} topic
 * @property {number | null} days
 * @property {Set<string>} managers
 * @property {Set<string>} members
 * @property {Set<string>} asking
 * @property {Map<string, number>} cuts up to where removed members count
 * @property {Map<string, Source>} sources
 * @property {Map<string, Set<string>>} invited to whom a key was boxed
 * @property {Record<"names" | "topics" | "days" | "managers" | "here" | "about" | "given", Map<string, Latest>>} said
 * @property {Map<string, string[]>} ever whom its creator has ever named, by record
 */

/**
 * @typedef {object} Call
 * @property {string} hash
 * @property {string} channel
 * @property {string} host
 * @property {string} media
 * @property {number} at_ms
 * @property {string[]} participants
 * @property {string[]} viewers
 * @property {boolean} ended
 * @property {number} ended_ms when it was ended, or who left it last has left; 0 if that is not known
 * @property {number} heard
 * @property {string[] | null} ring whom it rings; null for everybody
 * @property {Set<string>} ever who was ever in
 */

export const MOST_REGISTERS = 4000;
const MOST_GIVEN = 16;
const CALL = 12 * 3_600_000;
const RING = 90_000;
const MOST_RUNG = 64;
const OPEN = ["op", "mode", "salt", "box"];

/** @param {Latest} one @param {Latest} other */
const isLater = (one, other) => one.n - other.n || one.at - other.at || (one.hash < other.hash ? 1 : -1);

/** @param {Rec} rec */
export const isClosed = ({ body }) => "closed" in body;

/** The id of the channel that a member creates. @param {string} author @param {string} salt both in b64 */
export const channelId = (author, salt) => id("channel", concat(unb64(author), unb64(salt)));

/** The word among a presence's abilities that says: this node is in that call. @param {string} call */
export const callWord = async (call) => `call_${hex(await sha256(concat(label("call"), unhex(call)))).slice(0, 24)}`;

/** Whom a call rings: everybody, if it says nothing; nobody, if it says nonsense. @param {any} ring @returns {string[] | null} */
const rungBy = (ring) => {
  if (ring == null) return null;
  return Array.isArray(ring) ? ring.slice(0, MOST_RUNG).filter((one) => typeof one === "string") : [];
};

/** What the founder key signs of who manages the circle. @param {string} circle @param {number} at @param {string[]} managers */
export const managersText = (circle, at, managers) => concat(label("managers"), unhex(circle), u64(at), utf8(strict(managers)));

/** @param {string} id @returns {Channel} */
const newChannel = (id) => ({
  id, creator: "", created: null, seq: 0, mode: "public", name: "", topic: "", days: null, managers: new Set(), members: new Set(),
  asking: new Set(), cuts: new Map(), sources: new Map(), invited: new Map(), ever: new Map(),
  said: { names: new Map(), topics: new Map(), days: new Map(), managers: new Map(), here: new Map(), about: new Map(), given: new Map() },
});

/** What is true of one circle, as one member has it. */
export class Facts {
  /** @type {Map<string, Channel>} */
  channels = new Map();
  /** @type {Map<string, string>} how members are called */
  names = new Map();
  /** @type {Map<string, {author: string, box: string}>} */
  members = new Map();
  name = "";
  days = 30;
  /** @type {Set<string>} */
  managers = new Set();
  /** @type {Set<string>} hashes of what still stands */
  standing = new Set();
  /** @type {Map<string, Call>} */
  calls = new Map();
  /** @type {Map<string, string>} */
  personOf = new Map();
  statementAt = 0;

  #how;
  /** @type {Map<string, number>} */
  #used = new Map();
  /** @type {Record<"member" | "persons" | "names" | "days" | "callAt" | "ends" | "revokes", Map<string, Latest>>} */
  #said = { member: new Map(), persons: new Map(), names: new Map(), days: new Map(), callAt: new Map(), ends: new Map(), revokes: new Map() };
  /** @type {Map<string, Rec>} */
  #statements = new Map();
  /** @type {Rec | null} */
  #statement = null;
  /** @type {Map<string, Rec>} */
  #creates = new Map();
  /** @type {Map<string, Set<string>>} who was ever in a call */
  #ever = new Map();
  /** @type {Map<string, number>} */
  #entered = new Map();
  /** @type {Map<string, number>} when somebody has left a call last */
  #left = new Map();

  /**
   * @param {object} how
   * @param {string} how.circle
   * @param {Uint8Array} how.founder
   * @param {Member | null} how.member whose boxes can be opened
   * @param {Map<string, Uint8Array>} how.typed keys that passphrases made, by salt in b64; that were brought, by the record that made them
   * @param {Map<any, any>} how.cache of what was opened
   */
  constructor(how) {
    this.#how = how;
  }

  /** Fold facts, in whatever order they are given. @param {ConstructorParameters<typeof Facts>[0]} how @param {Iterable<Rec>} found @returns {Promise<Facts>} */
  static async of(how, found) {
    const facts = new Facts(how);
    // by the bytes of keys, as everywhere: who names a channel first has one fact less left
    /** @type {Map<string, Rec[]>} */
    const chains = new Map();
    for (const fact of found) {
      const chain = chains.get(fact.author);
      if (chain) chain.push(fact);
      else chains.set(fact.author, [fact]);
    }
    const authors = [...chains.keys()].map((author) => [hex(unb64(author)), author]).sort();
    const ordered = authors.flatMap(([, author]) => (chains.get(author) ?? []).sort((a, b) => a.seq - b.seq || (a.hash < b.hash ? 1 : -1)));
    /** @type {Rec[]} */
    const later = [];
    // one that nobody can read stops none of the others
    for (const fact of ordered) await facts.#fold(fact, later).catch(() => {});
    for (const channel of facts.channels.values()) if (channel.creator) facts.#settleChannel(channel);
    for (const fact of later) await facts.#foldClosed(fact).catch(() => {});
    await facts.#settle();
    return facts;
  }

  // Reading facts

  /** Whether one more fact of an author counts. @param {string} by */
  #room(by) {
    const used = this.#used.get(by) ?? 0;
    this.#used.set(by, used + 1);
    return used < MOST_REGISTERS;
  }

  /** Let a fact replace what its author said of this before. @param {Map<string, Latest>} where @param {string} name @param {Rec} fact @param {any} value @param {number} [n] */
  #keep(where, name, { member: by, at_ms: at, hash }, value, n = 0) {
    if (!where.has(name) && !this.#room(by)) return false;
    where.set(name, { n, at, hash, by, value });
    return true;
  }

  /** @param {Rec} fact @param {Rec[]} later */
  async #fold(fact, later) {
    const { kind, member: by } = fact;
    if (kind === "call") return void later.push(fact);
    if (kind === "channel") return this.#foldChannel(fact, later);
    const said = read(kind, fact.body);
    if (!said) return;
    if (kind === "member") {
      if (this.#keep(this.#said.member, by, fact, said.name)) this.members.set(by, { author: fact.author, box: said.box });
    } else if (kind === "person") {
      this.#keep(this.#said.persons, `${by} ${await memberId(unb64(said.with))}`, fact, said.on ?? true);
    } else if (said.op === "name") this.#keep(this.#said.names, by, fact, said.name, said.n);
    else if (said.op === "keep") this.#keep(this.#said.days, by, fact, said.days, said.n);
    else if (said.op === "managers" && (this.#statements.has(by) || this.#room(by))) this.#statements.set(by, fact);
  }

  /** @param {Rec} fact @param {Rec[]} later */
  async #foldChannel(fact, later) {
    const closed = isClosed(fact);
    const { op } = fact.body;
    const { member: by, hash } = fact;
    if (closed && (op === "rename" || op === "topic")) return void later.push(fact);
    const said = read("channel", closed && op === "create" ? { ...fact.body, name: "?" } : fact.body);
    if (!said || (fact.channel === GENERAL && op !== "keep")) return;
    if (!this.channels.has(fact.channel) && !this.#room(by)) return;
    const channel = this.channels.get(fact.channel) ?? newChannel(fact.channel);
    this.channels.set(fact.channel, channel);
    const { names, topics, days, managers, here, about, given } = channel.said;
    if (op === "create") {
      if ((await channelId(fact.author, said.salt)) === channel.id) this.#create(channel, fact, said);
      if (closed) later.push(fact);
    } else if (op === "rename") this.#keep(names, by, fact, [said.name, true], said.n);
    else if (op === "topic") this.#keep(topics, by, fact, [said.topic, true], said.n);
    else if (op === "keep") this.#keep(days, by, fact, said.days, said.n);
    else if (op === "join" || op === "leave") this.#keep(here, by, fact, op === "join");
    else if (op === "managers") {
      if (this.#keep(managers, by, fact, said.managers)) channel.ever.set(`${by} ${hash}`, said.managers);
    } else if (op === "remove") {
      this.#keep(about, `${by} ${said.member}`, fact, said, said.n);
      this.#newKey(channel, fact, said);
    } else if (op === "key") this.#newKey(channel, fact, said);
    else {
      this.#keep(about, `${by} ${said.to}`, fact, said, said.n);
      if (said.from && said.box) this.#keep(given, `${by} ${said.from} ${said.to} ${hash}`, fact, said); // all of them: one may be junk
    }
  }

  /** @param {Channel} channel @param {Rec} fact @param {any} said */
  #create(channel, fact, { mode, name, salt, box }) {
    if (isClosed(fact) === (mode === "public") || (channel.created && channel.seq < fact.seq)) return; // it is created once
    const { member: by, hash, at_ms: at, seq } = fact;
    Object.assign(channel, { creator: by, mode, seq, created: { n: 0, at, hash, by, value: null } });
    if (mode === "public") channel.name = name;
    else channel.sources.set(hash, { hash, number: 0, by, boxes: new Set(box ? [by] : []), salt: unb64(salt), fact });
  }

  /** @param {Channel} channel @param {Rec} fact @param {any} said */
  #newKey(channel, fact, { key, boxes = {}, salt }) {
    const { member: by, hash } = fact;
    if (key == null || !this.#room(by)) return;
    channel.sources.set(hash, { hash, number: key, by, boxes: new Set(Object.keys(boxes)), salt: salt ? unb64(salt) : null, fact });
  }

  /** Fold what could be read only when modes and keys were known. @param {Rec} fact */
  async #foldClosed(fact) {
    const channel = this.channels.get(fact.channel);
    const { member: by, hash, kind } = fact;
    if (channel && !this.hears(channel, by, fact.seq)) return;
    const isPrivate = channel !== undefined && channel.mode !== "public";
    const body = kind === "call" && !isPrivate && !isClosed(fact) ? fact.body : await this.open(fact);
    const said = body && read(kind, body);
    if (!said) return;
    const { op, call } = said;
    if (kind === "channel") {
      if (op === "create" && channel?.created?.hash === hash) channel.name = said.name;
      if (op === "rename" && channel) this.#keep(channel.said.names, by, fact, [said.name, false], said.n);
      if (op === "topic" && channel) this.#keep(channel.said.topics, by, fact, [said.topic, false], said.n);
    } else if (op === "create") {
      if (!this.#room(by)) return;
      this.#creates.set(hash, { ...fact, body: said });
      this.#enter(hash, by);
      this.#move(by, fact, [hash, "join", fact.channel]);
    } else if (op === "end") this.#keep(this.#said.ends, `${by} ${call}`, fact, true);
    else if (op === "revoke") this.#keep(this.#said.revokes, `${by} ${call} ${said.member}`, fact, true);
    else {
      if (op !== "leave") this.#enter(call, by);
      this.#move(by, fact, [call, op, fact.channel]);
    }
  }

  /** Note in which call a member is, and when it was in the one before. @param {string} by @param {Rec} fact @param {[string, string, string]} value */
  #move(by, fact, value) {
    const [before, op] = this.#said.callAt.get(by)?.value ?? ["", "leave"];
    if (op !== "leave" && this.#ever.get(before)?.has(by)) this.#left.set(before, Math.max(this.#left.get(before) ?? 0, fact.at_ms));
    this.#keep(this.#said.callAt, by, fact, value);
  }

  /** Note that a member was in a call, as what it says later replaces that. @param {string} call @param {string} by */
  #enter(call, by) {
    const known = this.#ever.get(call) ?? new Set();
    const times = this.#entered.get(by) ?? 0;
    if (known.has(by) || times >= MOST_REGISTERS) return;
    this.#entered.set(by, times + 1);
    this.#ever.set(call, known.add(by));
  }

  // What follows

  /** Decide who may do what in a channel, and who is in. @param {Channel} channel */
  #settleChannel(channel) {
    const { creator, said, mode } = channel;
    const removedByCreator = (/** @type {string} */ one) => said.about.get(`${creator} ${one}`)?.value.op === "remove";
    const named = said.managers.get(creator)?.value ?? [];
    channel.managers = new Set([creator, ...named.filter((/** @type {string} */ one) => !removedByCreator(one))]);
    /** @type {Map<string, Latest>} */
    const last = new Map();
    for (const [name, latest] of said.about) {
      const [by, target] = name.split(" ");
      const shielded = target === creator || (channel.managers.has(target) && by !== creator);
      if (!channel.managers.has(by) || (latest.value.op === "remove" && shielded)) continue;
      const known = last.get(target);
      if (!known || isLater(latest, known) > 0) last.set(target, latest);
    }
    const inside = new Set(channel.managers);
    for (const [target, { value }] of last) {
      if (value.op === "remove") channel.cuts.set(target, value.last);
      else inside.add(target);
    }
    const here = [...said.here].filter(([, { value }]) => value).map(([one]) => one);
    if (mode !== "invite") for (const one of here) inside.add(one);
    const isOut = (/** @type {string} */ one) => channel.cuts.has(one);
    channel.members = new Set([...inside].filter((one) => !isOut(one) && said.here.get(one)?.value !== false));
    channel.asking = new Set(here.filter((one) => !inside.has(one) && !isOut(one)));
    // Keys count that were made and given by those who may, or once might: what was said under them stays.
    const once = new Set([creator]);
    for (const [name, ever] of channel.ever) if (name.startsWith(creator)) for (const one of ever) once.add(one);
    for (const [hash, { by, fact }] of channel.sources) if (!once.has(by) || !this.hears(channel, by, fact.seq)) channel.sources.delete(hash);
    for (const [name, { by }] of said.given) if (!once.has(by)) said.given.delete(name);
    for (const source of channel.sources.values()) channel.invited.set(source.hash, new Set(source.boxes));
    for (const name of said.given.keys()) {
      const [, source, target] = name.split(" ");
      channel.invited.get(source)?.add(target);
    }
  }

  /** @param {Map<string, Latest>} said @param {Set<string>} may @param {any} usual */
  #decided(said, may, usual) {
    /** @type {Latest | undefined} */
    let best;
    for (const latest of said.values()) if (may.has(latest.by) && (!best || isLater(latest, best) > 0)) best = latest;
    return best ? best.value : usual;
  }

  /** Decide names, persons, calls, and what still stands. */
  async #settle() {
    const order = [...this.#statements.values()].sort((a, b) => b.body.at_ms - a.body.at_ms || (a.hash < b.hash ? -1 : 1));
    for (const fact of order) {
      const { at_ms, managers, signature } = fact.body;
      if (!(await verify(this.#how.founder, unb64(signature), managersText(this.#how.circle, at_ms, managers)))) continue;
      this.#statement = fact;
      this.statementAt = at_ms;
      this.managers = new Set(managers);
      break;
    }
    this.name = this.#decided(this.#said.names, this.managers, "");
    this.days = this.#decided(this.#said.days, this.managers, 30);
    for (const channel of this.channels.values()) {
      const fits = (/** @type {Map<string, Latest>} */ said) => new Map([...said].filter(([, { value }]) => value[1] === (channel.mode === "public")));
      [channel.name] = this.#decided(fits(channel.said.names), channel.managers, [channel.name]);
      [channel.topic] = this.#decided(fits(channel.said.topics), channel.managers, [""]);
      channel.days = this.#decided(channel.said.days, channel.id === GENERAL ? this.managers : channel.managers, null);
    }
    this.#settlePersons();
    this.#settleCalls();
    this.#settleStanding();
  }

  /** Join members who name each other; a person is called as its newest device says. */
  #settlePersons() {
    const { persons, member } = this.#said;
    /** @type {Map<string, Set<string>>} */
    const groups = new Map();
    for (const [name, { value }] of persons) {
      const [one, other] = name.split(" ");
      if (!value || one === other || !persons.get(`${other} ${one}`)?.value) continue;
      const joined = new Set([one, other, ...(groups.get(one) ?? []), ...(groups.get(other) ?? [])]);
      for (const each of joined) groups.set(each, joined);
    }
    for (const [one, joined] of groups) this.personOf.set(one, [...joined].sort()[0]);
    /** @type {Map<string, Latest>} */
    const newest = new Map();
    for (const [one, latest] of member) {
      const known = newest.get(this.person(one));
      if (!known || isLater(latest, known) > 0) newest.set(this.person(one), latest);
    }
    for (const one of member.keys()) this.names.set(one, newest.get(this.person(one))?.value);
  }

  #settleCalls() {
    const { callAt, ends, revokes } = this.#said;
    for (const [hash, { channel, member: host, body, at_ms }] of this.#creates) {
      this.calls.set(hash, {
        hash, channel, host, media: body.media ?? "audio", at_ms, participants: [], viewers: [], ended: ends.has(`${host} ${hash}`), heard: at_ms,
        ended_ms: ends.get(`${host} ${hash}`)?.at ?? 0, ring: rungBy(body.ring), ever: this.#ever.get(hash) ?? new Set(),
      });
    }
    for (const { by, at, value: [hash, op, place] } of callAt.values()) {
      const call = this.calls.get(hash);
      if (!call || op === "leave" || place !== call.channel || revokes.has(`${call.host} ${hash} ${by}`)) continue;
      call[op === "view" ? "viewers" : "participants"].push(by);
      call.heard = Math.max(call.heard, at);
    }
    for (const call of this.calls.values()) if (!call.ended && !call.participants.length) call.ended_ms = this.#left.get(call.hash) ?? 0;
  }

  #settleStanding() {
    const { member, persons, names, days } = this.#said;
    const registers = [member, persons, names, days];
    for (const { said, sources, ever, creator, created } of this.channels.values()) {
      registers.push(...Object.values(said));
      for (const hash of sources.keys()) this.standing.add(hash);
      for (const name of ever.keys()) if (name.startsWith(creator || "-")) this.standing.add(name.split(" ")[1]);
      if (created) this.standing.add(created.hash);
    }
    for (const register of registers) for (const { hash } of register.values()) this.standing.add(hash);
    if (this.#statement) this.standing.add(this.#statement.hash);
  }

  // Keys

  /** What made the key that is used now: the highest number, the smaller hash. @param {Channel} channel @returns {Source | undefined} */
  source(channel) {
    return [...channel.sources.values()].filter(({ by }) => channel.managers.has(by)).sort((a, b) => b.number - a.number || (a.hash < b.hash ? -1 : 1))[0];
  }

  /** What may be the key that a record has made: others may have boxed nonsense. @param {Channel} channel @param {Source} source @returns {Promise<Uint8Array[]>} */
  async keysOf(channel, { hash, number, by, salt, fact }) {
    const { member: me, typed, cache, circle } = this.#how;
    const found = [];
    const [known, brought] = [salt && typed.get(b64(salt)), typed.get(hash)];
    if (known) found.push(known);
    if (!me) return brought ? [...found, brought] : found;
    const { boxes, box } = fact.body;
    const given = [boxes?.[me.id] ?? (by === me.id ? box : undefined)];
    /** @type {Map<string, number>} */
    const byWhom = new Map();
    for (const [name, { value, by: giver }] of channel.said.given) {
      const count = byWhom.get(giver) ?? 0;
      if (!name.includes(` ${hash} ${me.id} `) || value.key !== number || count >= MOST_GIVEN) continue;
      byWhom.set(giver, count + 1);
      given.push(value.box);
    }
    for (const one of given) {
      if (typeof one !== "string") continue;
      const name = `${channel.id} ${number} ${one}`;
      if (!cache.has(name)) {
        const open = async () => unbox(unb64(one, 80), me.box, forChannelKey(circle, channel.id, number));
        cache.set(name, await open().catch(() => null));
      }
      if (cache.get(name)) found.push(cache.get(name));
    }
    return brought ? [...found, brought] : found; // what was boxed to this member comes first
  }

  /** What a closed record says under a key. @param {Rec} rec @param {Uint8Array} key @returns {Promise<any>} null if it does not open */
  async #openWith(rec, key) {
    try {
      const { key: number, closed } = rec.body;
      const aad = forBody(rec.circle, rec.channel, number, rec.author, rec.seq);
      const inner = members(readStrict(await openBody(key, unb64(closed), aad)), "a closed body");
      return { ...inner, ...Object.fromEntries(OPEN.filter((one) => one in rec.body).map((one) => [one, rec.body[one]])) };
    } catch {
      return null;
    }
  }

  /** What a closed record says, if this member can read it; null otherwise. @param {Rec} rec @returns {Promise<any>} */
  async open(rec) {
    const channel = this.channels.get(rec.channel);
    if (!channel || channel.mode === "public" || !isClosed(rec)) return null;
    const { from = null, key: number } = rec.body;
    const source = channel.sources.get(from === null ? rec.hash : isHash(from) ? from : "");
    if (!source || source.number !== number) return null;
    const { cache } = this.#how;
    const known = cache.get(rec.hash);
    if (known) return known;
    for (const key of await this.keysOf(channel, source)) {
      const failed = cache.get(key) ?? new Set();
      if (failed.has(rec.hash)) continue;
      const body = await this.#openWith(rec, key);
      if (!body) {
        cache.set(key, failed.add(rec.hash)); // what somebody has filled with nonsense is tried once
        continue;
      }
      if (cache.size < 20_000) cache.set(rec.hash, body);
      return body;
    }
    return null;
  }

  /** The key to close with now, if this member has it. @param {Channel} channel @returns {Promise<{source: Source, key: Uint8Array} | null>} */
  async writing(channel) {
    const source = this.source(channel);
    const key = source && (await this.keyOf(channel, source));
    return key ? { source, key } : null;
  }

  /** The key that a record has made, where it opens what was closed with it. @param {Channel} channel @param {Source} source @returns {Promise<Uint8Array | null>} */
  async keyOf(channel, source) {
    for (const key of await this.keysOf(channel, source)) {
      if (!isClosed(source.fact) || (await this.#openWith(source.fact, key))) return key;
    }
    return null;
  }

  /** Whether a passphrase's key opens what made a key. @param {Source} source @param {Uint8Array} key */
  async fits({ fact }, key) {
    return this.#openWith(fact, key);
  }

  // Asking

  /** Whether a record of a member counts in a channel. @param {Channel} channel @param {string} member @param {number} seq */
  hears(channel, member, seq) {
    return seq <= (channel.cuts.get(member) ?? Infinity);
  }

  /** Who a member is: the least of the members of one person. @param {string} member */
  person(member) {
    return this.personOf.get(member) ?? member;
  }

  /** All members that are the same person. @param {string} member */
  devices(member) {
    const person = this.person(member);
    return [...new Set([member, ...[...this.personOf].filter(([, other]) => other === person).map(([one]) => one)])].sort();
  }

  /** The members that say they are the same person, and were not answered so far. @param {string} member @returns {string[]} */
  asks(member) {
    const { persons } = this.#said;
    const named = [...persons].filter(([name, { value }]) => value && name.endsWith(` ${member}`)).map(([name]) => name.split(" ")[0]);
    const devices = this.devices(member);
    return named.filter((one) => !devices.includes(one) && persons.get(`${member} ${one}`)?.value !== false);
  }

  /** How many days the texts of a channel are kept; 0 is for ever. @param {string} channel */
  daysOf(channel) {
    return this.channels.get(channel)?.days ?? this.days;
  }

  /** The number of something new among what those who may have said of it. @param {Map<string, Latest>} said @param {Set<string>} may @param {string} [about] */
  next(said, may, about = "") {
    let last = 0;
    for (const [name, { n, by }] of said) if (may.has(by) && name.endsWith(about)) last = Math.max(last, n);
    return Math.min(last + 1, Number.MAX_SAFE_INTEGER);
  }

  /** @param {"names" | "days"} what */
  nextOfCircle(what) {
    return this.next(this.#said[what], this.managers);
  }

  /** The call that is on in a channel; *words* are the abilities that members' nodes tell now. @param {string} channel @param {number} now @param {(member: string) => string[]} words @returns {Promise<Call | undefined>} */
  async ongoing(channel, now, words) {
    const on = [];
    for (const call of this.calls.values()) {
      if (call.channel !== channel || call.ended || !call.participants.length || now < call.at_ms - 600_000 || now > call.at_ms + CALL) continue;
      const word = await callWord(call.hash);
      if (Math.abs(now - call.heard) <= RING || call.participants.some((one) => words(one).includes(word))) on.push(call);
    }
    const alone = (/** @type {Call} */ { participants }) => Number(participants.length < 2);
    return on.sort((a, b) => alone(a) - alone(b) || a.at_ms - b.at_ms || (a.hash < b.hash ? -1 : 1))[0];
  }
}
