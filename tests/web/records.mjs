// Records for tests, and a link in memory that can be cut after any message.
import { hex, random, utf8 } from "../../web/muster/bytes.js";
import { Member } from "../../web/muster/keys.js";
import { Log } from "../../web/muster/log.js";
import { Meeting } from "../../web/muster/meetings.js";
import { GENERAL, readRecord, recordHash } from "../../web/muster/seals.js";
import { openStore } from "../../web/muster/store.js";

export const CIRCLE = "c".repeat(32);
export const DAY = 86_400_000;

export const member = (circle = CIRCLE) => Member.make(circle, random(32));
export const log = async () => Log.open(await openStore(hex(random(8))), CIRCLE);
export const said = (text = "hello", more = {}) => ({ epoch: 0, at_ms: Date.now(), channel: GENERAL, kind: "text", body: { text }, ...more });

/** A record that nobody has signed: `Log` leaves that to who calls it. */
export const unsigned = (author, seq, more = {}) => ({
  hash: hex(random(32)), circle: CIRCLE, epoch: 0, author, member: "", seq, prev: null, at_ms: 1, channel: GENERAL, kind: "text",
  body: { text: "hello" }, text: utf8("hello"), signature: new Uint8Array(64), ...more,
});

/** All that two logs are compared by. */
export const held = (log) => [...log.records()].map(({ hash, text }) => `${hash} ${text.length}`).sort();

/** Both ends of a link; of what the first sends it is cut after some messages, and some are lost. */
export const pair = ({ path = "relay", cut = Infinity, lose = -1 } = {}) => {
  const end = () => ({
    path, closed: false, come: [], sent: [], other: null, wake: () => {},
    async send(data) {
      await new Promise(setImmediate);
      if (this.closed) throw Object.assign(new Error("closed"), { reason: "CLOSED" });
      if (this === one && this.sent.length === cut) return this.abort();
      if (!(this === one && this.sent.length === lose)) this.other.come.push(data.slice());
      this.sent.push(data);
      this.other.wake();
    },
    abort() {
      for (const side of [this, this.other]) {
        side.closed = true;
        side.wake();
      }
    },
    async close() {
      this.abort();
    },
    async next() {
      while (!this.come.length && !this.closed) await new Promise((wake) => (this.wake = wake));
      return this.come.length ? { done: false, value: this.come.shift() } : { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  });
  const one = end();
  const two = end();
  one.other = two;
  two.other = one;
  return [one, two];
};

/** A node that takes records as the library does, but for epochs and who was left out. */
export class Peer {
  meetings = new Set();
  gossip = { presences: async () => [], heard: () => {}, seen: () => {} };

  constructor(log, circle = CIRCLE) {
    this.log = log;
    this.circle = circle;
  }

  take = async (said) => {
    if (this.log.has(await recordHash(said.text))) return;
    const rec = await readRecord(this.circle, said);
    if ((await this.log.take(rec)) === "new") this.tell(rec);
  };

  tell(rec) {
    for (const meeting of this.meetings) meeting.tell(rec);
  }

  async say(member, ...what) {
    const rec = await this.log.append(member, said(...what));
    this.tell(rec);
    return rec;
  }

  /** Meet over a link until that ends. */
  async meet(link) {
    const meeting = new Meeting({ link, log: this.log, take: this.take, gossip: this.gossip });
    this.meetings.add(meeting);
    await meeting.run();
    this.meetings.delete(meeting);
  }
}

export const peer = async () => new Peer(await log());

export const until = async (check, what, ms = 20_000) => {
  const end = Date.now() + ms;
  while (!(await check())) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
};

/** The messages that a side of a link has sent. */
export const messages = (link) => {
  const raw = Buffer.concat(link.sent);
  const found = [];
  for (let at = 0; at + 4 <= raw.length;) {
    const end = at + 4 + raw.readUInt32BE(at);
    found.push(JSON.parse(raw.subarray(at + 4, end).toString()));
    at = end;
  }
  return found;
};
