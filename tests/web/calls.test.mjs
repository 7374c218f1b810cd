// What calls decide by figures, without a browser; what flows is in tests/browser/test_app_calls.py.
import assert from "node:assert/strict";
import { test } from "node:test";

import { fitting, healthOf, measured } from "../../web/muster/calls.js";
import { Facts } from "../../web/muster/chat/facts.js";
import { GENERAL } from "../../web/muster/seals.js";

/** Decide again and again with the same figures; returns all decisions. */
const settle = (how, times = 12, before = null) => {
  const all = [];
  for (let at = 0; at < times; at += 1) all.push((before = fitting({ ...how, before })));
  return all;
};

test("a wide path has the whole picture, and a narrow one a small one at once", () => {
  assert.deepEqual(
    [fitting({ available: 5_000_000 }), fitting({ available: 160_000 })].map((one) => [one.step, one.scaleResolutionDownBy, one.maxFramerate]),
    [[0, 1, 30], [4, 4, 10]],
  );
  assert.equal(fitting({}).step, 0, "nothing is known yet");
  for (const available of [0, 1, 40_000, NaN, -5]) {
    const { maxBitrate, scaleResolutionDownBy } = fitting({ available });
    assert.ok(maxBitrate >= 60_000 && scaleResolutionDownBy >= 1, `${available}: ${maxBitrate}`);
  }
});

test("it shrinks at once and grows in steps, and does not swing", () => {
  const wide = settle({ available: 3_000_000 }).at(-1);
  const narrow = fitting({ available: 200_000, before: wide });
  assert.ok(narrow.step > wide.step && narrow.maxBitrate < 200_000);
  const grown = settle({ available: 3_000_000 }, 20, narrow);
  assert.equal(grown[0].step, narrow.step, "not in one look");
  assert.equal(grown.at(-1).step, 0);
  for (const [at, one] of grown.entries()) {
    const last = at ? grown[at - 1] : narrow;
    assert.ok(one.maxBitrate <= last.maxBitrate * 2 && one.step <= last.step, `look ${at}`);
  }
  // around a border it stays where it is
  const steps = [];
  for (let at = 0, before = fitting({ available: 600_000 }); at < 20; at += 1) steps.push((before = fitting({ available: at % 2 ? 590_000 : 610_000, before })).step);
  assert.equal(new Set(steps.slice(4)).size, 1);
});

test("loss makes it smaller whatever the browser believes of the path", () => {
  const before = settle({ available: 3_000_000 }).at(-1);
  const lossy = settle({ available: 3_000_000, loss: 0.3 }, 8, before);
  assert.ok(lossy.at(-1).step >= 3 && lossy.at(-1).maxBitrate < before.maxBitrate / 8);
  assert.equal(fitting({ available: 3_000_000, loss: 0.05, before }).maxBitrate, before.maxBitrate, "a little loss lets it stay");
});

test("many receivers share what goes out, and a screen keeps its letters", () => {
  const each = fitting({ available: 9_000_000, receivers: 8 });
  assert.ok(each.maxBitrate * 8 <= 4_000_000 && each.step > 0);
  const screen = fitting({ available: 400_000, screen: true });
  assert.deepEqual([screen.scaleResolutionDownBy, screen.degradationPreference], [1, "maintain-resolution"]);
  assert.ok(screen.maxFramerate < 15);
});

const REPORT = (pair, more = []) => new Map([
  ["T", { id: "T", type: "transport", selectedCandidatePairId: "P2" }],
  ["P1", { id: "P1", type: "candidate-pair", nominated: true, state: "succeeded", localCandidateId: "L1", remoteCandidateId: "R", currentRoundTripTime: 9 }],
  ["P2", { id: "P2", type: "candidate-pair", nominated: true, state: "succeeded", remoteCandidateId: "R", ...pair }],
  ["L1", { id: "L1", type: "local-candidate", candidateType: "host" }],
  ["L2", { id: "L2", type: "local-candidate", candidateType: "relay" }],
  ["R", { id: "R", type: "remote-candidate", candidateType: "host" }],
  ...more.map((one, at) => [`X${at}`, one]),
]);

