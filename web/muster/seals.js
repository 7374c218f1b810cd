/**
 * What members seal (docs/protocol2.md): presences, signals, records, rekeys, boxes, private bodies.
 *
 * A sealed thing is `nonce + AES-256-GCM(length + signature + text + zeros) + tag`. Whatever is read here
 * was written by others: every function refuses what has another form, circle, sender or signature.
 * @module
 */
import { b64, concat, hex, random, readU32, u32, u64, unb64, unhex, utf8 } from "./bytes.js";
import { agreer, hkdf, label, open, seal as encrypt, sha256, verify } from "./crypto.js";
import { integer, items, matching, members, readStrict, strict, text as short } from "./json.js";
import { bondText, circleId, memberId, nodeId } from "./keys.js";
import { Refused, malformed } from "./refused.js";

/** @typedef {import("./keys.js").Epoch} Epoch */
/** @typedef {import("./keys.js").Member} Member */
/** @typedef {import("./keys.js").Node} Node */
/** @typedef {import("./crypto.js").Agreer} Agreer */
/** @typedef {import("./crypto.js").Signer} Signer */
/** @typedef {{text: Uint8Array, signature: Uint8Array}} Said a text and the signature over it */

/**
 * @typedef {object} Rec one thing that a member said, checked
 * @property {string} hash its name
 * @property {string} circle
 * @property {number} epoch
 * @property {string} author the member key in b64
 * @property {string} member the id of it
 * @property {number} seq from 1, over all epochs
 * @property {string | null} prev the hash of the one before
 * @property {number} at_ms what its author claims
 * @property {string} channel
 * @property {string} kind
 * @property {Record<string, any>} body
 * @property {Uint8Array} text what is signed
 * @property {Uint8Array} signature
 * @property {number} [come] when it came here, in milliseconds
 */

/**
 * @typedef {object} Presence where a node is, and who
 * @property {string} node
 * @property {string} member
 * @property {string} author the member key in b64
 * @property {Uint8Array} box
 * @property {string} name
 * @property {[string, string, number][]} endpoints
 * @property {string[]} abilities
 * @property {number} at_ms
 */

/**
 * @typedef {object} Signal
 * @property {string} node the sender
 * @property {string} to
 * @property {string} session
 * @property {string} kind
 * @property {Record<string, any>} body
 * @property {number} at_ms
 * @property {Uint8Array} text what is signed
 */

/**
 * @typedef {object} Rekey
 * @property {number} epoch
 * @property {Record<string, Uint8Array>} keep boxes by member id
 * @property {Record<string, [number, string]>} out the last record that counts, by member id
 * @property {string} order of two to one epoch the smaller stands
 */

/** The channel of whoever names none. */
export const GENERAL = "0".repeat(32);
export const ID = /^[0-9a-f]{32}$/;
export const HASH = /^[0-9a-f]{64}$/;
/** Whether something that others wrote is a hash: a pattern alone would ask an object for its text. @param {unknown} value */
export const isHash = (value) => typeof value === "string" && HASH.test(value);
/** How far ahead of one's own clock another's may be. */
export const AHEAD_MS = 600_000;
const WORD = /^[a-z][a-z0-9_]{0,31}$/;
const FRAME = 12 + 4 + 64 + 16;
const PRESENCE = [640, 864];
const SIGNAL = 16_384;

/**
 * @param {Uint8Array} key
 * @param {Said} said
 * @param {Uint8Array} aad
 * @param {number} [size] of all of it; a multiple of 256 if absent
 */
const seal = async (key, { text, signature }, aad, size = Math.ceil((FRAME + text.length) / 256) * 256) => {
  const rest = size - FRAME - text.length;
  if (rest < 0) throw new Refused("TOO_LARGE", "the text does not fit into a seal");
  const nonce = random(12);
  return concat(nonce, await encrypt(key, nonce, concat(u32(text.length), signature, text, new Uint8Array(rest)), aad));
};

/** @param {Uint8Array} key @param {Uint8Array} sealed @param {Uint8Array} aad @returns {Promise<Said>} */
const unseal = async (key, sealed, aad) => {
  if (sealed.length < FRAME) throw malformed("a sealed thing is longer");
  const plain = await open(key, sealed.subarray(0, 12), sealed.subarray(12), aad);
  const end = 68 + readU32(plain);
  if (end > plain.length || plain.subarray(end).some(Boolean)) throw malformed("the seal is not filled with zeros");
  return { text: plain.slice(68, end), signature: plain.slice(4, 68) };
};

