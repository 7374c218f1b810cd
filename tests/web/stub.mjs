// A service of version 2 in the test's own process, that can be told to misbehave; and time that a test moves.
//
// `Stub` does what docs/protocol2.md says of a service, in memory: it checks every call and signs every answer. It is
// reached by `fetch` and `WebSocket` as `inTime` replaces them, or by real HTTP after `listen`.
import { createServer } from "node:http";

import { b64, concat, hex, random, readU64, u64, unb64, utf8 } from "../../web/muster/bytes.js";
import { id, label, sha256, signer, verify } from "../../web/muster/crypto.js";
import { nodeId } from "../../web/muster/keys.js";
import { accessTag } from "../../web/muster/proofs.js";

const DAY = 86_400_000;
const ANSWER_BYTES = 96 * 1024;
const STATUS = { INVALID_SIGNATURE: 401, NOT_ALLOWED: 403, OUTDATED: 409, PAYLOAD_TOO_LARGE: 413, RATE_LIMITED: 429, UNAVAILABLE: 503 };
const digest = async (bytes) => hex(await sha256(bytes));
const lines = (what, values) => concat(label(what), utf8(values.map((value) => `${value}\n`).join("")));

/** What a service refuses. */
class No extends Error {
  constructor(code, more = {}) {
    super(code);
    this.told = { ok: false, code, message: `it is ${code}`, ...more };
  }
}

/** @type {Map<string, Stub>} by host */
const stubs = new Map();

export class Stub {
  /** How far its clock is from the test's. */
  skew = 0;
  code = "";
  messageBytes = 262_144;
  nextS = 30;
  /** Every call that was made: its name, and what was asked. @type {{call: string, asked: any, at: number, node?: string}[]} */
  calls = [];
  /** @type {Map<string, Map<string, {sealed: string, until: number, at: number, socket: any}>>} presences by circle and node */
  presences = new Map();
  /** @type {Map<string, {number: number, messages: string[]}[]>} mailboxes by circle */
  mail = new Map();
  /** @type {Map<string, {number: number, from: string, sealed: string, until: number}[]>} by circle and node */
  signals = new Map();
  /** @type {Set<Socket>} that are open */
  sockets = new Set();

  // How it misbehaves; each may be set at any time
  /** Say something else than the truth, and sign it. @type {(answer: any, call: {call: string, asked: any}) => any} */
  say = (answer) => answer;
  /** What of a sync is refused, by part. @type {(asked: any) => Record<string, any>} */
  refuse = () => ({});
  /** Spoil an answer that was signed. @type {(reply: any, call: {call: string, asked: any}) => any} */
  spoil = (reply) => reply;
  /** What becomes of sockets: "", "refused", "closed", "silent", "mute". */
  sockets_are = "";

  static async make() {
    const stub = new Stub();
    stub.key = await signer(random(32));
    stub.id = await id("service", stub.key.public);
    stub.at("http://service.test:" + (1000 + stubs.size));
    return stub;
  }

  /** @param {string} url */
  at(url) {
    this.url = url;
    stubs.set(new URL(url).host, this);
  }

  get address() {
    return `${this.url}#${this.id}${this.code && `&access=${this.code}`}`;
  }

  now() {
    return Date.now() + this.skew;
  }

  /** Be there by real HTTP too. @returns {Promise<() => Promise<void>>} how to end it */
  async listen() {
    const server = createServer(async (request, reply) => {
      const parts = [];
      for await (const part of request) parts.push(part);
      const { status, headers, body } = await this.handle({ method: request.method, path: request.url, shown: request.headers.authorization, body: new Uint8Array(Buffer.concat(parts)) });
      reply.writeHead(status, headers).end(body);
    });
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    this.at(`http://127.0.0.1:${server.address().port}`);
    return () => new Promise((done) => server.close(done).closeAllConnections());
  }

  /** Lose everything that was said after a moment, as a restore of a backup does. @param {any} backup */
  restore(backup) {
    this.mail = structuredClone(backup);
    for (const socket of this.sockets) socket.end();
  }

