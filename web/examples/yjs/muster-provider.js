/**
 * A Yjs provider over a circle. Who is there gets every change by a pipe; the circle's history keeps it for who comes
 * when nobody is there; awareness (names, carets) goes by a pipe that may lose some.
 *     const provider = new MusterProvider(doc, circle, { channel });    // in a channel, or a circle, of its own */
import * as Y from "yjs";
import { Awareness, applyAwarenessUpdate, encodeAwarenessUpdate, removeAwarenessStates } from "y-protocols/awareness";

const [OURS_MS, THEIRS_MS] = [1000, 30_000]; // until it is kept: theirs in case they went before they kept it
const RECORD = /^yjs:([\w-]{1,36}):(\d{1,3}):(\d{1,3}):([\w+/=]+)$/; // id, which part, of how many, base64
const quietly = async (task, given) => { try { await task(given); } catch { /* somebody plays, or has gone; the next change keeps this one too */ } };

export class MusterProvider {
  #kept = new Y.Doc(); // what the history has
  #parts = {}; // of changes that are longer than a text may be
  #timers = {};
  #ends = new AbortController();
  constructor(doc, circle, { name = "yjs", channel = "general" } = {}) {
    const [update, ask, state] = ["update", "ask", "state"].map((word) => circle.pipe(`${name}/${word}`, { reliable: word !== "state" }));
    const [awareness, owners, { signal }] = [new Awareness(doc), new Map(), this.#ends];
    this.doc = doc; this.circle = circle; this.channel = channel; this.awareness = awareness;
    const isOurs = ({ data }) => data === undefined || data instanceof Uint8Array; // Yjs would count for ever to { length: 1e9 }
    const on = (target, type, hear) => target.addEventListener(type, ({ detail }) => isOurs(detail) && quietly(hear, detail), { signal });
    const ours = () => encodeAwarenessUpdate(awareness, [doc.clientID]);
    const greet = (to) => to.path !== "none" && Promise.all([ask.send(Y.encodeStateVector(doc), { to }), state.send(ours(), { to })]);
    const changed = (change, origin) => {
      const wait = origin === this ? THEIRS_MS : OURS_MS;
      if (wait === OURS_MS) update.send(change);
      this.#timers[wait] ??= setTimeout(() => quietly(() => delete this.#timers[wait] && this.keep()), wait);
    };
    doc.on("update", changed);
    signal.onabort = () => doc.off("update", changed);
    awareness.on("update", ({ added }, origin) => (origin === "local" ? state.send(ours()) : added.forEach((id) => owners.set(id, origin))));
    on(update, "message", ({ data }) => Y.applyUpdate(doc, data, this));
    on(ask, "message", ({ from, data }) => update.send(Y.encodeStateAsUpdate(doc, data), { to: from }));
    on(state, "message", ({ from, data }) => applyAwarenessUpdate(awareness, data, from.id));
    on(circle, "peer", greet);
    on(circle, "left", (peer) => removeAwarenessStates(awareness, [...owners.keys()].filter((id) => owners.get(id) === peer.id), "left"));
    for (const peer of circle.peers.values()) quietly(greet, peer);
    this.#read();
  }
  async #read() {
    for await (const { author, text } of this.circle.messages(this.channel, { signal: this.#ends.signal })) quietly(() => {
      const [, id, at, count, part] = RECORD.exec(text);
      const parts = Object.assign((this.#parts[author.id + id] ??= {}), { [at]: part });
      if (Object.keys(parts).length < Number(count)) return;
      const whole = Uint8Array.from(atob(Object.values(parts).join("")), (one) => one.charCodeAt(0));
      for (const doc of [this.#kept, this.doc]) Y.applyUpdate(doc, whole, this);
    });
  }
  async keep() {
    if (Y.equalSnapshots(Y.snapshot(this.doc), Y.snapshot(this.#kept))) return;
    const missing = Y.encodeStateAsUpdate(this.doc, Y.encodeStateVector(this.#kept));
    const [id, parts] = [crypto.randomUUID(), btoa(Array.from(missing, (one) => String.fromCharCode(one)).join("")).match(/.{1,200000}/g)];
    for (const [at, part] of parts.entries()) await this.circle.post(this.channel, `yjs:${id}:${at}:${parts.length}:${part}`);
  }
  destroy() {
    this.awareness.destroy();
    return this.keep().finally(() => this.#ends.abort());
  }
}
