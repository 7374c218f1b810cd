// What the golden files do not show of the JavaScript verifier: values that JSON cannot hold,
// merging, damaged states.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as capsules from "../../web/muster/bootstrap/index.js";
import { parse, strict } from "../../web/muster/json.js";

const golden = JSON.parse(readFileSync(new URL("trust.json", import.meta.url), "utf8"));
const { state } = golden.find(({ name }) => name === "trust: the same again").input;
const malformed = { reason: "MALFORMED" };
const notCanonical = { reason: "NOT_CANONICAL" };

test("what is not JSON has no canonical form", () => {
  for (const value of [undefined, () => 1, Symbol("x"), 1n]) {
    assert.throws(() => capsules.canonical({ a: value }), notCanonical);
    assert.throws(() => strict([value]), notCanonical);
  }
});

test("what we sign ourselves has one form in every language", () => {
  assert.equal(strict({ b: 1, a: [true, null, "é"] }), '{"a":[true,null,"é"],"b":1}');
  assert.equal(strict({ a: 1, Z: 2 }), '{"Z":2,"a":1}');
  for (const value of [0.5, 2 ** 53, Infinity, NaN, "\ud800", { é: 1 }, { "\n": 1 }]) {
    assert.throws(() => strict([value]), notCanonical);
  }
});

test("nothing is written that nests beyond the limit", () => {
  let deep = [];
  for (let n = 0; n < 32; n += 1) deep = [deep];
  assert.throws(() => capsules.canonical(deep), notCanonical);
});

test("bytes that are not UTF-8 are malformed", () => {
  assert.throws(() => parse(new Uint8Array([0xff])), malformed);
});

test("of one peer the ticket that lives longest counts", () => {
  const made = (peerId, userId, expiresAt) => ({ envelope: {}, peerId, userId, issuedAt: 0, expiresAt });
  const [first, longer, other] = [made("p", "u", 10), made("p", "u", 20), made("p", "v", 30)];

  assert.deepEqual(capsules.merge([first, longer, other]), [other, longer]);
  assert.deepEqual(capsules.merge([longer, first]), [longer]);
});

test("files beyond their limits are not parsed", async () => {
  const large = new Uint8Array(2 ** 21);
  assert.throws(() => capsules.readCapsule(large), { reason: "TOO_LARGE" });
  const options = { community: "mainnet", now: 1 };
  await assert.rejects(capsules.expect(state, large, options), { reason: "TOO_LARGE", state });
});

test("a key that is none signed nothing", async () => {
  const { capsule } = golden[0].input;
  const raw = new TextEncoder().encode(capsule);
  await assert.rejects(capsules.verifyCapsule(raw, "?", { nowMs: 0 }), {
    reason: "SIGNATURE_INVALID",
  });
});

test("a state goes through a cache unchanged", () => {
  assert.deepEqual(capsules.readState(JSON.parse(JSON.stringify(state))), state);
});

test("a damaged state is refused and not half read", () => {
  const [word] = state.memories;
  const damages = [
    { version: 2 },
    { root: null },
    { root: { version: 1, verify_key: "x" } },
    { revocations: { version: 1, verify_keys: ["x"] } },
    { memories: [null] },
    { memories: [{ ...word, pinned: "no" }] },
    { memories: [{ ...word, sha256: "x" }] },
    { memories: [{ ...word, sequence: -1 }] },
  ];
  for (const damage of damages) {
    assert.throws(() => capsules.readState({ ...state, ...damage }), malformed);
  }
});
