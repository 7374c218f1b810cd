/**
 * Tabs of one profile: one leads and holds keys, sockets and peers; the others go through it.
 *
 * Who holds the lock leads (Web Locks); the others ask by a BroadcastChannel. When the leader's tab is
 * closed, the next in the queue leads; when it is frozen, and does not answer, its lock is taken.
 * @module
 */
import { Refused } from "./refused.js";

const PATIENCE = 4000;
const MOST_WAITING = 10_000;

/** @typedef {{hello: () => any, stop: () => Promise<void>, [name: string]: any}} Engine */

/** One tab's way to the engine, wherever it runs. */
export class Tab {
  /** @type {Engine | null} */
  engine = null;
  #name;
  #make;
  #tell;
  /** @type {BroadcastChannel | null} */
  #channel = null;
  #closed = false;
  #numbers = 0;
  #me = crypto.randomUUID();
  /** @type {Map<number, {ask: any, heard: boolean, resolve: (value: any) => void, reject: (error: Error) => void}>} */
  #waiting = new Map();
  /** Whether this tab holds the lock, and how often it has begun or lost it. */
  #leads = false;
  #turn = 0;
  /** @type {Set<string>} asks of other tabs that were taken: each once */
  #taken = new Set();
  #release = () => {};
  /** @type {any} */
  #watch;

  /**
   * @param {string} name of the profile and circle
   * @param {(emit: (type: string, detail: any) => void) => Promise<Engine>} make begins the engine
   * @param {(type: string, detail: any) => void} tell what is said by the engine, in every tab
   */
  constructor(name, make, tell) {
    this.#name = name;
    this.#make = make;
    this.#tell = tell;
  }

