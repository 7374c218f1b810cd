/**
 * What a founder alone does: it gives the circle new keys, for all members but some (docs/protocol2.md, Rekeys).
 *
 * Whoever is left out cannot open a box; of what it said, that counts which is known here. Loaded when it is used.
 * @module
 */
import { b64, random, unb64 } from "./bytes.js";
import { signer } from "./crypto.js";
import { Refused } from "./refused.js";
import { box, forRekey, writeRekey } from "./seals.js";

/** @typedef {import("./seals.js").Said} Said */

/** How many a rekey keeps: each takes a box of it, and a mailbox takes a mebibyte; and how many it names. */
const MOST_KEPT = 1024, MOST_NAMED = 4096;

/**
 * Write the rekey that begins the next epoch.
 * @param {object} how
 * @param {string} how.circle
 * @param {Uint8Array} how.founderSeed
 * @param {number} how.epoch the next number
 * @param {number} how.at_ms
 * @param {Map<string, string>} how.stays box keys in b64 by member
 * @param {Iterable<import("./seals.js").Rec>} how.records all that is here
 * @param {(author: string) => [seq: number, hash: string | null]} how.reach up to where an author is heard who is shut out
 * @returns {Promise<{said: Said, weak: string[]}>} members whose box key leads to nothing: they cannot stay
 */
export const rekeying = async ({ circle, founderSeed, epoch, at_ms, stays, records, reach }) => {
  const secret = random(32);
  const aad = forRekey(circle, epoch);
  /** @type {Record<string, string>} */
  const keep = {};
  const weak = [];
  for (const [name, to] of stays) {
    const sealed = await box(secret, unb64(to, 32), aad).catch(() => null);
    if (sealed) keep[name] = b64(sealed);
    else weak.push(name);
  }
  const { length } = Object.keys(keep);
  if (length > MOST_KEPT) throw new Refused("TOO_MANY", `${length} members would stay, and ${MOST_KEPT} can: somebody has filled the circle with names: name those who alone are to stay`);
  const authors = new Map([...records].map(({ author, member }) => [author, member]));
  /** @type {[string, [number, string]][]} */
  const going = [];
  for (const [author, member] of authors) {
    const [seq, hash] = reach(author);
    if (!(member in keep) && hash) going.push([member, [seq, hash]]);
  }
  const out = Object.fromEntries(going.slice(0, MOST_NAMED - length));
  return { said: await writeRekey(circle, await signer(founderSeed), { epoch, at_ms, keep, out }), weak };
};
