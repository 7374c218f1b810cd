/**
 * Verifies tickets, capsules and manifests, in browsers and in Node, without dependencies.
 *
 * The twin of the Python package `capsules`: the same checks in the same order, the same words
 * for a refusal, the same form of the state (docs/formats.md; tests/golden holds both to it).
 * Needs WebCrypto with Ed25519: Chromium 137, Firefox 129, Safari 17, Node 20, or newer; in
 * browsers a page from https or localhost. Elsewhere everything is refused as `UNSUPPORTED`.
 *
 *     import { fetchCapsule } from "./capsule.js";
 *     const { tickets, state } = await fetchCapsule(
 *       "https://muster.example/capsules/mainnet/peers.json", { root, community: "mainnet" });
 *
 * @module
 */

/** @typedef {Record<string, any>} Members an object that came from JSON */

/**
 * @typedef {object} Rules what a reader asks of tickets beyond their signature
 * @property {number} [skewMs] accepted difference between two clocks
 * @property {number} [maxLifetimeMs] the longest life a ticket may have
 * @property {readonly string[]} [trusted] base64 of the only keys to believe; empty: any key
 * @property {readonly string[]} [revoked] base64 of keys never to believe
 */

/**
 * @typedef {object} Ticket
 * @property {Members} envelope exactly as it was received
 * @property {string} peerId
 * @property {string} userId
 * @property {number} issuedAt milliseconds
 * @property {number} expiresAt milliseconds
 */

/**
 * @typedef {object} Capsule
 * @property {string | null} community
 * @property {number} issuedAt milliseconds
 * @property {number} expiresAt milliseconds
 * @property {any[]} peers
 * @property {string} signature
 */

/**
 * @typedef {object} Manifest times are Unix seconds
 * @property {string} community
 * @property {number} sequence
 * @property {number} issued_at
 * @property {number} fresh_until
 * @property {number} valid_until
 * @property {number} revocations version of the list beside it, 0 if there is none
 * @property {{sha256: string, length: number}} capsule
 * @property {string[]} beacons
 * @property {string[]} capsules
 */

/**
 * @typedef {object} Memory the newest word of one signer for one community
 * @property {string} community
 * @property {string} verify_key
 * @property {boolean} pinned
 * @property {number} sequence
 * @property {number} serial
 * @property {number} issued_at
 * @property {string} sha256
 */

/**
 * @typedef {object} State what a client has learned; plain JSON, keep it in a cache
 * @property {1} version
 * @property {{version: number, verify_key: string}} root
 * @property {{version: number, verify_keys: string[]}} revocations
 * @property {Memory[]} memories
 */

/**
 * @typedef {object} Accepted
 * @property {State} state the state to keep
 * @property {Capsule} capsule
 * @property {Ticket[]} tickets those to believe
 * @property {{place: number, reason: string}[]} skipped those not to believe, and why
 * @property {Manifest | null} manifest
 * @property {boolean} fresh false when a newer capsule should exist
 */

/** @typedef {{payload: Members, signatures: {keyId: string, signature: Uint8Array}[]}} Envelope */

/**
 * @typedef {object} Certificate
 * @property {number} serial
 * @property {string} verifyKey
 * @property {string[] | null} communities
 * @property {number} notBefore
 * @property {number} expiresAt
 */

export const SKEW_MS = 15_000;
export const MAX_LIFETIME_MS = 86_400_000;
export const MAX_TICKET_BYTES = 4096;
export const MAX_CAPSULE_BYTES = 1_048_576;
export const MAX_MANIFEST_BYTES = 131_072;
export const MAX_ENTRIES = 1000;
export const MAX_VALID_S = 604_800;
export const TOLERANCE_S = 300;

const MAX_DEPTH = 32;
const MAX_NAME_BYTES = 256;
const MAX_SIGNATURES = 4;
const MAX_ROOTS = 32;
const MAX_REVOKED = 512;
const MAX_COMMUNITIES = 64;
const MAX_SOURCES = 16;
const MAX_MEMORIES = 4096;
const DEADLINE_MS = 8000;

const ALGORITHM = "ed25519";
const KNOWN_KEYS = new Set(
  ("version algorithm publicKey signature payload " +
    "peerId userId issuedAt expiresAt nonce community peers").split(" "),
);
const PLAIN_KEY = /^[A-Za-z0-9_]+$/;
const ASCII_KEY = /^[\x20-\x7e]*$/;
const COMMUNITY = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const SHA256 = /^[0-9a-f]{64}$/;
const URL_FORM = /^https?:\/\/[\x21-\x7e]{1,500}$/;
const SURROGATE = /\p{Surrogate}/u;

/** A no with a reason; `state` is what was learned before it: keep it. */
export class Refused extends Error {
  /**
   * @param {string} reason one of the words in docs/formats.md (Refusals)
   * @param {string} message
   */
  constructor(reason, message) {
    super(`${reason}: ${message}`);
    this.name = "Refused";
    this.reason = reason;
    /** @type {State | undefined} */
    this.state = undefined;
  }
}

// Canonical JSON

/**
 * Read JSON from UTF-8.
 * @param {Uint8Array} raw
 * @returns {any}
 */
export function parse(raw) {
  let value;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw));
  } catch {
    throw malformed("it is not UTF-8 JSON");
  }
  let level = [value];
  for (let depth = 0; depth < MAX_DEPTH && level.length > 0; depth += 1) {
    level = level.flatMap((parent) => (isContainer(parent) ? Object.values(parent) : []));
  }
  if (level.some(isContainer)) throw malformed(`it nests deeper than ${MAX_DEPTH} levels`);
  return value;
}

