/**
 * Manifests and what stands beside them: signed envelopes, roots, certificates (docs/formats.md).
 * @module
 */
import { integer, items, matching, members, parse, strict, text } from "../json.js";
import { Refused, malformed } from "../refused.js";
import { compare } from "./canonical.js";
import { constant } from "./capsules.js";
import { exactBase64, keyId, signatureOf, signed, verifyKeyOf } from "./signatures.js";
import { ALGORITHM } from "./tickets.js";

/** @typedef {import("../json.js").Members} Members */
/** @typedef {{payload: Members, signatures: {keyId: string, signature: Uint8Array}[]}} Envelope */

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
 * @typedef {object} Certificate
 * @property {number} serial
 * @property {string} verifyKey
 * @property {string[] | null} communities
 * @property {number} notBefore
 * @property {number} expiresAt
 */

export const MAX_MANIFEST_BYTES = 131_072;
export const SHA256 = /^[0-9a-f]{64}$/;
export const COMMUNITY = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
export const MANIFEST = "muster-manifest-v1";
const ROOT = "muster-root-v1";
const CERTIFICATE = "muster-certificate-v1";
const REVOCATIONS = "muster-revocations-v1";
const URL_FORM = /^https?:\/\/[\x21-\x7e]{1,500}$/;
const MAX_SIGNATURES = 4;
const MAX_ROOTS = 32;
const MAX_REVOKED = 512;
const MAX_COMMUNITIES = 64;
const MAX_SOURCES = 16;

/** @param {any} data @param {string} name @returns {Envelope} */
const readEnvelope = (data, name) => {
  const outer = members(data, name);
  const entries = items(outer, "signatures", MAX_SIGNATURES).map((e) => members(e, "a signature"));
  return {
    payload: members(outer.payload, `the payload of ${name}`),
    signatures: entries.map((entry) => ({
      keyId: text(entry, "key_id", { most: 64 }),
      signature: signatureOf(entry),
    })),
  };
};

/**
 * Whether a key signed an envelope for a purpose.
 * @param {Envelope} envelope
 * @param {string} verifyKey
 * @param {string} purpose
 * @returns {Promise<boolean>}
 */
export const signedBy = async (envelope, verifyKey, purpose) => {
  const covered = `${purpose}\n${strict(envelope.payload)}`;
  const key = /** @type {Uint8Array} */ (exactBase64(verifyKey));
  const name = await keyId(verifyKey);
  for (const entry of envelope.signatures) {
    if (entry.keyId === name && (await signed(key, entry.signature, covered))) return true;
  }
  return false;
};

/** @param {string} message */
const broken = (message) => new Refused("ROOT_CHAIN_BROKEN", message);

/** @param {any} data */
const readRoot = async (data) => {
  const envelope = readEnvelope(data, "a root document");
  const { payload } = envelope;
  constant(payload, "type", "root");
  integer(payload, "issued_at");
  const verifyKey = verifyKeyOf(payload);
  constant(payload, "key_id", await keyId(verifyKey));
  return { version: integer(payload, "version", 1), verifyKey, envelope };
};

/**
 * Follow root documents from the root that is known to the newest.
 * @param {{version: number, verify_key: string}} known
 * @param {any[]} documents
 * @returns {Promise<{version: number, verify_key: string}>}
 */
export const follow = async (known, documents) => {
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
    if (version === 0) throw broken("no root document is signed by this key");
  }
  for (const root of chain) {
    if (root.version <= version) continue;
    if (root.version !== version + 1) throw broken(`root ${version + 1} is missing`);
    for (const key of [verifyKey, root.verifyKey]) {
      if (!(await signedBy(root.envelope, key, ROOT))) throw broken(`root ${root.version} lacks a signature`);
    }
    ({ version, verifyKey } = root);
  }
  return { version, verify_key: verifyKey };
};

/** Read a certificate that the newest root signed. @param {string} root @param {any} data @returns {Promise<Certificate>} */
export const readCertificate = async (root, data) => {
  const envelope = readEnvelope(data, "the certificate");
  if (!(await signedBy(envelope, root, CERTIFICATE))) {
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
};

/**
 * Read the list of revoked keys that the newest root signed.
 * @param {string} root
 * @param {any} data
 * @returns {Promise<{version: number, verify_keys: string[]}>}
 */
export const readRevocations = async (root, data) => {
  const envelope = readEnvelope(data, "the revocations");
  if (!(await signedBy(envelope, root, REVOCATIONS))) {
    throw new Refused("REVOCATIONS_INVALID", "the root key did not sign the revocations");
  }
  const { payload } = envelope;
  constant(payload, "type", "revocations");
  integer(payload, "issued_at");
  const verify_keys = readKeys(payload);
  return { version: integer(payload, "version", 1), verify_keys };
};

/** @param {Members} data @returns {string[]} each once, in order */
export const readKeys = (data) => {
  const found = items(data, "verify_keys", MAX_REVOKED).map((key) =>
    verifyKeyOf({ verify_keys: key }, "verify_keys"),
  );
  return [...new Set(found)].sort(compare);
};

/** Read `peers.json.manifest`: it has the right shape, nothing is verified. @param {Uint8Array} raw */
export const readManifestFile = (raw) => {
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
};

/** @param {Members} payload @returns {Manifest} */
export const readManifest = (payload) => {
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
};

/** @param {Members} payload @param {string} name @returns {string[]} */
const urls = (payload, name) =>
  items(payload, name, MAX_SOURCES).map((url) => matching({ [name]: url }, name, URL_FORM));
