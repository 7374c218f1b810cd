// Two sides in one process: `Links` on a relay that loses, repeats, reorders and is cut at will.
import { utf8 } from "../../web/muster/bytes.js";
import { Links } from "../../web/muster/links.js";

/** A small generator, so that what a test did once it does again. */
export const dice = (seed) => () => {
  seed = (seed * 1664525 + 1013904223) % 2 ** 32;
  return seed / 2 ** 32;
};

export class Relay {
  nodes = new Map();
  passed = 0;
  cut = false;
  lose = 0;
  repeat = 0;
  swap = 0;
  burst = Infinity;
  #began = Date.now();
  #held = null;
  #at = Date.now();

  constructor(seed = 1) {
    this.chance = dice(seed);
  }

  /** A node on this relay. */
  node(id, options = {}) {
    const links = new Links({
      nodeId: () => id,
      signal: async (to, session, kind, body) => this.#signal(id, to, session, kind, structuredClone(body)),
      frame: async (to, payload) => this.#frame(id, to, payload),
      ice: async () => [],
      now: () => Date.now(),
      RTCPeerConnection: null,
      ...options,
    });
    this.nodes.set(id, links);
    return links;
  }

  async #signal(node, to, session, kind, body) {
    const at_ms = (this.#at += 1);
    const text = utf8(JSON.stringify([node, to, session, kind, body, at_ms]));
    setTimeout(() => this.nodes.get(to)?.signalled({ node, session, kind, body, at_ms }, text), 1);
    return text;
  }

  async #frame(from, to, payload) {
    if (this.cut || !this.nodes.has(to)) throw Object.assign(new Error("cut"), { code: "CLOSED" });
    this.passed += 1;
    if (this.passed > this.burst + ((Date.now() - this.#began) / 1000) * 400) {
      this.passed -= 1;
      throw Object.assign(new Error("slower"), { reason: "RATE_LIMITED" });
    }
    const pass = () => this.nodes.get(to)?.passed(from, payload);
    const dealt = this.chance();
    if (dealt < this.lose) return;
    if (dealt < this.lose + this.swap && !this.#held) {
      this.#held = pass;
      setTimeout(() => this.#late(), 5);
      return;
    }
    queueMicrotask(() => {
      pass();
      if (dealt > 1 - this.repeat) pass();
      this.#late();
    });
  }

  #late() {
    const held = this.#held;
    this.#held = null;
    held?.();
  }
}

export const ANN = "a".repeat(32);
export const BOB = "b".repeat(32);

/** Both ends of a link, opened by the first. */
export const linked = async (relay, options = {}, purpose = "connect") => {
  const ann = relay.node(ANN, options);
  const bob = relay.node(BOB, options);
  const come = new Promise((resolve) => bob.addEventListener("link", (event) => resolve(event.detail.link), { once: true }));
  return { ann, bob, one: await ann.open(BOB, purpose), two: await come };
};