/**
 * Return the text that existing clients of the mesh sign for a parsed JSON value.
 *
 * Their keys are sorted by the collation of the user's language; keys that it could order
 * differently are refused (docs/adr/0005).
 * @param {any} value
 * @returns {string}
 */
export function canonical(value) {
  return write(value, MAX_DEPTH, { order: collated, number: JSON.stringify, text: JSON.stringify });
}

/**
 * Return the RFC 8785 text of a value without floats, for formats that are our own.
 * @param {any} value
 * @returns {string}
 */
export function strict(value) {
  return write(value, MAX_DEPTH, { order: byCodePoint, number: integral, text: unicode });
}

/**
 * @param {any} value
 * @param {number} depth
 * @param {{order: (keys: string[]) => string[], number: (value: number) => string,
 *   text: (value: string) => string}} dialect
 * @returns {string}
 */
function write(value, depth, dialect) {
  if (typeof value === "string") return dialect.text(value);
  if (typeof value === "number") return dialect.number(value);
  if (value === null || typeof value === "boolean") return String(value);
  if (!isContainer(value)) throw new Refused("NOT_CANONICAL", "only JSON has a canonical form");
  if (depth === 0) throw new Refused("NOT_CANONICAL", `it nests deeper than ${MAX_DEPTH} levels`);
  if (Array.isArray(value)) {
    return `[${value.map((item) => write(item, depth - 1, dialect)).join(",")}]`;
  }
  const members = dialect
    .order(Object.keys(value))
    .map((key) => `${dialect.text(key)}:${write(value[key], depth - 1, dialect)}`);
  return `{${members.join(",")}}`;
}

/** @param {string[]} keys @returns {string[]} */
function collated(keys) {
  const ordered = [...keys].sort(compare);
  if (ordered.every((key) => KNOWN_KEYS.has(key))) return ordered;
  const root = [...keys].sort(
    (a, b) => compare(primary(a), primary(b)) || compare(tertiary(a), tertiary(b)),
  );
  if (!ordered.every((key, place) => PLAIN_KEY.test(key) && key === root[place])) {
    throw new Refused("NOT_CANONICAL", "browsers could disagree about the order of the keys");
  }
  return ordered;
}

/** @param {string[]} keys @returns {string[]} */
function byCodePoint(keys) {
  if (!keys.every((key) => ASCII_KEY.test(key))) {
    throw new Refused("NOT_CANONICAL", "keys must be printable ASCII");
  }
  return [...keys].sort(compare);
}

/** @param {string} a @param {string} b */
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

/** @param {string} key */
const primary = (key) => key.toLowerCase().replaceAll("_", " ");

/** Lower case before upper. @param {string} key */
const tertiary = (key) => key.replace(/[a-z]/gi, (c) => (c < "a" ? c.toLowerCase() : c.toUpperCase()));

/** @param {number} value */
function integral(value) {
  if (!Number.isSafeInteger(value)) {
    throw new Refused("NOT_CANONICAL", "only integers up to 2^53 have one form everywhere");
  }
  return String(value);
}

/** @param {string} value */
function unicode(value) {
  if (SURROGATE.test(value)) {
    throw new Refused("NOT_CANONICAL", "half a surrogate pair is not text");
  }
  return JSON.stringify(value);
}

/** @param {any} value */
const isContainer = (value) => typeof value === "object" && value !== null;

// Members

/** @param {string} message */
const malformed = (message) => new Refused("MALFORMED", message);

/** @param {any} value @param {string} name @returns {Members} */
function members(value, name) {
  if (!isContainer(value) || Array.isArray(value)) throw malformed(`${name} must be an object`);
  return value;
}

/** @param {Members} data @param {string} name @param {number} most @returns {any[]} */
function items(data, name, most) {
  const value = data[name];
  if (!Array.isArray(value) || value.length > most) {
    throw malformed(`${name} must be an array of at most ${most}`);
  }
  return value;
}

/** @param {Members} data @param {string} name @param {number} [least] @returns {number} */
function integer(data, name, least = 0) {
  const value = data[name];
  if (!Number.isSafeInteger(value) || value < least) {
    throw malformed(`${name} must be a whole number from ${least}`);
  }
  return value;
}

/**
 * @param {Members} data
 * @param {string} name
 * @param {{least?: number, most: number}} limits in bytes of UTF-8
 * @returns {string}
 */
function text(data, name, { least = 0, most }) {
  const value = data[name];
  if (typeof value !== "string" || SURROGATE.test(value)) {
    throw malformed(`${name} must be a string`);
  }
  const length = utf8(value).length;
  if (length < least || length > most) {
    throw malformed(`${name} must have ${least} to ${most} bytes`);
  }
  return value;
}

/** @param {Members} data @param {string} name @param {RegExp} form @returns {string} */
function matching(data, name, form) {
  const value = data[name];
  if (typeof value !== "string" || !form.test(value)) {
    throw malformed(`${name} does not have the right form`);
  }
  return value;
}

/** @param {Members} data @param {string} [name] @returns {string} 44 characters of base64 */
function verifyKeyOf(data, name = "verify_key") {
  if (exactBase64(text(data, name, { most: 44 }))?.length !== 32) {
    throw malformed(`${name} must be the base64 of an Ed25519 verify key`);
  }
  return data[name];
}

/** @param {Members} data @param {string} [name] @returns {Uint8Array} */
function signatureOf(data, name = "signature") {
  const raw = exactBase64(text(data, name, { most: 88 }));
  if (raw?.length !== 64) throw malformed(`${name} must be the base64 of an Ed25519 signature`);
  return raw;
}

/** @param {Members} data @param {string} name @param {any} value */
function constant(data, name, value) {
  if (data[name] !== value) throw malformed(`${name} must be ${JSON.stringify(value)}`);
}

