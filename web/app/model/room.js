/**
 * One circle as the screen shows it: its channels, what was said in the one that is shown, who is there, what is unread.
 *
 *     events of the circle ──> what must be read again ──> signals ──> views
 *
 * The library is asked again after each event, at most once in a moment: records come by thousands when one was away.
 * @module
 */
import { batch, computed, signal } from "../ui.js";
import { text } from "../text.js";
import { CallModel } from "./call.js";
import { Files } from "./files.js";
import { persons, plainName } from "./names.js";
import { announce } from "./notices.js";
import { PREFIX, forget, recall, remember, settings } from "./settings.js";

export const GENERAL = "0".repeat(32);
/** Of a channel so many messages are shown, and so many more when one scrolls; those beyond the most make room at the other end. */
const PAGE = 60, MORE = 120, MOST_SHOWN = 600;
const MOST_UNREAD = 500;
/** Of all channels: what is kept has to leave room for the rest. */
const MOST_UNREAD_IN_ALL = 2000;
const SOON_MS = 40;

/** Unread messages as they were kept; what has another form counts for nothing. @param {any} found @returns {Record<string, string[]>} */
const unreadOf = (found) =>
  Object.fromEntries(Object.entries(found ?? {}).filter(([, hashes]) => Array.isArray(hashes) && hashes.every((one) => typeof one === "string")));

/** What was being written in a circle when this tab was loaded again. @param {string} id @returns {Map<string, string>} */
const draftsOf = (id) => {
  try {
    return new Map(Object.entries(JSON.parse(sessionStorage.getItem(`${PREFIX}drafts ${id}`) ?? "{}")).filter(([, one]) => typeof one === "string"));
  } catch {
    return new Map(); // wiped, forbidden, or written by something else
  }
};

/** Keep what is being written, in this tab alone; a command may hold an invite or a passphrase, and is not kept. @param {string} id @param {Map<string, string>} drafts */
const keepDrafts = (id, drafts) => {
  const kept = [...drafts].filter(([, one]) => one && (!one.startsWith("/") || one.startsWith("//")));
  try {
    if (kept.length) sessionStorage.setItem(`${PREFIX}drafts ${id}`, JSON.stringify(Object.fromEntries(kept)));
    else sessionStorage.removeItem(`${PREFIX}drafts ${id}`);
  } catch {
    // it is in memory alone then
  }
};

/** @typedef {import("../muster/circle.js").Message} Message */
/** @typedef {import("../muster/circle.js").Peer} Peer */
/** @typedef {import("./names.js").Person} Person */
/** @typedef {{channel: string, below: string, count: number}} Part of a channel: so many messages before one; the newest, if that is empty */
/** @typedef {{id: string, name: string, mode: string, topic: string, days: number, creator: string, managers: string[], members: string[], asking: string[], isIn: boolean, isOut: boolean, manages: boolean}} Channel */

/** Do something soon, once, however often it is asked for; and again if it was asked for meanwhile. @param {() => Promise<void>} work */
const soon = (work) => {
  let waits = false, runs = false;
  const run = async () => {
    waits = false;
    runs = true;
    await work().catch((error) => error?.reason === "CLOSED" || console.error(error));
    runs = false;
    if (waits) setTimeout(run, SOON_MS);
  };
  return () => {
    if (waits) return;
    waits = true;
    if (!runs) setTimeout(run, SOON_MS);
  };
};

