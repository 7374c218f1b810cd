/**
 * Pipes: named messages of any size between pages and programs, several at a time over one link (docs/pipes.md).
 *
 * Messages go in pieces, in turns, so that a file does not hold up a cursor. What others send is bounded: how many
 * messages are open, how much of them is in memory, how large a file is.
 * @module
 */
import { concat, readU32, text as decode, u32, utf8 } from "./bytes.js";
import { integer, members, parse, readStrict, strict, text } from "./json.js";
import { MESSAGE } from "./links.js";
import { Refused, malformed } from "./refused.js";

/** @typedef {import("./links.js").Link} Link */
/** @typedef {"json" | "text" | "bytes" | "file"} As */
/** @typedef {{pipe: string, as: As, size: number, name?: string, type?: string}} Header */

/**
 * @typedef {object} Coming a message on its way in
 * @property {Header} header
 * @property {string} group with which files it is counted
 * @property {Uint8Array} buffer
 * @property {number} used how much of the buffer
 * @property {number} got
 * @property {Blob[]} parts
 */

/**
 * @typedef {object} Line all messages over one link
 * @property {Link} link
 * @property {number} id the last that we gave
 * @property {Map<number, {stopped?: Refused}>} out
 * @property {Map<number, Coming>} come
 * @property {number} held how much of what comes is in memory
 * @property {Map<string, number>} files how large all files are that come: by the pipe that has a bound of its own, the others together
 * @property {Gate} many large messages on their way out
 * @property {Gate} pieces of them that were not taken
 */

const [BEGIN, MORE, CANCEL, STOP, DATAGRAM] = [1, 2, 3, 4, 5];
/** @type {As[]} */
const AS = ["json", "text", "bytes", "file"];
const HEAD = 5;
const MOST_HEADER = 1024;
const MOST_OPEN = 64;
const MOST_TURNS = 32;
const MOST_HELD = 256 * 1_048_576;
/** How much of what is not whole yet is held for one link: one node stops no other. */
const MOST_LINE = 32 * 1_048_576;
const BLOCK = 1_048_576;
const READ = 262_144;
const MOST_WAITING = 8;
const SLOW_MS = 250;
const MOST_FLYING = 128;
const MOST_BOUNDS = 1024;
const WORDS = ["MALFORMED", "TOO_LARGE", "TOO_MANY"];
const CONTROL = /[\0-\x1f\x7f]/;
const NO_FILE = /[\0-\x1f\x7f/\\]|^\.{0,2}$/;

/** @param {number} kind @param {number} id @param {...Uint8Array} rest */
const piece = (kind, id, ...rest) => concat(Uint8Array.of(kind), u32(id), ...rest);

/** @param {any} data @param {string} name @param {number} most @param {RegExp} [bad] */
const clean = (data, name, most, bad = CONTROL) => {
  const found = text(data, name, { least: Number(name !== "type"), most });
  if (bad.test(found)) throw malformed(name);
  return found;
};

/**
 * Read what begins a message: the header, and where its bytes begin. `Refused` (`MALFORMED`, `NOT_CANONICAL`).
 * @param {Uint8Array} rest of the piece, after its id
 * @returns {{header: Header, data: Uint8Array}}
 */
export const readBegin = (rest) => {
  const end = 2 + (rest[0] << 8) + rest[1];
  if (!(end <= rest.length && end <= 2 + MOST_HEADER)) throw malformed("header");
  const said = members(readStrict(rest.subarray(2, end)), "header");
  const { as } = said;
  if (!AS.includes(as)) throw malformed("as");
  /** @type {Header} */
  const header = { pipe: clean(said, "pipe", 64), as, size: integer(said, "size") };
  if (as === "file") {
    if ("name" in said) header.name = clean(said, "name", 255, NO_FILE);
    if ("type" in said) header.type = clean(said, "type", 127);
  }
  return { header, data: rest.subarray(end) };
};

/** Write what begins a message. @param {Header} header */
export const writeBegin = (header) => {
  const raw = utf8(strict(header));
  return concat(u32(raw.length).subarray(2), raw);
};

/** @param {As} as @param {Uint8Array} raw */
const value = (as, raw) => (as === "json" ? parse(raw) : as === "text" ? decode(raw) : raw);

/**
 * Read a datagram; `Refused` (`MALFORMED`).
 * @param {Uint8Array} raw
 * @returns {{pipe: string, data: any}}
 */
export const readDatagram = (raw) => {
  const end = 1 + raw[0];
  const as = AS[raw[end]];
  if (!as || as === "file") throw malformed("datagram");
  return { pipe: clean({ pipe: decode(raw.subarray(1, end)) }, "pipe", 64), data: value(as, raw.slice(end + 1)) };
};

