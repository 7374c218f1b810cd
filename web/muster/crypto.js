/**
 * The cryptography of version 2, by WebCrypto: names, derived keys, signatures, seals.
 *
 * Ed25519 is verified one way (docs/protocol2.md, Signatures). Safari signs with noise: signatures are
 * verified, never compared. Where WebCrypto lacks Ed25519 or X25519 an app may `provide` a library;
 * without one everything is refused as `UNSUPPORTED`. Keys are not extractable once they are made.
 * @module
 */
import { concat, hex, unb64, unhex, utf8 } from "./bytes.js";
import { Refused } from "./refused.js";

/** @typedef {{public: Uint8Array, sign: (message: Uint8Array) => Promise<Uint8Array>}} Signer */
/** @typedef {{public: Uint8Array, agree: (other: Uint8Array) => Promise<Uint8Array>}} Agreer */
/**
 * @typedef {object} Fallback what `@noble/ed25519` and `@noble/curves` offer
 * @property {{getPublicKeyAsync: (seed: Uint8Array) => Promise<Uint8Array>,
 *   signAsync: (message: Uint8Array, seed: Uint8Array) => Promise<Uint8Array>,
 *   verifyAsync: (signature: Uint8Array, message: Uint8Array, key: Uint8Array, options?: any) => Promise<boolean>}} ed25519
 * @property {{getPublicKey: (seed: Uint8Array) => Uint8Array,
 *   getSharedSecret: (seed: Uint8Array, other: Uint8Array) => Uint8Array}} x25519
 */

/** @type {(() => Promise<Fallback>) | undefined} */
let load;
/** @type {Promise<boolean> | undefined} */
let native;

/**
 * Say what to use where WebCrypto has no Ed25519 or X25519; it is loaded there alone.
 * @param {() => Promise<Fallback>} loader
 */
export const provide = (loader) => {
  load = loader;
};

/** @returns {SubtleCrypto} */
const subtle = () => {
  const found = globalThis.crypto?.subtle;
  if (!found) throw new Refused("UNSUPPORTED", "WebCrypto is there on https and localhost alone");
  return found;
};

/** WebCrypto's types know no views of shared memory. @param {Uint8Array} bytes @returns {any} */
const raw = (bytes) => bytes;

/** Whether WebCrypto has both curves. @returns {Promise<boolean>} */
const isNative = () =>
  (native ??= Promise.all(
    ["Ed25519", "X25519"].map((name) =>
      subtle().generateKey({ name }, false, name === "X25519" ? ["deriveBits"] : ["sign", "verify"]),
    ),
  ).then(
    () => true,
    () => false,
  ));

/** @returns {Promise<Fallback>} */
const fallback = async () => {
  if (!load) throw new Refused("UNSUPPORTED", "this browser has no Ed25519: it is too old");
  return load();
};

/** What begins everything of one kind that is signed, hashed, derived or sealed. @param {string} what */
export const label = (what) => utf8(`muster2 ${what}\n`);

/** @param {Uint8Array} bytes @returns {Promise<Uint8Array>} */
export const sha256 = async (bytes) => new Uint8Array(await subtle().digest("SHA-256", raw(bytes)));

/** The 16 bytes that name a key, in hex. @param {string} what @param {Uint8Array} key @returns {Promise<string>} */
export const id = async (what, key) => hex((await sha256(concat(label(what), key))).subarray(0, 16));

/** HMAC-SHA256. @param {Uint8Array} key @param {Uint8Array} bytes @returns {Promise<Uint8Array>} */
export const hmac = async (key, bytes) => {
  const imported = await subtle().importKey("raw", raw(key), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await subtle().sign("HMAC", imported, raw(bytes)));
};

/** A secret to derive from, that cannot be read back. @param {Uint8Array} secret @returns {Promise<CryptoKey>} */
export const derivable = (secret) => subtle().importKey("raw", raw(secret), "HKDF", false, ["deriveBits"]);

/**
 * Derive 32 bytes by HKDF-SHA256 (RFC 5869).
 * @param {Uint8Array | CryptoKey} secret
 * @param {Uint8Array} salt
 * @param {string} what
 * @returns {Promise<Uint8Array>}
 */
export const hkdf = async (secret, salt, what) => {
  const key = secret instanceof Uint8Array ? await derivable(secret) : secret;
  const how = { name: "HKDF", hash: "SHA-256", salt: raw(salt), info: raw(label(what)) };
  return new Uint8Array(await subtle().deriveBits(how, key, 256));
};

/**
 * The channel key that follows from a passphrase, as people type it, in NFC.
 * @param {string} passphrase
 * @param {Uint8Array} salt 16 bytes
 * @returns {Promise<Uint8Array>}
 */
export const pbkdf2 = async (passphrase, salt) => {
  const typed = utf8(passphrase.normalize("NFC"));
  const key = await subtle().importKey("raw", raw(typed), "PBKDF2", false, ["deriveBits"]);
  const how = { name: "PBKDF2", hash: "SHA-256", salt: raw(salt), iterations: 600_000 };
  return new Uint8Array(await subtle().deriveBits(how, key, 256));
};

/** @type {WeakMap<Uint8Array, Promise<CryptoKey>>} */
const aesKeys = new WeakMap();

/** @param {Uint8Array} key */
const aes = (key) => {
  let imported = aesKeys.get(key);
  if (!imported) {
    imported = subtle().importKey("raw", raw(key), "AES-GCM", false, ["encrypt", "decrypt"]);
    aesKeys.set(key, imported);
  }
  return imported;
};

/** @param {Uint8Array} nonce @param {Uint8Array} aad */
const gcm = (nonce, aad) => ({ name: "AES-GCM", iv: raw(nonce), additionalData: raw(aad) });