/** A circle that is open. */
export class Room {
  title = signal("");
  state = signal({ state: "connecting", why: "", services: /** @type {{id: string, url: string, state: string, why: string}[]} */ ([]) });
  /** What the library has said that stops nothing, the last by its reason. */
  troubles = signal(/** @type {{reason: string, message: string}[]} */ ([]));
  peers = signal(/** @type {Peer[]} */ ([]));
  people = signal(/** @type {Map<string, Person>} */ (new Map()));
  channels = signal(/** @type {Channel[]} */ ([]));
  /** The id of the channel that is shown. */
  channel = signal(GENERAL);
  /** The newest messages of that channel, or those around where one has scrolled to. */
  messages = signal(/** @type {Message[]} */ ([]));
  /** What is answered in these and is not among them, by its hash. */
  originals = signal(/** @type {Map<string, Message>} */ (new Map()));
  /** How often the newest were asked for: they are to be seen then. */
  ends = signal(0);
  /** Whether more was said before these, ... */
  hasEarlier = signal(false);
  /** ... and after them. */
  hasLater = signal(false);
  /** Hashes that were not seen yet, by channel. @readonly */
  unread = signal(/** @type {Record<string, string[]>} */ ({}));
  /** Where unread messages began when the channel was opened. */
  divider = signal("");
  /** What is being written, by channel. @type {Map<string, string>} */
  drafts = new Map();
  /** What the text that is written is: an answer or a change. */
  composing = signal(/** @type {{reply?: Message, edit?: Message}} */ ({}));
  /** Whether this browser is in it no longer. */
  isErased = signal(false);
  me = signal({ id: "", name: "", node: "", founder: false, out: false });

  count = computed(() => Object.values(this.unread.value).reduce((sum, { length }) => sum + length, 0));
  here = computed(() => this.channels.value.find(({ id }) => id === this.channel.value) ?? null);

  /** @type {Part} */
  #part = { channel: GENERAL, below: "", count: PAGE };
  /** Whether the end of the channel is in sight, and whether what is in sight is to stay there. */
  #seen = false;
  #stays = false;
  #moves = false;
  #left = new AbortController();

