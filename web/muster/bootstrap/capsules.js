/**
 * Capsules: a maintainer's signed list of tickets, `peers.json` (docs/formats.md, Capsule).
 * @module
 */
import { integer, members, parse, text } from "../json.js";
import { Refused, malformed } from "../refused.js";
import { canonical } from "./canonical.js";
import { exactBase64, lenientBase64, signed } from "./signatures.js";
import { ALGORITHM, believe } from "./tickets.js";

/** @typedef {import("../json.js").Members} Members */
/** @typedef {import("./tickets.js").Ticket} Ticket */
/** @typedef {import("./tickets.js").Rules} Rules */

/**
 * @typedef {object} Capsule
 * @property {string | null} community
 * @property {number} issuedAt milliseconds
 * @property {number} expiresAt milliseconds
 * @property {any[]} peers
 * @property {string} signature
 */

export const MAX_CAPSULE_BYTES = 1_048_576;
export const MAX_ENTRIES = 1000;

/** @param {Members} data @param {string} name @param {any} value */
export const constant = (data, name, value) => {
  if (data[name] !== value) throw malformed(`${name} must be ${JSON.stringify(value)}`);
};

/**
 * Read `peers.json`: it has the right shape, nothing is verified.
 * @param {Uint8Array} raw
 * @returns {Capsule}
 */
export const readCapsule = (raw) => {
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
};

/** What the signature of a capsule covers. @param {Capsule} capsule @returns {string} */
export const capsuleMessage = ({ community, issuedAt, expiresAt, peers }) =>
  canonical({ version: 1, community, issuedAt, expiresAt, peers });

/**
 * Return the capsule in `peers.json`, or throw `Refused` unless it is live and signed by *key*.
 * @param {Uint8Array} raw
 * @param {string} key base64 of the verify key
 * @param {{nowMs?: number}} [options]
 * @returns {Promise<Capsule>}
 */
export const verifyCapsule = async (raw, key, { nowMs = Date.now() } = {}) => {
  const capsule = readCapsule(raw);
  await checkCapsule(capsule, key, nowMs);
  return capsule;
};

/** Throw `Refused` unless a capsule lives and *key* signed it. @param {Capsule} capsule @param {string} key @param {number} nowMs */
export const checkCapsule = async (capsule, key, nowMs) => {
  if (capsule.expiresAt < nowMs) throw new Refused("EXPIRED", "the capsule is past its time");
  const signature = lenientBase64(capsule.signature);
  if (!signature) throw malformed("signature must be base64");
  const raw = exactBase64(key);
  if (!raw || !(await signed(raw, signature, capsuleMessage(capsule)))) {
    throw new Refused("SIGNATURE_INVALID", "the key did not sign this capsule");
  }
};

/**
 * Return the tickets of a capsule to believe, and why the others are not.
 * @param {Capsule} capsule
 * @param {{nowMs: number, rules?: Rules}} options
 * @returns {Promise<{tickets: Ticket[], skipped: {place: number, reason: string}[]}>}
 */
export const capsuleTickets = async (capsule, options) => {
  /** @type {Ticket[]} */
  const tickets = [];
  /** @type {{place: number, reason: string}[]} */
  const skipped = [];
  await believe(
    capsule.peers,
    options,
    (ticket) => tickets.push(ticket),
    (reason, place) => skipped.push({ place, reason }),
  );
  return { tickets, skipped };
};