test("the figures of the path that is used are read, in every browser's form", () => {
  const found = measured(REPORT({ localCandidateId: "L2", currentRoundTripTime: 0.0421, availableOutgoingBitrate: 7 }, [
    { type: "remote-inbound-rtp", kind: "audio", fractionLost: 0.1 }, { type: "remote-inbound-rtp", kind: "video" },
    { type: "inbound-rtp", kind: "audio", packetsLost: 3, packetsReceived: 97 }, { type: "inbound-rtp", kind: "video", packetsReceived: 100 },
  ]));
  assert.deepEqual(found, { available: 7, rtt_ms: 42, sent: 0.1, lost: 3, came: 197, path: "turn" });
  assert.equal(measured(REPORT({ localCandidateId: "L1" })).path, "direct");
  const without = REPORT({});
  without.delete("T"); // Firefox has no transport
  assert.equal(measured(without).rtt_ms, 9000);
  assert.deepEqual(measured(new Map()), { available: undefined, rtt_ms: null, sent: 0, lost: 0, came: 0, path: null });
});

test("a connection is well, poor, being made or given up", () => {
  const good = { available: 1, rtt_ms: 20, sent: 0, lost: 0, came: 100, path: "direct" };
  const states = [
    ["connected", 0, good, null, "connected"],
    ["connected", 0, { ...good, rtt_ms: 900 }, good, "poor"],
    ["connected", 0, { ...good, sent: 0.2 }, good, "poor"],
    ["connected", 0, { ...good, lost: 50, came: 200 }, good, "poor"],
    ["connected", 0, { ...good, lost: 0, came: 3 }, { ...good, lost: 9 }, "connected"], // another connection counts anew
    ["disconnected", 3000, good, good, "poor"],
    ["disconnected", 21_000, good, good, "failed"],
    ["connecting", 3000, good, null, "connecting"],
    ["", 3000, null, null, "connecting"],
    ["", 30_000, null, null, "failed"],
    ["failed", 0, good, null, "failed"],
  ];
  for (const [state, waited, now, before, wanted] of states) assert.equal(healthOf(state, waited, now, before).state, wanted, `${state} ${waited}`);
});

let numbers = 0;
const fact = (member, body, at_ms = 1_800_000_000_000) => {
  numbers += 1;
  return { kind: "call", hash: String(numbers).padStart(64, "0"), author: "A".repeat(42) + member, member, seq: numbers, channel: GENERAL, at_ms, body };
};
const of = (...facts) => Facts.of({ circle: "0".repeat(32), founder: new Uint8Array(32), member: null, typed: new Map(), cache: new Map() }, facts);

test("whom a call rings is read, and nonsense rings nobody and ends nothing", async () => {
  for (const [ring, wanted] of [[undefined, null], [null, null], [["x", 5, "y"], ["x", "y"]], ["x", []], [7, []], [{}, []], [Array(99).fill("x"), Array(64).fill("x")]]) {
    const made = fact("A", { op: "create", media: "audio", ring });
    assert.deepEqual((await of(made)).calls.get(made.hash).ring, wanted);
  }
});

test("who was ever in a call is known, and when it was over, though they have gone into others", async () => {
  const T = 1_800_000_000_000;
  const first = fact("A", { op: "create" }, T);
  const second = fact("A", { op: "create" }, T + 60_000);
  const facts = await of(first, fact("E", { op: "join", call: first.hash }, T + 1000), fact("E", { op: "leave", call: first.hash }, T + 5000), second);
  const [one, other] = [first, second].map(({ hash }) => facts.calls.get(hash));
  assert.deepEqual([[...one.ever], one.participants, one.ended_ms], [["A", "E"], [], T + 60_000]);
  assert.deepEqual([[...other.ever], other.participants, other.ended_ms], [["A"], ["A"], 0]);
  const ended = await of(first, fact("E", { op: "end", call: first.hash }, T + 1), fact("A", { op: "end", call: first.hash }, T + 9));
  assert.equal(ended.calls.get(first.hash).ended_ms, T + 9);
});