  /** @param {import("../library.js").Circle} circle */
  constructor(circle) {
    this.circle = circle;
    this.id = circle.id;
    this.drafts = draftsOf(this.id);
    this.unread.value = unreadOf(recall(`unread ${this.id}`, {}));
    this.channel.value = recall(`channel ${this.id}`, GENERAL);
    this.#part = { ...this.#part, channel: this.channel.value };
    this.divider.value = this.unread.value[this.channel.value]?.[0] ?? "";
    this.files = new Files(this);
    this.calls = new CallModel({
      circle,
      settings: {
        get turn() { return settings.turn.value; },
        get viewers() { return settings.viewers.value; },
        devices: settings.devices,
        ring: settings.ring,
      },
    });
    const { signal: until } = this.#left;
    const hear = (/** @type {string} */ type, /** @type {(detail: any) => void} */ take) =>
      circle.addEventListener(/** @type {any} */ (type), (/** @type {any} */ { detail }) => take(detail), { signal: until });
    hear("state", (detail) => (this.state.value = detail));
    hear("error", (detail) => (detail.reason === "NO_INVITE" ? this.#forget() : this.#trouble(detail)));
    hear("peer", () => this.#readPeers());
    hear("left", () => this.#readPeers());
    hear("message", (message) => this.#come(message));
    hear("change", ({ channel, kind }) => {
      if (/^(edit|delete)$/.test(kind) && this.originals.value.size) this.originals.value = new Map(); // one of them, perhaps
      if (kind !== "call" && (channel === this.channel.value || kind === "circle")) this.#readTalk();
      if (!/^(text|edit|react|delete|left)$/.test(kind)) this.#readFacts();
    });
    hear("circle", () => this.#readFacts());
    hear("erased", () => this.#forget());
    addEventListener("pagehide", () => keepDrafts(this.id, this.drafts), { signal: until });
    addEventListener("storage", ({ key }) => {
      if (key !== `${PREFIX}unread ${this.id}`) return;
      this.#hearUnread(unreadOf(recall(`unread ${this.id}`, {})));
      this.see(this.#seen); // this tab may have read them
    }, { signal: until });
    this.#readPeers();
    this.#readFacts();
    this.#readTalk();
  }

  // Reading

  #readFacts = soon(async () => {
    const { circle } = this;
    const [channels, people] = await Promise.all([circle.channels(), circle.people()]);
    batch(() => {
      this.title.value = plainName(circle.name) || text.unnamed;
      this.me.value = { ...circle.me };
      const isHere = (/** @type {Channel[]} */ all) => all.some(({ id }) => id === this.channel.value);
      const isGone = !isHere(channels) && (isHere(this.channels.value) || !this.channels.value.length); // and not so new that these facts lack it
      this.channels.value = channels;
      this.people.value = persons(people, circle.me.id);
      if (isGone) this.enter(GENERAL);
    });
  });

  #readPeers = soon(async () => {
    const { circle } = this;
    this.peers.value = [...circle.peers.values()];
    if ([...circle.peers.values()].some(({ member }) => !this.people.value.has(member))) this.#readFacts();
  });

  #readTalk = soon(async () => {
    if (!(await this.#show(this.#part))) this.#readTalk(); // another part is shown since
  });

  /**
   * Read a part of the channel and show it, if no other is shown by then.
   * @param {Part} part @param {string} [wanted] a message without which it is not shown
   */
  async #show(part, wanted = "") {
    const before = this.#part;
    const { channel, below, count } = part;
    const found = await this.circle.history(channel, { ...(below && { before: below }), limit: count + 1 });
    const shown = found.slice(-count);
    if (before !== this.#part || (wanted && !shown.some(({ hash }) => hash === wanted))) return false;
    this.#part = part;
    batch(() => {
      this.hasEarlier.value = found.length > count;
      this.hasLater.value = below !== "";
      this.#showAll(shown);
    });
    void this.#readOriginals().catch(() => {}); // it was closed
    return true;
  }

  async #readOriginals() {
    const shown = this.messages.value;
    const here = new Set(shown.map(({ hash }) => hash));
    const wanted = [...new Set(shown.flatMap(({ reply }) => (reply && !here.has(reply) ? [reply] : [])))];
    const known = this.originals.value;
    if (wanted.every((hash) => known.has(hash)) && wanted.length === known.size) return;
    const found = await Promise.all(wanted.map(async (hash) => known.get(hash) ?? (await this.circle.message(hash))));
    if (known !== this.originals.value) return; // another part is shown since
    this.originals.value = new Map(found.flatMap((one) => (one && one.channel === this.channel.value ? [[one.hash, one]] : [])));
  }

  /** Show another part, one at a time. @param {() => Promise<Part | null>} next */
  async #move(next) {
    if (this.#moves) return;
    this.#moves = true;
    try {
      for (let tries = 0; tries < 3; tries += 1) {
        const part = await next();
        if (!part || (await this.#show(part))) return;
      }
    } catch (error) {
      if (/** @type {any} */ (error)?.reason !== "CLOSED") throw error;
    } finally {
      this.#moves = false;
    }
  }

  /** Show these; what is as it was stays the same object, so that the view draws what is new alone. @param {Message[]} found */
  #showAll(found) {
    const before = new Map(this.messages.value.map((one) => [one.hash, one]));
    const all = found.map((one) => {
      const known = before.get(one.hash);
      return known && JSON.stringify(known) === JSON.stringify(one) ? known : one;
    });
    if (all.length !== before.size || all.some((one, at) => one !== this.messages.value[at])) this.messages.value = all;
  }

  /** Show more of what was said before; the newest make room. */
  earlier() {
    return this.#move(async () => {
      const shown = this.messages.value;
      if (!this.hasEarlier.value || !shown.length) return null;
      const count = Math.min(shown.length + MORE, MOST_SHOWN);
      const below = shown[count - MORE]?.hash ?? this.#part.below;
      return { ...this.#part, count, below };
    });
  }

  /** Show more of what was said after; the oldest make room. */
  later() {
    return this.#move(async () => {
      const shown = this.messages.value;
      const { channel } = this.#part;
      if (!this.hasLater.value || !shown.length) return null;
      const found = await this.circle.history(channel, { after: shown[shown.length - 1].hash, limit: MORE + 1 });
      return { channel, count: Math.min(shown.length + MORE, MOST_SHOWN), below: found[MORE]?.hash ?? "" };
    });
  }

  /** Show the newest. */
  async newest() {
    while (this.#part.below) await this.#show({ ...this.#part, below: "", count: PAGE });
    this.ends.value += 1;
  }

  /** Show a message among those around it, if it is not shown. @param {string} hash @returns {Promise<boolean>} whether it is there */
  async reach(hash) {
    const { channel } = this.#part;
    for (let part; channel === this.#part.channel && part !== this.#part;) {
      if (this.messages.value.some((one) => one.hash === hash)) return true;
      part = this.#part;
      const after = await this.circle.history(channel, { after: hash, limit: PAGE + 1 });
      if (await this.#show({ channel, below: after[PAGE]?.hash ?? "", count: 2 * PAGE }, hash)) return true;
    }
    return false;
  }

  /** Keep what is in sight where it is, when something new comes: it is below what is shown, if that is full. @param {Message} message */
  #holdOn({ hash, at_ms }) {
    const { length, [length - 1]: last } = this.messages.value;
    if (!this.#stays || this.#part.below || !last || at_ms < last.at_ms) return;
    if (this.#part.count < MOST_SHOWN) this.#part = { ...this.#part, count: this.#part.count + 1 };
    else this.#part = { ...this.#part, below: hash };
  }

  /** @param {Message} message */
  #come(message) {
    if (message.channel === this.channel.value) {
      this.#holdOn(message);
      this.#readTalk();
    }
    if (message.mine || this.#isRead(message.channel)) return;
    const before = this.unread.value[message.channel] ?? [];
    if (before.includes(message.hash) || before.length >= MOST_UNREAD) return;
    if (message.channel === this.channel.value && !before.length) this.divider.value = message.hash;
    const unread = { ...this.unread.value, [message.channel]: [...before, message.hash] };
    if (this.count.value >= MOST_UNREAD_IN_ALL) {
      const [[fullest, hashes]] = Object.entries(unread).sort(([, a], [, b]) => b.length - a.length);
      unread[fullest] = hashes.slice(1);
    }
    this.#setUnread(unread);
    announce(this, message);
  }

  /** @param {Record<string, string[]>} unread */
  #setUnread(unread) {
    this.unread.value = unread;
    remember(`unread ${this.id}`, unread);
  }

  /**
   * Hear what another tab counts: it has read all of a channel, or has counted at the same moment as this one, and then
   * what either has counts. @param {Record<string, string[]>} theirs
   */
  #hearUnread(theirs) {
    const both = Object.fromEntries(Object.entries(theirs).map(([channel, hashes]) => [channel, [...new Set([...hashes, ...(this.unread.value[channel] ?? [])])].slice(0, MOST_UNREAD)]));
    if (JSON.stringify(both) === JSON.stringify(theirs)) this.unread.value = theirs;
    else this.#setUnread(both);
  }

  /** @param {string} channel */
  #isRead(channel) {
    return this.#seen && channel === this.channel.value && document.visibilityState === "visible";
  }

  /** Say whether the end of the channel is in sight: then nothing of it is unread. @param {boolean} seen */
  see(seen) {
    this.#seen = seen && !this.hasLater.value;
    this.#stays = !seen;
    if (!this.#isRead(this.channel.value)) return;
    const { [this.channel.value]: read, ...others } = this.unread.value;
    if (read?.length) this.#setUnread(others);
  }

  /** Nobody looks at it any more: who comes back sees the newest. */
  unsee() {
    this.#seen = this.#stays = false;
    void this.newest().catch(() => {}); // it was closed
  }

  /** @param {{reason: string, message: string}} detail */
  #trouble(detail) {
    this.troubles.value = [...this.troubles.value.filter(({ reason }) => reason !== detail.reason), detail].slice(-5);
  }

  /** Have read what went wrong. @param {string} reason */
  dismiss(reason) {
    this.troubles.value = this.troubles.value.filter((one) => one.reason !== reason);
  }

  /** Who a member is; somebody who has said nothing of themselves yet is called by the message. @param {string} member @param {string} [name] @returns {Person} */
  person(member, name = "") {
    return this.people.value.get(member) ?? { id: member, devices: [member], name: plainName(name) || member.slice(0, 6), me: member === this.me.value.id, asks: false, out: false };
  }

  /** The nodes of a person that are there. @param {Person} person */
  nodesOf({ devices }) {
    return this.peers.value.filter(({ member }) => devices.includes(member));
  }

  /** Whether a member may read a channel. @param {string} member @param {string} [channel] */
  mayRead(member, channel = this.channel.value) {
    const found = this.channels.value.find(({ id }) => id === channel);
    return !found || found.mode === "public" || found.members.includes(member);
  }

  // Doing

  /** Show another channel. @param {string} channel */
  enter(channel) {
    if (channel !== this.channel.value) {
      batch(() => {
        this.channel.value = channel;
        this.messages.value = [];
        this.composing.value = {};
        this.hasEarlier.value = this.hasLater.value = this.#stays = false;
        this.originals.value = new Map();
        this.#part = { channel, below: "", count: PAGE };
      });
      remember(`channel ${this.id}`, channel);
    }
    const [first] = this.unread.value[channel] ?? [];
    this.divider.value = first ?? "";
    this.#readTalk();
  }

  /** Say what was written, or change what it changes. @param {string} written */
  async say(written) {
    const { reply, edit } = this.composing.value;
    if (edit) await this.circle.act("edit", edit.hash, written);
    else {
      await this.circle.post(this.channel.value, written, reply && { reply: reply.hash });
      await this.newest();
    }
    this.composing.value = {};
    this.divider.value = "";
    this.#readTalk();
  }

  /** Say anything else of the chat. @param {string} op @param {...any} args */
  async act(op, ...args) {
    const said = await this.circle.act(op, ...args);
    if (op === "remove") await this.#nameAnew(args[0]);
    this.#readFacts();
    this.#readTalk();
    return said;
  }

  /** Say under a private channel's new key what it is called: who comes later has no other. @param {string} channel */
  async #nameAnew(channel) {
    const found = this.channels.value.find(({ id }) => id === channel);
    if (!found || found.mode === "public") return;
    await this.circle.act("rename", channel, found.name);
    if (found.topic) await this.circle.act("topic", channel, found.topic);
  }

  /** @param {string} name */
  async rename(name) {
    await this.circle.rename(name);
  }

  /** Put an emoji beside a message, or take it away. @param {Message} message @param {string} emoji */
  react(message, emoji) {
    const mine = message.reactions?.[emoji]?.includes(this.me.value.id);
    return this.act("react", message.hash, emoji, !mine);
  }

  #end() {
    if (this.#left.signal.aborted) return;
    keepDrafts(this.id, this.drafts);
    this.#left.abort();
    this.calls.close();
    this.files.close();
  }

  /** Close the circle in this page; it stays in this browser. */
  async close() {
    this.#end();
    await this.circle.leave();
  }

  /** Forget the circle in this browser. */
  async erase() {
    this.#end();
    await this.circle.erase();
    this.#forget();
  }

  /** It was erased, here or in another tab. */
  #forget() {
    if (this.isErased.value) return;
    this.#end();
    void this.circle.leave().catch(() => {});
    this.drafts.clear();
    keepDrafts(this.id, this.drafts);
    forget(`unread ${this.id}`);
    forget(`channel ${this.id}`);
    this.files.erase();
    this.isErased.value = true;
  }
}