  /** Lead, or find who does. @returns {Promise<any>} what the engine says of itself */
  async begin() {
    const { locks } = globalThis.navigator ?? {};
    if (!locks || !globalThis.BroadcastChannel) return this.#lead();
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }) => {
      try {
        this.#hear(data);
      } catch {
        // of another version of the page
      }
    };
    /** @type {Promise<any>} */
    const led = new Promise((resolve, reject) => {
      const hold = this.#holding(resolve, reject);
      locks.request(this.#name, { ifAvailable: true }, (lock) => (lock ? hold() : resolve(null))).catch((error) =>
        error.name === "AbortError" ? this.#lost(error) : resolve(this.#lead())); // a frame that has no locks
    });
    const hello = await led.catch((error) => {
      void this.close();
      throw error;
    });
    if (hello) return hello;
    this.#queue();
    return this.ask("hello");
  }

  /** Ask the engine for something, wherever it runs. @param {string} name @param {...any} args @returns {Promise<any>} */
  ask(name, ...args) {
    if (this.#closed || this.#waiting.size >= MOST_WAITING) return Promise.reject(new Refused("CLOSED", "the circle was left"));
    if (this.engine) return this.#do(this.engine, name, args);
    const ask = { from: this.#me, n: (this.#numbers += 1), name, args };
    return new Promise((resolve, reject) => {
      this.#post(ask); // throws for what cannot be told to another tab
      this.#waiting.set(ask.n, { ask, heard: false, resolve, reject });
      if (!this.#watch) this.#watched(true);
    });
  }

  /** Lead from now on: media are of the tab that asks for them. */
  async take() {
    if (this.engine || this.#closed) return;
    await new Promise((resolve, reject) => {
      navigator.locks.request(this.#name, { steal: true }, this.#holding(resolve, reject)).catch((error) => this.#lost(error));
    });
  }

  /** Leave: the next tab leads. */
  async close() {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#watch);
    await this.engine?.stop();
    this.#release();
    this.#channel?.close();
    this.#channel = null;
    for (const { reject } of this.#waiting.values()) reject(new Refused("CLOSED", "the circle was left"));
  }

  /** @returns {Promise<any>} what the engine says of itself; null if another has taken the lock meanwhile */
  async #lead() {
    this.#watched();
    const turn = (this.#turn += 1);
    this.#leads = true;
    const engine = await this.#make((type, detail) => {
      if (!this.#closed) this.#post({ type, detail }); // first: an erased circle closes this tab
      this.#tell(type, detail);
    });
    const hello = await engine.hello();
    if (turn !== this.#turn || this.#closed) {
      await engine.stop();
      if (this.#closed) throw new Refused("CLOSED", "the circle was left");
      return null;
    }
    this.engine = engine;
    this.#tell("hello", hello);
    this.#post({ type: "led", detail: hello });
    for (const { ask, resolve, reject } of this.#waiting.values()) this.#do(engine, ask.name, ask.args).then(resolve, reject);
    this.#waiting.clear();
    return hello;
  }

  /** @param {(hello: any) => void} [resolve] @param {(error: any) => void} [reject] */
  #holding(resolve = () => {}, reject = () => {}) {
    return () => {
      if (this.#closed) return reject(new Refused("CLOSED", "the circle was left"));
      const held = new Promise((/** @type {(value?: any) => void} */ release) => (this.#release = release));
      this.#lead().then(resolve, (error) => {
        this.#leads = false;
        reject(error);
        if (!this.#closed) this.#tell("error", { reason: error.reason ?? "FAILED", message: error.message });
        this.#watched(this.#waiting.size > 0);
        this.#release();
      });
      return held;
    };
  }

  /** See in a while whether who leads answers. @param {boolean} [due] */
  #watched(due = false) {
    clearTimeout(this.#watch);
    this.#watch = due && !this.#closed ? setTimeout(() => this.#steal(), PATIENCE) : undefined;
  }

  #queue() {
    navigator.locks.request(this.#name, this.#holding()).catch((error) => this.#lost(error));
  }

  /** Lead in the place of a tab that does not answer. */
  #steal() {
    const waiting = [...this.#waiting.values()];
    this.#watched(waiting.length > 0);
    if (this.engine || this.#closed || !waiting.length) return;
    if (waiting.every(({ heard }) => heard)) {
      for (const one of waiting) one.heard = false;
      this.#post({ from: this.#me, n: 0, name: "hello", args: [] }); // it is at it, if it is still there
      return;
    }
    navigator.locks.request(this.#name, { steal: true }, this.#holding()).catch((error) => this.#lost(error));
  }

  /** The lock was taken: this tab was frozen, and another leads. @param {Error} error */
  async #lost(error) {
    if (error.name !== "AbortError" || this.#closed) return;
    const { engine } = this;
    this.engine = null;
    this.#leads = false;
    this.#turn += 1;
    await engine?.stop().catch(() => {});
    if (this.#closed) return;
    this.#queue();
    this.ask("hello").then((hello) => this.#tell("hello", hello), () => {});
  }

  /** @param {Engine} engine @param {string} name @param {any[]} args */
  async #do(engine, name, args) {
    if (!COMMANDS.has(name)) throw new Refused("MALFORMED", `the engine has no ${name}`);
    return engine[name](...args);
  }

  /** @param {any} data */
  #hear(data) {
    if (typeof data !== "object" || data === null || this.#closed) return;
    if (data.type) {
      if (this.engine) return;
      const led = data.type === "led"; // somebody leads from now on: what was not answered is asked again
      if (led) for (const { ask } of this.#waiting.values()) this.#post(ask);
      this.#tell(led ? "hello" : data.type, data.detail);
    } else if (data.to === this.#me) {
      const waiting = this.#waiting.get(data.n);
      if (data.heard) {
        for (const [n, one] of this.#waiting) if (n === data.n || !data.n) one.heard = true;
        return;
      }
      this.#waiting.delete(data.n);
      this.#watched(this.#waiting.size > 0);
      if (data.refused) waiting?.reject(new Refused(data.refused, data.message));
      else waiting?.resolve(data.value);
    } else if (data.from && this.#leads) {
      const answer = { to: data.from, n: data.n };
      this.#post({ ...answer, heard: true });
      const id = `${data.from} ${data.n}`;
      if (!this.engine || this.#taken.has(id)) return; // it is asked again when this tab leads
      if (this.#taken.size >= MOST_WAITING) this.#taken.clear();
      this.#taken.add(id);
      this.#do(this.engine, data.name, data.args)
        .then((value) => this.#post({ ...answer, value }))
        .catch((error) => this.#closed || this.#post({ ...answer, refused: error.reason ?? "FAILED", message: error.message })); // the next one is asked
    }
  }

  /** @param {any} message */
  #post(message) {
    this.#channel?.postMessage(message);
  }
}

/** What of an engine may be asked for. */
const COMMANDS = new Set(
  "hello post act record records history message channels channelId ongoing calls inCall people rename search services removeService rekey bound send cancel stats copy takeIn erase".split(" "),
);
