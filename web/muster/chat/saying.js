/**
 * What to say of a chat beside plain texts: each function returns the records to be appended, in their order.
 *
 * A body that is a function takes its number in the chain, as what is said in a private channel is closed for its place.
 * Loaded when it is used. Whoever may not do what is asked is refused here (`NOT_ALLOWED`); others would let it count for nothing.
 * @module
 */
import { b64, concat, random, u64, unb64, unhex, utf8 } from "../bytes.js";
import { label, pbkdf2, signer } from "../crypto.js";
import { readService, writeService } from "../invites.js";
import { strict } from "../json.js";
import { Refused } from "../refused.js";
import { GENERAL, ID, box, closeBody, forBody, forChannelKey, forFounder } from "../seals.js";
import { channelId, managersText } from "./facts.js";
import { read } from "./kinds.js";

/** @typedef {import("./facts.js").Facts} Facts */
/** @typedef {import("./facts.js").Channel} Channel */
/** @typedef {import("./talk.js").Talk} Talk */
/** @typedef {import("../keys.js").Member} Member */
/** @typedef {{kind: string, channel: string, body: any}} Draft */

/**
 * @typedef {object} Context
 * @property {string} circle
 * @property {Member} member
 * @property {Talk} talk
 * @property {Facts} facts
 * @property {() => number} now
 * @property {(author: string) => number} tip up to where an author is heard (log.js, reach)
 * @property {Uint8Array} [founderSeed]
 * @property {number} servicesAt when services were told of last
 * @property {(salt: string, key: Uint8Array) => Promise<void>} remember a passphrase's key
 */

const MOST_BOXES = 1024;
const MOST_KEYS = 2 ** 32 - 1;
const MOST_TRIED = 32;
const OPEN = ["op", "mode", "salt", "box"];

/** @param {string} message */
const notAllowed = (message) => new Refused("NOT_ALLOWED", message);
/** @param {string} message */
const bad = (message) => new Refused("MALFORMED", message);