// Bytes and keys

/** @param {string} value */
const utf8 = (value) => new TextEncoder().encode(value);

/** @param {Uint8Array} raw */
const hex = (raw) => Array.from(raw, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** @param {Uint8Array} raw */
const toBase64 = (raw) => btoa(String.fromCharCode(...raw));

/** Read padded base64 that has no other spelling. @param {string} value */
function exactBase64(value) {
  const raw = lenientBase64(value);
  return raw && toBase64(raw) === value ? raw : null;
}

/** Read base64 as `atob` of browsers does. @param {string} value @returns {Uint8Array | null} */
function lenientBase64(value) {
  let packed = value.replace(/[\t\n\f\r ]+/g, "");
  if (packed.length % 4 === 0) packed = packed.replace(/={1,2}$/, "");
  if (packed.length % 4 === 1 || !/^[A-Za-z0-9+/]*$/.test(packed)) return null;
  return Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
}

/** @param {Uint8Array} raw @returns {Promise<string>} lower-case hex */
async function sha256(raw) {
  return hex(new Uint8Array(await subtle().digest("SHA-256", /** @type {any} */ (raw))));
}

/** The short name of a key: 16 hex digits of its SHA-256. @param {string} verifyKey */
export async function keyId(verifyKey) {
  return (await sha256(/** @type {Uint8Array} */ (exactBase64(verifyKey)))).slice(0, 16);
}

// Points of small order, without the sign bit: a signature by them is valid for any message.
const SMALL_ORDER = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]);

/** @param {Uint8Array} point */
function weak(point) {
  const copy = point.slice(0, 32);
  copy[31] &= 0x7f;
  // y >= p: a second spelling of a point, which libsodium refuses in keys
  const above = copy[0] >= 0xed && copy[31] === 0x7f && copy.subarray(1, 31).every((b) => b === 0xff);
  return above || SMALL_ORDER.has(hex(copy));
}

/** @param {Uint8Array} key @param {Uint8Array} signature @param {string} message */
async function signed(key, signature, message) {
  if (signature.length !== 64 || key.length !== 32 || weak(key) || weak(signature)) return false;
  if (await verified(key, signature, message)) return true;
  await requireEd25519();
  return false;
}

/** @param {Uint8Array} key @param {Uint8Array} signature @param {string} message */
async function verified(key, signature, message) {
  try {
    const imported = await subtle().importKey(
      "raw",
      /** @type {any} */ (key),
      { name: "Ed25519" },
      false,
      ["verify"],
    );
    return await subtle().verify(
      "Ed25519",
      imported,
      /** @type {any} */ (signature),
      /** @type {any} */ (utf8(message)),
    );
  } catch {
    return false;
  }
}

// What browsers may lack

// The empty message of RFC 8032, section 7.1: who cannot verify this cannot call others forgers.
const KNOWN_KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const KNOWN_SIGNATURE =
  "5VZDAMNgrHKQhuLMgG6CioSHfx645dl02HPgZSJJAVVfuIIVkKM7rMYeOXAc+bRr0lv18FlbviRlUUFDjnoQCw==";

let able = false;

/** Throw `Refused` (`UNSUPPORTED`) where no signature can be verified. */
async function requireEd25519() {
  const [key, signature] = [KNOWN_KEY, KNOWN_SIGNATURE].map(lenientBase64);
  able ||= await verified(
    /** @type {Uint8Array} */ (key),
    /** @type {Uint8Array} */ (signature),
    "",
  );
  if (!able) throw unsupported();
}

/** @returns {SubtleCrypto} */
function subtle() {
  const found = globalThis.crypto?.subtle;
  if (!found) throw unsupported();
  return found;
}

function unsupported() {
  return new Refused(
    "UNSUPPORTED",
    globalThis.isSecureContext === false
      ? "browsers verify signatures only for pages from https or localhost: open this page there"
      : "nothing verifies Ed25519 here: use Chromium 137, Firefox 129, Safari 17, Node 20, or newer",
  );
}

// Tickets

/**
 * Read a ticket's envelope: it has the right shape, nothing is verified.
 * @param {any} data
 * @returns {Ticket}
 */
export function readTicket(data) {
  const envelope = members(data, "the ticket");
  const payload = members(envelope.payload, "payload");
  text(envelope, "algorithm", { most: 64 });
  text(envelope, "publicKey", { most: 256 });
  text(envelope, "signature", { most: 256 });
  text(payload, "nonce", { most: 128 });
  const ticket = {
    envelope,
    peerId: text(payload, "peerId", { least: 1, most: MAX_NAME_BYTES }),
    userId: text(payload, "userId", { most: MAX_NAME_BYTES }),
    issuedAt: integer(payload, "issuedAt"),
    expiresAt: integer(payload, "expiresAt"),
  };
  if (ticket.expiresAt <= ticket.issuedAt) throw malformed("expiresAt must be after issuedAt");
  if (utf8(canonical(envelope)).length > MAX_TICKET_BYTES) {
    throw new Refused("TOO_LARGE", `a ticket has at most ${MAX_TICKET_BYTES} bytes`);
  }
  return ticket;
}

/**
 * Return the ticket in an envelope, or throw `Refused` with the first reason not to believe it.
 * @param {any} data the envelope, parsed
 * @param {{nowMs?: number, rules?: Rules, peerId?: string, userId?: string}} [options]
 * @returns {Promise<Ticket>}
 */
