/**
 * What a client believes of capsules, and what it remembers so that nobody shows it an older one.
 *
 * The twin of the Python package `capsules`: the same checks in the same order, the same words for a
 * refusal, the same form of the state (docs/formats.md, Trust; tests/golden holds both to it).
 * @module
 */
import { hex, utf8 } from "../bytes.js";
import { integer, items, matching, members, strict, text } from "../json.js";
import { Refused, malformed } from "../refused.js";
import { MAX_CAPSULE_BYTES, capsuleMessage, capsuleTickets, checkCapsule, constant, readCapsule, verifyCapsule } from "./capsules.js";
import * as manifests from "./manifests.js";
import { digest, verifyKeyOf } from "./signatures.js";

/** @typedef {import("./capsules.js").Capsule} Capsule */
/** @typedef {import("./manifests.js").Manifest} Manifest */
/** @typedef {import("./tickets.js").Ticket} Ticket */
/** @typedef {import("./tickets.js").Rules} Rules */

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

/** @typedef {Refused & {state?: State}} Distrusted a no, and what was learned before it: keep that */

/**
 * @typedef {object} Accepted
 * @property {State} state the state to keep
 * @property {Capsule} capsule
 * @property {Ticket[]} tickets those to believe
 * @property {{place: number, reason: string}[]} skipped those not to believe, and why
 * @property {Manifest | null} manifest
 * @property {boolean} fresh false when a newer capsule should exist
 */

/** @typedef {{state: State, manifest: Manifest, verifyKey: string, fresh: boolean}} Expected */

export const MAX_VALID_S = 604_800;
export const TOLERANCE_S = 300;
const MAX_MEMORIES = 4096;

/**
 * Return the state of a client that knows a root key, of whatever version, and nothing else.
 * @param {string} root base64 of the verify key
 * @returns {State}
 */
export const begin = (root) => ({
  version: 1,
  root: { version: 0, verify_key: verifyKeyOf({ root }, "root") },
  revocations: { version: 0, verify_keys: [] },
  memories: [],
});

/**
 * Check a state that comes from a cache; throws `Refused` (`MALFORMED`) when it is damaged.
 * @param {any} data
 * @returns {State}
 */
export const readState = (data) => {
  const whole = members(data, "the state");
  constant(whole, "version", 1);
  const root = members(whole.root, "root");
  const revocations = members(whole.revocations, "revocations");
  const revoked = manifests.readKeys(revocations);
  return {
    version: 1,
    root: { version: integer(root, "version"), verify_key: verifyKeyOf(root) },
    revocations: { version: integer(revocations, "version"), verify_keys: revoked },
    memories: binding(items(whole, "memories", MAX_MEMORIES).map(readMemory), revoked),
  };
};

/** @param {any} entry @returns {Memory} */
const readMemory = (entry) => {
  const data = members(entry, "a memory");
  if (typeof data.pinned !== "boolean") throw malformed("pinned must be true or false");
  return {
    community: text(data, "community", { most: 256 }),
    verify_key: verifyKeyOf(data),
    pinned: data.pinned,
    sequence: integer(data, "sequence"),
    serial: integer(data, "serial"),
    issued_at: integer(data, "issued_at"),
    sha256: matching(data, "sha256", manifests.SHA256),
  };
};

/**
 * Return everything that either of two states of one root has learned, as when two tabs share a cache.
 * @param {State} one
 * @param {State} two
 * @returns {State}
 */
export const merged = (one, two) => {
  const { root } = two.root.version > one.root.version ? two : one;
  const lists = [one, two].filter((state) => state.root.version === root.version);
  const { revocations: newest } = lists.reduce((a, b) => (b.revocations.version > a.revocations.version ? b : a));
  // what earlier roots revoked stays so until the newest one has signed a list
  const keys = newest.version ? [newest] : [one.revocations, two.revocations];
  const verify_keys = [...new Set(keys.flatMap((list) => list.verify_keys))].sort();
  /** @type {Map<string, Memory>} */
  const memories = new Map();
  for (const memory of binding([...one.memories, ...two.memories], verify_keys)) {
    const name = JSON.stringify([memory.community, memory.verify_key, memory.pinned]);
    const known = memories.get(name) ?? memory;
    const newer = memory.sequence > known.sequence ? memory : known;
    memories.set(name, { ...newer, serial: Math.max(known.serial, memory.serial) });
  }
  return { version: 1, root, revocations: { ...newest, verify_keys }, memories: [...memories.values()].slice(-MAX_MEMORIES) };
};

/**
 * Leave out a thief's words: they bind nobody, neither by sequence nor by time.
 * @param {Memory[]} memories
 * @param {string[]} revoked
 */
const binding = (memories, revoked) => memories.filter((memory) => !revoked.includes(memory.verify_key));

/**
 * Believe `peers.json.manifest`, or throw `Refused` with the state to keep.
 * @param {State} state
 * @param {Uint8Array} raw
 * @param {{community: string, now: number}} options *now* in Unix seconds
 * @returns {Promise<Expected>}
 */
