/**
 * One circle at work: its keys, what was said, who is there, and every way to reach them.
 *
 * One tab of a profile runs it (tabs.js); what an app holds is a `Circle` (circle.js).
 *
 *     services --entries--> records --> log --> talk --> "message", "change"
 *        |  presences, signals, frames                  ^
 *        +--> links --> pipes                           |
 *                 +---> meetings --records--------------+
 * @module
 */
import { b64, concat, random, u64, unb64, unhex, utf8 } from "./bytes.js";
import { derivable, id, label, signer, verify } from "./crypto.js";
import { readService, writeInvite, writeService } from "./invites.js";
import { integer, items, matching, strict } from "./json.js";
import { Epoch, Member, memberId } from "./keys.js";
import { Links } from "./links.js";
import { LASTING, Log } from "./log.js";
import { Pipes } from "./pipes.js";
import { Refused } from "./refused.js";
import {
  AHEAD_MS, GENERAL, ID, forFounder, forRekey, isRekey, readPresence, readRecord, readRekey, recordHash, sealPresence,
  sealRecord, sealSignal, unbox, unsealRecord,
} from "./seals.js";
import { Attendant } from "./service.js";
import { callWord } from "./chat/facts.js";
import { read } from "./chat/kinds.js";
import { Talk } from "./chat/talk.js";

/** @typedef {import("./seals.js").Rec} Rec */
/** @typedef {import("./seals.js").Said} Said */
/** @typedef {import("./seals.js").Presence} Presence */
/** @typedef {import("./keys.js").Node} Node */
/** @typedef {import("./invites.js").Service} Service */
/** @typedef {import("./invites.js").Invite} Invite */

/**
 * @typedef {object} Row what is kept of a circle beside its records
 * @property {string} id
 * @property {Uint8Array} founder
 * @property {string} name
 * @property {Service[]} services
 * @property {string[]} peers
 * @property {{number: number, secret: Uint8Array | null, began: number, rekey?: Said, order?: string}[]} epochs
 * @property {CryptoKey | Uint8Array} member that cannot be read back, where the runtime has such keys
 * @property {Uint8Array} [founderSeed] on the device that leads the circle
 * @property {number} servicesAt
 * @property {string} me how this member is called
 * @property {string} introduced
 * @property {Record<string, Uint8Array>} [keys] of channels: by the salt of a passphrase, or by the record that made one that was brought
 * @property {boolean} out
 */

/**
 * @typedef {object} Peer a node that is there
 * @property {string} id the node
 * @property {string} member
 * @property {string} name
 * @property {"webrtc" | "relay" | "none"} path
 * @property {string[]} abilities
 */

const MAIL = 30 * 86_400_000;
const AGAIN = 20 * 86_400_000;
const YEAR = 365 * 86_400_000;
const OTHERS = 8 * 86_400_000;
const NEVER = 600_000;
const MINUTE = 60_000;
const HOUR = 3_600_000;
const TEND = 500;
const MOST_TEXT = 262_144;
const STALE = 1_800_000;
const READY = 3000;
const FAREWELL = 5000;
const PATIENCE = 5000;
const LEAVING = 10_000;
const MOST_PEERS = 256;
const MOST_TOLD = 200;
const MOST_OF_ONE = 40;
/** How many nodes of one member are seen: one can make any number. */
const MOST_NODES = 4;
const ABILITIES = ["pipes", "webrtc"];
const CHAT = new Set([...LASTING, "text", "edit", "delete", "react", "call"]);
const OF_CHANNELS = new Set("join leave rename topic keep managers invite remove renew call".split(" "));

/** Refuse a name that others could not read: it would make all that is said count for nothing. @param {unknown} name */
export const checkName = (name) => {
  const good = typeof name === "string" && utf8(name).length <= 64 && !/[\0-\x1f\x7f]|\p{Surrogate}/u.test(name);
  if (!good) throw new Refused("MALFORMED", "a name has at most 64 bytes, and no control characters");
};

/** Whether this browser takes a server for connections: one that it throws on would spoil all. @param {RTCIceServer} server */
const isServer = (server) => {
  try {
    if (globalThis.RTCPeerConnection) new RTCPeerConnection({ iceServers: [server] }).close();
    return true;
  } catch {
    return false;
  }
};

/** A message without its reason, which stands beside it. @param {string} message */
const plain = (message) => message.replace(/^[A-Z_]+: /, "");

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What an app sees of a record of its own kind. @param {Rec} rec */
const own = ({ hash, kind, member, at_ms, body }) => ({ hash, kind, author: member, at_ms, body });

/** Make a circle, whose founder this device is. @param {{name: string, services: Service[]}} how @returns {Promise<Row>} */
export const makeRow = async ({ name, services }) => {
  const founderSeed = random(32);
  const { public: founder } = await signer(founderSeed);
  return { ...(await rowOf(founder, name, services, [])), epochs: [{ number: 0, secret: random(32), began: Date.now() }], founderSeed };
};

/** Become a member by an invite. @param {Invite} invite @returns {Promise<Row>} */
export const joinRow = async ({ founder, epoch, name, services, peers }) => ({
  ...(await rowOf(founder, name, services, peers)),
  epochs: [{ number: epoch.number, secret: epoch.secret, began: Date.now() }],
});

/** @param {Uint8Array} founder @param {string} name @param {Service[]} services @param {string[]} peers @returns {Promise<Row>} */
const rowOf = async (founder, name, services, peers) => ({
  id: await id("circle", founder),
  founder, name, services, peers, epochs: [], member: await derivable(random(32)),
  servicesAt: 0, me: "", introduced: "", out: false,
});

/** The engine of one circle; it begins with `start` and ends with `stop`. */
export class Engine {
  /** @type {Epoch} */
  // @ts-ignore set by open
  epoch;
  /** @type {Node} */
  // @ts-ignore set by open
  node;
  /** @type {Map<string, {presence: Presence, path: Peer["path"]}>} */
  peers = new Map();
  /** @type {Attendant[]} */
  attendants = [];