/**
 * How a value travels.
 * @param {any} data
 * @returns {{as: As, body: Uint8Array | Blob, name?: string, type?: string}}
 */
const pack = (data) => {
  if (typeof data === "string") return { as: "text", body: utf8(data) };
  if (data instanceof ArrayBuffer) return { as: "bytes", body: new Uint8Array(data) };
  if (ArrayBuffer.isView(data)) return { as: "bytes", body: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
  if (data instanceof Blob) {
    const name = String(/** @type {any} */ (data).name ?? "").replace(/[\0-\x1f\x7f/\\]|\p{Surrogate}/gu, "_");
    const short = [...name].slice(-60).join("");
    return { as: "file", body: data, ...(NO_FILE.test(short) ? {} : { name: short }), ...(data.type ? { type: data.type.slice(0, 127) } : {}) };
  }
  const json = JSON.stringify(data);
  if (json === undefined) throw malformed("it has no JSON");
  return { as: "json", body: utf8(json) };
};

/** Read a body piece by piece; a file some pieces ahead. @param {Uint8Array | Blob} body */
const reader = (body) => {
  if (!(body instanceof Blob)) return (/** @type {number} */ at, /** @type {number} */ count) => body.subarray(at, at + count);
  let ahead = new Uint8Array();
  let from = 0;
  return async (/** @type {number} */ at, /** @type {number} */ count) => {
    if (at >= from + ahead.length) {
      ahead = new Uint8Array(await body.slice(at, at + READ).arrayBuffer());
      from = at;
    }
    return ahead.subarray(at - from, at - from + count);
  };
};

/** Lets in so many at a time, each in its order. */
class Gate {
  #used = 0;
  /** @type {(() => void)[]} */
  #waiting = [];

  /** @param {number} most */
  constructor(most) {
    this.most = most;
  }

  async enter() {
    if (this.#used < this.most && !this.#waiting.length) this.#used += 1;
    else await new Promise((resolve) => this.#waiting.push(() => resolve(undefined)));
  }

  leave() {
    this.#used -= 1;
    for (; this.#used < this.most && this.#waiting.length; this.#used += 1) /** @type {any} */ (this.#waiting.shift())();
  }
}

/**
 * All pipes of a node. Events: `message` (detail: `{name, from, data}`; bytes come as `Uint8Array`, a file as `File`), and `lost`
 * (`{name, from, reason}`): one does not come whole.
 */
export class Pipes extends EventTarget {
  #links;
  /** @type {Map<string, Line>} */
  #lines = new Map();
  #held = 0;
  /**
   * How much may come, in bytes: a message of json, text or bytes, which is held in memory; all files that come over one link at
   * once, but for pipes with a bound of their own.
   */
  most = { memory: 16 * 1_048_576, file: 1024 * 1_048_576 };
  /** Such bounds, by who has set them. @type {Map<string, {pipe: string, most: number}>} */
  #bounds = new Map();

  /** @param {{links: Pick<import("./links.js").Links, "open">}} how */
  constructor({ links }) {
    super();
    this.#links = links;
  }

  /** Whether there is a link to a node, that was heard since the node has come. @param {string} node */
  has(node) {
    return this.#lines.get(node)?.link.isGone === false;
  }

  /** What carries pipes to a node now. @param {string} node */
  path(node) {
    return this.#lines.get(node)?.link.path ?? "none";
  }

  /**
   * Take so much at once over a link by a pipe, whatever others may send otherwise: all files together, and each message of
   * json, text or bytes. The largest bound of a pipe counts.
   * @param {string} by who says so; again with nothing takes it back
   * @param {string} [pipe]
   * @param {number} [most] bytes
   */
  bound(by, pipe, most) {
    this.#bounds.delete(by);
    if (pipe === undefined || most === undefined) return;
    this.#bounds.set(by, { pipe, most });
    const [oldest] = this.#bounds.keys();
    if (this.#bounds.size > MOST_BOUNDS) this.#bounds.delete(oldest); // of a tab that has gone; who is there says it again
  }

  /** The bound of a pipe, if it has one of its own. @param {string} pipe @returns {number | undefined} */
  #boundOf(pipe) {
    const found = [...this.#bounds.values()].filter((one) => one.pipe === pipe).map(({ most }) => most);
    return found.length ? Math.max(...found) : undefined;
  }

  /** Speak pipes over a link. @param {Link} link */
  attach(link) {
    const known = this.#lines.get(link.other);
    if (known?.link === link) return known;
    /** @type {Line} */
    const line = { link, id: 0, out: new Map(), come: new Map(), held: 0, files: new Map(), many: new Gate(MOST_TURNS), pieces: new Gate(16) };
    this.#lines.set(link.other, line);
    link.addEventListener("datagram", (event) => this.#loose(link, /** @type {CustomEvent} */ (event).detail));
    void this.#read(line);
    return line;
  }

  /**
   * Send JSON, text, bytes or a file. Small messages of a node come in their order; a large one comes when it is whole.
   * @param {string} pipe 1 to 64 bytes
   * @param {any} data
   * @param {object} [how]
   * @param {string | string[]} [how.to] nodes; all that a link leads to if absent
   * @param {boolean} [how.reliable] otherwise it may be lost, and is when the path has no room
   * @param {(sent: number, size: number) => void} [how.progress] what the slowest has taken, in bytes
   * @param {AbortSignal} [how.signal]
   * @returns {Promise<void>} resolves when all have taken it. With *to* it rejects if one has not (`CLOSED`, `NO_ANSWER`,
   *   or the word of who stopped it: `TOO_LARGE`, `TOO_MANY`, `MALFORMED`)
   */
  async send(pipe, data, { to, reliable = true, progress, signal } = {}) {
    clean({ pipe }, "pipe", 64);
    signal?.throwIfAborted();
    const { body, ...more } = pack(data);
    const nodes = to === undefined ? [...this.#lines.keys()] : [to].flat();
    if (!reliable) return this.#sendLoose(pipe, more.as, body, nodes);
    const size = body instanceof Blob ? body.size : body.length;
    const head = writeBegin({ pipe, size, ...more });
    const sent = nodes.map(() => 0);
    const each = nodes.map(async (node, index) => {
      const line = this.#lines.get(node) ?? this.attach(await this.#links.open(node));
      const told = (/** @type {number} */ at) => {
        sent[index] = at;
        progress?.(Math.min(...sent), size);
      };
      await this.#carry(line, head, body, told, signal);
    });
    await (to === undefined ? Promise.allSettled(each) : Promise.all(each));
  }

  // Going out

  /** @param {string} pipe @param {As} as @param {any} body @param {string[]} nodes */
  #sendLoose(pipe, as, body, nodes) {
    const name = utf8(pipe);
    if (as === "file" || body.length > MESSAGE - 67) throw new Refused("TOO_LARGE", "a datagram has at most 15,933 bytes");
    const raw = concat(Uint8Array.of(name.length), name, Uint8Array.of(AS.indexOf(as)), body);
    for (const node of nodes) {
      const link = this.#lines.get(node)?.link;
      if (!link) this.#links.open(node).then((found) => this.attach(found), () => {});
      else if (!link.datagram(raw) && link.waiting < MOST_WAITING) link.send(concat(Uint8Array.of(DATAGRAM), raw)).catch(() => {});
    }
  }

  /**
   * @param {Line} line
   * @param {Uint8Array} head
   * @param {Uint8Array | Blob} body
   * @param {(sent: number) => void} progress
   * @param {AbortSignal} [signal]
   */
  async #carry(line, head, body, progress, signal) {
    const { link, out, many, pieces } = line;
    const id = (line.id = (line.id + 1) >>> 0);
    const size = body instanceof Blob ? body.size : body.length;
    const large = head.length + size > MESSAGE - HEAD;
    /** @type {{stopped?: Refused}} */
    const one = {};
    out.set(id, one);
    const read = reader(body);
    let at = 0;
    let taken;
    if (large) await many.enter();
    try {
      do {
        if (large) await pieces.enter(); // in turns, as all wait in one row
        const began = performance.now();
        try {
          if (one.stopped) throw one.stopped;
          signal?.throwIfAborted();
          const data = await read(at, MESSAGE - HEAD - (taken ? 0 : head.length));
          if (!data.length && at < size) throw malformed("the file was cut");
          await link.send(taken ? piece(MORE, id, data) : piece(BEGIN, id, head, data));
          at += data.length;
        } catch (error) {
          if (large) pieces.leave();
          throw error;
        }
        const reached = at;
        taken = link.drained().then(() => progress(reached), (error) => void (one.stopped ??= error)).then(() => {
          if (!large) return;
          // Of what waits long too much was on its way.
          pieces.most = performance.now() - began < SLOW_MS ? Math.min(MOST_FLYING, pieces.most + 1) : Math.max(4, pieces.most - 1);
          pieces.leave();
        });
      } while (at < size);
      await taken;
      await new Promise((resolve) => setTimeout(resolve)); // what was answered to it is read first
      if (one.stopped) throw one.stopped;
    } catch (error) {
      if (taken && at < size && !one.stopped) link.send(piece(CANCEL, id)).catch(() => {});
      throw error;
    } finally {
      out.delete(id);
      if (large) many.leave();
    }
  }

  // Coming in

  /** @param {Line} line */
  async #read(line) {
    const { link, come } = line;
    for await (const raw of link) {
      if (raw[0] === DATAGRAM) this.#loose(link, raw.subarray(1));
      else if (raw.length >= HEAD) this.#take(line, raw[0], readU32(raw, 1), raw.subarray(HEAD));
    }
    for (const [id, { header }] of come) this.#lose(line, id, header.pipe, "CLOSED");
    if (this.#lines.get(link.other) === line) this.#lines.delete(link.other);
  }

  /** @param {Line} line @param {number} kind @param {number} id @param {Uint8Array} rest */
  #take(line, kind, id, rest) {
    const { link, come, out } = line;
    const sent = out.get(id);
    if (kind === STOP && sent) sent.stopped = new Refused(WORDS[rest[0]] ?? WORDS[0], "the other side took no more");
    let pipe = come.get(id)?.header.pipe;
    if (kind === CANCEL) this.#lose(line, id, pipe, "CANCELLED");
    try {
      if (kind === BEGIN) {
        const { header, data } = readBegin(rest);
        pipe = header.pipe;
        this.#begin(line, id, header);
        this.#add(line, id, data);
      }
      if (kind === MORE && come.has(id)) this.#add(line, id, rest);
    } catch (error) {
      const { reason } = /** @type {Refused} */ (error);
      this.#lose(line, id, pipe, WORDS.includes(reason) ? reason : WORDS[0]);
      link.send(piece(STOP, id, Uint8Array.of(Math.max(0, WORDS.indexOf(reason))))).catch(() => {});
    }
  }

  /** @param {Line} line @param {number} id @param {Header} header */
  #begin(line, id, header) {
    const { come } = line;
    const { as, size, pipe } = header;
    if (come.has(id)) throw malformed("id");
    if (come.size >= MOST_OPEN) throw new Refused("TOO_MANY");
    const own = this.#boundOf(pipe);
    const group = own === undefined ? "" : pipe;
    const isFile = as === "file";
    const all = isFile ? size + (line.files.get(group) ?? 0) : size;
    if (all > (isFile ? (own ?? this.most.file) : Math.min(own ?? Infinity, this.most.memory))) throw new Refused("TOO_LARGE");
    if (isFile) line.files.set(group, all);
    come.set(id, { header, group, buffer: new Uint8Array(), used: 0, got: 0, parts: [] });
  }

  /** @param {Line} line @param {number} id @param {Uint8Array} data */
  #add(line, id, data) {
    const one = /** @type {Coming} */ (line.come.get(id));
    const { size, as, pipe, name, type } = one.header;
    one.got += data.length;
    if (one.got > size) throw new Refused("TOO_LARGE");
    const { buffer, used } = one;
    one.used += data.length;
    if (one.used > buffer.length) {
      // As large as what has come asks for, whatever was promised.
      one.buffer = new Uint8Array(Math.min(Math.max(2 * buffer.length, one.used), size));
      one.buffer.set(buffer.subarray(0, used));
      this.#held += one.buffer.length - buffer.length;
      line.held += one.buffer.length - buffer.length;
      if (this.#held > MOST_HELD || line.held > MOST_LINE) throw new Refused("TOO_MANY");
    }
    one.buffer.set(data, used);
    const whole = one.got === size;
    const raw = one.buffer.subarray(0, one.used);
    if (as === "file" && (whole || one.used >= BLOCK)) {
      one.parts.push(new Blob([/** @type {any} */ (raw)]));
      one.used = 0;
    }
    if (!whole) return;
    this.#end(line, id);
    const found = as === "file" ? new File(one.parts, name ?? "", { type: type ?? "" }) : value(as, raw);
    this.#tell(pipe, line.link, found);
  }

  /** Forget a message that does not come whole, and tell of it. @param {Line} line @param {number} id @param {string | undefined} name @param {string} reason */
  #lose(line, id, name, reason) {
    this.#end(line, id);
    if (name !== undefined) this.dispatchEvent(new CustomEvent("lost", { detail: { name, from: line.link.other, reason } }));
  }

  /** Forget a message that comes. @param {Line} line @param {number} id */
  #end(line, id) {
    const one = line.come.get(id);
    if (!one) return;
    line.come.delete(id);
    this.#held -= one.buffer.length;
    line.held -= one.buffer.length;
    if (one.header.as !== "file") return;
    const rest = (line.files.get(one.group) ?? 0) - one.header.size;
    if (rest > 0) line.files.set(one.group, rest);
    else line.files.delete(one.group);
  }

  /** @param {Link} link @param {Uint8Array} raw */
  #loose(link, raw) {
    try {
      const { pipe, data } = readDatagram(raw);
      this.#tell(pipe, link, data);
    } catch {
      // a member who plays
    }
  }

  /** @param {string} name @param {Link} link @param {any} data */
  #tell(name, { other }, data) {
    this.dispatchEvent(new CustomEvent("message", { detail: { name, from: other, data } }));
  }
}