/** @param {string} what @param {...string} ids */
const bound = (what, ...ids) => concat(label(what), ...ids.map(unhex));

/** @param {string} what @param {string} circle @param {object} data @param {(bytes: Uint8Array) => Promise<Uint8Array>} sign @returns {Promise<Said>} */
const write = async (what, circle, data, sign) => {
  const text = utf8(strict({ is: what, circle, ...data }));
  return { text, signature: await sign(concat(label(what), text)) };
};

/** @param {string} what @param {string} circle @param {Uint8Array} text */
const read = (what, circle, text) => {
  const data = members(readStrict(text), what);
  if (data.is !== what) throw malformed(`it is not a ${what}`);
  if (matching(data, "circle", ID) !== circle) throw new Refused("WRONG_CIRCLE", `the ${what} is another circle's`);
  return data;
};

/** @param {string} what @param {Uint8Array} key @param {Said} said */
const check = async (what, key, { text, signature }) => {
  if (!(await verify(key, signature, concat(label(what), text)))) {
    throw new Refused("SIGNATURE_INVALID", `the ${what} is not signed by who it says`);
  }
};

/** @param {any} value */
const word = (value) => matching({ word: value }, "word", WORD);

// Presences

/**
 * Write, sign and seal where our node is.
 * @param {Node} node
 * @param {{name: string, at_ms: number, endpoints?: any[], abilities?: string[]}} what
 * @returns {Promise<{sealed: Uint8Array, said: Said}>}
 */
export const sealPresence = async (node, { name, at_ms, endpoints = [], abilities = [] }) => {
  const { epoch, member } = node;
  const data = {
    node: b64(node.public), member: member.author, bond: b64(node.bond), box: b64(member.box.public),
    name, endpoints, abilities, at_ms,
  };
  const said = await write("presence", epoch.circle, data, node.sign);
  const size = PRESENCE.find((most) => said.text.length + FRAME <= most);
  if (!size) throw new Refused("TOO_LARGE", "the presence has too many members");
  return { sealed: await seal(epoch.sealKeys.presence, said, bound("presence", epoch.hint, node.id), size), said };
};

/** @param {Epoch} epoch @param {Said} said @returns {Promise<Presence>} */
export const readPresence = async (epoch, said) => {
  const data = read("presence", epoch.circle, said.text);
  const key = unb64(data.node, 32);
  const member = unb64(data.member, 32);
  const bond = unb64(data.bond, 64);
  const box = unb64(data.box, 32);
  const presence = {
    node: await nodeId(key),
    member: await memberId(member),
    author: data.member,
    box,
    name: short(data, "name", { most: 64 }),
    endpoints: items(data, "endpoints", 8).map(endpoint),
    abilities: items(data, "abilities", 16).map(word),
    at_ms: integer(data, "at_ms"),
  };
  await check("presence", key, said);
  if (!(await verify(member, bond, bondText(epoch.hint, key, box)))) {
    throw new Refused("SIGNATURE_INVALID", "the bond is not signed by its member");
  }
  return presence;
};

/** @param {any} value @returns {[string, string, number]} */
const endpoint = (value) => {
  if (!Array.isArray(value) || value.length !== 3) throw malformed("an endpoint is a transport, a host and a port");
  if (integer(value, "2", 1) > 65_535) throw malformed("port must be at most 65535");
  return [word(value[0]), short(value, "1", { most: 253 }), value[2]];
};

/** Open what a service lists for a node. @param {Epoch} epoch @param {string} node @param {Uint8Array} sealed @returns {Promise<Presence>} */
export const unsealPresence = async (epoch, node, sealed) => {
  if (!PRESENCE.includes(sealed.length)) throw malformed("a sealed presence has 640 or 864 bytes");
  const said = await unseal(epoch.sealKeys.presence, sealed, bound("presence", epoch.hint, node));
  const found = await readPresence(epoch, said);
  if (found.node !== node) throw new Refused("WRONG_NODE", "the presence is another node's");
  return found;
};

// Signals