export async function verifyTicket(data, { nowMs = Date.now(), rules = {}, peerId, userId } = {}) {
  const ticket = readTicket(data);
  const { envelope } = ticket;
  const { skewMs = SKEW_MS, maxLifetimeMs = MAX_LIFETIME_MS, trusted = [], revoked = [] } = rules;
  if (ticket.expiresAt + skewMs < nowMs) throw new Refused("EXPIRED", "the ticket is past its time");
  if (ticket.issuedAt - skewMs > nowMs) {
    throw new Refused("NOT_YET_VALID", "the ticket is from the future");
  }
  if (peerId !== undefined && peerId !== ticket.peerId) {
    throw new Refused("PEER_ID_MISMATCH", "the ticket is another peer's");
  }
  if (userId !== undefined && userId !== ticket.userId) {
    throw new Refused("USER_ID_MISMATCH", "the ticket is another user's");
  }
  if (trusted.length > 0 && !trusted.includes(envelope.publicKey)) {
    throw new Refused("UNTRUSTED_PUBLIC_KEY", "the key is not among the trusted ones");
  }
  if (envelope.algorithm !== ALGORITHM) {
    throw new Refused("UNSUPPORTED_ALGORITHM", "only ed25519 is understood");
  }
  if (ticket.expiresAt - ticket.issuedAt > maxLifetimeMs) {
    throw new Refused("LIFETIME_TOO_LONG", "the ticket lives longer than it may");
  }
  if (revoked.length > 0 && revoked.includes(toBase64(ticketKey(envelope)))) {
    throw new Refused("REVOKED_KEY", "the key was revoked");
  }
  const signature = lenientBase64(envelope.signature);
  if (!signature) throw malformed("signature must be base64");
  if (!(await signed(ticketKey(envelope), signature, canonical(envelope.payload)))) {
    throw new Refused("SIGNATURE_INVALID", "the key did not sign this payload");
  }
  return ticket;
}

/** @param {Members} envelope */
function ticketKey(envelope) {
  const key = lenientBase64(envelope.publicKey);
  if (key?.length !== 32) throw new Refused("SIGNATURE_INVALID", "publicKey is not a verify key");
  return key;
}

/**
 * Keep the ticket of each peer that lives longest, those that live longest first.
 * @param {Iterable<Ticket>} tickets
 * @returns {Ticket[]}
 */
export function merge(tickets) {
  /** @type {Map<string, Ticket>} */
  const best = new Map();
  for (const ticket of tickets) {
    const name = JSON.stringify([ticket.peerId, ticket.userId]);
    const known = best.get(name);
    if (!known || ticket.expiresAt > known.expiresAt) best.set(name, ticket);
  }
  return [...best.values()].sort((a, b) => b.expiresAt - a.expiresAt);
}

// Capsules

/**
 * Read `peers.json`: it has the right shape, nothing is verified.
 * @param {Uint8Array} raw
 * @returns {Capsule}
 */
export function readCapsule(raw) {
  if (raw.length > MAX_CAPSULE_BYTES) {
    throw new Refused("TOO_LARGE", `a capsule has at most ${MAX_CAPSULE_BYTES} bytes`);
  }
  const data = members(parse(raw), "the capsule");
  constant(data, "version", 1);
  if ((data.algorithm === undefined ? ALGORITHM : data.algorithm) !== ALGORITHM) {
    throw new Refused("UNSUPPORTED_ALGORITHM", "only ed25519 is understood");
  }
  const community = (data.community ?? null) === null ? null : text(data, "community", { most: 256 });
  if (!Array.isArray(data.peers)) throw malformed("peers must be an array");
  if (data.peers.length > MAX_ENTRIES) {
    throw new Refused("TOO_MANY_ENTRIES", `a capsule has at most ${MAX_ENTRIES} entries`);
  }
  return {
    community,
    issuedAt: integer(data, "issuedAt"),
    expiresAt: integer(data, "expiresAt"),
    peers: data.peers,
    signature: text(data, "signature", { most: 256 }),
  };
}

/** @param {Capsule} capsule */
function capsuleMessage({ community, issuedAt, expiresAt, peers }) {
  return canonical({ version: 1, community, issuedAt, expiresAt, peers });
}

/**
 * Return the capsule in `peers.json`, or throw `Refused` unless it is live and signed by *key*.
 * @param {Uint8Array} raw
 * @param {string} key base64 of the verify key
 * @param {{nowMs?: number}} [options]
 * @returns {Promise<Capsule>}
 */
export async function verifyCapsule(raw, key, { nowMs = Date.now() } = {}) {
  const capsule = readCapsule(raw);
  await checkCapsule(capsule, key, nowMs);
  return capsule;
}

/** @param {Capsule} capsule @param {string} key @param {number} nowMs */
async function checkCapsule(capsule, key, nowMs) {
  if (capsule.expiresAt < nowMs) throw new Refused("EXPIRED", "the capsule is past its time");
  const signature = lenientBase64(capsule.signature);
  if (!signature) throw malformed("signature must be base64");
  const raw = exactBase64(key);
  if (!raw || !(await signed(raw, signature, capsuleMessage(capsule)))) {
    throw new Refused("SIGNATURE_INVALID", "the key did not sign this capsule");
  }
}

/**
 * Return the tickets of a capsule to believe, and why the others are not.
 * @param {Capsule} capsule
 * @param {{nowMs: number, rules?: Rules}} options
 * @returns {Promise<{tickets: Ticket[], skipped: {place: number, reason: string}[]}>}
 */
export async function capsuleTickets(capsule, { nowMs, rules }) {
  const tickets = [];
  const skipped = [];
  for (const [place, entry] of capsule.peers.entries()) {
    try {
      tickets.push(await verifyTicket(entry, { nowMs, rules }));
    } catch (error) {
      if (!(error instanceof Refused) || error.reason === "UNSUPPORTED") throw error;
      skipped.push({ place, reason: error.reason });
    }
  }
  return { tickets, skipped };
}

