/**
 * Files and pictures between those who are here: offered in a channel, sent to whoever takes them.
 *
 *     offer ──(pipe "offers": id, channel, name, size, type)──> a card in the channel
 *     take  <─(pipe "offers": take, id)──────────────────────── a click; small pictures by themselves
 *     bytes ──(pipe "file <id>", to the one who took)─────────> saved by the browser
 *
 * No bytes are kept: what was offered is a line after the page was loaded again, and can be had again from who still has
 * it. Pictures kept would be one more thing to erase after a channel's days, with a member's removal and with the circle.
 * Who was away sees no card. What others say of a file is its name alone; what is shown is decided here.
 * @module
 */
import { effect, signal, untracked } from "../ui.js";
import { text } from "../text.js";
import { fileName } from "./names.js";
import { forget, recall, remember } from "./settings.js";

const ID = /^[0-9a-f]{32}$/;
const PICTURES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"]);
const SMALL = 3 * 1024 * 1024;
const LARGEST = 2 * 1024 ** 3;
const MOST_OFFERS = 200, MOST_OF_ONE = 20, MOST_AT_ONCE = 32, MOST_TO_ONE = 8;
const MOST_NAME = 255, MOST_TYPE = 100, MOST_SAID = 4096;
/** Of what came unasked so much is held; the oldest makes room. */
const MOST_UNASKED = 256 * 1024 * 1024;
/** A picture of more is a file like others: few bytes may be a wide white plain that stops the page. */
const MOST_PIXELS = 2 ** 25;
/** So many lines are kept of what was offered, and so many pictures come by themselves at once. */
const MOST_KEPT = 60, MOST_FETCHED = 4;
const DAY_MS = 86_400_000, DAYS = 30;
/** What makes room first for a new offer of the same node. */
const LEAST = ["gone", "failed", "offered", "here", "coming"];

/**
 * @typedef {object} Offer a file that is here to be taken, or that was sent
 * @property {string} id
 * @property {string} channel
 * @property {string} member of whom it is
 * @property {string} node
 * @property {string} name
 * @property {number} size in bytes
 * @property {string} type
 * @property {number} at_ms
 * @property {boolean} mine
 * @property {boolean} isPicture
 * @property {boolean} [unasked] whether it came without being taken
 * @property {boolean} [past] whether it was offered before this page was loaded
 * @property {boolean} [again] whether it can be asked for when its node is here again
 * @property {boolean} [stopped] whether it is not to come by itself
 * @property {number} [to] of one's own: how many persons it was offered to
 * @property {string[]} [unable] and who was here and cannot take it
 * @property {"offered" | "coming" | "here" | "gone" | "failed" | "busy"} state
 * @property {number} done bytes so far
 * @property {string} url of what has come
 * @property {Record<string, {name: string, done: number, state: string}>} takers by node, of one's own
 */

/** Whether an offer of somebody says what an offer says. @param {any} data */
const isOffer = ({ id, channel, name, size, type }) =>
  typeof id === "string" && ID.test(id) && typeof channel === "string" && ID.test(channel) && typeof name === "string" && name.length <= MOST_NAME && Number.isSafeInteger(size) && size >= 0 && size <= LARGEST &&
  typeof type === "string" && type.length <= MOST_TYPE;

/** Whether what was kept is what is kept. @param {any} data */
const isKept = (data) => typeof data === "object" && data !== null && isOffer(data) && typeof data.member === "string" && typeof data.node === "string" && Number.isSafeInteger(data.at_ms) && data.at_ms > 0;

/** Whether a browser can show a picture; it reads how large one is before it draws it. @param {string} url @returns {Promise<boolean>} */
const isFair = (url) =>
  new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve(image.naturalWidth * image.naturalHeight <= MOST_PIXELS);
    image.onerror = () => resolve(false);
    image.src = url;
  });

/** Files of one circle. */
export class Files {
  offers = signal(/** @type {Offer[]} */ ([]));
  #room;
  #pipe;
  /** @type {Map<string, File>} */
  #own = new Map();
  /** @type {Map<string, AbortController>} */
  #sending = new Map();
  /** What closes the pipes of what is on its way here. @type {Map<string, () => void>} */
  #coming = new Map();
  /** What is kept no longer. @type {Set<string>} */
  #dropped = new Set();
  #unsee = () => {};
  #until = new AbortController();

