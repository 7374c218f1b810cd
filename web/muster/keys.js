/**
 * Keys and names of version 2 (docs/protocol2.md, Keys): an epoch of a circle, a member, its node.
 *
 * Ids are hex, keys and secrets bytes. A member's secret may be a `CryptoKey` that cannot be read back.
 * @module
 */
import { b64, concat, u32, unhex } from "./bytes.js";
import { agreer, hkdf, id, label, signer } from "./crypto.js";
import { Refused } from "./refused.js";

/** @typedef {import("./crypto.js").Signer} Signer */
/** @typedef {import("./crypto.js").Agreer} Agreer */

/** @param {Uint8Array} key @returns {Promise<string>} */
export const circleId = (key) => id("circle", key);
/** @param {Uint8Array} key @returns {Promise<string>} */
export const memberId = (key) => id("member", key);
/** @param {Uint8Array} key @returns {Promise<string>} */
export const nodeId = (key) => id("node", key);

/** What a member key signs of its node and box key. @param {string} hint @param {Uint8Array} node @param {Uint8Array} box */
export const bondText = (hint, node, box) => concat(label("bond"), unhex(hint), node, box);

/** One secret of a circle, shared by its members until the founder makes the next. */
export class Epoch {
  /**
   * @param {string} circle
   * @param {number} number
   * @param {Uint8Array} secret
   * @param {Signer} signs with the circle key
   * @param {string} hint the circle's name at services
   * @param {{presence: Uint8Array, signal: Uint8Array, record: Uint8Array}} sealKeys
   */
  constructor(circle, number, secret, signs, hint, sealKeys) {
    this.circle = circle;
    this.number = number;
    this.secret = secret;
    this.key = signs;
    this.circlePublic = signs.public;
    this.hint = hint;
    this.sealKeys = sealKeys;
  }

  /** @param {string} circle @param {number} number @param {Uint8Array} secret 32 bytes @returns {Promise<Epoch>} */
  static async make(circle, number, secret) {
    if (secret.length !== 32 || !(number >= 0 && number < 2 ** 32)) throw new Refused("MALFORMED", "this is no epoch");
    const salt = concat(unhex(circle), u32(number));
    const kinds = ["circle key", "seal presence", "seal signal", "seal record"];
    const [seed, presence, signal, record] = await Promise.all(kinds.map((what) => hkdf(secret, salt, what)));
    const signs = await signer(seed);
    return new Epoch(circle, number, secret, signs, await id("hint", signs.public), { presence, signal, record });
  }
}

/** Who says something, on this device, in all epochs of a circle. */
export class Member {
  /**
   * @param {string} circle
   * @param {Uint8Array | CryptoKey} secret
   * @param {Signer} signs
   * @param {Agreer} box
   * @param {string} name
   */
  constructor(circle, secret, signs, box, name) {
    this.circle = circle;
    this.secret = secret;
    this.public = signs.public;
    this.author = b64(signs.public);
    this.id = name;
    this.sign = signs.sign;
    this.box = box;
  }

  /** @param {string} circle @param {Uint8Array | CryptoKey} secret @returns {Promise<Member>} */
  static async make(circle, secret) {
    const salt = unhex(circle);
    const signs = await signer(await hkdf(secret, salt, "member key"));
    const box = await agreer(await hkdf(secret, salt, "box key"));
    return new Member(circle, secret, signs, box, await memberId(signs.public));
  }

  /** The member's place in an epoch: it signs what is said now. @param {Epoch} epoch @returns {Promise<Node>} */
  async node(epoch) {
    const signs = await signer(await hkdf(this.secret, unhex(epoch.hint), "node key"));
    const bond = await this.sign(bondText(epoch.hint, signs.public, this.box.public));
    return new Node(epoch, this, signs, await nodeId(signs.public), bond);
  }
}

/** A member's place in one epoch. */
export class Node {
  /**
   * @param {Epoch} epoch
   * @param {Member} member
   * @param {Signer} signs
   * @param {string} name
   * @param {Uint8Array} bond that shows whose it is
   */
  constructor(epoch, member, signs, name, bond) {
    this.epoch = epoch;
    this.member = member;
    this.public = signs.public;
    this.sign = signs.sign;
    this.id = name;
    this.bond = bond;
  }
}
