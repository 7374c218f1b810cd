/**
 * The profile as one encrypted file, brought to another browser or to the terminal (`muster import`), and from there.
 *
 * Another device is another member: it has the circles, what was said and the keys of channels, and no secret of a
 * member. That both are one person is said by each of the other (docs/chat.md, Persons). This module and what it needs
 * are loaded when they are used.
 * @module
 */
import { Circle, Refused, readInvite, readLines, writeLines } from "../library.js";
import { text } from "../text.js";
import { decrypt, encrypt, isAge } from "./age.js";

/** @typedef {import("../muster/chat/transfer.js").Line} Line */
/** @typedef {(what: "reading" | "key" | "taking", part: number, circle?: string) => void} Progress `part` is from 0 to 1; `key` is the long one */

/**
 * @typedef {object} Came what a file has brought of one circle
 * @property {string} id
 * @property {string} name
 * @property {Circle | null} circle the open circle; null if it could not be opened
 * @property {boolean} isNew whether this browser was not in it before
 * @property {number} records that were not here
 * @property {number} refused lines that did not hold, and were left out
 * @property {any} error why it could not be opened
 * @property {{id: string, name: string}[]} devices who may have brought it, and is not the same person as this member so far: the one that the file names, or those called as its owner is
 * @property {boolean} isSaid whether this member has said that it is the one that the file names
 */

export const LEAST_PASSPHRASE = 8;
const MOST_BYTES = 2 ** 28;
const MOST_CIRCLES = 256;

/** @param {unknown} name @returns {name is string} */
const isName = (name) => typeof name === "string" && new TextEncoder().encode(name).length <= 64 && !/[\0-\x1f\x7f]|\p{Surrogate}/u.test(name);

/** @param {string} passphrase */
const check = (passphrase) => {
  if ([...passphrase].length < LEAST_PASSPHRASE) throw new Refused("SHORT_PASSPHRASE", text.profile.shortPassphrase(LEAST_PASSPHRASE));
};

/**
 * Write circles as one encrypted file.
 * @param {object} what
 * @param {Circle[]} what.circles open ones
 * @param {string} what.passphrase of at least 8 characters
 * @param {string} [what.name] whose it is
 * @param {Progress} [what.progress]
 * @returns {Promise<Blob>} `Refused`: `SHORT_PASSPHRASE`
 */
export const exportProfile = async ({ circles, passphrase, name = circles[0]?.me.name ?? "", progress = () => {} }) => {
  check(passphrase);
  if (!circles.length) throw new Refused("NO_INVITE", text.profile.noCircle);
  /** @type {Line[][]} */
  const lines = [];
  for (const circle of circles) {
    progress("reading", lines.length / circles.length, circle.name);
    lines.push(await circle.copy());
  }
  progress("reading", 1);
  const content = writeLines(lines.flat(), { name, at_ms: Date.now() });
  const sealed = await encrypt(content, passphrase, (part) => progress("key", part));
  return new Blob([/** @type {BlobPart} */ (sealed)], { type: "application/octet-stream" });
};

/** The lines of a file, all that can be checked without a circle checked. @param {Blob} file @param {string} passphrase @param {Progress} progress */
const linesOf = async (file, passphrase, progress) => {
  if (file.size > MOST_BYTES) throw new Refused("NOT_AN_EXPORT", text.profile.tooLarge(MOST_BYTES));
  progress("reading", 0);
  const content = new Uint8Array(await file.arrayBuffer());
  progress("reading", 1);
  const lines = readLines(isAge(content) ? await decrypt(content, passphrase, (part) => progress("key", part)) : content);
  /** @type {Map<string, Line>} */
  const circles = new Map();
  for (const line of lines) {
    if (line.t !== "circle") continue;
    let id;
    try {
      id = (await readInvite(line.invite)).epoch.circle;
    } catch (error) {
      throw new Refused("NOT_AN_EXPORT", text.profile.invite(/** @type {Error} */ (error)));
    }
    if (id !== line.circle || circles.has(id)) throw new Refused("NOT_AN_EXPORT", text.profile.mixed);
    circles.set(id, line);
    if (circles.size > MOST_CIRCLES) throw new Refused("NOT_AN_EXPORT", text.profile.tooMany(MOST_CIRCLES));
  }
  return { lines, circles };
};

/** @param {Circle} circle @param {Line} line @param {string} owner @returns {Promise<{id: string, name: string}[]>} */
const devicesOf = async (circle, { member }, owner) => {
  const people = await circle.people();
  const mine = people.find(({ id }) => id === circle.me.id)?.person ?? circle.me.id;
  const named = people.filter(({ id, name }) => (member === undefined ? owner !== "" && name === owner : id === member));
  return named.filter(({ id, person }) => id !== circle.me.id && person !== mine).map(({ id, name }) => ({ id, name }));
};

/**
 * Take in a file that a browser or the terminal has exported. Nothing changes before the whole file was read; each line
 * is then checked as whatever comes from elsewhere.
 * @param {object} what
 * @param {Blob} what.file
 * @param {string} [what.passphrase] not needed for a file that is not encrypted
 * @param {Circle[]} [what.circles] that are open already
 * @param {import("../muster/circle.js").Options} [what.options] what others are opened with; without a name it is the file's
 * @param {boolean} [what.same] say that this member is the same person as the one that has exported, where the file names it; that one
 *   is asked. Only where the person has said that the file is their own: who is your device is let in wherever you are
 * @param {Progress} [what.progress]
 * @returns {Promise<{name: string, at_ms: number, circles: Came[], felund: string[], refused: number}>} `felund`: circles of
 *   the terminal that the app cannot hold; `Refused`: `WRONG_PASSPHRASE`, or `NOT_AN_EXPORT` and what is wrong
 */
export const importProfile = async ({ file, passphrase = "", circles = [], options = {}, same = false, progress = () => {} }) => {
  const found = await linesOf(file, passphrase, progress);
  const [first] = found.lines;
  const name = isName(first.name) ? first.name : "";
  const here = new Set((await Circle.list(options)).map(({ id }) => id));
  const felund = found.lines.filter(({ t }) => t === "felund").map((line) => String(line.name ?? ""));
  /** @type {Came[]} */
  const came = [];
  for (const [id, line] of found.circles) {
    const known = circles.find((one) => one.id === id);
    /** @type {Came} */
    const one = { id, name: String(line.name ?? ""), circle: null, isNew: !known && !here.has(id), records: 0, refused: 0, error: null, devices: [], isSaid: false };
    came.push(one);
    try {
      const circle = known ?? (await Circle.join(line.invite, here.has(id) ? options : { ...options, name: options.name || name }));
      one.circle = circle;
      const { records, refused } = await circle.take(found.lines, { progress: (done, all) => progress("taking", done / all, circle.name) });
      Object.assign(one, { records, refused, name: circle.name, devices: await devicesOf(circle, line, name) });
      if (!same || line.member === undefined) continue;
      for (const { id: other } of one.devices) await circle.act("device", other);
      one.isSaid = one.devices.length > 0;
    } catch (error) {
      one.error = error; // the others are taken all the same
    }
  }
  return { name, at_ms: Number(first.at_ms) || 0, circles: came, felund, refused: came.reduce((sum, { refused }) => sum + refused, 0) };
};
