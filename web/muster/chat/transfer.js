/**
 * Transfer: what a circle has as lines of JSON, for a file that another device takes in; the same lines as the
 * terminal's `muster export` (docs/web.md, Another device).
 *
 * What is brought is circles, their history and the keys of channels; never a member secret, nor the founder key:
 * another device is another member, or two would speak at one place of a chain.
 * @module
 */
import { b64, text as decode, unb64, utf8 } from "../bytes.js";
import { parse } from "../json.js";
import { Refused } from "../refused.js";
import { recordHash } from "../seals.js";
import { isClosed } from "./facts.js";

/** @typedef {Record<string, any> & {t: string}} Line */

export const VERSION = 1;
const NEWLINE = 10;

/** @param {string} message */
const no = (message) => new Refused("NOT_AN_EXPORT", message);

/**
 * What a circle has.
 * @param {object} what
 * @param {string} what.circle
 * @param {string} what.name
 * @param {string} what.invite
 * @param {string} what.member who brings it
 * @param {import("./facts.js").Facts} what.facts
 * @param {Iterable<import("../seals.js").Rec>} what.records
 * @returns {Promise<Line[]>}
 */
export const linesOf = async ({ circle, name, invite, member, facts, records }) => {
  /** @type {Line[]} */
  const lines = [{ t: "circle", name, circle, invite, member }];
  for (const channel of facts.channels.values()) {
    for (const source of channel.sources.values()) {
      const key = await facts.keyOf(channel, source);
      if (key) lines.push({ t: "key", circle, from: source.hash, key: b64(key) });
    }
  }
  const kept = [...records].filter(({ text }) => text.length).sort((a, b) => a.at_ms - b.at_ms || (a.hash < b.hash ? -1 : 1));
  for (const { epoch, text, signature } of kept) lines.push({ t: "record", circle, epoch, text: b64(text), signature: b64(signature) });
  return lines;
};

/**
 * Write lines as a file, after one that says what it is.
 * @param {Iterable<Line>} lines
 * @param {{name: string, at_ms: number}} of whose file it is, and when it was made
 * @returns {Uint8Array}
 */
export const write = (lines, { name, at_ms }) => {
  const first = { t: "muster-export", v: VERSION, at_ms, name };
  return utf8([first, ...lines].map((line) => `${JSON.stringify(line)}\n`).join(""));
};

/**
 * Read the lines of a file, the first too.
 * @param {Uint8Array} content
 * @returns {Line[]} `Refused` (`NOT_AN_EXPORT`) says what is wrong with which line
 */
export const read = (content) => {
  /** @type {Line[]} */
  const lines = [];
  for (let at = 0; at < content.length;) {
    const found = content.indexOf(NEWLINE, at);
    const end = found < 0 ? content.length : found;
    let line;
    try {
      line = parse(decode(content.subarray(at, end)));
    } catch {
      line = null;
    }
    if (!lines.length && line?.t !== "muster-export") throw no("this file is no export of Muster");
    if (!lines.length && line.v !== VERSION) throw no(`the export is of version ${Number(line.v) || "?"}, which this app does not know: load a newer app`);
    if (found < 0 && !line) throw no(`the file is cut off in line ${lines.length + 1}`);
    if (typeof line?.t !== "string") throw no(`line ${lines.length + 1} is none of an export: the file is damaged`);
    lines.push(line);
    at = end + 1;
  }
  if (!lines.length) throw no("this file is empty");
  return lines;
};

/**
 * Take in what lines have of a circle: records that a member has signed, and keys that open what they are said to.
 * @param {Line[]} lines keys after the records that made them
 * @param {object} here
 * @param {import("./talk.js").Talk} here.talk
 * @param {number} here.epoch that this member has followed to
 * @param {(hash: string) => boolean} here.has
 * @param {(said: import("../seals.js").Said, epoch: number) => Promise<string>} here.take
 * @param {(keys: Record<string, Uint8Array>) => Promise<void>} here.keep
 * @param {(channel: string, hash: string) => void} here.told of a channel that can be read now
 */
export const bring = async (lines, { talk, epoch: last, has, take, keep, told }) => {
  const came = { records: 0, keys: 0, refused: 0 };
  await Promise.all(lines.map(async ({ t, epoch, text, signature }) => {
    if (t !== "record") return;
    try {
      const said = { text: unb64(text), signature: unb64(signature, 64) };
      const known = has(await recordHash(said.text));
      // of an epoch that this member has not followed to yet it is read in a mailbox then
      const held = epoch <= last && has(await take(said, epoch));
      came[held ? "records" : "refused"] += Number(!held || !known);
    } catch {
      came.refused += 1;
    }
  }));
  const { channels } = await talk.facts();
  /** @type {Map<string, [channel: string, key: Uint8Array]>} */
  const keys = new Map();
  for (const { t, from, key: written } of lines) {
    if (t !== "key" || talk.typed.has(from)) continue;
    const channel = [...channels.values()].find(({ sources }) => sources.has(from));
    const key = channel && (await keyOf(talk, channel, from, written));
    if (key) keys.set(from, [channel.id, key]);
    else came.refused += 1;
  }
  came.keys = keys.size;
  if (!keys.size) return came;
  await keep(Object.fromEntries([...keys].map(([from, [, key]]) => [from, key])));
  for (const [from, [, key]] of keys) talk.remember(from, key);
  await talk.facts(); // opens what was closed
  for (const [from, [channel]] of keys) told(channel, from);
  return came;
};

/** @param {import("./talk.js").Talk} talk @param {import("./facts.js").Channel} channel @param {string} from @param {unknown} written */
const keyOf = async (talk, { sources }, from, written) => {
  try {
    const [key, source] = [unb64(written, 32), sources.get(from)];
    return source && (!isClosed(source.fact) || (await (await talk.facts()).fits(source, key))) ? key : null;
  } catch {
    return null;
  }
};
