// The golden files of signed metadata, read by the JavaScript twin. What existing clients sign
// is computed here a second time, their way: sorted by localeCompare, printed by JSON.stringify.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as capsules from "../../web/muster/bootstrap/index.js";
import { parse } from "../../web/muster/json.js";

const cases = (name) => JSON.parse(readFileSync(new URL(`${name}.json`, import.meta.url), "utf8"));
const bytes = (text) => new TextEncoder().encode(text);

function existing(value) {
  if (Array.isArray(value)) return `[${value.map(existing).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const members = Object.keys(value).sort((a, b) => a.localeCompare(b));
    return `{${members.map((key) => `${JSON.stringify(key)}:${existing(value[key])}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

async function signedAsExistingClientsDo(key, signature, value) {
  const raw = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const imported = await crypto.subtle.importKey("raw", raw(key), "Ed25519", false, ["verify"]);
  return crypto.subtle.verify("Ed25519", imported, raw(signature), bytes(existing(value)));
}

const believed = ({ tickets, skipped }) => ({ peers: tickets.map((t) => t.peerId), skipped });

const subjects = {
  async canonical({ json }) {
    const value = parse(bytes(json));
    const found = capsules.canonical(value);
    assert.equal(found, existing(value));
    return found;
  },

  async ticket({ ticket, now_ms: nowMs, rules = {}, peer_id: peerId, user_id: userId }) {
    const { max_lifetime_ms: maxLifetimeMs, ...lists } = rules;
    const options = { nowMs, rules: { maxLifetimeMs, ...lists }, peerId, userId };
    const { envelope } = await capsules.verifyTicket(ticket, options);
    assert.equal(envelope, ticket);
    const { publicKey, signature, payload } = ticket;
    assert.ok(await signedAsExistingClientsDo(publicKey, signature, payload));
    return { signed: capsules.canonical(payload) };
  },

  async capsule({ capsule, verify_key: key, now_ms: nowMs }) {
    const found = await capsules.verifyCapsule(bytes(capsule), key, { nowMs });
    const { version, community, issuedAt, expiresAt, peers, signature } = JSON.parse(capsule);
    const covered = { version, community: community ?? null, issuedAt, expiresAt, peers };
    assert.ok(await signedAsExistingClientsDo(key, signature, covered));
    const result = believed(await capsules.capsuleTickets(found, { nowMs }));
    return { signed: existing(covered), ...result };
  },

  async trust({ state, community, now, manifest, capsule, signature, pinned }) {
    const known = capsules.readState(state);
    assert.deepEqual(known, state);
    const options = { community: community ?? undefined, now };
    const files = {
      manifest: bytes(manifest),
      capsule: bytes(capsule),
      signature: signature === null ? undefined : bytes(signature),
    };
    const result = pinned
      ? await capsules.acceptPinned(known, files.capsule, pinned, options)
      : await capsules.accept(known, files, options);
    return {
      state: result.state,
      fresh: result.fresh,
      sequence: result.manifest?.sequence ?? null,
      ...believed(result),
    };
  },
};

for (const file of ["canonical", "tickets", "capsules", "trust"]) {
  for (const { name, expect, input, output } of cases(file)) {
    test(name, async () => {
      const subject = subjects[name.slice(0, name.indexOf(":"))];
      if (expect === "ok") {
        const { listable, ...expected } = output.signed || output.state ? output : { text: output };
        const found = await subject(input);
        assert.deepEqual(typeof found === "string" ? { text: found } : found, expected);
        return;
      }
      await assert.rejects(subject(input), (error) => {
        assert.ok(error instanceof capsules.Refused, String(error?.stack));
        assert.equal(error.reason, expect, error.message);
        assert.deepEqual(error.state ?? null, output?.state ?? null);
        return true;
      });
    });
  }
}
