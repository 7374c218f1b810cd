// The chat's state in JavaScript, held to the golden file that Python is held to, in any order.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { b64, random, unb64 } from "../../web/muster/bytes.js";
import { pbkdf2 } from "../../web/muster/crypto.js";
import { Member, circleId } from "../../web/muster/keys.js";
import { readRecord, writeRecord } from "../../web/muster/seals.js";
import { callWord, channelId } from "../../web/muster/chat/facts.js";
import { read } from "../../web/muster/chat/kinds.js";
import { draft, mend, ops } from "../../web/muster/chat/saying.js";
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

// --- members who speak, without a network ---

const founder = random(32);
const circle = await circleId(founder);

/** A member with a chain of its own; what it says is taken by all `talks`. */
const person = async (name, talks) => {
  const member = await Member.make(circle, random(32));
  const one = { member, id: member.id, seq: 0, prev: null, at: START, keys: 0 };
  one.talk = new Talk({ circle, founder, member, now: () => START + 60_000 });
  one.append = async ({ kind, channel = GENERAL, body }, { at_ms = (one.at += 1), seq = one.seq + 1 } = {}) => {
    const said = typeof body === "function" ? await body(seq) : body;
    const prev = seq === 1 ? null : (one.prev ?? "0".repeat(64));
    const rec = await writeRecord(member, { epoch: 0, seq, prev, at_ms, channel, kind, body: said });
    [one.seq, one.prev] = [seq, rec.hash];
    talks.all.push(rec);
    for (const { talk } of talks) await talk.take(rec);
    return rec;
  };
  one.context = async () => ({
    circle, member, talk: one.talk, facts: await one.talk.facts(), now: () => START,
    tip: (author) => talks.find((other) => other.member.author === author)?.seq ?? 0,
    remember: async (salt, key) => (one.keys += 1, one.talk.remember(salt, key)),
  });
  one.act = async (op, ...args) => {
    let rec;
    for (const draft of await ops[op](await one.context(), ...args)) rec = await one.append(draft);
    return rec;
  };
  one.say = async (text, channel = GENERAL, more = {}) => one.append(await draft(await one.context(), channel, "text", { text, ...more }));
  one.mend = async () => {
    const drafts = await mend(await one.context());
    for (const each of drafts) await one.append(each);
    return drafts.length;
  };
  one.texts = async (channel = GENERAL) => (await one.talk.messages(channel, { limit: Infinity })).map(({ text }) => text);
  one.channel = async (id) => (await one.talk.facts()).channels.get(id);
  for (const rec of talks.all) await one.talk.take(rec);
  talks.push(one);
  await one.append({ kind: "member", body: { name, box: b64(member.box.public) } });
  return one;
};

const friends = async (...names) => {
  const talks = Object.assign([], { all: [] });
  for (const name of names) await person(name, talks);
  return Object.assign(talks, { again: async (one, records) => {
    const talk = new Talk({ circle, founder, member: one.member, now: () => START + 60_000 });
    for (const rec of records) await talk.take(rec);
    return talk;
  } });
};

const refusedAs = (reason) => (error) => error.reason === reason;

test("a hundred orders of a circle's records, some twice, come to the same", async () => {
  const state = golden.states.find(({ name }) => name.startsWith("a private channel"));
  const records = await recordsOf(state);
  for (let seed = 1; seed <= 100; seed += 1) {
    const twice = records.filter((_, at) => (at + seed) % 3 === 0);
    assert.deepEqual(await snapshot(state, shuffled([...records, ...twice], seed)), state.expect, `order ${seed}`);
  }
});

test("whether it is asked between records changes nothing", async () => {
  const [ada, bob] = await friends("Ada", "Bob");
  const { channel } = await ada.act("create", "plans", "invite");
  await ada.act("invite", channel, bob.id);
  await bob.say("hello", channel);
  for (let round = 0; round < 3; round += 1) await Promise.all([bob.talk.facts(), bob.act("join", channel), bob.talk.messages(channel)]);
  assert.deepEqual(await bob.texts(channel), ["hello"]);
});

test("what is opened by two at once is shown once", async () => {
  const talks = await friends("Ada");
  const [ada] = talks;
  const { channel } = await ada.act("create", "board", "invite");
  await ada.say("secret", channel);
  const [member, create, text] = talks.all;
  const talk = await talks.again(ada, [text, create]);
  const first = talk.facts();
  await talk.take(member);
  await Promise.all([first, talk.facts()]);
  assert.equal((await talk.messages(channel)).length, 1);
});

// --- the lines of Refusals in docs/chat.md ---