/**
 * Write, sign and seal a signal; from both texts two nodes derive the keys of a session.
 * @param {Node} node
 * @param {{to: string, session: string, kind: string, body: object, at_ms: number}} what
 * @returns {Promise<{sealed: Uint8Array, text: Uint8Array}>}
 */
export const sealSignal = async (node, what) => {
  const { epoch } = node;
  const said = await write("signal", epoch.circle, { epoch: epoch.number, node: b64(node.public), ...what }, node.sign);
  const sealed = await seal(epoch.sealKeys.signal, said, bound("signal", epoch.hint, node.id, what.to));
  if (sealed.length > SIGNAL) throw new Refused("TOO_LARGE", "a sealed signal has at most 16 KiB");
  return { sealed, text: said.text };
};

/** Open what one node left for another. @param {Epoch} epoch @param {string} node @param {string} to @param {Uint8Array} sealed @returns {Promise<Signal>} */
export const unsealSignal = async (epoch, node, to, sealed) => {
  if (sealed.length > SIGNAL || sealed.length % 256) throw malformed("a sealed signal has a multiple of 256 bytes, 16 KiB at most");
  const said = await unseal(epoch.sealKeys.signal, sealed, bound("signal", epoch.hint, node, to));
  const data = read("signal", epoch.circle, said.text);
  if (integer(data, "epoch") !== epoch.number) throw new Refused("WRONG_CIRCLE", "the signal is another epoch's");
  const key = unb64(data.node, 32);
  const signal = {
    node: await nodeId(key),
    to: matching(data, "to", ID),
    session: matching(data, "session", ID),
    kind: matching(data, "kind", WORD),
    body: members(data.body, "body"),
    at_ms: integer(data, "at_ms"),
    text: said.text,
  };
  await check("signal", key, said);
  if (signal.node !== node || signal.to !== to) throw new Refused("WRONG_NODE", "the signal is between other nodes");
  return signal;
};

/** Refuse a signal that is ten minutes off: old ones open no sessions. @param {Signal} signal @param {number} now */
export const checkTime = ({ at_ms }, now) => {
  if (Math.abs(now - at_ms) > AHEAD_MS) throw new Refused(at_ms < now ? "EXPIRED" : "NOT_YET_VALID", "the signal's time is off");
};

// Records

/** @param {Epoch} epoch @param {Said} said @returns {Promise<Uint8Array>} */
export const sealRecord = (epoch, said) => seal(epoch.sealKeys.record, said, bound("record", epoch.hint));

/** Open what a mailbox keeps: a record or a rekey, still to be read. @param {Epoch} epoch @param {Uint8Array} sealed @returns {Promise<Said>} */
export const unsealRecord = async (epoch, sealed) => {
  if (sealed.length % 256) throw malformed("a sealed record has a multiple of 256 bytes");
  return unseal(epoch.sealKeys.record, sealed, bound("record", epoch.hint));
};

/** The name of a record. @param {Uint8Array} text @returns {Promise<string>} */
export const recordHash = async (text) => hex(await sha256(concat(label("record"), text)));

/** Whether a text says that it is a rekey. @param {Uint8Array} text @returns {boolean} */
export const isRekey = (text) => {
  try {
    return readStrict(text)?.is === "rekey";
  } catch {
    return false;
  }
};

/**
 * Read a record and check who signed it.
 * @param {string} circle
 * @param {Said} said
 * @param {{checked?: boolean}} [how] the signature was checked before
 * @returns {Promise<Rec>}
 */
export const readRecord = async (circle, said, { checked = false } = {}) => {
  const data = read("record", circle, said.text);
  const key = unb64(data.author, 32);
  const rec = {
    circle,
    epoch: integer(data, "epoch"),
    author: data.author,
    seq: integer(data, "seq", 1),
    prev: data.prev == null ? null : matching(data, "prev", HASH),
    at_ms: integer(data, "at_ms"),
    channel: matching(data, "channel", ID),
    kind: matching(data, "kind", WORD),
    body: members(data.body, "body"),
    text: said.text,
    signature: said.signature,
  };
  if ((rec.seq === 1) !== (rec.prev === null)) throw malformed("the first record of a chain, and no other, follows none");
  if (!checked) await check("record", key, said);
  return { hash: await recordHash(said.text), member: await memberId(key), ...rec };
};