// Envelopes, roots, certificates, revocations

/** @param {any} data @param {string} name @returns {Envelope} */
function readEnvelope(data, name) {
  const outer = members(data, name);
  const entries = items(outer, "signatures", MAX_SIGNATURES).map((e) => members(e, "a signature"));
  return {
    payload: members(outer.payload, `the payload of ${name}`),
    signatures: entries.map((entry) => ({
      keyId: text(entry, "key_id", { most: 64 }),
      signature: signatureOf(entry),
    })),
  };
}

/** @param {Envelope} envelope @param {string} verifyKey @param {string} purpose */
async function signedBy(envelope, verifyKey, purpose) {
  const covered = `${purpose}\n${strict(envelope.payload)}`;
  const key = /** @type {Uint8Array} */ (exactBase64(verifyKey));
  const name = await keyId(verifyKey);
  for (const entry of envelope.signatures) {
    if (entry.keyId === name && (await signed(key, entry.signature, covered))) return true;
  }
  return false;
}

/** @param {any} data */
async function readRoot(data) {
  const envelope = readEnvelope(data, "a root document");
  const { payload } = envelope;
  constant(payload, "type", "root");
  integer(payload, "issued_at");
  const verifyKey = verifyKeyOf(payload);
  constant(payload, "key_id", await keyId(verifyKey));
  return { version: integer(payload, "version", 1), verifyKey, envelope };
}

/** @param {State["root"]} known @param {any[]} documents @returns {Promise<State["root"]>} */
async function follow(known, documents) {
  const chain = [];
  for (const document of documents) chain.push(await readRoot(document));
  let { version, verify_key: verifyKey } = known;
  if (version === 0 && chain.length > 0) {
    for (const root of chain) {
      if (root.verifyKey === verifyKey && (await signedBy(root.envelope, verifyKey, ROOT))) {
        version = root.version;
        break;
      }
    }
    if (version === 0) throw new Refused("ROOT_CHAIN_BROKEN", "no root document is signed by this key");
  }
  for (const root of chain) {
    if (root.version <= version) continue;
    if (root.version !== version + 1) {
      throw new Refused("ROOT_CHAIN_BROKEN", `root ${version + 1} is missing`);
    }
    for (const key of [verifyKey, root.verifyKey]) {
      if (!(await signedBy(root.envelope, key, ROOT))) {
        throw new Refused("ROOT_CHAIN_BROKEN", `root ${root.version} lacks a signature`);
      }
    }
    ({ version, verifyKey } = root);
  }
  return { version, verify_key: verifyKey };
}

const ROOT = "muster-root-v1";
const CERTIFICATE = "muster-certificate-v1";
const REVOCATIONS = "muster-revocations-v1";
const MANIFEST = "muster-manifest-v1";

/** @param {State} state @param {any} data @returns {Promise<Certificate>} */
async function readCertificate(state, data) {
  const envelope = readEnvelope(data, "the certificate");
  if (!(await signedBy(envelope, state.root.verify_key, CERTIFICATE))) {
    throw new Refused("CERTIFICATE_INVALID", "the root key did not sign the certificate");
  }
  const { payload } = envelope;
  constant(payload, "type", "certificate");
  let communities = null;
  if ((payload.communities ?? null) !== null) {
    communities = items(payload, "communities", MAX_COMMUNITIES).map((name) =>
      matching({ communities: name }, "communities", COMMUNITY),
    );
  }
  const verifyKey = verifyKeyOf(payload);
  constant(payload, "key_id", await keyId(verifyKey));
  return {
    serial: integer(payload, "serial", 1),
    verifyKey,
    communities,
    notBefore: integer(payload, "not_before"),
    expiresAt: integer(payload, "expires_at"),
  };
}

/** @param {State} state @param {any} data @returns {Promise<State>} */
async function revoke(state, data) {
  if ((data ?? null) === null) return state;
  const envelope = readEnvelope(data, "the revocations");
  if (!(await signedBy(envelope, state.root.verify_key, REVOCATIONS))) {
    throw new Refused("REVOCATIONS_INVALID", "the root key did not sign the revocations");
  }
  const { payload } = envelope;
  constant(payload, "type", "revocations");
  integer(payload, "issued_at");
  const revoked = readKeys(payload);
  const version = integer(payload, "version", 1);
  if (version <= state.revocations.version) return state;
  return {
    ...state,
    revocations: { version, verify_keys: revoked },
    memories: binding(state.memories, revoked),
  };
}

/** @param {Members} data @returns {string[]} each once, in order */
function readKeys(data) {
  const found = items(data, "verify_keys", MAX_REVOKED).map((key) =>
    verifyKeyOf({ verify_keys: key }, "verify_keys"),
  );
  return [...new Set(found)].sort(compare);
}

/**
 * Leave out a thief's words: they bind nobody, neither by sequence nor by time.
 * @param {Memory[]} memories
 * @param {string[]} revoked
 */
function binding(memories, revoked) {
  return memories.filter((memory) => !revoked.includes(memory.verify_key));
}

// Trust

/**
 * Return the state of a client that knows a root key, of whatever version, and nothing else.
 * @param {string} root base64 of the verify key
 * @returns {State}
 */
export function begin(root) {
  return {
    version: 1,
    root: { version: 0, verify_key: verifyKeyOf({ root }, "root") },
    revocations: { version: 0, verify_keys: [] },
    memories: [],
  };
}

/**
 * Check a state that comes from a cache; throws `Refused` (`MALFORMED`) when it is damaged.
 * @param {any} data
 * @returns {State}
 */
