// Version 2 in JavaScript, held to the golden files that Python is held to.
//
// A case's subject, the word before the colon, says which check it is for (docs/protocol2.md).
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { b64, concat, hex, readU64, text, unb64, unhex, utf8 } from "../../web/muster/bytes.js";
import { agreer, id, label, pbkdf2, sha256, verify } from "../../web/muster/crypto.js";
import { readInvite } from "../../web/muster/invites.js";
import { Epoch, Member, nodeId } from "../../web/muster/keys.js";
import { openFrame, readFrame, relayKeys } from "../../web/muster/links.js";
import { accessTag, checkAnswer } from "../../web/muster/proofs.js";
import { Refused } from "../../web/muster/refused.js";
import * as seals from "../../web/muster/seals.js";

const golden = (name) => JSON.parse(readFileSync(new URL(`../golden/${name}.json`, import.meta.url), "utf8"));
const epochOf = ({ circle, epoch, secret }) => Epoch.make(circle, epoch, unhex(secret));
const refuse = (reason) => {
  throw new Refused(reason);
};
const DAY = 86_400_000;

// What a service checks of a call stands here, and not in the library, which makes calls.
const readCredential = async (raw, now) => {
  if (raw.length !== 136) refuse("MALFORMED");
  const [circle, node, until] = [raw.subarray(0, 32), raw.subarray(32, 64), readU64(raw, 64)];
  if (!Number.isSafeInteger(until)) refuse("MALFORMED");
  if (until <= now) refuse("EXPIRED");
  if (until > now + 8 * DAY + 120_000) refuse("LIFETIME_TOO_LONG");
  const told = concat(label("credential"), node, raw.subarray(64, 72));
  if (!(await verify(circle, raw.subarray(72), told))) refuse("SIGNATURE_INVALID");
  return { circle, node, hint: await id("hint", circle), node_id: await nodeId(node), until_ms: until };
};

const readCall = async (given) => {
  const [scheme, rest = ""] = given.authorization.split(" ");
  const parts = rest.length <= 512 ? rest.split(".") : [];
  if (scheme.toLowerCase() !== "muster2" || ![2, 3].includes(parts.length)) refuse("MALFORMED");
  const credential = unb64(parts[0], 136);
  const proof = unb64(parts[1], 72);
  const tag = parts.length === 3 ? unb64(parts[2], 16) : new Uint8Array();
  const at = readU64(proof);
  if (!Number.isSafeInteger(at)) refuse("MALFORMED");
  if (at < given.now_ms - 120_000) refuse("EXPIRED");
  if (at > given.now_ms + 120_000) refuse("NOT_YET_VALID");
  const node = { epoch: { circlePublic: credential.subarray(0, 32) }, public: credential.subarray(32, 64) };
  if (given.code !== undefined && hex(await accessTag(given.code, given.service, node)) !== hex(tag)) refuse("KEY_MISMATCH");
  const { hint, node_id } = await readCredential(credential, given.now_ms);
  const digest = async (bytes) => hex(await sha256(bytes));
  const lines = [given.call, given.service, await digest(unhex(given.body)), await digest(credential), at];
  const signed = concat(label("call"), utf8(lines.map((line) => `${line}\n`).join("")));
  if (!(await verify(node.public, proof.subarray(8), signed))) refuse("SIGNATURE_INVALID");
  return { hint, node_id };
};

