/**
 * What the records of a chat say: one shape for each kind (docs/chat.md, Kinds). What has another shape counts
 * for nothing; members that a reader does not know are ignored.
 * @module
 */
import { unb64, utf8 } from "../bytes.js";
import { HASH, ID } from "../seals.js";

/** @typedef {(value: any) => boolean} Check */

/** @param {number} least @param {number} most in bytes @returns {Check} */
const string = (least, most) => (value) => typeof value === "string" && value.length >= least && value.length <= most && utf8(value).length <= most;
/** @param {number} most @returns {Check} */
const number = (most) => (value) => Number.isSafeInteger(value) && value >= 0 && value <= most;
/** @param {number} length in bytes @returns {Check} */
const base64 = (length) => (value) => {
  try {
    return unb64(value, length).length === length;
  } catch {
    return false;
  }
};
/** @param {RegExp} form @returns {Check} */
const form = (form) => (value) => typeof value === "string" && form.test(value);
/** @param {...string} words @returns {Check} */
const word = (...words) => (value) => words.includes(value);

const TEXT = 262_144;
const hash = form(HASH);
const id = form(ID);
const key = base64(32);
const box = base64(80);
const salt = base64(16);
const boxed = form(/^[A-Za-z0-9_-]{107}$/);
const name = string(1, 64);
const any = number(Number.MAX_SAFE_INTEGER);
const key32 = number(2 ** 32 - 1);
const days = number(3650);
const topic = string(0, 512);
const bool = (/** @type {any} */ value) => typeof value === "boolean";
const ids = (/** @type {any} */ value) => Array.isArray(value) && value.length <= 64 && value.every(id);
const boxes = (/** @type {any} */ value) =>
  typeof value === "object" && value !== null && !Array.isArray(value) && Object.keys(value).length <= 1024 &&
  Object.entries(value).every(([to, one]) => id(to) && boxed(one));

/** Absent is allowed; with `?`, null is too. */
const invite = { to: id, "key?": key32, "from?": hash, "box?": box, "n=": any };

/** @type {Record<string, any>} checks by member, and by `op` where there are several */
const SHAPES = {
  text: { text: string(0, TEXT), "name=": string(0, 64), "reply?": hash },
  edit: { of: hash, text: string(0, TEXT) },
  delete: { of: hash, seq: (/** @type {any} */ value) => any(value) && value > 0 },
  react: { of: hash, emoji: string(1, 32), "on=": bool },
  person: { with: key, "on=": bool },
  member: { name: string(0, 64), box: key },
  circle: {
    op: { name: { name, "n=": any }, keep: { days, "n=": any }, managers: { managers: ids, at_ms: any, signature: base64(64) } },
  },
  channel: {
    op: {
      create: { mode: word("public", "key", "invite"), salt, name, "box?": box },
      rename: { name, "n=": any },
      topic: { topic, "n=": any },
      keep: { days, "n=": any },
      join: {},
      leave: {},
      managers: { managers: ids },
      invite,
      approve: invite,
      remove: { member: id, last: any, "key?": key32, "boxes=": boxes, "salt?": salt, "n=": any },
      key: { key: key32, "boxes=": boxes, "salt?": salt },
    },
  },
  call: {
    op: {
      create: { "media=": word("audio", "video", "broadcast") },
      join: { call: hash }, view: { call: hash }, leave: { call: hash }, end: { call: hash }, revoke: { call: hash, member: id },
    },
  },
};

/**
 * Read what a record says; null for what has no such shape.
 * @param {string} kind
 * @param {any} body
 * @returns {any}
 */
export const read = (kind, body) => {
  let shape = Object.hasOwn(SHAPES, kind) ? SHAPES[kind] : null;
  if (shape?.op) shape = typeof body.op === "string" && Object.hasOwn(shape.op, body.op) ? shape.op[body.op] : null;
  if (!shape) return null;
  for (const [member, check] of Object.entries(shape)) {
    const plain = member.replace(/[=?]$/, "");
    const value = body[plain];
    const absent = value === undefined ? plain !== member : value === null && member.endsWith("?");
    if (!absent && !check(value)) return null;
  }
  return body;
};
