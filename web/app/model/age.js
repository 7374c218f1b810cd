/**
 * A file under a passphrase, as age has it (age-encryption.org/v1): other tools open it, `muster import` among them.
 *
 * The slow part, scrypt, gives the page its turn every few milliseconds and tells how far it is: age's own would hold
 * the page up for a second or more.
 * @module
 */
import { Refused } from "../library.js";
import { text } from "../text.js";

/** The library, which is loaded when a file is written or opened. */
const age = () => import("../vendor/age.js");

/** @typedef {(part: number) => void} Progress from 0 to 1 */

const MAGIC = "age-encryption.org/";
const VERSION = `${MAGIC}v1\n`;
const LABEL = "age-encryption.org/v1/scrypt";
const NONCE = new Uint8Array(12);
/** 2^18 KiB of memory: what age takes by default. */
const WORK = 18;
/** What the terminal takes on a fast machine; beyond, a page would need more memory than it is given. */
const MOST_WORK = 20;
const TICK = 12;

/** @param {Uint8Array} bytes @param {number} length */
const start = (bytes, length) => new TextDecoder("latin1").decode(bytes.subarray(0, length));

/** Whether a file is one of age. @param {Uint8Array} content */
export const isAge = (content) => start(content, MAGIC.length) === MAGIC;

/** @param {string} passphrase @param {Uint8Array} salt @param {number} work @param {Progress} [progress] */
const keyOf = async (passphrase, salt, work, progress) => {
  const { scryptAsync } = await age();
  const label = new TextEncoder().encode(LABEL);
  const salted = new Uint8Array([...label, ...salt]);
  const cost = { N: 2 ** work, r: 8, p: 1, dkLen: 32, maxmem: 2 ** (MOST_WORK + 10) + 4096, asyncTick: TICK };
  return scryptAsync(passphrase, salted, { ...cost, onProgress: progress });
};

/** @param {string} text */
const unbase = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
/** @param {Uint8Array} bytes */
const base = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("=", "");

/**
 * Encrypt under a passphrase.
 * @param {Uint8Array} content
 * @param {string} passphrase
 * @param {Progress} [progress]
 * @returns {Promise<Uint8Array>}
 */
export const encrypt = async (content, passphrase, progress) => {
  const { Encrypter, Stanza, chacha20poly1305 } = await age();
  const made = new Encrypter();
  made.addRecipient({
    wrapFileKey: async (fileKey) => {
      const salt = crypto.getRandomValues(new Uint8Array(16));
      const key = await keyOf(passphrase, salt, WORK, progress);
      return [new Stanza(["scrypt", base(salt), String(WORK)], chacha20poly1305(key, NONCE).encrypt(fileKey))];
    },
  });
  return made.encrypt(content);
};

/**
 * Decrypt what is under a passphrase.
 * @param {Uint8Array} content
 * @param {string} passphrase
 * @param {Progress} [progress]
 * @returns {Promise<Uint8Array>} `Refused`: `WRONG_PASSPHRASE`, or `NOT_AN_EXPORT` and what is wrong
 */
export const decrypt = async (content, passphrase, progress) => {
  if (start(content, VERSION.length) !== VERSION) throw new Refused("NOT_AN_EXPORT", text.profile.otherAge);
  const { Decrypter, chacha20poly1305 } = await age();
  const opener = new Decrypter();
  opener.addIdentity({
    unwrapFileKey: async (stanzas) => {
      const [{ args, body }] = stanzas;
      const [kind, salt, work] = args;
      if (kind !== "scrypt" || stanzas.length !== 1) throw new Refused("NOT_AN_EXPORT", text.profile.forKey);
      const bytes = args.length === 3 && /^[A-Za-z0-9+/]{22}$/.test(salt) && /^[1-9][0-9]?$/.test(work) && unbase(salt);
      if (!bytes || body.length !== 32) throw new Refused("NOT_AN_EXPORT", text.profile.damagedHead);
      if (Number(work) > MOST_WORK) throw new Refused("NOT_AN_EXPORT", text.profile.tooMuchWork(Number(work)));
      try {
        return chacha20poly1305(await keyOf(passphrase, bytes, Number(work), progress), NONCE).decrypt(body);
      } catch (error) {
        if (error instanceof RangeError && /alloc/i.test(error.message)) throw new Refused("NOT_AN_EXPORT", text.profile.tooMuchMemory(2 ** Number(work) * 1024));
        throw new Refused("WRONG_PASSPHRASE", text.profile.wrongPassphrase);
      }
    },
  });
  try {
    return await opener.decrypt(content);
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused("NOT_AN_EXPORT", text.profile.damaged);
  }
};