test("a member edits, deletes, renames, removes and ends nothing that is another's", async () => {
  const [ada, bob] = await friends("Ada", "Bob");
  const { channel } = await ada.act("create", "plans");
  const { hash } = await ada.say("mine", channel);
  const call = await ada.act("call", channel, "create");
  for (const [op, ...args] of [["edit", hash, "no"], ["delete", hash], ["rename", channel, "no"], ["topic", channel, "no"], ["remove", channel, ada.id],
    ["keep", channel, 1], ["managers", channel, [bob.id]], ["invite", channel, bob.id], ["keep", GENERAL, 1], ["title", "no"], ["call", channel, "end", call.hash]]) {
    await assert.rejects(bob.act(op, ...args), refusedAs("NOT_ALLOWED"), op);
  }
  for (const [kind, body] of [["edit", { of: hash, text: "no" }], ["delete", { of: hash, seq: 1 }], ["channel", { op: "rename", name: "no", n: 99 }], ["channel", { op: "topic", topic: "no" }],
    ["channel", { op: "remove", member: ada.id, last: 0 }], ["channel", { op: "managers", managers: [bob.id] }], ["channel", { op: "keep", days: 1 }], ["call", { op: "end", call: call.hash }]]) {
    await bob.append({ kind, channel, body });
  }
  await bob.append({ kind: "circle", body: { op: "name", name: "no" } });
  for (const { talk } of [ada, bob]) {
    const facts = await talk.facts();
    const { name, topic, days, managers, cuts } = facts.channels.get(channel);
    assert.deepEqual([name, topic, days, [...managers], cuts.size, facts.name, facts.calls.get(call.hash).ended], ["plans", "", null, [ada.id], 0, "", false]);
    assert.deepEqual((await talk.messages(channel)).map(({ text, edited, deleted }) => [text, edited, deleted]), [["mine", false, false]]);
  }
});

test("a channel with another's id is not created", async () => {
  const [ada, bob] = await friends("Ada", "Bob");
  const salt = b64(random(16));
  const channel = await channelId(ada.member.author, salt);
  await bob.append({ kind: "channel", channel, body: { op: "create", mode: "public", salt, name: "Bob's" } });
  assert.equal((await ada.channel(channel)).creator, "");
  assert.equal((await ada.talk.channels()).length, 1);
});

test("of who was removed nothing counts beyond its last, and it lacks the next key", async () => {
  const [ada, bob, cleo] = await friends("Ada", "Bob", "Cleo");
  for (const mode of ["public", "invite"]) {
    const { channel } = await ada.act("create", mode, mode);
    await ada.act("invite", channel, bob.id);
    await ada.act("invite", channel, cleo.id);
    await bob.say("before", channel);
    const old = await draft(await bob.context(), channel, "text", { text: "after" });
    await ada.act("remove", channel, bob.id);
    await bob.append(old);
    await ada.say("without Bob", channel);
    assert.deepEqual(await cleo.texts(channel), ["before", "without Bob"], mode);
    assert.equal((await ada.channel(channel)).members.has(bob.id), false);
    if (mode === "invite") {
      assert.deepEqual(await bob.texts(channel), ["before"]);
      await assert.rejects(bob.say("more", channel), refusedAs("NOT_ALLOWED"));
    }
  }
});

test("a record of 1970, or of next year, is shown when it came", async () => {
  const [ada, bob] = await friends("Ada", "Bob");
  const body = { text: "when?" };
  await bob.append({ kind: "text", body }, { at_ms: 0 });
  await bob.append({ kind: "text", body }, { at_ms: START + 365 * 86_400_000 });
  await bob.append({ kind: "text", body }, { at_ms: Number.MAX_SAFE_INTEGER });
  assert.deepEqual((await ada.talk.messages(GENERAL)).map(({ at_ms }) => at_ms), Array(3).fill(START + 60_000));
});

/** Records that nobody signed, fast to make: Talk is given what was checked. */
const quick = (one, seq, kind, body, channel = GENERAL) => ({
  hash: (seq + 1e9).toString(16).padStart(64, one.id[0]), circle, epoch: 0, author: one.member.author, member: one.id, seq, prev: null, at_ms: START - 1e6 + seq,
  channel, kind, body, text: new Uint8Array(1), signature: new Uint8Array(64),
});

test("the first 4,000 facts of an author count, whoever else says what", async () => {
  const [ada, bob] = await friends("Ada", "Bob");
  const { channel } = await bob.act("create", "plans");
  const many = Array.from({ length: 20_000 }, (_, at) => quick(ada, at + 5, "channel", { op: "join" }, (at + 1).toString(16).padStart(32, "0")));
  for (const rec of shuffled(many, 3)) await ada.talk.take(rec);
  const facts = await ada.talk.facts();
  assert.ok(facts.standing.size <= 4000 + 3, `${facts.standing.size} stand`);
  assert.equal(facts.channels.get(channel).name, "plans");
  const kept = many.filter(({ hash }) => facts.standing.has(hash)).map(({ seq }) => seq);
  assert.equal(Math.max(...kept) - 5, kept.length - 1, "they are the first of its chain");
});