export const expect = async (state, raw, { community, now }) => {
  try {
    const file = manifests.readManifestFile(raw);
    state = { ...state, ...(await followed(state, file.roots)) };
    state = await revoke(state, file.revocations);
    checkClock(state, now);
    const certificate = await manifests.readCertificate(state.root.verify_key, file.certificate);
    checkCertificate(state, certificate, community, now);
    if (file.verifyKey !== certificate.verifyKey) {
      throw new Refused("KEY_MISMATCH", "the certificate is another key's");
    }
    if (!(await manifests.signedBy(file.manifest, certificate.verifyKey, manifests.MANIFEST))) {
      throw new Refused("SIGNATURE_INVALID", "the publisher did not sign this manifest");
    }
    const manifest = manifests.readManifest(file.manifest.payload);
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
      sha256: await digest(utf8(strict(file.manifest.payload))),
    });
    return { state, manifest, verifyKey: certificate.verifyKey, fresh: now < manifest.fresh_until };
  } catch (error) {
    throw withState(error, state);
  }
};

/**
 * Believe a published capsule, or throw `Refused` with the state to keep.
 * @param {State} state
 * @param {{manifest: Uint8Array, capsule: Uint8Array, signature?: Uint8Array}} files
 * @param {{community: string, now: number, rules?: Rules}} options *now* in Unix seconds
 * @returns {Promise<Accepted>}
 */
export const accept = async (state, files, { community, now, rules }) => {
  const expected = await expect(state, files.manifest, { community, now });
  const { manifest } = expected;
  try {
    if (files.capsule.length !== manifest.capsule.length) {
      throw new Refused("LENGTH_MISMATCH", "the capsule is not as long as its manifest says");
    }
    if ((await digest(files.capsule)) !== manifest.capsule.sha256) {
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
};

/**
 * Believe a capsule without manifest because the caller pinned its key (URL#capsule=KEY).
 *
 * What is lost: rotation, certificates, revocations from its own source, `fresh_until`, and
 * other places to look. Rollback is still noticed, by `issuedAt`.
 * @param {State} state
 * @param {Uint8Array} raw
 * @param {string} key base64 of the verify key
 * @param {{community?: string, now: number, rules?: Rules}} options *now* in Unix seconds
 * @returns {Promise<Accepted>}
 */
export const acceptPinned = async (state, raw, key, { community, now, rules }) => {
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
      sha256: await digest(utf8(capsuleMessage(capsule))),
    });
    const believed = await capsuleTickets(capsule, ticketOptions(state, now, rules));
    return { state, capsule, ...believed, manifest: null, fresh: true };
  } catch (error) {
    throw withState(error, state);
  }
};

/** @param {unknown} error @param {State} state */
const withState = (error, state) => (error instanceof Refused ? Object.assign(error, { state }) : error);

/** @param {State} state @param {any[]} documents @returns {Promise<Partial<State>>} */
const followed = async (state, documents) => {
  const root = await manifests.follow(state.root, documents);
  if (root.verify_key === state.root.verify_key) return { root };
  // What the last root revoked stays so until the new one signs a list, of any version.
  return { root, revocations: { ...state.revocations, version: 0 } };
};

/** @param {State} state @param {any} data @returns {Promise<State>} */
const revoke = async (state, data) => {
  if ((data ?? null) === null) return state;
  const revocations = await manifests.readRevocations(state.root.verify_key, data);
  if (revocations.version <= state.revocations.version) return state;
  return { ...state, revocations, memories: binding(state.memories, revocations.verify_keys) };
};

/** @param {State} state @param {number} now */
const checkClock = (state, now) => {
  const latest = state.memories.reduce((newest, memory) => Math.max(newest, memory.issued_at), 0);
  if (now + TOLERANCE_S < latest) {
    throw new Refused("CLOCK_WRONG", "the clock is behind what was already seen signed");
  }
};

/**
 * @param {State} state
 * @param {manifests.Certificate} certificate
 * @param {string} community
 * @param {number} now
 */
const checkCertificate = (state, certificate, community, now) => {
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
};

/** @param {Manifest} manifest @param {string} community @param {number} now */
const checkManifest = (manifest, community, now) => {
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
};

/**
 * Return the sequence that a word may not be lower than; 0 if there is none.
 *
 * A community has one newest capsule, whichever certified key signed it, so that the key
 * before cannot bring an old one back. A pinned key counts for itself alone: no root says what
 * it has to do with others, and its sequences are milliseconds.
 * @param {State} state
 * @param {Memory} memory
 */
const highest = ({ memories }, { community, pinned, verify_key: key }) =>
  memories
    .filter((known) => known.community === community && known.pinned === pinned)
    .filter((known) => !pinned || known.verify_key === key)
    .reduce((most, known) => Math.max(most, known.sequence), 0);

/** @param {State} state @param {Memory} memory @returns {State} */
const advance = (state, memory) => {
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
};

/** @param {State} state @param {number} now @param {Rules} [rules] */
const ticketOptions = (state, now, rules = {}) => {
  const revoked = [...(rules.revoked ?? []), ...state.revocations.verify_keys];
  return { nowMs: now * 1000, rules: { ...rules, revoked } };
};