  #store;
  #emit;
  #stopped = false;
  #began = performance.now();
  #state = "";
  #ready = false;
  #erased = false;
  /** @type {string[]} the word of the call that this node is in */
  #call = [];
  #filling = true;
  #saidAt = 0;
  #introducing = "";
  /** @type {Promise<any>} one rekey after the other */
  #rekeying = Promise.resolve();
  /** @type {Map<string, import("./seals.js").Rekey>} that were read, by their order */
  #rekeys = new Map();
  #carries = false;
  /** @type {Map<string, number>} */
  #lookAgain = new Map();
  /** @type {Set<string>} by service and hash */
  #tooLarge = new Set();
  /** @type {Set<string>} */
  #toldChains = new Set();
  /** @type {Map<number, Epoch>} */
  #epochs = new Map();
  /** @type {Map<string, import("./meetings.js").Meeting>} */
  #meetings = new Map();
  /** @type {Map<string, AbortController>} */
  #sending = new Map();
  /** @type {{servers: RTCIceServer[], until: number}} */
  #ice = { servers: [], until: 0 };
  #options;
  /** @type {any} */
  #expiring;
  /** @type {any} */
  #tending;

  /**
   * @param {import("./store.js").Store} store
   * @param {Row} row
   * @param {Log} log
   * @param {Member} member
   * @param {(type: string, detail: any) => void} emit
   * @param {any} options
   */
  constructor(store, row, log, member, emit, options) {
    this.#store = store;
    this.row = row;
    this.log = log;
    this.member = member;
    this.#emit = emit;
    this.#options = options;
    log.ontrouble = ({ reason = "STORAGE_GONE", message }) => this.trouble(reason, message);
    this.talk = this.#newTalk();
    const RTC = options.RTCPeerConnection === undefined ? globalThis.RTCPeerConnection : options.RTCPeerConnection;
    this.#carries = Boolean(RTC);
    this.links = new Links({
      nodeId: () => this.node.id,
      signal: this.#signal,
      frame: this.#frame,
      ice: this.ice,
      now: this.now,
      RTCPeerConnection: RTC,
      iceTransportPolicy: options.iceTransportPolicy,
      able: (node) => this.#abilities(node).includes("webrtc"),
    });
    this.pipes = new Pipes({ links: this.links });
    if (options.most !== undefined) this.pipes.most.file = options.most;
    const on = (/** @type {EventTarget} */ from, /** @type {string} */ type, /** @type {(detail: any) => void} */ hear) =>
      from.addEventListener(type, (event) => hear(/** @type {any} */ (event).detail));
    on(this.links, "link", (detail) => this.#linked(detail));
    on(this.links, "path", ({ node }) => this.#pathChanged(node));
    on(this.pipes, "message", (detail) => emit("pipe", detail));
    on(this.pipes, "lost", (detail) => emit("lost", detail));
  }

  /**
   * Open a circle that was made or joined before.
   * @param {import("./store.js").Store} store
   * @param {Row} row
   * @param {(type: string, detail: any) => void} emit
   * @param {any} [options]
   */
  static async open(store, row, emit, options = {}) {
    const log = await Log.open(store, row.id);
    const engine = new Engine(store, row, log, await Member.make(row.id, row.member), emit, options);
    await engine.#fill();
    await engine.#enter();
    return engine;
  }

  #newTalk() {
    const { row, member, now } = this;
    const talk = new Talk({ circle: row.id, founder: row.founder, member, now, opened: (hash) => this.#filling || void this.#tellMessage(hash) });
    talk.typed = new Map(Object.entries(row.keys ?? {}));
    return talk;
  }

  async #fill() {
    this.#filling = true; // what was here before is no news
    for (const rec of this.log.records()) await this.talk.take(rec);
    await this.talk.facts();
    this.#filling = false;
  }

  /** The time that others are told: with the smallest correction that a service has signed. */
  now = () => {
    const offsets = this.attendants.flatMap(({ offset }) => (offset === undefined ? [] : [offset]));
    return Date.now() + (offsets.sort((a, b) => Math.abs(a) - Math.abs(b))[0] ?? 0);
  };

  /** Begin to be there. */
  async start() {
    await this.#introduce();
    for (const { kind, body } of this.log.records()) if (kind === "services") await this.#learnServices(body).catch(() => {}); // a founder's own was once passed over
    this.#attend();
    this.#expiring = setInterval(() => this.#expire(), HOUR);
    this.#show();
  }

  /** Drop what is kept no longer: by a time that a service has signed, and when it is read for how long. */
  async #expire() {
    if (!this.#ready || !this.attendants.some(({ offset }) => offset !== undefined)) return;
    const facts = await this.talk.facts();
    await this.log.expire(this.now(), (channel) => facts.daysOf(channel), this.member.author);
  }

  /** Stop, and say goodbye. */
  async stop() {
    if (this.#stopped) return;
    this.#stopped = true;
    clearInterval(this.#expiring);
    clearTimeout(this.#tending);
    void this.links.close();
    await Promise.all(this.attendants.map((one) => one.close(true)));
  }

  /** See whether all paths still stand: the machine has slept, or is elsewhere. */
  check() {
    for (const one of this.attendants) void one.check();
    this.links.check();
  }

  /** @param {string} reason @param {string} message */
  trouble(reason, message) {
    this.#emit("error", { reason, message: plain(message) });
  }

  /** @param {Partial<Row>} changed */
  async #keep(changed) {
    if (this.#erased) return;
    Object.assign(this.row, changed);
    await this.#store.put([["circles", this.row.id, { ...this.row, used: Date.now() }]]).catch(this.log.ontrouble);
  }

  // Epochs

  /** Take up the newest epoch that this member is in. */
  async #enter() {
    for (const { number, secret } of this.row.epochs) {
      if (secret && !this.#epochs.has(number)) this.#epochs.set(number, await Epoch.make(this.row.id, number, secret));
    }
    const last = Math.max(...this.#epochs.keys());
    this.epoch = /** @type {Epoch} */ (this.#epochs.get(last));
    this.node = await this.member.node(this.epoch);
  }

  /** Attend each service in this epoch, and read the mailboxes of those before. */
  #attend() {
    if (this.#stopped) return;
    /** @type {[Service, Epoch, boolean][]} */
    const wanted = [];
    for (const service of this.row.services) {
      for (const epoch of this.#epochs.values()) {
        const old = epoch !== this.epoch;
        const ended = this.row.epochs.find(({ number }) => number === epoch.number + 1)?.began ?? Infinity;
        if (!old || Date.now() < ended + (this.row.founderSeed ? YEAR : MAIL)) wanted.push([service, epoch, old]);
      }
    }
    this.attendants = this.attendants.filter((one) => {
      const stays = wanted.some(([{ url, id: name, code }, epoch, old]) =>
        one.address.url === url && one.id === name && one.address.code === code && one.node.epoch === epoch && one.old === old);
      if (!stays) void one.close();
      return stays;
    });
    for (const [service, epoch, old] of wanted) {
      if (this.attendants.some((one) => one.id === service.id && one.node.epoch === epoch)) continue;
      if (old) void this.member.node(epoch).then((node) => this.#stopped || this.attendants.push(new Attendant(this, service, node, true)));
      else this.attendants.push(new Attendant(this, service, this.node, false));
    }
  }

  /** Follow a rekey; only the founder's counts, to the next number; of two the smaller hash stands. @param {Epoch} epoch @param {Said} said */
  async #takeRekey(epoch, said) {
    const rekey = await readRekey(this.row.founder, said);
    if (rekey.epoch !== epoch.number + 1) throw new Refused("WRONG_CIRCLE", "the rekey is to another epoch");
    const known = this.row.epochs.find(({ number, order }) => number === rekey.epoch && order);
    if (known?.order && known.order <= rekey.order) return rekey.order;
    const closed = rekey.keep[this.member.id];
    if (!closed && this.epoch.number >= rekey.epoch && !known) return rekey.order; // a later invite has let us in again
    const secret = closed ? await unbox(closed, this.member.box, forRekey(this.row.id, rekey.epoch)) : null;
    const before = this.row.epochs.filter(({ number }) => number < rekey.epoch);
    const epochs = [...before, { number: rekey.epoch, secret, began: this.now(), rekey: said, order: rekey.order }];
    await this.#keep({ epochs, out: !closed });
    for (const number of this.#epochs.keys()) if (number >= rekey.epoch) this.#epochs.delete(number);
    if (known) await this.log.again(rekey.epoch, epoch.hint); // what the other one left out is read, and what was said there left anew
    if (!closed) {
      if (known) await this.#enter();
      this.trouble("LEFT_OUT", "the founder has left this member out of the circle");
      this.#emit("hello", await this.hello());
      this.#attend();
      return rekey.order;
    }
    for (const { author, member } of this.log.records()) {
      const [seq] = rekey.out[member] ?? [];
      if (seq !== undefined && this.log.tip(author)[0] > seq) await this.log.dropBeyond(author, seq);
    }
    await this.#enter();
    this.talk = this.#newTalk();
    await this.#fill();
    this.links.reset();
    this.peers.clear();
    this.#emit("rekeyed", { epoch: rekey.epoch });
    this.#emit("hello", await this.hello());
    this.#attend();
    return rekey.order;
  }

  /** Whether a record is heard: of who was left out, only what came before. @param {Rec} rec */
  async #counts(rec) {
    for (const { number, rekey: said, order } of this.row.epochs) {
      if (number <= rec.epoch || !said) continue;
      const { keep, out } = await this.#read(said, order);
      if (keep[rec.member]) continue;
      const [seq, hash] = out[rec.member] ?? [0, ""];
      if (rec.seq > seq || (rec.seq === seq && rec.hash !== hash)) return false;
    }
    return true;
  }

  /** A rekey that was followed. @param {Said} said @param {string} [order] */
  async #read(said, order = "") {
    const found = this.#rekeys.get(order) ?? (await readRekey(this.row.founder, said));
    this.#rekeys.set(found.order, found);
    return found;
  }

  /** Who was left out by the rekey to this epoch, and has not come back since. @param {Iterable<string>} members @returns {Promise<Set<string>>} */
  async #gone(members) {
    const { rekey: said, order } = this.row.epochs.find(({ number }) => number === this.epoch.number) ?? {};
    if (!said) return new Set();
    const { keep } = await this.#read(said, order);
    const back = new Set([...this.peers.values()].map(({ presence }) => presence.member));
    for (const { epoch, member } of this.log.records()) if (epoch >= this.epoch.number) back.add(member);
    return new Set([...members].filter((one) => !keep[one] && !back.has(one) && one !== this.member.id));
  }

  /**
   * Begin a new epoch for all members but these, as the founder; resolves when services have it, or have not answered.
   * @param {{without?: string[], only?: string[]}} [how]
   */
  rekey({ without = [], only } = {}) {
    const work = this.#rekeying.then(() => this.#rekey(without, only));
    this.#rekeying = work.catch(() => {});
    return work;
  }

  /** @param {string[]} without @param {string[]} [only] */
  async #rekey(without, only) {
    const { row, member, log } = this;
    if (!row.founderSeed || row.out) throw new Refused("NOT_ALLOWED", "only the founder's device can do that");
    if (without.includes(member.id)) throw new Refused("MALFORMED", "this device gives the new keys: it cannot be left out");
    // who has said what, and who has come, is to be known before
    const unread = () => this.attendants.find(({ old, isRead }) => !old && !isRead);
    for (const end = performance.now() + READY; unread() && performance.now() < end && !this.#stopped;) await pause(50);
    const silent = unread();
    if (silent) throw new Refused("UNREACHABLE", `${silent.address.url} cannot be read: try again when it is up, or remove it`);
    const { members } = await this.talk.facts();
    const boxes = new Map([...members].map(([name, { box }]) => [name, box]));
    for (const { presence } of this.peers.values()) boxes.set(presence.member, b64(presence.box));
    if ([...without, ...(only ?? [])].some((one) => !boxes.has(one))) throw new Refused("MALFORMED", "this is no member of the circle");
    for (const one of [...without, ...(await this.#gone(boxes.keys()))]) boxes.delete(one);
    for (const one of boxes.keys()) if (only && !only.includes(one)) boxes.delete(one);
    boxes.set(member.id, b64(member.box.public));
    const { epoch } = this;
    const { rekeying } = await import("./founding.js");
    const { said, weak } = await rekeying({
      circle: row.id, founderSeed: row.founderSeed, epoch: epoch.number + 1, at_ms: this.now(),
      stays: boxes, records: log.records(), reach: (author) => log.reach(author),
    });
    const order = await this.#takeRekey(epoch, said);
    const left = () => row.services.filter(({ id: service }) => log.leftAt(service, order)).length;
    for (const end = performance.now() + LEAVING; left() < row.services.length && performance.now() < end && !this.#stopped;) await pause(50);
    return { epoch: epoch.number + 1, left: left(), weak };
  }

  /** The rekey that ended an epoch, where the founder is to leave it in that one's mailbox, now or again. @param {Attendant} one */
  async #leavingRekey(one) {
    const { epoch } = one.node;
    const { rekey: said, order = "", began } = this.row.epochs.find(({ number }) => number === epoch.number + 1) ?? { began: 0 };
    if (!one.old || !said || !this.row.founderSeed) return [];
    const [at, now] = [this.log.leftAt(one.id, order), this.now()];
    if ((at !== undefined && now < at + AGAIN) || now > began + YEAR) return [];
    return [{ sealed: await sealRecord(epoch, said), hash: order }]; // in other bytes each time: no copy of the last
  }

  // Records

  /**
   * Take a record of an epoch, from wherever it comes.
   * @param {Said} said
   * @param {number} epoch
   * @returns {Promise<string>} its hash
   */
  async takeRecord(said, epoch) {
    const hash = await recordHash(said.text);
    if (this.log.has(hash)) return hash;
    const rec = await readRecord(this.row.id, said);
    if (rec.epoch !== epoch && !(LASTING.has(rec.kind) && rec.epoch < epoch)) {
      throw new Refused("WRONG_CIRCLE", "the record is another epoch's");
    }
    if (!(await this.#counts(rec))) return hash;
    rec.come = this.now();
    if ((await this.log.take(rec)) === "new") await this.#took(rec);
    return hash;
  }

  /** @param {Rec} rec */
  async #took(rec) {
    try {
      if (rec.kind === "services") await this.#learnServices(rec.body);
      if (rec.kind === "founder") await this.#takeFounder(rec.body);
    } catch {
      // the record is kept; what it claims is not believed
    }
    await this.#told(rec);
  }

  /** @param {Rec} rec */
  async #told(rec) {
    await this.talk.take(rec);
    for (const meeting of this.#meetings.values()) meeting.tell(rec);
    if (rec.kind === "text") await this.#tellMessage(rec.hash);
    if (!CHAT.has(rec.kind)) this.#emit("record", own(rec));
    this.#emit("change", { channel: rec.channel, kind: rec.kind, hash: rec.hash });
    if (LASTING.has(rec.kind)) this.#tending ??= setTimeout(() => this.#tend().catch(() => {}), TEND);
  }

  /** @param {string} hash */
  async #tellMessage(hash) {
    const message = await this.talk.message(hash);
    if (message) this.#emit("message", this.#view(message));
  }

  /** Facts have changed: read what can be read now, and mend keys of channels that this member manages. */
  async #tend() {
    this.#tending = undefined;
    const { channels } = await this.talk.facts();
    this.#emit("hello", await this.hello());
    if (!this.#ready || ![...channels.values()].some(({ mode, managers }) => mode === "invite" && managers.has(this.member.id))) return;
    const { mend } = await import("./chat/saying.js");
    for (const draft of await mend(await this.#context())) await this.say(draft);
  }

  /** What saying.js needs. @returns {Promise<import("./chat/saying.js").Context>} */
  async #context() {
    const { row, member, talk, now, log } = this;
    const remember = async (/** @type {string} */ salt, /** @type {Uint8Array} */ key) => {
      talk.remember(salt, key);
      await this.#keep({ keys: { ...row.keys, [salt]: key } });
    };
    return { circle: row.id, member, talk, facts: await talk.facts(), now, tip: (author) => log.reach(author)[0], founderSeed: row.founderSeed, servicesAt: row.servicesAt, remember };
  }

  /** Whether a mailbox has a record, and pushes it to a node. @param {string} node @param {string} hash */
  #isPushed(node, hash) {
    return this.attendants.some((one) => one.live && one.there.has(node) && this.log.leftAt(one.id, hash));
  }

  /** @param {any} body */
  async #learnServices(body) {
    const written = items(body, "services", 8).map(String);
    const at = integer(body, "at_ms");
    const signed = concat(label("services"), unhex(this.row.id), u64(at), utf8(strict(written)));
    if (at <= this.row.servicesAt || !(await verify(this.row.founder, unb64(body.signature, 64), signed))) return;
    const found = written.map(readService);
    // of one that is known, its founder knows best where it is, and by what code; others stay until they are removed
    const known = this.row.services.map((one) => {
      const told = found.find((other) => other.id === one.id);
      return told ? { ...told, code: told.code || one.code } : one;
    });
    const fresh = found.filter((one) => !known.some((other) => other.id === one.id));
    await this.#meetAt([...known, ...fresh].slice(-8), at);
  }

  /** Meet at these services from now on. @param {Service[]} services @param {number} [servicesAt] */
  async #meetAt(services, servicesAt = this.row.servicesAt) {
    await this.#keep({ services, servicesAt });
    this.#attend();
    this.lookRound();
    this.#show();
    this.#emit("hello", await this.hello());
  }

  /** @param {any} body */
  async #takeFounder(body) {
    if (this.row.founderSeed || matching(body, "to", ID) !== this.member.id) return;
    const seed = await unbox(unb64(body.box, 80), this.member.box, forFounder(this.row.id));
    if (b64((await signer(seed)).public) === b64(this.row.founder)) await this.#keep({ founderSeed: seed });
  }

  /** Say who this member is, if that was not said yet or has changed. */
  async #introduce() {
    const told = `${this.row.me}\n${b64(this.member.box.public)}`;
    if (this.row.introduced === told || this.#introducing === told) return;
    this.#introducing = told;
    const body = { name: this.row.me, box: b64(this.member.box.public) };
    // kept when it was said: who reloads meanwhile says it then
    this.say({ kind: "member", channel: GENERAL, body }).then(
      () => this.#keep({ introduced: told }),
      (error) => this.trouble(error.reason ?? "STORAGE_GONE", error.message),
    );
  }

  /**
   * Say something: the next record of this member's chain. A device that may have been restored reads first.
   * @param {{kind: string, channel: string, body: any}} what
   * @returns {Promise<Rec>}
   */
  async say({ kind, channel, body }) {
    if (this.row.out) throw new Refused("LEFT_OUT", "the founder has left this member out of the circle");
    while (!this.#ready && performance.now() < this.#began + READY && !this.#stopped) await pause(20);
    if (this.#stopped) throw new Refused("CLOSED", "the circle was left");
    const now = this.now(); // what is said in one millisecond keeps its order
    this.#saidAt = this.#saidAt >= now && this.#saidAt < now + MINUTE ? this.#saidAt + 1 : now;
    const rec = await this.log.append(this.member, { epoch: this.epoch.number, channel, kind, body, at_ms: this.#saidAt });
    await this.#took(rec);
    for (const one of this.attendants) one.wake();
    return rec;
  }

  // What services ask of a home

  /** @param {Attendant} one */
  place(one) {
    return this.log.place(one.id, one.node.epoch.hint);
  }

  /** @param {Attendant} one @param {{number: number, mark: string}} place */
  move(one, place) {
    return this.log.move(one.id, one.node.epoch.hint, place);
  }

  /**
   * @param {Attendant} one
   * @param {{number: number, messages: Uint8Array[]}} entry
   */
  async take(one, { number, messages }) {
    const { epoch } = one.node;
    const hashes = await Promise.all(
      messages.map(async (sealed) => {
        try {
          const said = await unsealRecord(epoch, sealed);
          return isRekey(said.text) ? await this.#takeRekey(epoch, said) : await this.takeRecord(said, epoch.number);
        } catch (error) {
          const { reason = "MALFORMED", message } = /** @type {Refused} */ (error);
          this.#emit("unread", { service: one.address.url, number, reason, message });
          return "";
        }
      }),
    );
    await this.left(one, hashes.filter(Boolean), Math.min(number, this.now()), true);
  }

  /** @param {Attendant} one @param {{count: number, bytes: number, each: number}} most */
  async leaving(one, { count, bytes, each }) {
    if (this.row.out) return [];
    const rekey = await this.#leavingRekey(one);
    if (rekey.length) return rekey;
    const { epoch } = one.node; // of an old one, what was said before its end was known
    const leaving = [];
    let size = 0;
    for (const rec of [...this.log.unleft(this.member.author, one.id, epoch.number, this.now() - MAIL), ...(one.old ? [] : await this.#lasting(one))]) {
      if (this.#tooLarge.has(`${one.id} ${rec.hash}`)) continue;
      if (leaving.length >= count || size > bytes) break;
      const sealed = await this.log.sealed(rec.hash, () => sealRecord(epoch, rec), epoch.number);
      if (sealed.length > each) {
        this.#tooLarge.add(`${one.id} ${rec.hash}`);
        this.trouble("TOO_LARGE", `a record of ${sealed.length} bytes stays here: the service takes ${each}`);
      } else if (size + sealed.length <= bytes || !leaving.length) {
        leaving.push({ sealed, hash: rec.hash });
        size += sealed.length;
      } else break;
    }
    return leaving;
  }

  /** @param {Attendant} one @param {boolean} all */
  doubt(one, all) {
    return this.log.doubt(one.id, all);
  }

  /** @param {Attendant} one @param {string[]} hashes @param {number} [at] @param {boolean} [seen] there, and not only taken */
  async left(one, hashes, at = this.now(), seen = false) {
    await this.log.noteLeft(one.id, one.node.epoch.hint, hashes, at, seen);
    for (const hash of hashes) {
      const rec = this.log.get(hash);
      if (rec?.author === this.member.author) this.#emit("change", { channel: rec.channel, kind: rec.kind, hash });
    }
  }

  /** Lasting records that a mailbox is to have once more: their author leaves them first. @param {Attendant} one @returns {Promise<Rec[]>} */
  async #lasting(one) {
    if (!one.isRead || Date.now() < (this.#lookAgain.get(one.id) ?? 0)) return [];
    this.#lookAgain.set(one.id, Date.now() + MINUTE);
    const now = this.now();
    const due = [];
    for (const hash of (await this.talk.facts()).standing) {
      const rec = this.log.get(hash);
      const at = this.log.keptAt(one.id, one.node.epoch.hint, hash);
      if (!rec || (rec.author === this.member.author && rec.epoch === this.epoch.number && !at)) continue; // it is left soon
      const first = rec.author === this.member.author || (!at && this.row.founderSeed);
      const share = first ? 0 : parseInt(rec.hash.slice(0, 8), 16) ^ parseInt(this.node.id.slice(0, 8), 16);
      if (now >= (at ? at + AGAIN : one.readAt) + ((share >>> 0) / 2 ** 32) * (at ? OTHERS : NEVER)) due.push(rec);
    }
    return due;
  }

  presence() {
    return { name: this.row.me, abilities: [...ABILITIES, ...this.#call, ...(this.#options.abilities ?? [])].slice(0, 16) };
  }

  /** @param {Attendant | null} one @param {string} node @param {Presence} found */
  believe(one, node, found) {
    const now = this.now();
    if (node === this.node.id || found.at_ms > now + AHEAD_MS) return false;
    const before = this.peers.get(node);
    if (before && before.presence.at_ms > found.at_ms) return true;
    const devices = [...this.peers.values()].filter(({ presence }) => presence.member === found.member).length;
    if ((!before && (this.peers.size >= MOST_PEERS || devices >= MOST_NODES)) || found.at_ms < now - STALE) return false;
    this.peers.set(node, { presence: found, path: before?.path ?? "none" });
    if (!before) {
      const first = one !== null && !one.isRead;
      void this.#reach(node, "connect", first);
      void this.#reach(node, "meet", first);
    }
    const { name, abilities } = before?.presence ?? {};
    if (name !== found.name || String(abilities) !== String(found.abilities)) this.#tellPeer(node);
    return true;
  }

  /** See who is there no longer, at any service or by a link. */
  lookRound() {
    for (const [node, { path }] of this.peers) {
      if (path === "webrtc" || this.attendants.some((one) => one.there.has(node))) continue;
      const peer = this.#peer(node);
      this.peers.delete(node);
      this.links.gone(node);
      this.#emit("left", peer);
    }
  }

  /** @param {string} node @returns {Peer} */
  #peer(node) {
    const { presence, path } = /** @type {any} */ (this.peers.get(node));
    return { id: node, member: presence.member, name: presence.name, path, abilities: presence.abilities };
  }

  /** @param {string} node */
  #tellPeer(node) {
    if (this.peers.has(node)) this.#emit("peer", this.#peer(node));
  }

  /** @param {import("./seals.js").Signal} signal */
  signalled(signal) {
    if (!this.links.signalled(signal, signal.text)) this.#emit("signal", signal);
  }

  /** @param {string} from @param {Uint8Array} payload */
  passed(from, payload) {
    this.links.passed(from, payload);
  }

  changed() {
    this.#show();
  }

  /** Name the holes in chains, and where an author has said two things: each once. */
  #tellChains() {
    const found = [
      ...this.log.missing().map(([author, first, last]) => ["MISSING", author, `messages ${first} to ${last}`]),
      ...this.log.forks().map(([author, seq]) => ["FORKED", author, `message ${seq}`]),
    ];
    for (const [reason, author, which] of found.slice(0, MOST_TOLD)) {
      const told = `${reason} ${author} ${which}`;
      if (this.#toldChains.has(told) || this.#toldChains.size >= MOST_TOLD) continue;
      this.#toldChains.add(told);
      void memberId(unb64(author)).then(async (member) => {
        const name = (await this.talk.facts()).names.get(member) ?? member.slice(0, 6);
        this.trouble(reason, `${which} of ${name}${reason === "MISSING" ? " are missing: a service may have lost or withheld them" : " says two things"}`);
      });
    }
  }

  caughtUp() {
    if (this.attendants.some(({ isRead }) => isRead)) this.#tellChains();
    const now = this.attendants.filter(({ old }) => !old);
    const isReady = now.length > 0 && now.every(({ isTried }) => isTried) && now.some(({ isRead }) => isRead);
    if (isReady && !this.#ready) {
      this.#ready = true;
      void this.#expire(); // a page may be open for less than an hour, each time
    }
    this.#show();
  }

  #show() {
    const now = this.attendants.filter(({ old }) => !old);
    const state = ["live", "polling", "connecting"].find((word) => now.some((one) => one.state === word)) ?? "offline";
    const services = now.map((one) => ({ id: one.id, url: one.address.url, state: one.state, why: plain(one.why) }));
    const why = state === "live" ? "" : (services.find((one) => one.why)?.why ?? (now.length ? "" : "the circle has no service"));
    const told = JSON.stringify([state, why, services]);
    if (told === this.#state) return;
    this.#state = told;
    this.#emit("state", { state, why, services });
  }

  // Links

  /** @param {string} to @param {string} session @param {string} kind @param {object} body */
  #signal = async (to, session, kind, body) => {
    const { sealed, text } = await sealSignal(this.node, { to, session, kind, body, at_ms: this.now() });
    for (const one of this.attendants) if (!one.old) one.signal(to, sealed);
    return text;
  };

  /** @param {string} to @param {Uint8Array} payload */
  #frame = async (to, payload) => {
    const one = this.attendants.find(({ live, old, there }) => live && !old && there.has(to));
    if (!one) throw Object.assign(new Refused("CLOSED", "no service has a socket of both"), { code: "CLOSED" });
    await one.frame(to, payload);
  };

  /** STUN and TURN servers of the first service that has some. @returns {Promise<RTCIceServer[]>} */
  ice = async () => {
    if (Date.now() < this.#ice.until) return this.#ice.servers;
    for (const one of this.attendants.filter(({ old, isRead }) => !old && isRead)) {
      try {
        const { servers, until_ms } = await one.ice();
        const until = Math.min(until_ms ? until_ms - 60_000 : Infinity, Date.now() + 3_600_000);
        this.#ice = { servers: [...servers.filter(isServer), ...(this.#options.iceServers ?? [])], until };
        if (servers.length) break;
      } catch {
        // the next one
      }
    }
    return this.#ice.servers.length ? this.#ice.servers : (this.#options.iceServers ?? []);
  };

  /** @param {string} node */
  #abilities(node) {
    return this.peers.get(node)?.presence.abilities ?? [];
  }

  /**
   * Open a link to who speaks pipes, and meet who does, or who keeps what mailboxes have dropped. Who comes opens, since
   * others may hold on to what this node was before; who was there waits, and opens what was not opened.
   * @param {string} node
   * @param {"connect" | "meet"} purpose
   * @param {boolean} [first] whether to open at once
   */
  async #reach(node, purpose, first = this.node.id < node) {
    const wanted = purpose === "meet" ? ["pipes", "can_anchor"] : ["pipes"];
    for (let turn = first ? 0 : 1; !this.#stopped && wanted.some((word) => this.#abilities(node).includes(word)); turn += 1) {
      if (turn) await pause(PATIENCE * 2 ** Math.min(turn - 1, 5));
      if (!this.peers.has(node) || (purpose === "meet" ? this.#meetings.has(node) : this.pipes.has(node))) return;
      if (!this.#carries && !this.attendants.some(({ live, old }) => live && !old)) continue; // nothing could carry it
      try {
        return this.#linked({ link: await this.links.open(node, purpose), purpose });
      } catch {
        // it has not answered: again, later
      }
    }
  }

  /** @param {{link: any, purpose: string}} opened */
  #linked({ link, purpose }) {
    if (purpose === "meet") void this.#meet(link);
    else {
      this.pipes.attach(link);
      link.addEventListener("close", () => this.#stopped || this.#reach(link.other, "connect"));
    }
    this.#pathChanged(link.other);
  }

  /** @param {any} link */
  async #meet(link) {
    const node = link.other;
    const { Meeting } = await import("./meetings.js");
    const meeting = new Meeting({
      link,
      log: this.log,
      wanted: (/** @type {Rec} */ rec) => link.path === "webrtc" || !this.#isPushed(node, rec.hash),
      // of an epoch that this member has not followed to yet it is told again then
      take: async (/** @type {Said} */ said, /** @type {number} */ epoch) => epoch > this.epoch.number || this.takeRecord(said, epoch),
      gossip: {
        presences: async () => [(await sealPresence(this.node, { ...this.presence(), at_ms: this.now() })).said],
        heard: (/** @type {Said[]} */ found) => void this.#heard(found),
        seen: () => {},
      },
    });
    const before = this.#meetings.get(node);
    this.#meetings.set(node, meeting);
    before?.close();
    await meeting.run().catch(() => {});
    if (this.#meetings.get(node) !== meeting) return;
    this.#meetings.delete(node);
    void this.#reach(node, "meet");
  }

  /** Take presences that another node has told. @param {Said[]} found */
  async #heard(found) {
    for (const said of found.slice(0, 64)) {
      try {
        const presence = await readPresence(this.epoch, said);
        if (this.peers.has(presence.node)) this.believe(null, presence.node, presence);
      } catch {
        // it is nobody
      }
    }
  }

  /** @param {string} node */
  #pathChanged(node) {
    const peer = this.peers.get(node);
    if (!peer) return;
    const speaks = peer.presence.abilities.includes("pipes");
    const path = speaks ? this.pipes.path(node) : this.links.path(node);
    if (path === peer.path) return;
    peer.path = path;
    this.#tellPeer(node);
    if (path !== "webrtc") this.lookRound();
  }

  // What an app asks (circle.js); everything here may come from another tab

  /** What an app sees when it comes. */
  async hello() {
    const { row, member } = this;
    const state = this.#state ? JSON.parse(this.#state) : ["connecting", "", []];
    return {
      id: row.id, invite: await this.invite(), services: this.services(), epoch: this.epoch.number, out: row.out, name: (await this.talk.facts()).name || row.name, me: { id: member.id, name: row.me, node: this.node.id, founder: Boolean(row.founderSeed), out: row.out },
      state: { state: state[0], why: state[1], services: state[2] }, peers: [...this.peers.keys()].map((node) => this.#peer(node)),
    };
  }

  /** Return the id of a channel by its name, or as it is. @param {string} channel */
  async channelId(channel) {
    if (channel === "general") return GENERAL;
    if (ID.test(channel)) return channel;
    const found = (await this.talk.channels()).filter(({ name }) => name === channel);
    if (found.length !== 1) throw new Refused("NO_CHANNEL", found.length ? `several channels are called ${channel}: give the id` : `no channel is called ${channel}`);
    return found[0].id;
  }

  /** @param {string} channel @param {string} text @param {{reply?: string}} [how] */
  async post(channel, text, { reply } = {}) {
    const id = await this.channelId(channel);
    if (typeof text !== "string" || !text.trim()) throw new Refused("MALFORMED", "there is nothing to say");
    if (utf8(text).length > MOST_TEXT) throw new Refused("TOO_LARGE", `a text has at most ${MOST_TEXT} bytes`);
    const body = { text, ...(this.row.me && { name: this.row.me }), ...(reply && { reply }) };
    if (!read("text", body)) throw new Refused("MALFORMED", "this is no text: a reply is the hash of a message");
    const open = id === GENERAL || (await this.talk.facts()).channels.get(id)?.mode === "public";
    const draft = open ? { kind: "text", channel: id, body } : await (await import("./chat/saying.js")).draft(await this.#context(), id, "text", body);
    const { hash } = await this.say(draft);
    return this.#view(await this.talk.message(hash));
  }

  /** @param {string} op of the chat (chat/saying.js) @param {...any} args a channel by name or id, where it is about one */
  async act(op, ...args) {
    const { ops } = await import("./chat/saying.js");
    if (!Object.hasOwn(ops, op)) throw new Refused("MALFORMED", `there is nothing called ${op} to say`);
    if (OF_CHANNELS.has(op)) args[0] = await this.channelId(args[0]);
    let said;
    for (const draft of await ops[op](await this.#context(), ...args)) said = await this.say(draft);
    return { hash: said?.hash, channel: said?.channel };
  }

  /** @param {string} channel @param {{after?: string, before?: string, limit?: number}} [page] */
  async history(channel, page) {
    const found = await this.talk.messages(await this.channelId(channel), page);
    return found.map((message) => this.#view(message));
  }

  /** One message, if it is here and counts. @param {string} hash */
  async message(hash) {
    const found = await this.talk.message(hash);
    return found && this.#view(found);
  }

  /** The call that is on in a channel, as records and presences say. @param {string} channel */
  async ongoing(channel) {
    const facts = await this.talk.facts();
    const found = await this.#ongoing(facts, await this.channelId(channel));
    return found && this.#aboutCall(facts, found, found);
  }

  /** @param {import("./chat/facts.js").Facts} facts @param {string} channel */
  #ongoing(facts, channel) {
    const here = [...this.peers.values()].map(({ presence }) => presence);
    const words = (/** @type {string} */ member) =>
      [...(member === this.member.id ? this.#call : []), ...here.filter((one) => one.member === member).flatMap(({ abilities }) => abilities)];
    return facts.ongoing(channel, this.now(), words);
  }

  /** The newest calls that are known of, so many of each host, in one channel or in all, the oldest first. @param {string} [channel] */
  async calls(channel) {
    const place = channel === undefined ? "" : await this.channelId(channel);
    const facts = await this.talk.facts();
    const all = [...facts.calls.values()].filter((one) => !place || one.channel === place);
    all.sort((a, b) => b.at_ms - a.at_ms || (a.hash < b.hash ? 1 : -1));
    /** @type {Map<string, number>} nobody's calls hide those of others */
    const told = new Map();
    const found = all.filter(({ host }) => told.set(host, (told.get(host) ?? 0) + 1) && /** @type {number} */ (told.get(host)) <= MOST_OF_ONE).slice(0, MOST_TOLD).reverse();
    const on = new Map(await Promise.all([...new Set(found.map((one) => one.channel))].map(async (one) => /** @type {const} */ ([one, await this.#ongoing(facts, one)]))));
    return Promise.all(found.map((one) => this.#aboutCall(facts, one, on.get(one.channel))));
  }

  /**
   * What an app sees of a call: of a channel with members only, those are in who are in the channel.
   * @param {import("./chat/facts.js").Facts} facts
   * @param {import("./chat/facts.js").Call} call
   * @param {import("./chat/facts.js").Call | undefined} on the one that is on there
   */
  async #aboutCall(facts, { heard, ever, ...call }, on) {
    const channel = facts.channels.get(call.channel);
    const isIn = (/** @type {string} */ one) => !channel?.cuts.has(one) && (channel?.mode !== "invite" || channel.members.has(one));
    const mine = facts.devices(this.member.id);
    const isHere = call.at_ms >= Math.min(...this.row.epochs.map(({ began }) => began)) - MINUTE; // it is not rung for who came later
    return {
      ...call, participants: call.participants.filter(isIn), viewers: call.viewers.filter(isIn), age_ms: this.now() - call.at_ms,
      on: on?.hash === call.hash, word: await callWord(call.hash), took: mine.some((one) => ever.has(one)),
      rings: isHere && !mine.includes(call.host) && (!call.ring || call.ring.some((one) => mine.includes(one))),
    };
  }

  /** Say among the abilities that this node is in a call, or in none. @param {string | null} call */
  async inCall(call) {
    const word = call ? [await callWord(call)] : [];
    if (String(word) === String(this.#call)) return;
    this.#call = word;
    for (const one of this.attendants) one.wake(true);
  }

  /** @param {string} channel @param {string} words @param {number} [limit] */
  async search(channel, words, limit) {
    const found = await this.talk.search(await this.channelId(channel), words, limit);
    return found.map((message) => this.#view(message));
  }

  /** @param {any} message */
  #view(message) {
    if (message.author.id !== this.member.id) return { ...message, mine: false };
    const left = this.row.services.filter((service) => this.log.leftAt(service.id, message.hash)).length;
    return { ...message, mine: true, left };
  }

  /** Say a record of an app's own kind. @param {string} kind a lower-case word that the chat does not have @param {object} body */
  async record(kind, body) {
    if (CHAT.has(kind)) throw new Refused("MALFORMED", `${kind} is a kind of the chat`);
    return own(await this.say({ kind, channel: GENERAL, body }));
  }

  /** The records of an app's own kind that are here, in the order of their times. @param {string} kind */
  records(kind) {
    const found = [...this.log.records()].filter((rec) => rec.kind === kind && !CHAT.has(kind) && rec.text.length);
    return found.sort((a, b) => a.at_ms - b.at_ms || (a.hash < b.hash ? -1 : 1)).map(own);
  }

  /** @param {string} name @param {any} data @param {{to?: string, reliable: boolean, ticket: string, progress: boolean}} how */
  async send(name, data, { to, reliable, ticket, progress }) {
    if (to !== undefined && !this.peers.has(to)) throw new Refused("NO_PEER", "nobody of that id is there");
    if (to === undefined && reliable) await this.#reached();
    const control = new AbortController();
    this.#sending.set(ticket, control);
    const told = progress ? (/** @type {number} */ sent, /** @type {number} */ size) => this.#emit("progress", { ticket, sent, size }) : undefined;
    try {
      await this.pipes.send(name, data, { to, reliable, signal: control.signal, progress: told });
    } finally {
      this.#sending.delete(ticket);
    }
  }

  /** Wait a moment for links to those who came just now. */
  async #reached() {
    const due = [...this.peers.keys()].filter((node) => this.#abilities(node).includes("pipes") && !this.pipes.has(node));
    const opened = due.map(async (node) => this.pipes.attach(await this.links.open(node)));
    if (due.length) await Promise.race([Promise.allSettled(opened), pause(READY)]);
  }

  /** @param {string} ticket of what is being sent */
  cancel(ticket) {
    this.#sending.get(ticket)?.abort();
  }

  /** Take so much by a pipe (pipes.js). @param {string} by @param {string} [pipe] @param {number} [most] */
  bound(by, pipe, most) {
    this.pipes.bound(by, pipe, most);
  }

  /** What the browser knows of the connection to a node. @param {string} node @returns {Promise<Record<string, any>>} */
  async stats(node) {
    return Object.fromEntries((await this.links.stats(node)) ?? []);
  }

  services() {
    return this.row.services.map(writeService);
  }

  /** Meet at a service no longer, from here; a founder tells who is there first where else the circle meets. @param {string} given its id, or its address */
  async removeService(given) {
    const name = ID.test(given) ? given : readService(given).id;
    const stay = () => this.row.services.filter((one) => one.id !== name);
    if (stay().length === this.row.services.length) throw new Refused("MALFORMED", "the circle does not meet there");
    if (!stay().length) throw new Refused("NOT_ALLOWED", "a circle meets somewhere: add another service before you remove the last one");
    const there = this.attendants.filter((one) => one.id === name);
    if (this.row.founderSeed && !this.row.out) {
      const { hash = "" } = await this.act("services", stay().map(writeService));
      const end = performance.now() + FAREWELL;
      const isReached = () => there.some(({ old, state }) => !old && /live|polling/.test(state));
      while (isReached() && !this.log.leftAt(name, hash) && performance.now() < end) await pause(50);
    }
    for (const one of there) void one.close(true);
    await this.#meetAt(stay());
  }

  channels() {
    return this.talk.channels();
  }

  /** Who was left out is told as `out`. */
  async people() {
    const people = await this.talk.people();
    const gone = await this.#gone(people.map((one) => one.id));
    return people.map((one) => ({ ...one, out: gone.has(one.id) }));
  }

  /** @param {string} name */
  async rename(name) {
    checkName(name);
    await this.#keep({ me: name });
    this.#emit("hello", await this.hello());
    await this.#introduce();
    for (const one of this.attendants) one.wake(true);
  }

  /** What this member has of the circle, as lines of a file (chat/transfer.js). */
  async copy() {
    const { linesOf } = await import("./chat/transfer.js");
    const [facts, invite] = [await this.talk.facts(), await this.invite()];
    const name = facts.name || this.row.name;
    return linesOf({ circle: this.row.id, name, invite: invite.replace(/^.*#/, ""), member: this.member.id, facts, records: this.log.records() });
  }

  /** Take in lines of a file. @param {any[]} lines keys after the records that made them */
  async takeIn(lines) {
    const { bring } = await import("./chat/transfer.js");
    const { talk, log, row } = this;
    return bring(lines, {
      talk,
      epoch: this.epoch.number,
      has: (hash) => log.has(hash),
      take: (said, epoch) => this.takeRecord(said, epoch),
      keep: (keys) => this.#keep({ keys: { ...row.keys, ...keys } }),
      told: (channel, hash) => this.#emit("change", { channel, kind: "channel", hash }),
    });
  }

  /** Forget the circle on this device. */
  async erase() {
    this.#erased = true;
    await this.stop();
    await this.log.erase();
    await this.#store.put([["circles", this.row.id, undefined]]);
    this.#emit("erased", {});
  }

  /** What lets somebody in: a link, where the circle has a service. */
  async invite() {
    const { founder, services, peers } = this.row;
    const name = (await this.talk.facts()).name || this.row.name;
    const code = writeInvite({ founder, epoch: this.epoch, services, peers, at_ms: this.now(), name });
    return services.length ? `${services[0].url}/app/#${code}` : code;
  }
}