  /** @param {import("./room.js").Room} room */
  constructor(room) {
    this.#room = room;
    const { circle } = room;
    this.#pipe = circle.pipe("offers", { most: MOST_SAID });
    this.#pipe.addEventListener("message", ({ detail: { from, data } }) => this.#hear(from, data));
    // Programs and other pages send files as they are, unasked: they are shown where everybody is.
    circle.pipe("files", { most: MOST_UNASKED }).addEventListener("message", ({ detail: { from, data } }) => this.#given(from, data));
    circle.addEventListener("left", (/** @type {any} */ { detail }) => this.#gone(detail.id), { signal: this.#until.signal });
    circle.addEventListener("peer", (/** @type {any} */ { detail }) => this.#back(detail.id), { signal: this.#until.signal });
    void this.#recall().catch(() => {}); // it was closed
    this.#unsee = effect(() => {
      if (room.channel.value) untracked(() => this.#fetch());
    });
  }

  /** Have a line of each that was offered before, for as long as texts of its channel are kept. */
  async #recall() {
    const kept = recall(`files ${this.#room.id}`, /** @type {any[]} */ ([])).filter(isKept);
    if (!kept.length) return;
    const channels = new Map((await this.#room.circle.channels()).map(({ id, days }) => [id, days]));
    if (this.#until.signal.aborted) return;
    const isStill = (/** @type {any} */ { channel, at_ms }) => channels.has(channel) && Date.now() - at_ms < (channels.get(channel) || DAYS) * DAY_MS;
    const here = new Set(this.offers.value.map(({ id }) => id));
    for (const { id } of kept.filter((one) => !isStill(one))) this.#dropped.add(id);
    const past = kept.filter((one) => isStill(one) && !here.has(one.id)).map(({ id, channel, member, node, name, size, type, at_ms, mine, unasked }) => /** @type {Offer} */ ({
      id, channel, member, node, name: fileName(name) || text.files.unnamed, size, type, at_ms, mine: mine === true, isPicture: PICTURES.has(type),
      state: "gone", done: 0, url: "", takers: {}, past: true, again: mine !== true && unasked !== true,
    }));
    this.offers.value = [...past, ...this.offers.value];
    this.#keep();
    for (const { node } of past) if (this.#room.circle.peers.has(node)) this.#back(node);
  }

  /** Keep what was offered, without its bytes; another tab may have kept some more. */
  #keep() {
    if (this.#until.signal.aborted) return;
    const before = recall(`files ${this.#room.id}`, /** @type {any[]} */ ([])).filter(isKept);
    const now = this.offers.value.map(({ id, channel, member, node, name, size, type, at_ms, mine, unasked }) => ({ id, channel, member, node, name, size, type: type.slice(0, MOST_TYPE), at_ms, mine, unasked }));
    const all = [...new Map([...before, ...now].map((one) => [one.id, one])).values()].filter(({ id }) => !this.#dropped.has(id));
    remember(`files ${this.#room.id}`, all.toSorted((a, b) => a.at_ms - b.at_ms).slice(-MOST_KEPT));
  }

  /** @param {string} id */
  #drop(id) {
    this.#dropped.add(id);
    this.#keep();
  }

  /** Small pictures of the channel that is shown come by themselves, a few at once. */
  #fetch() {
    const channel = this.#room.channel.value;
    for (const { id, mine, isPicture, size, state, stopped, ...one } of this.offers.value) {
      if (this.#coming.size >= MOST_FETCHED) return;
      if (one.channel === channel && !mine && isPicture && size <= SMALL && state === "offered" && !stopped) void this.take(id);
    }
  }

  /** Who has come back may still have what it offered. @param {string} node */
  #back(node) {
    let some = false;
    for (const one of this.offers.value) {
      if (one.node !== node || !one.again || one.state !== "gone") continue;
      this.#change(one.id, { state: "offered", again: false });
      some = true;
    }
    if (some) this.#fetch();
  }

  /** @param {string} id @param {Partial<Offer>} change */
  #change(id, change) {
    this.offers.value = this.offers.value.map((one) => (one.id === id ? { ...one, ...change } : one));
  }

  /** @param {string} id */
  #find(id) {
    return this.offers.value.find((one) => one.id === id);
  }

  /** Have a new offer; the oldest make room, and of one node at most so many are shown. @param {Offer} offer */
  #add(offer) {
    const all = this.offers.value;
    const same = offer.mine ? [] : all.filter(({ node }) => node === offer.node).toSorted((a, b) => LEAST.indexOf(a.state) - LEAST.indexOf(b.state));
    const out = new Set([...same.slice(0, Math.max(0, same.length - MOST_OF_ONE + 1)), ...all.slice(0, Math.max(0, all.length - MOST_OFFERS + 1))]);
    this.#remove(out);
    this.offers.value = [...this.offers.value, offer];
    this.#keep();
  }

  /** Show these no longer, and let go of their bytes. @param {Set<Offer>} out */
  #remove(out) {
    if (!out.size) return;
    for (const { id, url } of out) {
      if (url) URL.revokeObjectURL(url);
      this.#own.delete(id);
      this.#coming.get(id)?.();
    }
    this.offers.value = this.offers.value.filter((one) => !out.has(one));
  }