/** @param {string} name */
const named = (name) => {
  const found = String(name).replace(/^#/, "").trim().replace(/\s+/g, " ");
  if (!found || utf8(found).length > 64) throw bad("a name has 1 to 64 bytes");
  return found;
};

/** @param {any} days */
const daysOf = (days) => {
  if (!Number.isInteger(days) || days < 0 || days > 3650) throw bad("texts are kept 1 to 3650 days, or 0 for as long as one likes");
  return days;
};

/** @param {string | undefined} passphrase */
const typed = (passphrase) => {
  if (String(passphrase ?? "").length < 8) throw bad("the passphrase of a channel has at least 8 characters");
  return String(passphrase);
};

/** @param {number} n */
const numbered = (n) => (n ? { n } : {});

/** Close a body under a key, for its place in the chain. @param {Context} c @param {string} channel @param {any} body @param {{number: number, from?: string, key: Uint8Array}} how */
const closing = ({ circle, member }, channel, body, { number, from, key }) => async (/** @type {number} */ seq) => {
  const clear = Object.fromEntries(Object.entries(body).filter(([name]) => OPEN.includes(name)));
  const inner = Object.fromEntries(Object.entries(body).filter(([name]) => !OPEN.includes(name)));
  const aad = forBody(circle, channel, number, member.author, seq);
  return { ...clear, key: number, ...(from && { from }), closed: b64(await closeBody(key, utf8(strict(inner)), aad)) };
};

/**
 * Say something in a channel, closed where it is private.
 * @param {Context} c
 * @param {string} channel
 * @param {string} kind
 * @param {any} body
 * @returns {Promise<Draft>}
 */
export const draft = async (c, channel, kind, body) => {
  const known = c.facts.channels.get(channel);
  if (channel !== GENERAL && !known?.creator) throw new Refused("NO_CHANNEL", "there is no such channel");
  if (!read(kind, body)) throw bad(`a ${kind} has another form, or is shorter`);
  if (!known || known.mode === "public") return { kind, channel, body };
  if (known.cuts.has(c.member.id)) throw notAllowed(`you were removed from #${known.name}`);
  const { number, from, key } = await writing(c, known);
  return { kind, channel, body: closing(c, channel, body, { number, from, key }) };
};

/** @param {Context} c @param {Channel} channel */
const writing = async ({ facts }, channel) => {
  const found = await facts.writing(channel);
  if (!found) throw notAllowed(`this device has no key of #${channel.name || channel.id.slice(0, 6)}: ask who manages it, or join with its passphrase`);
  return { number: found.source.number, from: found.source.hash, key: found.key };
};

/** @param {Context} c @param {string} id */
const known = ({ facts }, id) => {
  const found = facts.channels.get(id);
  if (!found?.creator) throw new Refused("NO_CHANNEL", "there is no such channel");
  return found;
};

/** @param {Context} c @param {string} id */
const managed = (c, id) => {
  const found = known(c, id);
  if (!found.managers.has(c.member.id)) throw notAllowed(`only those who manage #${found.name} can do that`);
  return found;
};

/** @param {Context} c @param {string} hash */
const mine = async ({ talk, member }, hash) => {
  const found = await talk.message(hash);
  if (found?.author.id !== member.id) throw notAllowed("only its author can do that");
  return found;
};

/** @param {Context} c @param {Uint8Array} key @param {string} to b64 @param {string} channel @param {number} number */
const boxed = async ({ circle }, key, to, channel, number) => b64(await box(key, unb64(to, 32), forChannelKey(circle, channel, number)));

/** What makes the next key of a private channel, for those who are in. @param {Context} c @param {Channel} channel @param {string[]} without @param {string} [passphrase] */
const nextKey = async (c, channel, without, passphrase) => {
  const number = (c.facts.source(channel)?.number ?? -1) + 1;
  if (number > MOST_KEYS) throw bad("a manager has used the last number of a key: take that right away");
  if (channel.mode === "key") {
    const salt = random(16);
    const key = await pbkdf2(typed(passphrase), salt);
    await c.remember(b64(salt), key);
    return { number, key, body: { salt: b64(salt) } };
  }
  const key = random(32);
  const stay = [...channel.members].filter((one) => !without.includes(one) && c.facts.members.has(one)).sort();
  if (stay.length > MOST_BOXES) throw bad(`a private channel has at most ${MOST_BOXES} members`);
  /** @type {Record<string, string>} */
  const boxes = {};
  for (const one of stay) {
    const to = /** @type {{box: string}} */ (c.facts.members.get(one)).box;
    const sealed = await boxed(c, key, to, channel.id, number).catch(() => null); // a box key that leads to nothing
    if (sealed) boxes[one] = sealed;
  }
  boxes[c.member.id] = await boxed(c, key, b64(c.member.box.public), channel.id, number);
  return { number, key: null, body: { key: number, boxes } };
};

/** @param {Context} c @param {Channel} channel @param {any} body @param {string[]} without @param {string} [passphrase] @returns {Promise<Draft>} */
const withKey = async (c, channel, body, without, passphrase) => {
  const { number, key, body: made } = await nextKey(c, channel, without, passphrase);
  const whole = { ...body, ...made };
  if (!key) return { kind: "channel", channel: channel.id, body: whole };
  // in mode `key` an empty body is closed, so that a passphrase can be tried
  const closed = closing(c, channel.id, {}, { number, key });
  return { kind: "channel", channel: channel.id, body: async (/** @type {number} */ seq) => ({ ...whole, ...(await closed(seq)) }) };
};

/** @param {Context} c @param {Channel} channel @param {string} member @param {boolean} approve @returns {Promise<Draft>} */
const invitation = async (c, channel, member, approve) => {
  const n = c.facts.next(channel.said.about, channel.managers, ` ${member}`);
  const body = { op: approve ? "approve" : "invite", to: member, ...numbered(n) };
  if (channel.mode !== "invite") return { kind: "channel", channel: channel.id, body };
  const { number, from, key } = await writing(c, channel);
  const to = c.facts.members.get(member)?.box;
  if (!to) throw bad("this member has not said so far where secrets are boxed to");
  return { kind: "channel", channel: channel.id, body: { ...body, key: number, from, box: await boxed(c, key, to, channel.id, number) } };
};

/** @param {Context} c @param {Channel} channel @param {string} member */
const removal = (c, channel, member) => {
  const last = channel.cuts.get(member) ?? c.tip(c.facts.members.get(member)?.author ?? "");
  return { op: "remove", member, last, ...numbered(c.facts.next(channel.said.about, channel.managers, ` ${member}`)) };
};

/** @param {Context} c @param {string} op @param {any} body @param {Draft[]} [before] @returns {Promise<Draft[]>} */
const ofCircle = async (c, op, body, before = []) => {
  if (!c.facts.managers.has(c.member.id)) {
    if (!c.founderSeed) throw notAllowed("only those who manage the circle can do that");
    before = await ops.managers(c, GENERAL, [...c.facts.managers]);
  }
  return [...before, { kind: "circle", channel: GENERAL, body: { op, ...body } }];
};

/** What `act` takes, by its name; the channel is an id. @type {Record<string, (c: Context, ...args: any[]) => Promise<Draft[]>>} */
export const ops = {
  /** Let a text of one's own say something else. */
  edit: async (c, of, text) => [await draft(c, (await mine(c, of)).channel, "edit", { of, text: String(text) })],
  /** Drop a text of one's own, everywhere. */
  delete: async (c, of) => {
    const { channel, seq } = await mine(c, of);
    return [{ kind: "delete", channel, body: { of, seq } }];
  },
  /** Put an emoji beside a text, or take it away. */
  react: async (c, of, emoji, on = true) => {
    const found = await c.talk.message(of);
    if (!found) throw bad("there is no such text");
    return [await draft(c, found.channel, "react", { of, emoji: String(emoji), ...(on ? {} : { on: false }) })];
  },
  /** Make a channel: `public`, `key` (with a passphrase) or `invite`. */
  create: async (c, name, mode = "public", passphrase = undefined) => {
    const called = named(name);
    const isCalled = (/** @type {string} */ one) => one.toLowerCase() === called.toLowerCase();
    if ([...c.facts.channels.values()].some(({ name }) => isCalled(name)) || isCalled("general")) throw bad(`there is a channel '${called}' already`);
    const salt = random(16);
    const channel = await channelId(c.member.author, b64(salt));
    const body = { op: "create", mode, salt: b64(salt) };
    if (mode === "public") return [{ kind: "channel", channel, body: { ...body, name: called } }];
    if (mode !== "key" && mode !== "invite") throw bad("a channel is public, key or invite");
    const key = mode === "key" ? await pbkdf2(typed(passphrase), salt) : random(32);
    if (mode === "key") await c.remember(b64(salt), key);
    const own = mode === "invite" ? { box: await boxed(c, key, b64(c.member.box.public), channel, 0) } : {};
    return [{ kind: "channel", channel, body: closing(c, channel, { ...body, ...own, name: called }, { number: 0, key }) }];
  },
  /** Be in a channel; in one by invitation ask to be. */
  join: async (c, channel) => [{ kind: "channel", channel: known(c, channel).id, body: { op: "join" } }],
  /** Find the channel that a passphrase opens, and be in it. */
  unlock: async (c, name, passphrase) => {
    const wanted = String(name).replace(/^#/, "");
    const channels = [...c.facts.channels.values()].filter(({ mode }) => mode === "key");
    channels.sort((a, b) => (b.created?.at ?? 0) - (a.created?.at ?? 0));
    // of each creator in turn: each takes a tenth of a second, and one member can make any number
    /** @type {Record<string, number>} */
    const turns = {};
    const ranked = channels.map((one) => ({ one, turn: one.id === wanted ? -1 : (turns[one.creator] = (turns[one.creator] ?? 0) + 1) }));
    ranked.sort((a, b) => a.turn - b.turn);
    for (const { one: channel } of ranked.slice(0, MOST_TRIED)) {
      const source = c.facts.source(channel);
      if (!source?.salt) continue;
      const key = await pbkdf2(String(passphrase), source.salt);
      const inner = await c.facts.fits(source, key);
      if (!inner || ![inner.name ?? wanted, channel.name, channel.id].includes(wanted)) continue;
      await c.remember(b64(source.salt), key);
      return [{ kind: "channel", channel: channel.id, body: { op: "join" } }];
    }
    throw bad("no such channel opens with this passphrase: case counts");
  },
  /** Be in a channel no longer. */
  leave: async (c, channel) => [{ kind: "channel", channel: known(c, channel).id, body: { op: "leave" } }],
  rename: async (c, channel, name) => {
    const { said, managers } = managed(c, channel);
    return [await draft(c, channel, "channel", { op: "rename", name: named(name), ...numbered(c.facts.next(said.names, managers)) })];
  },
  topic: async (c, channel, topic) => {
    const { said, managers } = managed(c, channel);
    if (utf8(String(topic)).length > 512) throw bad("a topic has at most 512 bytes");
    return [await draft(c, channel, "channel", { op: "topic", topic: String(topic), ...numbered(c.facts.next(said.topics, managers)) })];
  },
  /** Say how many days texts are kept, in a channel or, of `general`, in the circle. */
  keep: async (c, channel, days) => {
    if (channel === GENERAL) return ofCircle(c, "keep", { days: daysOf(days), ...numbered(c.facts.nextOfCircle("days")) });
    const { said, managers } = managed(c, channel);
    return [{ kind: "channel", channel, body: { op: "keep", days: daysOf(days), ...numbered(c.facts.next(said.days, managers)) } }];
  },
  /** Name who manages a channel beside its creator, or, of `general`, the circle: by the founder. */
  managers: async (c, channel, members) => {
    const all = [...new Set(members.map(String))].sort();
    if (channel === GENERAL) {
      if (!c.founderSeed) throw notAllowed("only the founder's device can do that");
      const names = [...new Set([...all, c.member.id])].sort();
      if (names.length > 64) throw bad("a circle has at most 64 managers");
      const at = Math.max(c.now(), c.facts.statementAt + 1);
      const signature = b64(await (await signer(c.founderSeed)).sign(managersText(c.circle, at, names)));
      return [{ kind: "circle", channel, body: { op: "managers", managers: names, at_ms: at, signature } }];
    }
    const found = known(c, channel);
    if (found.creator !== c.member.id) throw notAllowed(`only who created #${found.name} names its managers`);
    const names = all.filter((one) => one !== c.member.id);
    if (names.length > 64) throw bad("a channel has at most 64 managers");
    /** @type {Draft[]} */
    const drafts = [{ kind: "channel", channel, body: { op: "managers", managers: names } }];
    if ([...found.managers].every((one) => one === c.member.id || names.includes(one))) return drafts;
    for (const target of found.cuts.keys()) drafts.push({ kind: "channel", channel, body: removal(c, found, target) });
    if (found.mode === "invite") drafts.push(await withKey(c, { ...found, managers: new Set([c.member.id, ...names]) }, { op: "key" }, []));
    return drafts;
  },
  /** Let somebody in, with all devices; who has asked is approved. */
  invite: async (c, channel, member) => {
    const found = managed(c, channel);
    return Promise.all(c.facts.devices(member).map((one) => invitation(c, found, one, found.asking.has(one))));
  },
  /** Shut somebody out, with all devices; a private channel gets its next key. */
  remove: async (c, channel, member, passphrase = undefined) => {
    let found = managed(c, channel);
    const devices = c.facts.devices(member);
    if (devices.includes(found.creator) || devices.includes(c.member.id)) throw bad("who created a channel cannot be removed from it");
    if (found.mode === "key") typed(passphrase);
    /** @type {Draft[]} */
    const drafts = [];
    const stay = [...found.managers].filter((one) => !devices.includes(one));
    if (found.creator === c.member.id && stay.length < found.managers.size) {
      drafts.push({ kind: "channel", channel, body: { op: "managers", managers: stay.filter((one) => one !== c.member.id).sort() } });
      found = { ...found, managers: new Set(stay) }; // who has used the last number of a key is removed all the same
    }
    for (const one of devices.slice(0, -1)) drafts.push({ kind: "channel", channel, body: removal(c, found, one) });
    const body = removal(c, found, devices[devices.length - 1]);
    drafts.push(found.mode === "public" ? { kind: "channel", channel, body } : await withKey(c, found, body, devices, passphrase));
    return drafts;
  },
  /** Give a private channel its next key. */
  renew: async (c, channel, passphrase = undefined) => [await withKey(c, managed(c, channel), { op: "key" }, [], passphrase)],
  /** Name the circle. */
  title: async (c, name) => ofCircle(c, "name", { name: named(name), ...numbered(c.facts.nextOfCircle("names")) }),
  /** Tell members where the circle meets, by the founder: whole addresses, at most 8. */
  services: async (c, addresses) => {
    if (!c.founderSeed) throw notAllowed("only the founder's device can do that");
    const written = [...new Set(addresses.map((/** @type {unknown} */ one) => writeService(readService(one))))];
    if (!written.length || written.length > 8) throw bad("a circle has one to eight services");
    const at = Math.max(c.now(), c.servicesAt + 1);
    const text = concat(label("services"), unhex(c.circle), u64(at), utf8(strict(written)));
    return [{ kind: "services", channel: GENERAL, body: { services: written, at_ms: at, signature: b64(await (await signer(c.founderSeed)).sign(text)) } }];
  },
  /** Give another member the founder's key; this device keeps it too, and it cannot be taken back. */
  founder: async (c, member) => {
    if (!c.founderSeed) throw notAllowed("only the founder's device can do that");
    const to = c.facts.members.get(member)?.box;
    if (!to || member === c.member.id) throw bad("this is no other member of the circle");
    return [{ kind: "founder", channel: GENERAL, body: { to: member, box: b64(await box(c.founderSeed, unb64(to, 32), forFounder(c.circle))) } }];
  },
  /** Say that another member is the same person, on another device: it counts when both say so. */
  device: async (c, member, on = true) => {
    const other = c.facts.members.get(member);
    if (!other || member === c.member.id) throw bad("this is no other member of the circle");
    return [{ kind: "person", channel: GENERAL, body: { with: other.author, ...(on ? {} : { on: false }) } }];
  },
  /** Begin, join, view, leave or end a call, or shut somebody out of one (docs/chat.md, Calls). */
  call: async (c, channel, op, given = undefined, more = undefined) => {
    if (/^(end|revoke)$/.test(op) && c.facts.calls.get(String(given))?.host !== c.member.id) throw notAllowed("only who began a call can do that");
    const ring = op === "create" ? more?.ring : undefined;
    if (ring && !(Array.isArray(ring) && ring.length <= 64 && ring.every((one) => ID.test(one)))) throw bad("a call rings at most 64 members, by their ids");
    const body = op === "create" ? { media: given ?? "audio", ...(ring && { ring }) } : { call: String(given), ...(op === "revoke" && { member: String(more) }) };
    return [await draft(c, channel, "call", { op, ...body })];
  },
};

/** Mend keys of channels that this member manages: make the next where somebody removed has it, give it to who lacks it. @param {Context} c @returns {Promise<Draft[]>} */
export const mend = async (c) => {
  const drafts = [];
  for (const channel of c.facts.channels.values()) {
    if (channel.mode !== "invite" || !channel.managers.has(c.member.id)) continue;
    const found = await c.facts.writing(channel);
    if (!found) continue;
    const has = channel.invited.get(found.source.hash) ?? new Set();
    if ([...has].some((one) => channel.cuts.has(one) && !channel.members.has(one))) {
      drafts.push(await withKey(c, channel, { op: "key" }, []).catch(() => null));
      continue;
    }
    for (const one of [...channel.members].sort()) {
      if (has.has(one) || one === c.member.id || !c.facts.members.has(one)) continue;
      drafts.push(await invitation(c, channel, one, false).catch(() => null));
    }
  }
  return /** @type {Draft[]} */ (drafts.filter(Boolean));
};
