/**
 * Tickets: a node's signed word that it can be reached, for a few minutes (docs/formats.md, Tickets).
 * @module
 */
import { random, utf8 } from "../bytes.js";
import { integer, members, text } from "../json.js";
import { Refused, malformed } from "../refused.js";
import { canonical } from "./canonical.js";
import { lenientBase64, signed, toBase64 } from "./signatures.js";

/** @typedef {import("../json.js").Members} Members */

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

export const SKEW_MS = 15_000;
export const TTL_MS = 180_000;
export const MAX_LIFETIME_MS = 86_400_000;
export const MAX_TICKET_BYTES = 4096;
export const ALGORITHM = "ed25519";
const MAX_NAME_BYTES = 256;

/**
 * Sign a ticket, as existing clients do.
 * @param {import("../crypto.js").Signer} signer the node's identity
 * @param {{peerId: string, userId?: string, nowMs?: number, ttlMs?: number}} said
 * @returns {Promise<Ticket>}
 */
export const makeTicket = async (signer, { peerId, userId = "", nowMs = Date.now(), ttlMs = TTL_MS }) => {
  const issuedAt = Math.floor(nowMs);
  const payload = { peerId, userId, issuedAt, expiresAt: issuedAt + ttlMs, nonce: toBase64(random(12)) };
  const signature = toBase64(await signer.sign(utf8(canonical(payload))));
  return readTicket({ version: 1, algorithm: ALGORITHM, publicKey: toBase64(signer.public), signature, payload });
};

/**
 * Read a ticket's envelope: it has the right shape, nothing is verified.
 * @param {any} data
 * @returns {Ticket}
 */
export const readTicket = (data) => {
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
};

/**
 * Return the ticket in an envelope, or throw `Refused` with the first reason not to believe it.
 * @param {any} data the envelope, parsed
 * @param {{nowMs?: number, rules?: Rules, peerId?: string, userId?: string}} [options]
 * @returns {Promise<Ticket>}
 */
export const verifyTicket = async (data, { nowMs = Date.now(), rules = {}, peerId, userId } = {}) => {
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
};

/** The key that a ticket says it was signed with. @param {Members} envelope @returns {Uint8Array} */
export const ticketKey = (envelope) => {
  const key = lenientBase64(envelope.publicKey);
  if (key?.length !== 32) throw new Refused("SIGNATURE_INVALID", "publicKey is not a verify key");
  return key;
};

/**
 * Verify many tickets: those to believe go to *take* at once, the reasons not to believe others to *skip*.
 * @param {any[]} entries
 * @param {{nowMs: number, rules?: Rules}} options
 * @param {(ticket: Ticket) => void} take
 * @param {(reason: string, place: number) => void} skip
 * @returns {Promise<void>} `Refused` (`UNSUPPORTED`) where nothing can be verified
 */
export const believe = async (entries, { nowMs, rules }, take, skip) => {
  for (const [place, entry] of entries.entries()) {
    try {
      take(await verifyTicket(entry, { nowMs, rules }));
    } catch (error) {
      if (!(error instanceof Refused) || error.reason === "UNSUPPORTED") throw error;
      skip(error.reason, place);
    }
  }
};

/**
 * Keep the ticket of each peer that lives longest, those that live longest first.
 * @param {Iterable<Ticket>} tickets
 * @returns {Ticket[]}
 */
export const merge = (tickets) => {
  /** @type {Map<string, Ticket>} */
  const best = new Map();
  for (const ticket of tickets) {
    const name = JSON.stringify([ticket.peerId, ticket.userId]);
    const known = best.get(name);
    if (!known || ticket.expiresAt > known.expiresAt) best.set(name, ticket);
  }
  return [...best.values()].sort((a, b) => b.expiresAt - a.expiresAt);
};