  /**
   * Offer files to those of the channel who are here and can take them; resolves to how many those are.
   * @param {Iterable<File>} files @param {string} channel
   * @returns {Promise<number>} it throws for a file that is too large
   */
  async offer(files, channel) {
    const readers = this.#room.peers.value.filter(({ member }) => this.#room.mayRead(member, channel));
    const there = readers.filter(({ abilities }) => abilities.includes("pipes"));
    const named = (/** @type {typeof readers} */ nodes) => new Map(nodes.map(({ member, name }) => this.#room.person(member, name)).map(({ id, name }) => [id, name]));
    const able = named(there);
    const unable = [...named(readers)].filter(([id]) => !able.has(id)).map(([, name]) => name);
    const all = [...files];
    const large = all.find(({ size }) => size > LARGEST);
    if (large) throw new RangeError(text.files.tooLarge(fileName(large.name)));
    for (const file of all) {
      const id = crypto.randomUUID().replaceAll("-", "");
      this.#own.set(id, file);
      const { size, type: said } = file;
      const name = file.name.slice(-MOST_NAME), type = said.slice(0, MOST_TYPE); // its end says what it is
      const isPicture = PICTURES.has(type);
      this.#add({
        id, channel, name: fileName(name) || text.files.unnamed, size, type, isPicture, at_ms: Date.now(), mine: true, state: "here", done: size, takers: {},
        member: this.#room.me.value.id, node: this.#room.me.value.node, url: isPicture ? URL.createObjectURL(file) : "",
        to: able.size, unable,
      });
      await Promise.allSettled(there.map((peer) => this.#pipe.send({ t: "offer", id, channel, name, size, type }, { to: peer })));
    }
    return able.size;
  }

  /** Take what is offered. @param {string} id */
  async take(id) {
    const offer = this.#find(id);
    if (!offer || offer.mine || offer.state === "coming" || offer.state === "here") return;
    const pipe = this.#room.circle.pipe(`file ${id}`, { most: offer.size });
    const end = () => {
      pipe.close();
      this.#coming.delete(id);
    };
    this.#coming.set(id, end);
    this.#change(id, { state: "coming", done: 0, stopped: false });
    pipe.addEventListener("lost", ({ detail: { from } }) => from.id === offer.node && this.#over(id, "failed"));
    pipe.addEventListener("message", ({ detail: { from, data } }) => {
      if (from.id !== offer.node) return;
      const size = data instanceof Blob ? data.size : (data?.byteLength ?? -1);
      if (size < 0 && Number.isSafeInteger(data?.done)) return void this.#change(id, { done: Math.min(Math.max(data.done, 0), offer.size) });
      end();
      if (size !== offer.size) return void this.#change(id, { state: "failed" });
      // never the type that the sender says, but for pictures: a page of others would be a script of ours
      const blob = new Blob([data], { type: offer.isPicture ? offer.type : "application/octet-stream" });
      void this.#have(id, blob);
    });
    await this.#pipe.send({ t: "take", id }, { to: offer.node }).catch(() => this.#over(id, "gone"));
  }

  /** Have what has come. @param {string} id @param {Blob} blob */
  async #have(id, blob) {
    const url = URL.createObjectURL(blob);
    const isPicture = PICTURES.has(blob.type) && (await isFair(url));
    if (this.#find(id)) this.#change(id, { state: "here", done: blob.size, url, isPicture });
    else URL.revokeObjectURL(url); // it has made room meanwhile
    this.#fetch();
  }

  /** What was on its way here comes no more. @param {string} id @param {Offer["state"]} state */
  #over(id, state) {
    this.#coming.get(id)?.();
    this.#change(id, { state, done: 0, ...(state === "offered" && { stopped: true }) });
    this.#fetch();
  }

  /** Take an offer back, or stop what is on its way. @param {string} id */
  async stop(id) {
    const offer = this.#find(id);
    if (!offer) return;
    if (!offer.mine) {
      this.#over(id, "offered");
      return void (await this.#pipe.send({ t: "stop", id }, { to: offer.node }).catch(() => {}));
    }
    for (const [key, control] of this.#sending) if (key.startsWith(id)) control.abort();
    this.#own.delete(id);
    if (offer.url) URL.revokeObjectURL(offer.url);
    this.offers.value = this.offers.value.filter((one) => one.id !== id);
    this.#drop(id);
    await this.#pipe.send({ t: "gone", id }).catch(() => {});
  }

  /** @param {any} from @param {any} data */
  #hear(from, data) {
    if (typeof data !== "object" || data === null) return;
    const offer = this.#find(data.id);
    if (data.t === "offer" && isOffer(data) && !offer && this.#room.mayRead(from.member, data.channel)) this.#offered(from, data);
    else if (data.t === "take" && offer?.mine) void this.#send(offer, from);
    else if (data.t === "stop" && offer?.mine) this.#sending.get(`${offer.id} ${from.id}`)?.abort();
    else if (/^(gone|busy)$/.test(data.t) && offer && offer.node === from.id && !offer.mine && offer.state !== "here") {
      if (data.t === "gone" && !offer.past) this.#drop(data.id);
      this.#over(data.id, data.t);
    }
  }

  /** @param {any} from @param {any} data */
  #offered(from, { id, channel, name, size, type }) {
    const isPicture = PICTURES.has(type);
    this.#add({
      id, channel, member: from.member, node: from.id, name: fileName(name) || text.files.unnamed, size, type, isPicture,
      at_ms: Date.now(), mine: false, state: "offered", done: 0, url: "", takers: {},
    });
    this.#fetch();
  }

  /** A file that came unasked. @param {any} from @param {any} data */
  #given(from, data) {
    if (!(data instanceof Blob)) return;
    const blob = new Blob([data], { type: PICTURES.has(data.type) ? data.type : "application/octet-stream" });
    const id = crypto.randomUUID().replaceAll("-", "");
    let held = data.size;
    const before = this.offers.value.filter(({ unasked }) => unasked).toReversed();
    this.#remove(new Set(before.filter(({ size }) => (held += size) > MOST_UNASKED)));
    this.#add({
      id, channel: "0".repeat(32), member: from.member, node: from.id, size: data.size, type: data.type, isPicture: false,
      name: fileName(/** @type {File} */ (data).name ?? "") || text.files.unnamed, at_ms: Date.now(), mine: false, state: "coming", done: data.size,
      url: "", takers: {}, unasked: true,
    });
    void this.#have(id, blob);
  }

  /** @param {Offer} offer @param {any} to */
  async #send(offer, to) {
    const { id } = offer;
    const key = `${id} ${to.id}`;
    const file = this.#own.get(id);
    if (!file) return void this.#pipe.send({ t: "gone", id }, { to }).catch(() => {});
    if (!this.#room.mayRead(to.member, offer.channel)) return;
    const toOne = [...this.#sending.keys()].filter((one) => one.endsWith(to.id)).length; // one who takes slowly leaves places to others
    if (this.#sending.has(key) || toOne >= MOST_TO_ONE || this.#sending.size >= MOST_AT_ONCE) return void this.#pipe.send({ t: "busy", id }, { to }).catch(() => {});
    const control = new AbortController();
    const pipe = this.#room.circle.pipe(`file ${id}`, { to });
    const far = this.#room.circle.pipe(`file ${id}`, { to, reliable: false });
    this.#sending.set(key, control);
    const taker = (/** @type {number} */ done, /** @type {string} */ state) => {
      const { takers } = this.#find(id) ?? {};
      if (takers) this.#change(id, { takers: { ...takers, [to.id]: { name: this.#room.person(to.member, to.name).name, done, state } } });
    };
    let told = 0;
    const progress = (/** @type {number} */ done) => {
      taker(done, "coming");
      if (Date.now() - told < 250) return;
      told = Date.now();
      // the one who takes is told how far it is by the one who sends: a pipe gives the file when it is whole
      far.send({ done }).catch(() => {});
    };
    try {
      await pipe.send(file, { progress, signal: control.signal });
      taker(file.size, "here");
    } catch {
      taker(0, "failed");
    } finally {
      pipe.close();
      far.close();
      this.#sending.delete(key);
    }
  }

  /** @param {string} node */
  #gone(node) {
    for (const one of this.offers.value) {
      if (one.node === node && !one.mine && /^(offered|coming|busy|failed)$/.test(one.state)) {
        this.#change(one.id, { again: !one.unasked });
        this.#over(one.id, "gone");
      }
    }
  }

  /** Keep no line of them. */
  erase() {
    forget(`files ${this.#room.id}`);
  }

  close() {
    this.#until.abort();
    this.#unsee();
    for (const control of this.#sending.values()) control.abort();
    for (const { url } of this.offers.value) if (url) URL.revokeObjectURL(url);
    this.offers.value = [];
  }
}
