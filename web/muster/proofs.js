/**
 * Calls and answers (docs/protocol2.md): what a node signs of a call, and what a service signs back.
 * @module
 */
import { b64, concat, hex, readU64, u64, unb64, unhex, utf8 } from "./bytes.js";
import { hmac, id, label, sha256, verify } from "./crypto.js";
import { Refused, malformed } from "./refused.js";

/** @typedef {import("./keys.js").Epoch} Epoch */
/** @typedef {import("./keys.js").Node} Node */

const CREDENTIAL_MS = 8 * 86_400_000;

/** @param {Uint8Array} bytes */
const digest = async (bytes) => hex(await sha256(bytes));

/** @param {string} what @param {(string | number)[]} values */
const lines = (what, values) => concat(label(what), utf8(values.map((value) => `${value}\n`).join("")));

/**
 * Vouch for a node, as every member can.
 * @param {Node} node
 * @param {number} now milliseconds
 * @returns {Promise<Uint8Array>} 136 bytes
 */
export const vouch = async ({ epoch, public: half }, now) => {
  const until = u64(now + CREDENTIAL_MS);
  return concat(epoch.circlePublic, half, until, await epoch.key.sign(concat(label("credential"), half, until)));
};

/**
 * Sign a call for a service.
 * @param {Node} node
 * @param {{call: string, service: string, body: Uint8Array, credential: Uint8Array, at: number}} what
 * @returns {Promise<Uint8Array>} 72 bytes
 */
export const prove = async (node, { call, service, body, credential, at }) => {
  const signed = lines("call", [call, service, await digest(body), await digest(credential), at]);
  return concat(u64(at), await node.sign(signed));
};

/**
 * Show a closed service that its access code is known, without sending it.
 * @param {string} code
 * @param {string} service
 * @param {Node} node
 * @returns {Promise<Uint8Array>} 16 bytes
 */
export const accessTag = async (code, service, { epoch, public: half }) => {
  const told = concat(label("access"), unhex(service), epoch.circlePublic, half);
  return (await hmac(utf8(code), told)).subarray(0, 16);
};

/** What stands after the scheme, and in a handshake as a subprotocol. @param {...Uint8Array} parts */
export const authorization = (...parts) => parts.map(b64).join(".");

/**
 * Check that a service gave this answer to this call; `Refused` otherwise.
 * @param {unknown} header the value of Muster-Answer
 * @param {{service: string, proof: Uint8Array, status: number, body: Uint8Array}} what an empty proof where none was sent
 * @returns {Promise<number>} the service's time in milliseconds
 */
export const checkAnswer = async (header, { service, proof, status, body }) => {
  const raw = unb64(header, 104);
  const key = raw.subarray(0, 32);
  const at = readU64(raw, 32);
  if (!Number.isSafeInteger(at)) throw malformed("the time of this answer is beyond 2^53");
  if ((await id("service", key)) !== service) throw new Refused("KEY_MISMATCH", "the answer is by another service's key");
  const signed = lines("answer", [await digest(proof), status, await digest(body), at]);
  if (!(await verify(key, raw.subarray(40), signed))) {
    throw new Refused("SIGNATURE_INVALID", "the answer is not signed by its service");
  }
  return at;
};
