/**
 * Keys and signatures of the mesh: padded base64, and Ed25519 over texts.
 *
 * Where nothing can be verified everything is refused as `UNSUPPORTED`, and nothing is called a forgery.
 * @module
 */
import { hex, utf8 } from "../bytes.js";
import { sha256, verify } from "../crypto.js";
import { text } from "../json.js";
import { Refused, malformed } from "../refused.js";

/** @typedef {import("../json.js").Members} Members */

/** @param {Uint8Array} raw @returns {string} padded, in the standard alphabet */
export const toBase64 = (raw) => btoa(String.fromCharCode(...raw));

/** Read base64 as `atob` of browsers does. @param {string} value @returns {Uint8Array | null} */
export const lenientBase64 = (value) => {
  let packed = value.replace(/[\t\n\f\r ]+/g, "");
  if (packed.length % 4 === 0) packed = packed.replace(/={1,2}$/, "");
  if (packed.length % 4 === 1 || !/^[A-Za-z0-9+/]*$/.test(packed)) return null;
  return Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
};

/** Read padded base64 that has no other spelling. @param {string} value @returns {Uint8Array | null} */
export const exactBase64 = (value) => {
  const raw = lenientBase64(value);
  return raw && toBase64(raw) === value ? raw : null;
};

/** @param {Members} data @param {string} [name] @returns {string} 44 characters of base64 */
export const verifyKeyOf = (data, name = "verify_key") => {
  if (exactBase64(text(data, name, { most: 44 }))?.length !== 32) {
    throw malformed(`${name} must be the base64 of an Ed25519 verify key`);
  }
  return data[name];
};

/** @param {Members} data @param {string} [name] @returns {Uint8Array} */
export const signatureOf = (data, name = "signature") => {
  const raw = exactBase64(text(data, name, { most: 88 }));
  if (raw?.length !== 64) throw malformed(`${name} must be the base64 of an Ed25519 signature`);
  return raw;
};

const unsupported = () =>
  new Refused(
    "UNSUPPORTED",
    globalThis.isSecureContext === false
      ? "browsers verify signatures only for pages from https or localhost: open this page there"
      : "nothing verifies Ed25519 here: use Chromium 137, Firefox 129, Safari 17, Node 20, or newer",
  );

/** @param {Uint8Array} raw @returns {Promise<string>} lower-case hex of its SHA-256 */
export const digest = async (raw) => {
  if (!globalThis.crypto?.subtle) throw unsupported();
  return hex(await sha256(raw));
};

/** The short name of a key: 16 hex digits of its SHA-256. @param {string} verifyKey @returns {Promise<string>} */
export const keyId = async (verifyKey) =>
  (await digest(/** @type {Uint8Array} */ (exactBase64(verifyKey)))).slice(0, 16);

// The empty message of RFC 8032, section 7.1: who cannot verify this cannot call others forgers.
const KNOWN_KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const KNOWN_SIGNATURE =
  "5VZDAMNgrHKQhuLMgG6CioSHfx645dl02HPgZSJJAVVfuIIVkKM7rMYeOXAc+bRr0lv18FlbviRlUUFDjnoQCw==";

/** @type {SubtleCrypto | undefined} what was seen to verify */
let able;

/** @param {Uint8Array} key @param {Uint8Array} signature @param {string} message */
const verified = async (key, signature, message) => {
  try {
    return await verify(key, signature, utf8(message));
  } catch {
    return false;
  }
};

/** Throw `Refused` (`UNSUPPORTED`) where no signature can be verified. @returns {Promise<void>} */
export const requireEd25519 = async () => {
  const now = globalThis.crypto?.subtle;
  if (now && now === able) return;
  const [key, signature] = [KNOWN_KEY, KNOWN_SIGNATURE].map(lenientBase64);
  if (!now || !(await verified(/** @type {any} */ (key), /** @type {any} */ (signature), ""))) throw unsupported();
  able = now;
};

/**
 * Whether a key signed a text; `Refused` (`UNSUPPORTED`) where nobody can say.
 * @param {Uint8Array} key
 * @param {Uint8Array} signature
 * @param {string} message
 * @returns {Promise<boolean>}
 */
export const signed = async (key, signature, message) => {
  if (await verified(key, signature, message)) return true;
  await requireEd25519();
  return false;
};