test("of an author's emoji on one record the 16 that sort first by UTF-8 count, in any order", async () => {
  const [ada] = await friends("Ada");
  const { hash } = await ada.say("hello");
  const emoji = ["\u{1F44D}", "\uFF5E", "z", ..."abcdefghijklmno"];
  const records = emoji.map((one, at) => quick(ada, at + 9, "react", { of: hash, emoji: one }));
  for (const seed of [1, 2, 3]) {
    const talk = await (await friends()).again(ada, [quick(ada, 3, "text", { text: "hello" })]);
    const [{ hash: of }] = await talk.messages(GENERAL);
    for (const rec of shuffled(records, seed)) await talk.take({ ...rec, body: { ...rec.body, of } });
    assert.deepEqual(Object.keys((await talk.messages(GENERAL))[0].reactions).sort(), [..."abcdefghijklmno", "z"]);
  }
});

test("ten thousand texts, edits and reactions are shown in pages that join without a gap", async () => {
  const [ada] = await friends("Ada");
  const { talk } = ada;
  for (let seq = 2; seq < 10_002; seq += 1) await talk.take(quick(ada, seq, "text", { text: `text ${seq}` }));
  const [{ hash: of }] = await talk.messages(GENERAL, { after: "", limit: 1 });
  for (let seq = 10_002; seq < 14_002; seq += 1) await talk.take(quick(ada, seq, seq % 2 ? "edit" : "react", seq % 2 ? { of, text: `edit ${seq}` } : { of, emoji: `e${seq}` }));
  const found = [];
  for (let before; ;) {
    const page = await talk.messages(GENERAL, { before, limit: 999 });
    if (!page.length) break;
    found.unshift(...page);
    before = page[0].hash;
  }
  assert.equal(found.length, 10_000);
  assert.equal(new Set(found.map(({ hash }) => hash)).size, 10_000);
  assert.equal(found[0].text, "edit 14001");
  const next = await talk.messages(GENERAL, { after: found[4].hash, limit: 2 });
  assert.deepEqual(next.map(({ text }) => text), ["text 7", "text 8"]);
});

// --- hostile bodies ---

test("an emoji may be called like a member of every object", async () => {
  const [ada, bob] = await friends("Ada", "Bob");
  const { hash } = await ada.say("hello");
  for (const emoji of ["__proto__", "constructor", "toString", "hasOwnProperty"]) await bob.act("react", hash, emoji);
  const [{ reactions }] = await ada.talk.messages(GENERAL);
  assert.deepEqual(Object.entries(reactions).map(([, who]) => who), Array(4).fill([bob.id]));
});

test("a box that is a list of a box is none, and nobody is the same person as itself", async () => {
  const [ada] = await friends("Ada");
  assert.equal(read("channel", { op: "key", key: 1, boxes: { [ada.id]: ["A".repeat(107)] } }), null);
  await ada.append({ kind: "person", body: { with: ada.member.author } });
  assert.equal((await ada.talk.facts()).personOf.size, 0);
});

test("bodies with wrong types everywhere throw nothing and stop nothing", async () => {
  const [ada] = await friends("Ada");
  const { channel } = await ada.act("create", "board", "invite");
  const junk = [null, true, 7, -1, 1.5, 2 ** 53 - 1, "", "x", "__proto__", [], [[]], {}, ["A".repeat(107)], { a: 1 }, "ab".repeat(32), ada.id, ada.member.author, "A".repeat(22)];
  const names = ["op", "text", "name", "reply", "of", "seq", "emoji", "on", "with", "box", "n", "days", "managers", "at_ms", "signature", "mode", "salt", "topic", "to", "key", "from",
    "closed", "member", "last", "boxes", "call", "media", "constructor"];
  const opNames = ["create", "rename", "topic", "keep", "join", "leave", "managers", "invite", "approve", "remove", "key", "name", "end", "revoke", "view", "__proto__", "toString"];
  const next = chance(11);
  const of = (list) => list[Math.floor(next() * list.length)];
  let seq = 100;
  for (const kind of ["text", "edit", "delete", "react", "person", "member", "circle", "channel", "call", "dance", "__proto__"]) {
    for (let round = 0; round < 200; round += 1) {
      const body = Object.fromEntries(names.filter(() => next() < 0.5).map((name) => [name, of(junk)]));
      if (next() < 0.7) body.op = of(opNames);
      await ada.talk.take(quick(ada, (seq += 1), kind, body, of([GENERAL, channel, "cd".repeat(16)])));
    }
    await ada.talk.channels();
    await ada.talk.messages(channel);
  }
  await ada.talk.people();
  await ada.say("still here", channel);
  assert.deepEqual(await ada.texts(channel), ["still here"]);
});