const SUBJECTS = {
  epoch: async (given) => {
    const { circlePublic, hint, sealKeys } = await epochOf(given);
    const [seal_presence, seal_signal, seal_record] = [sealKeys.presence, sealKeys.signal, sealKeys.record].map(hex);
    return { circle_public: hex(circlePublic), hint, seal_presence, seal_signal, seal_record };
  },
  member: async (given) => {
    const epoch = await epochOf(given);
    const member = await Member.make(epoch.circle, unhex(given.member_secret));
    const node = await member.node(epoch);
    return {
      member_public: hex(member.public), member_id: member.id, box_public: hex(member.box.public),
      node_public: hex(node.public), node_id: node.id,
    };
  },
  name: ({ what, key }) => id(what, unhex(key)),
  ed25519: async ({ public: key, signature, message }) =>
    (await verify(unhex(key), unhex(signature), unhex(message))) || refuse("SIGNATURE_INVALID"),
  x25519: async ({ private: seed, public: other }) => hex(await (await agreer(unhex(seed))).agree(unhex(other))),
  credential: async ({ credential, now_ms }) => {
    const { hint, node_id, until_ms } = await readCredential(unhex(credential), now_ms);
    return { hint, node_id, until_ms };
  },
  call: readCall,
  answer: ({ answer, service, proof, status, body }) =>
    checkAnswer(answer, { service, proof: unhex(proof), status, body: unhex(body) }),
  presence: async (given) => {
    const found = await seals.unsealPresence(await epochOf(given), given.node_id, unhex(given.sealed));
    const { name, member: member_id, box, endpoints, abilities, at_ms } = found;
    return { name, member_id, box: hex(box), endpoints, abilities, at_ms };
  },
  signal: async (given) => {
    const found = await seals.unsealSignal(await epochOf(given), given.from, given.to, unhex(given.sealed));
    seals.checkTime(found, given.now_ms);
    const { session, kind, body, at_ms } = found;
    return { session, kind, body, at_ms };
  },
  record: async (given) => {
    const epoch = await epochOf(given);
    const sealed = unhex(given.sealed);
    const { hash, member, epoch: number, seq, prev, channel, kind, body, at_ms } = await seals.readRecord(
      epoch.circle, await seals.unsealRecord(epoch, sealed));
    const sealed_id = hex(await sha256(sealed)).slice(0, 32);
    return { sealed_id, hash, author_id: member, epoch: number, seq, prev, channel, kind, body, at_ms };
  },
  rekey: async (given) => {
    const epoch = await epochOf(given);
    const founder = unhex(given.founder);
    const said = await seals.unsealRecord(epoch, unhex(given.sealed));
    const found = await seals.readRekey(founder, said);
    const { at_ms, keep, out } = JSON.parse(text(said.text)); // written again, it has the same bytes
    const written = await seals.writeRekey(epoch.circle, { sign: async () => said.signature }, { epoch: found.epoch, at_ms, keep, out });
    assert.equal(text(written.text), text(said.text));
    const member = await Member.make(epoch.circle, unhex(given.member_secret));
    const closed = found.keep[member.id];
    const secret = closed ? hex(await seals.unbox(closed, member.box, seals.forRekey(epoch.circle, found.epoch))) : null;
    return { epoch: found.epoch, secret, order: found.order, out: found.out };
  },
  box: async ({ box, private: seed, bound }) => hex(await seals.unbox(unhex(box), await agreer(unhex(seed)), unhex(bound))),
  passphrase: async ({ passphrase, salt }) => hex(await pbkdf2(passphrase, unhex(salt))),
  body: async ({ circle, channel, number, author, seq, key, closed }) =>
    text(await seals.openBody(unhex(key), unhex(closed), seals.forBody(circle, channel, number, b64(unhex(author)), seq))),
  relay: async (given) => {
    const mine = await agreer(unhex(given.private));
    const pair = await relayKeys(mine, unhex(given.public), unhex(given.opener_text), unhex(given.other_text));
    const { counter, frame } = await openFrame(pair.opener, unhex(given.payload));
    return { counter, frame: hex(frame) };
  },
  frame: ({ frame }) => {
    const { kind, number, taken, payload } = readFrame(unhex(frame));
    return { kind, number, taken, payload: hex(payload) };
  },
  // browsers speak no TLS of their own: this one is Node's, and shows that its key is enough
  certificate: ({ der }) => {
    try {
      return nodeId(unb64(new X509Certificate(unhex(der)).publicKey.export({ format: "jwk" }).x, 32));
    } catch {
      return refuse("CERTIFICATE_INVALID");
    }
  },
  invite: async ({ text: given }) => {
    const { epoch, services, peers, name, at_ms } = await readInvite(given);
    return {
      circle_id: epoch.circle, hint: epoch.hint, epoch: epoch.number,
      services: services.map(({ url, id: service, code }) => [url, service, code]), peers, name, at_ms,
    };
  },
};

for (const { name, expect, input, output } of [...golden("version2"), ...golden("version2_independent")]) {
  const check = SUBJECTS[name.split(":")[0]];
  test(`it is answered as Python answers it: ${name}`, async () => {
    if (expect === "ok") return assert.deepEqual(JSON.parse(JSON.stringify(await check(input))), output);
    await assert.rejects(async () => check(input), (error) => {
      assert.ok(error instanceof Refused, error.stack);
      assert.equal(error.reason, expect);
      return true;
    });
  });
}
