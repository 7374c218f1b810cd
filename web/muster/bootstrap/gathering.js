/**
 * Gathering: believed tickets from many sources, merged into peers.
 *
 * Of a peer's tickets the one that lives longest counts. But whoever merely lists tickets cannot replace
 * one that a signed capsule vouches for, or whom the page is connected to, by one of another key: anybody
 * can sign a ticket with any name.
 * @module
 */
import { SKEW_MS, ticketKey } from "./tickets.js";
import { toBase64 } from "./signatures.js";

/** @typedef {import("./tickets.js").Ticket} Ticket */

/**
 * @typedef {object} Peer a node that says it can be reached
 * @property {string} peerId
 * @property {string} userId
 * @property {import("../json.js").Members | null} ticket as the node signed it; null for one that a person named
 * @property {number} expiresAt milliseconds since 1970; Infinity without a ticket
 * @property {string[]} sources who told us: "cache", "manual", or the URL of a beacon or capsule
 * @property {boolean} vouched whether it stands in a capsule that is believed
 * @property {number} foundMs how long after joining it was first believed
 */

/** How many peers one source may hold that it was the first to name; this bounds a flood of names. */
const MOST = { vouched: 1000, listed: 200 };

/** @param {{ticket: any}} peer */
const keyOf = ({ ticket }) => ticket && toBase64(ticketKey(ticket));

export class Gathering {
  /** @type {Map<string, Peer>} by peerId */
  peers = new Map();
  /** @type {Set<string>} */
  #held;

  /** @param {Set<string>} held the ids of peers that the page is connected to */
  constructor(held) {
    this.#held = held;
  }

  /**
   * Take a verified ticket, or with null a name that a person typed.
   * @param {Ticket | null} ticket
   * @param {{peerId: string, source: string, vouched: boolean, foundMs: number}} told
   * @returns {{peer?: Peer, lost?: Peer}} the peer if it was not known, and who had to go for it
   */
  take(ticket, { peerId, source, vouched, foundMs }) {
    const said = ticket
      ? { userId: ticket.userId, ticket: ticket.envelope, expiresAt: ticket.expiresAt }
      : { userId: "", ticket: null, expiresAt: Infinity };
    const known = this.peers.get(peerId);
    if (!known) {
      const peer = { peerId, ...said, sources: [source], vouched, foundMs };
      const lost = this.#room(peer);
      if (lost === null) return {};
      this.peers.set(peerId, peer);
      return { peer, lost };
    }
    const isSame = !ticket || !known.ticket || keyOf(said) === keyOf(known);
    const isLonger = ticket && (!known.ticket || ticket.expiresAt > known.expiresAt);
    if (isSame) {
      if (isLonger) Object.assign(known, said);
      known.vouched ||= vouched;
      if (!known.sources.includes(source) && known.sources.length < 32) known.sources.push(source);
    } else if (known.vouched === vouched ? isLonger && !this.#held.has(peerId) : vouched) {
      Object.assign(known, said, { vouched, sources: [source] });
    }
    return {};
  }

  /** @param {Peer} peer @returns {Peer | undefined | null} who goes; null if there is no room */
  #room({ vouched, sources: [source] }) {
    const alike = [...this.peers.values()].filter((one) => one.vouched === vouched && one.sources[0] === source);
    if (alike.length < MOST[vouched ? "vouched" : "listed"]) return undefined;
    const lost = alike.find((one) => !this.#held.has(one.peerId));
    if (lost) this.peers.delete(lost.peerId);
    return lost ?? null;
  }

  /**
   * Forget those whose ticket is over, unless the page is connected to them, and revoked keys in any case.
   * @param {number} nowMs
   * @param {readonly string[]} revoked
   * @returns {Peer[]} those that are gone
   */
  prune(nowMs, revoked) {
    const gone = [...this.peers.values()].filter(
      (peer) =>
        (peer.expiresAt + SKEW_MS < nowMs && !this.#held.has(peer.peerId)) ||
        (revoked.length > 0 && revoked.includes(keyOf(peer))),
    );
    for (const { peerId } of gone) this.peers.delete(peerId);
    return gone;
  }

  /** The envelopes to keep: those that a capsule vouches for first, then the longest-lived. @param {number} nowMs */
  tickets(nowMs) {
    return [...this.peers.values()]
      .filter(({ ticket, expiresAt }) => ticket && expiresAt > nowMs)
      .sort((a, b) => Number(b.vouched) - Number(a.vouched) || b.expiresAt - a.expiresAt)
      .map(({ ticket }) => ticket);
  }
}
