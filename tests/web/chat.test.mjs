// The chat's state in JavaScript, held to the golden file that Python is held to, in any order.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { b64, unb64 } from "../../web/muster/bytes.js";
import { pbkdf2 } from "../../web/muster/crypto.js";
import { Member, circleId } from "../../web/muster/keys.js";
import { readRecord } from "../../web/muster/seals.js";
import { callWord, channelId } from "../../web/muster/chat/facts.js";
import { read } from "../../web/muster/chat/kinds.js";
import { Talk } from "../../web/muster/chat/talk.js";

const golden = JSON.parse(readFileSync(new URL("../golden/chat.json", import.meta.url), "utf8"));
const START = 1_790_000_000_000;
const GENERAL = "0".repeat(32);

const chance = (seed) => () => {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
  return seed / 2 ** 32;
};

const shuffled = (list, seed) => {
  const next = chance(seed);
  return list.map((one) => [next(), one]).sort(([a], [b]) => a - b).map(([, one]) => one);
};

const recordsOf = async ({ founder, records }) => {
  const circle = await circleId(unb64(founder));
  return Promise.all(records.map(({ text, signature }) => readRecord(circle, { text: unb64(text), signature: unb64(signature) })));
};

const sorted = (map) => Object.fromEntries([...map].sort(([a], [b]) => (a < b ? -1 : 1)));

const snapshot = async (state, records) => {
  const circle = await circleId(unb64(state.founder));
  const member = await Member.make(circle, unb64(state.member_secret));
  const talk = new Talk({ circle, founder: unb64(state.founder), member, now: () => START });
  for (const rec of records) await talk.take(rec);
  if (state.passphrase) {
    for (const channel of (await talk.facts()).channels.values()) {
      for (const { salt } of channel.sources.values()) if (salt) talk.remember(b64(salt), await pbkdf2(state.passphrase, salt));
    }
  }
  const facts = await talk.facts();
  const channels = new Map();
  for (const one of facts.channels.values()) {
    if (!one.creator) continue;
    const source = facts.source(one);
    channels.set(one.id, {
      creator: one.creator, mode: one.mode, name: one.name, topic: one.topic, days: one.days,
      managers: [...one.managers].sort(), members: [...one.members].sort(), asking: [...one.asking].sort(),
      removed: sorted(one.cuts), key: source ? [source.number, source.hash] : null,
    });
  }
  const calls = new Map();
  for (const { hash, channel, host, media, participants, viewers, ended } of facts.calls.values()) {
    calls.set(hash, { channel, host, media, participants: [...participants].sort(), viewers: [...viewers].sort(), ended });
  }
  const messages = {};
  for (const id of [GENERAL, ...[...facts.channels.keys()].sort()]) {
    const found = await talk.messages(id, { limit: Infinity });
    messages[id] = found
      .map(({ hash, author, text, edited, deleted, reactions }) => [
        hash, author.id, text, edited, deleted, Object.entries(reactions).sort(([a], [b]) => (a < b ? -1 : 1)),
      ])
      .sort(([a], [b]) => (a < b ? -1 : 1));
  }
  return {
    facts: {
      name: facts.name, days: facts.days, managers: [...facts.managers].sort(), names: sorted(facts.names),
      persons: sorted(facts.personOf), channels: sorted(channels), calls: sorted(calls),
    },
    messages,
  };
};

for (const { kind, body, ok } of golden.bodies) {
  test(`a body has the shape of its kind or counts for nothing: ${kind} ${JSON.stringify(body).slice(0, 60)}`, () => {
    assert.equal(read(kind, body) !== null, ok);
  });
}

test("ids follow from what they name", async () => {
  for (const { author, salt, id } of golden.channel_ids) assert.equal(await channelId(author, salt), id);
  for (const { call, word } of golden.call_words) assert.equal(await callWord(call), word);
});

for (const state of golden.states) {
  test(`a state follows from its records in any order, twice being once: ${state.name}`, async () => {
    const records = await recordsOf(state);
    const orders = [records, [...records].reverse(), ...[1, 2, 3].map((seed) => shuffled([...records, ...records], seed))];
    for (const order of orders) assert.deepEqual(await snapshot(state, order), state.expect);
  });
}