export function readState(data) {
  const whole = members(data, "the state");
  constant(whole, "version", 1);
  const root = members(whole.root, "root");
  const revocations = members(whole.revocations, "revocations");
  const revoked = readKeys(revocations);
  return {
    version: 1,
    root: { version: integer(root, "version"), verify_key: verifyKeyOf(root) },
    revocations: { version: integer(revocations, "version"), verify_keys: revoked },
    memories: binding(items(whole, "memories", MAX_MEMORIES).map(readMemory), revoked),
  };
}

/** @param {any} entry @returns {Memory} */
function readMemory(entry) {
  const data = members(entry, "a memory");
  if (typeof data.pinned !== "boolean") throw malformed("pinned must be true or false");
  return {
    community: text(data, "community", { most: 256 }),
    verify_key: verifyKeyOf(data),
    pinned: data.pinned,
    sequence: integer(data, "sequence"),
    serial: integer(data, "serial"),
    issued_at: integer(data, "issued_at"),
    sha256: matching(data, "sha256", SHA256),
  };
}

/**
 * Believe `peers.json.manifest`, or throw `Refused` with the state to keep.
 * @param {State} state
 * @param {Uint8Array} raw
 * @param {{community: string, now: number}} options *now* in Unix seconds
 * @returns {Promise<{state: State, manifest: Manifest, verifyKey: string, fresh: boolean}>}
 */
export async function expect(state, raw, { community, now }) {
  try {
    const file = readManifestFile(raw);
    state = { ...state, ...(await followed(state, file.roots)) };
    state = await revoke(state, file.revocations);
    checkClock(state, now);
    const certificate = await readCertificate(state, file.certificate);
    checkCertificate(state, certificate, community, now);
    if (file.verifyKey !== certificate.verifyKey) {
      throw new Refused("KEY_MISMATCH", "the certificate is another key's");
    }
    if (!(await signedBy(file.manifest, certificate.verifyKey, MANIFEST))) {
      throw new Refused("SIGNATURE_INVALID", "the publisher did not sign this manifest");
    }
    const manifest = readManifest(file.manifest.payload);
    checkManifest(manifest, community, now);
    if (state.revocations.version < manifest.revocations) {
      throw new Refused("REVOCATIONS_INVALID", "the revocations were taken out of the manifest");
    }
    state = advance(state, {
      community,
      verify_key: certificate.verifyKey,
      pinned: false,
      sequence: manifest.sequence,
      serial: certificate.serial,
      issued_at: manifest.issued_at,
      sha256: await sha256(utf8(strict(file.manifest.payload))),
    });
    return {
      state,
      manifest,
      verifyKey: certificate.verifyKey,
      fresh: now < manifest.fresh_until,
    };
  } catch (error) {
    throw withState(error, state);
  }
}

/**
 * Believe a published capsule, or throw `Refused` with the state to keep.
 * @param {State} state
 * @param {{manifest: Uint8Array, capsule: Uint8Array, signature?: Uint8Array}} files
 * @param {{community: string, now: number, rules?: Rules}} options *now* in Unix seconds
 * @returns {Promise<Accepted>}
 */
export async function accept(state, files, { community, now, rules }) {
  const expected = await expect(state, files.manifest, { community, now });
  const { manifest } = expected;
  try {
    if (files.capsule.length !== manifest.capsule.length) {
      throw new Refused("LENGTH_MISMATCH", "the capsule is not as long as its manifest says");
    }
    if ((await sha256(files.capsule)) !== manifest.capsule.sha256) {
      throw new Refused("HASH_MISMATCH", "the capsule is not the one of this manifest");
    }
    const capsule = readCapsule(files.capsule);
    if (files.signature && hex(files.signature) !== hex(utf8(capsule.signature))) {
      throw new Refused("SIGNATURE_MISMATCH", "peers.json.sig is not of this capsule");
    }
    if (capsule.community !== community) {
      throw new Refused("WRONG_COMMUNITY", "the capsule is another community's");
    }
    await checkCapsule(capsule, expected.verifyKey, now * 1000);
    const believed = await capsuleTickets(capsule, ticketOptions(expected.state, now, rules));
    return { state: expected.state, capsule, ...believed, manifest, fresh: expected.fresh };
  } catch (error) {
    throw withState(error, expected.state);
  }
}

/**
 * Believe a capsule without manifest because the caller pinned its key (URL#KEY).
 *
 * What is lost: rotation, certificates, revocations from its own source, `fresh_until`, and
 * other places to look. Rollback is still noticed, by `issuedAt`.
 * @param {State} state
 * @param {Uint8Array} raw
 * @param {string} key base64 of the verify key
 * @param {{community?: string, now: number, rules?: Rules}} options *now* in Unix seconds
 * @returns {Promise<Accepted>}
 */
export async function acceptPinned(state, raw, key, { community, now, rules }) {
  try {
    checkClock(state, now);
    if (state.revocations.verify_keys.includes(key)) {
      throw new Refused("REVOKED_KEY", "the pinned key was revoked");
    }
    const capsule = await verifyCapsule(raw, key, { nowMs: now * 1000 });
    if (community !== undefined && capsule.community !== community) {
      throw new Refused("WRONG_COMMUNITY", "the capsule is another community's");
    }
    if (capsule.issuedAt > (now + TOLERANCE_S) * 1000) {
      throw new Refused("NOT_YET_VALID", "the capsule is from the future, or the clock slow");
    }
    if (capsule.expiresAt - capsule.issuedAt > MAX_VALID_S * 1000) {
      throw new Refused("LIFETIME_TOO_LONG", "the capsule lives longer than a week");
    }
    state = advance(state, {
      community: capsule.community ?? "",
      verify_key: key,
      pinned: true,
      sequence: capsule.issuedAt,
      serial: 0,
      issued_at: Math.floor(capsule.issuedAt / 1000),
      sha256: await sha256(utf8(capsuleMessage(capsule))),
    });
    const believed = await capsuleTickets(capsule, ticketOptions(state, now, rules));
    return { state, capsule, ...believed, manifest: null, fresh: true };
  } catch (error) {
    throw withState(error, state);
  }
}