const NOTHING = new Uint8Array();

/**
 * Encrypt by AES-256-GCM; a nonce is used once for a key.
 * @param {Uint8Array} key
 * @param {Uint8Array} nonce 12 bytes
 * @param {Uint8Array} plain
 * @param {Uint8Array} [aad]
 * @returns {Promise<Uint8Array>} with the tag
 */
export const seal = async (key, nonce, plain, aad = NOTHING) =>
  new Uint8Array(await subtle().encrypt(gcm(nonce, aad), await aes(key), raw(plain)));

/**
 * Decrypt what `seal` made; `Refused` (`UNREADABLE`) for another key, or what was altered.
 * @param {Uint8Array} key
 * @param {Uint8Array} nonce
 * @param {Uint8Array} closed
 * @param {Uint8Array} [aad]
 * @returns {Promise<Uint8Array>}
 */
export const open = async (key, nonce, closed, aad = NOTHING) => {
  try {
    return new Uint8Array(await subtle().decrypt(gcm(nonce, aad), await aes(key), raw(closed)));
  } catch {
    throw new Refused("UNREADABLE", "it is under another key, for something else, or altered");
  }
};

const FIELD = 2n ** 255n - 19n;
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
const little = (/** @type {Uint8Array} */ bytes) => BigInt(`0x${hex(bytes.slice().reverse())}`);
const SMALL_ORDER = new Set([
  0n,
  1n,
  FIELD - 1n,
  little(unhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")),
  little(unhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")),
]);

/** A point that no signature may hold. @param {Uint8Array} point */
const isWeak = (point) => {
  const y = little(point) & (2n ** 255n - 1n);
  return y >= FIELD || SMALL_ORDER.has(y);
};

/** @type {Map<string, Promise<CryptoKey>>} */
const verifyKeys = new Map();

/** @param {Uint8Array} key */
const verifyKey = (key) => {
  const name = hex(key);
  let imported = verifyKeys.get(name);
  if (!imported) {
    imported = subtle().importKey("raw", raw(key), { name: "Ed25519" }, false, ["verify"]);
    if (verifyKeys.size >= 512) verifyKeys.clear();
    verifyKeys.set(name, imported);
  }
  return imported;
};

/**
 * Whether a key signed a message, by the rules of protocol2.
 * @param {Uint8Array} key
 * @param {Uint8Array} signature
 * @param {Uint8Array} message
 * @returns {Promise<boolean>} `Refused` (`UNSUPPORTED`) where nothing can be verified
 */
export const verify = async (key, signature, message) => {
  if (key.length !== 32 || signature.length !== 64) return false;
  if (little(signature.subarray(32)) >= ORDER) return false;
  if (isWeak(key) || isWeak(signature.subarray(0, 32))) return false;
  if (!(await isNative())) {
    const { ed25519 } = await fallback();
    return ed25519.verifyAsync(signature, message, key, { zip215: false }).catch(() => false);
  }
  try {
    return await subtle().verify("Ed25519", await verifyKey(key), raw(signature), raw(message));
  } catch {
    return false; // a key that is no point
  }
};

/**
 * Import a seed for good: the public half, and a key that cannot be read back.
 * @param {"Ed25519" | "X25519"} name
 * @param {string} prefix of PKCS #8 (RFC 8410), in hex
 * @param {Uint8Array} seed
 * @param {KeyUsage[]} uses
 */
const fromSeed = async (name, prefix, seed, uses) => {
  const packed = raw(concat(unhex(prefix), seed));
  const readable = await subtle().importKey("pkcs8", packed, { name }, true, uses);
  const { x } = await subtle().exportKey("jwk", readable);
  return { key: await subtle().importKey("pkcs8", packed, { name }, false, uses), public: unb64(x, 32) };
};

/** Make an Ed25519 key from its seed. @param {Uint8Array} seed 32 bytes @returns {Promise<Signer>} */
export const signer = async (seed) => {
  if (!(await isNative())) {
    const { ed25519 } = await fallback();
    return { public: await ed25519.getPublicKeyAsync(seed), sign: (message) => ed25519.signAsync(message, seed) };
  }
  const made = await fromSeed("Ed25519", "302e020100300506032b657004220420", seed, ["sign"]);
  return signerOf(made.key, made.public);
};

/** Sign with a key that is kept. @param {CryptoKey} key @param {Uint8Array} half the public one @returns {Signer} */
export const signerOf = (key, half) => ({
  public: half,
  sign: async (message) => new Uint8Array(await subtle().sign("Ed25519", key, raw(message))),
});

/** Make an X25519 key from its seed. @param {Uint8Array} seed 32 bytes @returns {Promise<Agreer>} */
export const agreer = async (seed) => {
  const weak = new Refused("WEAK_KEY", "the X25519 key is of small order");
  if (!(await isNative())) {
    const { x25519 } = await fallback();
    return {
      public: x25519.getPublicKey(seed),
      agree: async (other) => {
        try {
          return x25519.getSharedSecret(seed, other);
        } catch {
          throw weak;
        }
      },
    };
  }
  const made = await fromSeed("X25519", "302e020100300506032b656e04220420", seed, ["deriveBits"]);
  return {
    public: made.public,
    agree: async (other) => {
      let shared = NOTHING;
      try {
        const key = await subtle().importKey("raw", raw(other), { name: "X25519" }, false, []);
        const how = /** @type {any} */ ({ name: "X25519", public: key });
        shared = new Uint8Array(await subtle().deriveBits(how, made.key, 256));
      } catch {
        // some refuse what leads to zeros by themselves
      }
      if (!shared.some(Boolean)) throw weak;
      return shared;
    },
  };
};