// --- private channels ---

test("two managers who acted at once leave no key to who was removed: the next is made", async () => {
  const [ada, bob, cleo, dan] = await friends("Ada", "Bob", "Cleo", "Dan");
  const { channel } = await ada.act("create", "board", "invite");
  for (const one of [bob, cleo, dan]) await ada.act("invite", channel, one.id);
  await ada.act("managers", channel, [bob.id]);
  const [first, second] = [await ops.remove(await ada.context(), channel, cleo.id), await ops.remove(await bob.context(), channel, dan.id)];
  for (const each of first) await ada.append(each);
  for (const each of second) await bob.append(each);
  assert.ok((await ada.mend()) + (await bob.mend()) > 0);
  while ((await ada.mend()) + (await bob.mend()));
  const facts = await ada.talk.facts();
  const board = facts.channels.get(channel);
  assert.deepEqual([...board.invited.get(facts.source(board).hash)].sort(), [ada.id, bob.id].sort());
  await ada.say("just us", channel);
  assert.deepEqual(await Promise.all([bob, cleo, dan].map((one) => one.texts(channel))), [["just us"], [], []]);
});

test("a member without a box of the key that stands gets one", async () => {
  const [ada, bob] = await friends("Ada", "Bob");
  const { channel } = await ada.act("create", "board", "invite");
  await ada.append({ kind: "channel", channel, body: { op: "invite", to: bob.id } });
  await ada.say("for all", channel);
  assert.deepEqual(await bob.texts(channel), []);
  assert.equal(await ada.mend(), 1);
  assert.equal(await ada.mend(), 0);
  assert.deepEqual(await bob.texts(channel), ["for all"]);
});

test("a manager who has used the last number of a key is removed all the same, and stops no other channel", async () => {
  const [ada, bob, cleo] = await friends("Ada", "Bob", "Cleo");
  const { channel } = await ada.act("create", "board", "invite");
  const { channel: other } = await ada.act("create", "other", "invite");
  await ada.act("invite", channel, bob.id);
  await ada.act("managers", channel, [bob.id]);
  await bob.append({ kind: "channel", channel, body: { op: "key", key: 2 ** 32 - 1, boxes: { [ada.id]: "A".repeat(107) } } });
  await ada.append({ kind: "channel", channel: other, body: { op: "invite", to: cleo.id } });
  assert.equal(await ada.mend(), 1);
  await ada.act("remove", channel, bob.id);
  await ada.say("without Bob", channel);
  assert.deepEqual([await ada.texts(channel), await bob.texts(channel)], [["without Bob"], []]);
});

test("a channel with a passphrase is found among those that another has made in heaps, and gets another on removal", async () => {
  const [ada, bob, cleo] = await friends("Ada", "Bob", "Cleo");
  const { channel } = await ada.act("create", "vault", "key", "correct horse");
  await ada.say("inside", channel);
  for (let count = 0; count < 60; count += 1) {
    const salt = b64(random(16));
    const body = { op: "create", mode: "key", salt, key: 0, closed: "A".repeat(43) };
    await cleo.append({ kind: "channel", channel: await channelId(cleo.member.author, salt), body });
  }
  await assert.rejects(ops.create(await bob.context(), "short", "key", "1234567"), refusedAs("MALFORMED"));
  await bob.act("unlock", "vault", "correct horse");
  assert.deepEqual(await bob.texts(channel), ["inside"]);
  await ada.act("remove", channel, bob.id, "another horse");
  await ada.say("without Bob", channel);
  assert.deepEqual(await bob.texts(channel), ["inside"]);
  assert.deepEqual(await ada.texts(channel), ["inside", "without Bob"]);
});

test("what has no right shape is refused before it is said", async () => {
  const [ada] = await friends("Ada");
  const { hash } = await ada.say("hello");
  for (const [op, ...args] of [["react", hash, ""], ["react", hash, "x".repeat(33)], ["edit", hash, "x".repeat(262_145)], ["call", GENERAL, "create", "smell"], ["call", GENERAL, "dance"],
    ["create", ""], ["create", "x".repeat(65)], ["create", "General"], ["keep", GENERAL, 1.5]]) {
    await assert.rejects(ada.act(op, ...args), (error) => /^(MALFORMED|NOT_ALLOWED)$/.test(error.reason), `${op} ${String(args[1]).slice(0, 9)}`);
  }
});