/** @param {unknown} error @param {State} state */
function withState(error, state) {
  if (error instanceof Refused) error.state = state;
  return error;
}

/** @param {State} state @param {any[]} documents @returns {Promise<Partial<State>>} */
async function followed(state, documents) {
  const root = await follow(state.root, documents);
  if (root.verify_key === state.root.verify_key) return { root };
  // What the last root revoked stays so until the new one signs a list, of any version.
  return { root, revocations: { ...state.revocations, version: 0 } };
}

/** @param {Uint8Array} raw */
function readManifestFile(raw) {
  if (raw.length > MAX_MANIFEST_BYTES) {
    throw new Refused("TOO_LARGE", `a manifest has at most ${MAX_MANIFEST_BYTES} bytes`);
  }
  const data = members(parse(raw), "the file");
  constant(data, "version", 1);
  if (data.algorithm !== ALGORITHM) {
    throw new Refused("UNSUPPORTED_ALGORITHM", "only ed25519 is understood");
  }
  return {
    verifyKey: verifyKeyOf(data, "publicKey"),
    manifest: readEnvelope(data.manifest, "manifest"),
    certificate: data.certificate,
    revocations: data.revocations,
    roots: items(data, "roots", MAX_ROOTS),
  };
}

/** @param {Members} payload @returns {Manifest} */
function readManifest(payload) {
  constant(payload, "type", "manifest");
  const described = members(payload.capsule, "capsule");
  const manifest = {
    community: matching(payload, "community", COMMUNITY),
    sequence: integer(payload, "sequence", 1),
    issued_at: integer(payload, "issued_at"),
    fresh_until: integer(payload, "fresh_until"),
    valid_until: integer(payload, "valid_until"),
    revocations: integer(payload, "revocations"),
    capsule: {
      sha256: matching(described, "sha256", SHA256),
      length: integer(described, "length", 1),
    },
    beacons: urls(payload, "beacons"),
    capsules: urls(payload, "capsules"),
  };
  if (manifest.issued_at > manifest.fresh_until || manifest.fresh_until > manifest.valid_until) {
    throw malformed("issued_at, fresh_until and valid_until must be in this order");
  }
  return manifest;
}

/** @param {Members} payload @param {string} name @returns {string[]} */
function urls(payload, name) {
  return items(payload, name, MAX_SOURCES).map((url) => matching({ [name]: url }, name, URL_FORM));
}

/** @param {State} state @param {number} now */
function checkClock(state, now) {
  const latest = state.memories.reduce((newest, memory) => Math.max(newest, memory.issued_at), 0);
  if (now + TOLERANCE_S < latest) {
    throw new Refused("CLOCK_WRONG", "the clock is behind what was already seen signed");
  }
}

/**
 * @param {State} state
 * @param {Certificate} certificate
 * @param {string} community
 * @param {number} now
 */
function checkCertificate(state, certificate, community, now) {
  if (state.revocations.verify_keys.includes(certificate.verifyKey)) {
    throw new Refused("REVOKED_KEY", "the publisher's key was revoked");
  }
  if (certificate.notBefore > now + TOLERANCE_S) {
    throw new Refused("CERTIFICATE_NOT_YET_VALID", "the certificate is from the future");
  }
  if (certificate.expiresAt <= now) {
    throw new Refused("CERTIFICATE_EXPIRED", "the certificate is past its time");
  }
  if (certificate.communities && !certificate.communities.includes(community)) {
    throw new Refused("WRONG_COMMUNITY", "the key may not publish for this community");
  }
}

/** @param {Manifest} manifest @param {string} community @param {number} now */
function checkManifest(manifest, community, now) {
  if (manifest.community !== community) {
    throw new Refused("WRONG_COMMUNITY", "the manifest is another community's");
  }
  if (manifest.issued_at > now + TOLERANCE_S) {
    throw new Refused("NOT_YET_VALID", "the manifest is from the future, or the clock slow");
  }
  if (manifest.sequence > manifest.issued_at) {
    throw new Refused("FAST_FORWARD", "the sequence is ahead of its time");
  }
  if (manifest.valid_until - manifest.issued_at > MAX_VALID_S) {
    throw new Refused("LIFETIME_TOO_LONG", "the manifest is valid for more than a week");
  }
  if (manifest.valid_until <= now) {
    throw new Refused("FROZEN", "the manifest is past its time, or the clock fast");
  }
  if (manifest.capsule.length > MAX_CAPSULE_BYTES) {
    throw new Refused("TOO_LARGE", `a capsule has at most ${MAX_CAPSULE_BYTES} bytes`);
  }
}

/**
 * Return the sequence that a word may not be lower than; 0 if there is none.
 *
 * A community has one newest capsule, whichever certified key signed it, so that the key
 * before cannot bring an old one back. A pinned key counts for itself alone: no root says what
 * it has to do with others, and its sequences are milliseconds.
 * @param {State} state
 * @param {Memory} memory
 */
function highest({ memories }, { community, pinned, verify_key: key }) {
  return memories
    .filter((known) => known.community === community && known.pinned === pinned)
    .filter((known) => !pinned || known.verify_key === key)
    .reduce((most, known) => Math.max(most, known.sequence), 0);
}