  box(circle) {
    if (!this.mail.has(circle)) this.mail.set(circle, []);
    return this.mail.get(circle);
  }

  // Calls

  async handle({ method, path, shown, body }) {
    const call = `${method} ${path}`;
    return this.#answered(call, shown, body, path === "/v2/info" ? async () => this.#info() : (caller, asked) => this.#sync(caller, asked, null));
  }

  async #answered(call, shown, body, work, credential) {
    const asked = body.length ? JSON.parse(new TextDecoder().decode(body)) : {};
    const made = { call, asked, at: this.now() };
    this.calls.push(made);
    let status = 200;
    let answer;
    let proof = new Uint8Array();
    let isProved = true;
    try {
      const caller = await this.#admit(call, shown, body, credential);
      proof = caller.proof;
      Object.assign(made, { node: caller.node, proved: caller.at });
      answer = await work(caller, asked);
    } catch (error) {
      if (!(error instanceof No)) throw error;
      answer = error.told;
      status = STATUS[answer.code] ?? 400;
      proof = error.proof ?? proof;
      isProved = answer.code !== "INVALID_SIGNATURE";
    }
    answer = (await this.say(answer, made)) ?? answer;
    if (answer.status) ({ status, ...answer } = answer);
    const raw = utf8(JSON.stringify(answer));
    const headers = { "Content-Type": "application/json", ...(isProved && { "Muster-Answer": await this.#sign(proof, status, raw) }) };
    return this.spoil({ status, headers, body: raw }, made);
  }

  async #sign(proof, status, raw) {
    const at = this.now();
    const signed = lines("answer", [await digest(proof), status, await digest(raw), at]);
    return b64(concat(this.key.public, u64(at), await this.key.sign(signed)));
  }

  /** Check a call as a service does. */
  async #admit(call, shown, body, known) {
    const parts = String(shown).replace(/^Muster2 /, "").split(".");
    const credential = known ?? unb64(parts[0], 136);
    const proof = unb64(known ? parts[0] : parts[1], 72);
    const at = readU64(proof);
    if (Math.abs(this.now() - at) > 120_000) throw Object.assign(new No("EXPIRED_TIMESTAMP"), { proof });
    const [circle, key, until] = [credential.subarray(0, 32), credential.subarray(32, 64), readU64(credential, 64)];
    if (this.code && !known) {
      const tag = await accessTag(this.code, this.id, { epoch: { circlePublic: circle }, public: key });
      if (parts[2] !== b64(tag)) throw Object.assign(new No("NOT_ALLOWED"), { proof });
    }
    const isVouched = until > this.now() && until <= this.now() + 8 * DAY + 120_000 &&
      (await verify(circle, credential.subarray(72), concat(label("credential"), key, credential.subarray(64, 72))));
    const signed = lines("call", [call, this.id, await digest(body), await digest(credential), at]);
    if (!isVouched || !(await verify(key, proof.subarray(8), signed))) throw new No("INVALID_SIGNATURE");
    return { circle: await id("hint", circle), node: await nodeId(key), at, proof, credential };
  }