/**
 * Write and sign the next record of a chain.
 * @param {Member} member
 * @param {{epoch: number, seq: number, prev: string | null, at_ms: number, channel: string, kind: string, body: object}} what
 * @returns {Promise<Rec>}
 */
export const writeRecord = async (member, what) => {
  const said = await write("record", member.circle, { author: member.author, ...what }, member.sign);
  return readRecord(member.circle, said, { checked: true });
};

// Rekeys

/**
 * Read a rekey and check that the founder signed it.
 * @param {Uint8Array} founder
 * @param {Said} said
 * @returns {Promise<Rekey>}
 */
export const readRekey = async (founder, said) => {
  const data = read("rekey", await circleId(founder), said.text);
  /** @type {Record<string, Uint8Array>} */
  const keep = {};
  /** @type {Record<string, [number, string]>} */
  const out = {};
  const kept = Object.entries(members(data.keep, "keep"));
  const gone = Object.entries(members(data.out, "out"));
  if (kept.length + gone.length > 4096) throw malformed("a rekey names at most 4096 members");
  const epoch = integer(data, "epoch", 1);
  if (epoch >= 2 ** 32) throw malformed("epochs are numbered in 32 bits");
  integer(data, "at_ms");
  for (const [name, box] of kept) keep[matching({ name }, "name", ID)] = unb64(box, 80);
  for (const [name, last] of gone) {
    if (matching({ name }, "name", ID) in keep || !Array.isArray(last) || last.length !== 2) {
      throw malformed("out names a number and a hash for each who goes");
    }
    out[name] = [integer(last, "0"), matching(last, "1", HASH)];
  }
  await check("rekey", founder, said);
  return { epoch, keep, out, order: hex(await sha256(said.text)) };
};

/**
 * Write and sign a rekey.
 * @param {string} circle
 * @param {Signer} founder
 * @param {{epoch: number, at_ms: number, keep: Record<string, string>, out: Record<string, [number, string]>}} what boxes in b64
 * @returns {Promise<Said>}
 */
export const writeRekey = (circle, founder, what) => write("rekey", circle, what, founder.sign);

// Boxes and private bodies

/** @param {string} circle @param {number} epoch */
export const forRekey = (circle, epoch) => concat(bound("box rekey", circle), u32(epoch));
/** @param {string} circle @param {string} channel @param {number} number */
export const forChannelKey = (circle, channel, number) => concat(bound("box channel", circle, channel), u32(number));
/** @param {string} circle */
export const forFounder = (circle) => bound("box founder", circle);
/** @param {string} circle @param {string} channel @param {number} number @param {string} author b64 @param {number} seq */
export const forBody = (circle, channel, number, author, seq) =>
  concat(bound("channel", circle, channel), u32(number), unb64(author, 32), u64(seq));

const ZEROS = new Uint8Array(12);

/** Box a secret of 32 bytes to a member. @param {Uint8Array} secret @param {Uint8Array} to @param {Uint8Array} aad @returns {Promise<Uint8Array>} */
export const box = async (secret, to, aad) => {
  const fresh = await agreer(random(32));
  const key = await hkdf(await fresh.agree(to), concat(fresh.public, to), "box");
  return concat(fresh.public, await encrypt(key, ZEROS, secret, aad));
};

/** @param {Uint8Array} sealed @param {Agreer} mine @param {Uint8Array} aad @returns {Promise<Uint8Array>} */
export const unbox = async (sealed, mine, aad) => {
  if (sealed.length !== 80) throw malformed("a box has 80 bytes");
  const fresh = sealed.subarray(0, 32);
  const key = await hkdf(await mine.agree(fresh), concat(fresh, mine.public), "box");
  return open(key, ZEROS, sealed.subarray(32), aad);
};

/** @param {Uint8Array} key @param {Uint8Array} text @param {Uint8Array} aad @returns {Promise<Uint8Array>} */
export const closeBody = async (key, text, aad) => {
  const nonce = random(12);
  return concat(nonce, await encrypt(key, nonce, text, aad));
};

/** @param {Uint8Array} key @param {Uint8Array} closed @param {Uint8Array} aad @returns {Promise<Uint8Array>} */
export const openBody = async (key, closed, aad) => {
  if (closed.length < 28) throw malformed("the body of a private channel has at least 28 bytes");
  return open(key, closed.subarray(0, 12), closed.subarray(12), aad);
};