/** @param {State} state @param {Memory} memory @returns {State} */
function advance(state, memory) {
  if (memory.sequence < highest(state, memory)) {
    throw new Refused("ROLLBACK", "something newer was already said of this community");
  }
  const known = state.memories.find(
    (old) =>
      old.community === memory.community &&
      old.verify_key === memory.verify_key &&
      old.pinned === memory.pinned,
  );
  if (known && memory.serial < known.serial) {
    throw new Refused("ROLLBACK", "the signer has shown a newer certificate");
  }
  if (known && memory.sequence === known.sequence && memory.sha256 !== known.sha256) {
    throw new Refused("EQUIVOCATION", "the signer has said something else under this number");
  }
  const kept = state.memories.filter((old) => old !== known);
  return { ...state, memories: [...kept, memory].slice(-MAX_MEMORIES) };
}

/** @param {State} state @param {number} now @param {Rules} [rules] */
function ticketOptions(state, now, rules = {}) {
  const revoked = [...(rules.revoked ?? []), ...state.revocations.verify_keys];
  return { nowMs: now * 1000, rules: { ...rules, revoked } };
}

// Fetching

/**
 * Fetch a published capsule and believe it, or throw `Refused` with the state to keep.
 *
 * The manifest is read first, then as many bytes of capsule as it says. With *pinned* there
 * is no manifest, and the capsule is believed by that key alone (`acceptPinned`). Of slow
 * servers only *deadline* milliseconds are waited for, everything together; of endless
 * ones, packed or not, only *maxBytes* are read. Ask several sources one after the other, each
 * with the state that the last one returned: what two states have learned cannot be merged.
 * @param {string} url of `peers.json`
 * @param {object} options
 * @param {string} [options.root] base64 of the root key, if there is no state yet
 * @param {State} [options.state]
 * @param {string} [options.pinned] base64 of the capsule's own key
 * @param {string} [options.community] needed unless a key is pinned
 * @param {number} [options.now] Unix seconds
 * @param {number} [options.deadline] milliseconds for everything
 * @param {number} [options.maxBytes] of a file
 * @param {Rules} [options.rules]
 * @returns {Promise<Accepted>}
 */
export async function fetchCapsule(url, options) {
  const { now = Math.floor(Date.now() / 1000), deadline = DEADLINE_MS, rules } = options;
  const { maxBytes = MAX_CAPSULE_BYTES, community, pinned } = options;
  const state = options.state ?? begin(options.root ?? pinned ?? "");
  try {
    await requireEd25519();
    const stop = AbortSignal.timeout(deadline);
    if (pinned) {
      const raw = await read(url, maxBytes, stop);
      return await acceptPinned(state, raw, pinned, { community, now, rules });
    }
    if (community === undefined) throw malformed("a community is needed");
    return await fetchPublished(url, state, { community, now, rules, maxBytes, stop });
  } catch (error) {
    if (error instanceof Refused) error.state ??= state;
    throw error;
  }
}

/**
 * @param {string} url
 * @param {State} state
 * @param {{community: string, now: number, rules?: Rules, maxBytes: number, stop: AbortSignal}} how
 * @returns {Promise<Accepted>}
 */
async function fetchPublished(url, state, { community, now, rules, maxBytes, stop }) {
  // Again after a moment, since the publisher may write between our two reads.
  for (let attempt = 0; ; attempt += 1) {
    const manifest = await read(`${url}.manifest`, Math.min(maxBytes, MAX_MANIFEST_BYTES), stop);
    const expected = await expect(state, manifest, { community, now });
    try {
      const most = Math.min(maxBytes, expected.manifest.capsule.length);
      const capsule = await read(url, most, stop);
      return await accept(expected.state, { manifest, capsule }, { community, now, rules });
    } catch (error) {
      const raced = error instanceof Refused && RACES.has(error.reason) && attempt < RACE_WAITS_MS.length;
      if (!raced) throw error instanceof Refused ? withState(error, error.state ?? expected.state) : error;
      state = expected.state;
      await pause(RACE_WAITS_MS[attempt], stop);
    }
  }
}

const RACE_WAITS_MS = [50, 500];

/** @param {number} wait @param {AbortSignal} stop @returns {Promise<void>} */
function pause(wait, stop) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, wait);
    stop.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new Refused("TIMEOUT", "it took too long"));
    }, { once: true });
  });
}

const RACES = new Set(["TOO_LARGE", "LENGTH_MISMATCH", "HASH_MISMATCH"]);

/**
 * Read at most *most* bytes of a file before *stop*.
 * @param {string} url
 * @param {number} most
 * @param {AbortSignal} stop
 * @returns {Promise<Uint8Array>}
 */
async function read(url, most, stop) {
  try {
    const reply = await fetch(url, {
      signal: stop,
      cache: "no-cache",
      credentials: "omit",
      referrerPolicy: "no-referrer",
    });
    if (!reply.ok || !reply.body) throw new Refused("UNREACHABLE", `it answered ${reply.status}`);
    return await drain(reply.body, most);
  } catch (error) {
    if (error instanceof Refused) throw error;
    if (stop.aborted) throw new Refused("TIMEOUT", "it took too long");
    throw new Refused("UNREACHABLE", error instanceof Error ? error.message : String(error));
  }
}

/** @param {ReadableStream<Uint8Array>} body @param {number} most @returns {Promise<Uint8Array>} */
async function drain(body, most) {
  const reader = body.getReader();
  const chunks = [];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    length += value.length;
    if (length > most) {
      await reader.cancel().catch(() => undefined);
      throw new Refused("TOO_LARGE", `it has more than ${most} bytes`);
    }
    chunks.push(value);
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}