  #info() {
    return {
      ok: true, version: "0", time_ms: this.now(), service_id: this.id, service_key: b64(this.key.public), open: !this.code,
      socket: `${this.url.replace("http", "ws")}/v2/socket`, limits: { body_bytes: 1_048_576, message_bytes: this.messageBytes },
    };
  }

  /** Do what a node asks, part by part. */
  async #sync({ circle, node, at }, asked, socket) {
    const refused = { ...this.refuse(asked) };
    const there = this.presences.get(circle) ?? new Map();
    this.presences.set(circle, there);
    if (asked.presence !== undefined && !refused.presence) {
      const before = there.get(node);
      if (before?.at >= at) refused.presence = { code: "OUTDATED", message: "it is OUTDATED", at_ms: before.at };
      else this.#place(circle, node, { ...asked.presence, at, socket });
    }
    const { messages = [], signals = [] } = asked.send ?? {};
    if (messages.length && !refused["send.messages"]) {
      const box = this.box(circle);
      const known = new Set(box.flatMap((entry) => entry.messages));
      const fresh = messages.filter((one) => !known.has(one));
      const entry = { number: Math.max(this.now(), (box.at(-1)?.number ?? 0) + 1), messages: fresh };
      if (fresh.length) {
        box.push(entry);
        this.#tell(circle, node, { entries: [entry] });
      }
    }
    for (const { to, sealed } of refused["send.signals"] ? [] : signals) {
      const waiting = this.signals.get(`${circle} ${to}`) ?? [];
      this.signals.set(`${circle} ${to}`, waiting);
      const signal = { number: Math.max(this.now(), (waiting.at(-1)?.number ?? 0) + 1), from: node, sealed, until: this.now() + 120_000 };
      waiting.push(signal);
      this.#tell(circle, node, { signals: [signal] }, to);
    }
    if (asked.quiet) return { ok: true, refused };
    const { want = {}, after = {} } = asked;
    const answer = { ok: true, refused, more: [], next_s: this.nextS };
    const read = (part, name, all, most, size = () => 1) => {
      if (refused[part]) return;
      if (after[part] > this.now() + DAY) return void (refused[part] = { code: "INVALID_REQUEST", message: "the cursor is of the future" });
      const page = [];
      for (let count = 0; page.length < all.length && count < most;) count += size(page[page.push(all[page.length]) - 1]);
      if (page.length < all.length) answer.more.push(part);
      answer[name] = page;
    };
    const others = [...there].filter(([other, { until }]) => other !== node && until > this.now()).map(([node_id, { sealed, until }]) => ({ node_id, sealed, until_ms: until }));
    if (want.peers) read("peers", "peers", others.sort((a, b) => (a.node_id < b.node_id ? -1 : 1)).filter(({ node_id }) => node_id > (after.peers ?? "")), 64);
    if (want.messages) read("messages", "entries", this.box(circle).filter(({ number }) => number > (after.messages ?? 0)), want.messages, (entry) => entry.messages.length);
    if (want.signals) read("signals", "signals", (this.signals.get(`${circle} ${node}`) ?? []).filter(({ number, until }) => number > (after.signals ?? 0) && until > this.now()), want.signals);
    if (want.ice) answer.ice = { servers: [{ urls: ["stun:stun.test"] }] };
    return answer;
  }

  #place(circle, node, { sealed = "", ttl_s = 0, tell, at, socket }) {
    this.presences.get(circle).set(node, { sealed, until: this.now() + ttl_s * 1000, at, socket });
    if (!sealed) this.#tell(circle, node, { left: [node] });
    else if (tell) this.#tell(circle, node, { peers: [{ node_id: node, sealed, until_ms: this.now() + ttl_s * 1000 }] });
  }

  // Sockets

  #tell(circle, from, event, to) {
    for (const socket of this.sockets) {
      if (socket.circle === circle && socket.node !== from && (!to || to === socket.node)) socket.hear({ t: "EVENT", ...event });
    }
  }

  async open(socket, [name, shown]) {
    this.calls.push({ call: "GET /v2/socket", asked: {}, at: this.now() });
    if (this.sockets_are === "silent") return;
    const caller = await this.#admit("GET /v2/socket", shown, new Uint8Array()).catch(() => null);
    if (!caller || this.sockets_are === "refused" || name !== "muster.v2") return void socket.end(true);
    for (const other of this.sockets) {
      if (other.node === caller.node && other.circle === caller.circle) {
        other.hear({ t: "REPLACED" });
        other.end();
      }
    }
    Object.assign(socket, caller);
    this.sockets.add(socket);
    socket.begin();
    if (this.sockets_are === "closed") socket.end();
  }

  async receive(socket, text) {
    if (this.sockets_are === "mute") return;
    const { t, n, to, payload, proof, body } = JSON.parse(text);
    if (t === "FRAME") {
      const [other] = [...this.sockets].filter(({ circle, node }) => circle === socket.circle && node === to);
      other?.hear({ t: "FRAME", from: socket.node, payload });
      socket.hear(other ? { t: "TAKEN", n } : { t: "ERROR", n, code: "PEER_NOT_ATTACHED", message: "it has no socket", retryable: true });
      return;
    }
    const answered = await this.#answered("SYNC /v2/socket", proof, utf8(body), async (caller, asked) => {
      const answer = await this.#sync(caller, asked, socket);
      for (const [part, name] of [["messages", "entries"], ["signals", "signals"], ["peers", "peers"]]) {
        if (JSON.stringify(answer).length <= ANSWER_BYTES) break;
        delete answer[name];
        answer.refused[part] = { code: "PAYLOAD_TOO_LARGE", message: "too large for a socket" };
      }
      return answer;
    }, socket.credential).catch(() => null);
    if (!answered) return; // it was lost on the way
    const { status, headers, body: raw } = answered;
    const told = new TextDecoder().decode(raw);
    if (!JSON.parse(body).quiet || Object.keys(JSON.parse(told).refused ?? {}).length) {
      socket.hear({ t: "SYNCED", n, status, answer: headers["Muster-Answer"] ?? "", body: told });
    }
  }

  ended(socket) {
    if (!this.sockets.delete(socket)) return;
    const placed = this.presences.get(socket.circle)?.get(socket.node);
    if (placed?.sealed && placed.socket === socket) this.#place(socket.circle, socket.node, { at: placed.at + 1 });
  }
}

/** What a page takes for a WebSocket. */
export class Socket {
  readyState = 0;
  onopen = () => {};
  /** @type {(event: {data: string}) => void} */
  onmessage = Object;
  onerror = () => {};
  onclose = () => {};
  #stub;

  constructor(url, protocols) {
    this.#stub = stubs.get(new URL(url).host);
    setImmediate(() => this.#stub.open(this, protocols));
  }

  send(text) {
    if (this.readyState !== 1) throw new Error("it is not open");
    setImmediate(() => this.#stub.receive(this, text));
  }

  close() {
    this.end();
  }

  begin() {
    this.readyState = 1;
    this.onopen();
  }

  /** @param {any} frame or text that is none */
  hear(frame) {
    const data = typeof frame === "string" ? frame : JSON.stringify(frame);
    setImmediate(() => this.readyState === 1 && this.onmessage({ data }));
  }

  end(failed = false) {
    if (this.readyState === 3) return;
    setImmediate(() => {
      if (this.readyState === 3) return;
      this.readyState = 3;
      this.#stub.ended(this);
      if (failed) this.onerror();
      this.onclose();
    });
  }
}

// Time

let busy = 0;
const counted = (work) => (...args) => {
  busy += 1;
  const done = work(...args);
  const end = () => (busy -= 1);
  done.then(end, end);
  return done;
};
const turn = () => new Promise((done) => setImmediate(done));
/** Nothing is on its way but what waits for time to pass. */
const idle = async () => {
  let turns = 0;
  for (let quiet = 0; quiet < 4; quiet += 1) {
    await turn();
    if (busy) quiet = -1;
    if ((turns += 1) > 200_000) throw new Error("it goes on without an end, and no time passes");
  }
};

const clock = {
  now: 0,
  numbers: 0,
  /** @type {Map<number, {at: number, every?: number, work: () => void}>} */
  timers: new Map(),
  set(work, ms = 0, every = undefined) {
    const id = (clock.numbers += 1);
    clock.timers.set(id, { at: clock.now + Math.max(1, Math.floor(Number(ms) || 0)), every, work });
    return id;
  },
  /** @returns {[number, {at: number, every?: number, work: () => void}] | undefined} */
  next() {
    let found;
    for (const one of clock.timers) if (!found || one[1].at < found[1].at) found = one;
    return found;
  },
};

/** Let time pass. @param {number} ms */
export const pass = async (ms) => {
  const end = clock.now + ms;
  for (;;) {
    await idle();
    const [id, timer] = clock.next() ?? [0, { at: Infinity, work: () => {} }];
    clock.now = Math.min(timer.at, end);
    if (timer.at > end) return;
    if (timer.every) timer.at += timer.every;
    else clock.timers.delete(id);
    timer.work();
  }
};

/** Let time pass until something is so. @param {() => any} check @param {string} what @param {number} [ms] */
export const until = async (check, what, ms = 60_000) => {
  const end = clock.now + ms;
  for (await idle(); !(await check()); await pass(Math.max(1, Math.min((clock.next()?.[1].at ?? end) - clock.now, 1000)))) {
    if (clock.now > end) throw new Error(`not in time: ${what}`);
  }
};

/** Let time pass until a promise is settled. @template T @param {Promise<T>} work @returns {Promise<T>} */
export const soon = async (work, ms = 60_000) => {
  let over = false;
  const end = () => (over = true);
  work.then(end, end);
  await until(() => over, "a promise", ms);
  return work;
};

const get = async (url, { method, headers, body, signal }) => {
  const { host, pathname } = new URL(url);
  const aborted = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  aborted.catch(() => {});
  if (!stubs.has(host)) throw new TypeError("fetch failed");
  const found = stubs.get(host).handle({ method, path: pathname, shown: headers.Authorization, body: body ?? new Uint8Array() });
  const { status, headers: told, body: raw } = await Promise.race([found, aborted]);
  if (!(raw instanceof ReadableStream)) return new Response(raw, { status, headers: told });
  const reader = raw.getReader();
  const stream = new ReadableStream({
    pull: async (control) => {
      const { done, value } = await Promise.race([reader.read(), aborted]);
      if (done) control.close();
      else control.enqueue(value);
    },
  });
  return new Response(stream, { status, headers: told });
};

/** Run a test in time that passes by `pass` alone, with every stub reached without a network. */
export const inTime = (script) => async (context) => {
  const { subtle } = globalThis.crypto;
  const names = ["digest", "sign", "verify", "encrypt", "decrypt", "importKey", "exportKey", "deriveBits", "generateKey"];
  for (const name of names) subtle[name] = counted(Object.getPrototypeOf(subtle)[name].bind(subtle));
  const { arrayBuffer } = Blob.prototype;
  Blob.prototype.arrayBuffer = function () {
    return counted(() => arrayBuffer.call(this))();
  };
  const { fetch, WebSocket, setTimeout, setInterval, clearTimeout, clearInterval } = globalThis;
  const { now } = Date;
  const { timeout } = AbortSignal;
  clock.now = now();
  clock.timers.clear();
  Date.now = () => clock.now;
  performance.now = () => clock.now;
  Object.assign(globalThis, {
    fetch: get,
    WebSocket: Socket,
    setTimeout: (work, ms, ...args) => clock.set(() => work(...args), ms),
    setInterval: (work, ms) => clock.set(work, ms, ms),
    clearTimeout: (id) => clock.timers.delete(id) || clearTimeout(id),
    clearInterval: (id) => clock.timers.delete(id) || clearInterval(id),
  });
  AbortSignal.timeout = (ms) => {
    const control = new AbortController();
    clock.set(() => control.abort(new DOMException("it took too long", "TimeoutError")), ms);
    return control.signal;
  };
  try {
    await script(context);
  } finally {
    Object.assign(globalThis, { fetch, WebSocket, setTimeout, setInterval, clearTimeout, clearInterval });
    if (!WebSocket) delete globalThis.WebSocket;
    Date.now = now;
    delete performance.now;
    AbortSignal.timeout = timeout;
    Blob.prototype.arrayBuffer = arrayBuffer;
    for (const name of names) delete subtle[name];
  }
};
