// The golden file of version 2, checked in JavaScript with WebCrypto: what docs/protocol2.md says,
// written a second time. A browser comes to the same answers as the service and its clients.

import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import test from "node:test";

import * as capsules from "../../web/capsule.js";

const { subtle } = globalThis.crypto;
const read = (name) => JSON.parse(readFileSync(new URL(name, import.meta.url), "utf8"));

class Refused extends Error {
  constructor(reason, message = "") {
    super(`${reason}: ${message}`);
    this.reason = reason;
  }
}

function need(good, reason, message) {
  if (!good) throw new Refused(reason, message);
}

// Bytes

const utf8 = (text) => new TextEncoder().encode(text);
const hex = (bytes) => Buffer.from(bytes).toString("hex");
const unhex = (text) => new Uint8Array(Buffer.from(text, "hex"));
const label = (what) => utf8(`muster2 ${what}\n`);
const same = (a, b) => hex(a) === hex(b);

function join(...parts) {
  const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function number(value, size) {
  const bytes = new Uint8Array(size);
  for (let at = size - 1, rest = BigInt(value); at >= 0; at -= 1, rest >>= 8n) bytes[at] = Number(rest & 255n);
  return bytes;
}

const whole = (bytes) => bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
const little = (bytes) => whole(Uint8Array.from(bytes).reverse());

function unb64(text) {
  need(typeof text === "string" && /^[A-Za-z0-9_-]*$/.test(text), "MALFORMED", "base64url");
  const bytes = new Uint8Array(Buffer.from(text, "base64url"));
  need(Buffer.from(bytes).toString("base64url") === text, "MALFORMED", "another spelling");
  return bytes;
}

function cut(bytes, ...sizes) {
  need(bytes.length === sizes.reduce((a, b) => a + b), "MALFORMED", "length");
  let at = 0;
  return sizes.map((size) => bytes.slice(at, (at += size)));
}

function instant(bytes) {
  const value = whole(bytes);
  need(value < 2n ** 53n, "MALFORMED", "time");
  return Number(value);
}

// Cryptography

const sha256 = async (bytes) => new Uint8Array(await subtle.digest("SHA-256", bytes));
const identify = async (what, key) => (await sha256(join(label(what), key))).slice(0, 16);

async function derive(secret, salt, what) {
  const key = await subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  const how = { name: "HKDF", hash: "SHA-256", salt, info: label(what) };
  return new Uint8Array(await subtle.deriveBits(how, key, 256));
}

const PKCS8 = { Ed25519: "302e020100300506032b657004220420", X25519: "302e020100300506032b656e04220420" };

async function publicOf(curve, seed) {
  const use = curve === "Ed25519" ? ["sign"] : ["deriveBits"];
  const key = await subtle.importKey("pkcs8", join(unhex(PKCS8[curve]), seed), curve, true, use);
  return unb64((await subtle.exportKey("jwk", key)).x);
}

const P = 2n ** 255n - 19n;
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
const SMALL = new Set([
  0n,
  1n,
  P - 1n,
  little(unhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")),
  little(unhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")),
]);

async function verifies(key, message, signature) {
  if (signature.length !== 64 || little(signature.slice(32)) >= L) return false;
  for (const point of [key, signature.slice(0, 32)]) {
    const y = little(point) & (2n ** 255n - 1n);
    if (y >= P || SMALL.has(y)) return false;
  }
  try {
    const imported = await subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
    return await subtle.verify("Ed25519", imported, signature, message);
  } catch {
    return false; // a key that is no point
  }
}

async function believe(key, message, signature) {
  need(await verifies(key, message, signature), "SIGNATURE_INVALID");
}

async function agree(seed, other) {
  try {
    const ours = await subtle.importKey("pkcs8", join(unhex(PKCS8.X25519), seed), "X25519", false, ["deriveBits"]);
    const theirs = await subtle.importKey("raw", other, "X25519", false, []);
    const shared = new Uint8Array(await subtle.deriveBits({ name: "X25519", public: theirs }, ours, 256));
    need(shared.some((byte) => byte), "WEAK_KEY");
    return shared;
  } catch {
    throw new Refused("WEAK_KEY");
  }
}

async function decrypt(key, nonce, sealed, additionalData = new Uint8Array()) {
  const imported = await subtle.importKey("raw", key, "AES-GCM", false, ["decrypt"]);
  try {
    return new Uint8Array(await subtle.decrypt({ name: "AES-GCM", iv: nonce, additionalData }, imported, sealed));
  } catch {
    throw new Refused("UNREADABLE");
  }
}

// Texts and seals

async function epochOf({ circle, epoch, secret }) {
  const salt = join(unhex(circle), number(epoch, 4));
  const key = (what) => derive(unhex(secret), salt, what);
  const circlePublic = await publicOf("Ed25519", await key("circle key"));
  return { circle, number: epoch, key, circlePublic, hint: await identify("hint", circlePublic) };
}

async function unseal(key, sealed, bound) {
  need(sealed.length >= 96, "MALFORMED");
  const plain = await decrypt(key, sealed.slice(0, 12), sealed.slice(12), bound);
  const end = 68 + Number(whole(plain.slice(0, 4)));
  need(end <= plain.length && plain.slice(end).every((byte) => byte === 0), "MALFORMED");
  return { text: plain.slice(68, end), signature: plain.slice(4, 68) };
}

function textOf(said, what, circle) {
  const data = capsules.parse(said.text);
  need(same(utf8(capsules.strict(data)), said.text), "NOT_CANONICAL");
  need(typeof data === "object" && data !== null && !Array.isArray(data) && data.is === what, "MALFORMED");
  need(matches(data.circle, /^[0-9a-f]{32}$/) && data.circle === circle, "WRONG_CIRCLE");
  return data;
}

function matches(text, pattern) {
  need(typeof text === "string" && pattern.test(text), "MALFORMED");
  return true;
}

const ID = /^[0-9a-f]{32}$/;
const HASH = /^[0-9a-f]{64}$/;
const WORD = /^[a-z][a-z0-9_]{0,31}$/;

function integer(value, least = 0) {
  need(Number.isSafeInteger(value) && value >= least, "MALFORMED");
  return value;
}

function raw(text, size) {
  const bytes = unb64(text);
  need(bytes.length === size, "MALFORMED");
  return bytes;
}

function plainObject(value) {
  need(typeof value === "object" && value !== null && !Array.isArray(value), "MALFORMED");
  return value;
}

function short(text, most) {
  need(typeof text === "string" && utf8(text).length <= most, "MALFORMED");
}

function list(value, most) {
  need(Array.isArray(value) && value.length <= most, "MALFORMED");
  return value;
}

const lines = (...all) => utf8(all.map((line) => `${line}\n`).join(""));
const digest = async (bytes) => hex(await sha256(bytes));

async function openedRecord(given) {
  const epoch = await epochOf(given);
  const sealed = unhex(given.sealed);
  need(sealed.length % 256 === 0, "MALFORMED");
  const said = await unseal(await epoch.key("seal record"), sealed, join(label("record"), epoch.hint));
  return { epoch, sealed, said };
}

async function credentialOf(bytes, nowMs) {
  const [circle, node, expires, signature] = cut(bytes, 32, 32, 8, 64);
  const until = instant(expires);
  const check = async () => {
    need(until > nowMs, "EXPIRED");
    need(until <= nowMs + 8 * 86_400_000 + 120_000, "LIFETIME_TOO_LONG");
    await believe(circle, join(label("credential"), node, expires), signature);
  };
  const names = { hint: hex(await identify("hint", circle)), node_id: hex(await identify("node", node)) };
  return { circle, node, until, check, names };
}

async function unbox(box, seed, bound) {
  const [fresh, closed] = cut(box, 32, 48);
  const salt = join(fresh, await publicOf("X25519", seed));
  return decrypt(await derive(await agree(seed, fresh), salt, "box"), new Uint8Array(12), closed, bound);
}

const subjects = {
  async epoch(given) {
    const epoch = await epochOf(given);
    const found = { circle_public: hex(epoch.circlePublic), hint: hex(epoch.hint) };
    for (const kind of ["presence", "signal", "record"]) found[`seal_${kind}`] = hex(await epoch.key(`seal ${kind}`));
    return found;
  },

  async member(given) {
    const [epoch, secret] = [await epochOf(given), unhex(given.member_secret)];
    const member = await publicOf("Ed25519", await derive(secret, unhex(given.circle), "member key"));
    const box = await publicOf("X25519", await derive(secret, unhex(given.circle), "box key"));
    const node = await publicOf("Ed25519", await derive(secret, epoch.hint, "node key"));
    return {
      member_public: hex(member),
      member_id: hex(await identify("member", member)),
      box_public: hex(box),
      node_public: hex(node),
      node_id: hex(await identify("node", node)),
    };
  },

  name: async ({ what, key }) => hex(await identify(what, unhex(key))),

  async ed25519(given) {
    await believe(unhex(given.public), unhex(given.message), unhex(given.signature));
    return true;
  },

  x25519: async (given) => hex(await agree(unhex(given.private), unhex(given.public))),

  async credential(given) {
    const found = await credentialOf(unhex(given.credential), given.now_ms);
    await found.check();
    return { ...found.names, until_ms: found.until };
  },

  async call({ authorization, call, service, body, now_ms: nowMs, code }) {
    const [, scheme, text] = /^(\S*) ?(.*)$/s.exec(authorization);
    need(scheme.toLowerCase() === "muster2", "MALFORMED");
    const parts = text.split(".");
    need(parts.length === 2 || parts.length === 3, "MALFORMED");
    const [vouched, proof, tag] = parts.map(unb64);
    const [at, signature] = cut(proof, 8, 64);
    const atMs = instant(at);
    if (tag) need(tag.length === 16, "MALFORMED");
    const credential = await credentialOf(vouched, nowMs);
    need(nowMs - atMs <= 120_000, "EXPIRED");
    need(atMs - nowMs <= 120_000, "NOT_YET_VALID");
    if (code !== undefined) {
      const key = await subtle.importKey("raw", utf8(code), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
      const told = join(label("access"), unhex(service), credential.circle, credential.node);
      const made = new Uint8Array(await subtle.sign("HMAC", key, told)).slice(0, 16);
      need(tag !== undefined && same(made, tag), "KEY_MISMATCH");
    }
    await credential.check();
    const signed = lines(call, service, await digest(unhex(body)), await digest(vouched), atMs);
    await believe(credential.node, join(label("call"), signed), signature);
    return credential.names;
  },

  async answer(given) {
    const [key, at, signature] = cut(unb64(given.answer), 32, 8, 64);
    const atMs = instant(at);
    need(hex(await identify("service", key)) === given.service, "KEY_MISMATCH");
    const told = lines(await digest(unhex(given.proof)), given.status, await digest(unhex(given.body)), atMs);
    await believe(key, join(label("answer"), told), signature);
    return atMs;
  },

  async presence(given) {
    const [epoch, sealed, node] = [await epochOf(given), unhex(given.sealed), unhex(given.node_id)];
    need(sealed.length === 640 || sealed.length === 864, "MALFORMED");
    const bound = join(label("presence"), epoch.hint, node);
    const said = await unseal(await epoch.key("seal presence"), sealed, bound);
    const data = textOf(said, "presence", given.circle);
    const [key, member, bond, box] = [raw(data.node, 32), raw(data.member, 32), raw(data.bond, 64), raw(data.box, 32)];
    short(data.name, 64);
    for (const endpoint of list(data.endpoints, 8)) {
      need(Array.isArray(endpoint) && endpoint.length === 3, "MALFORMED");
      matches(endpoint[0], WORD);
      short(endpoint[1], 253);
      need(integer(endpoint[2], 1) <= 65_535, "MALFORMED");
    }
    for (const ability of list(data.abilities, 16)) matches(ability, WORD);
    integer(data.at_ms);
    await believe(key, join(label("presence"), said.text), said.signature);
    await believe(member, join(label("bond"), epoch.hint, key, box), bond);
    need(same(await identify("node", key), node), "WRONG_NODE");
    const { name, endpoints, abilities, at_ms } = data;
    return { name, member_id: hex(await identify("member", member)), box: hex(box), endpoints, abilities, at_ms };
  },

  async signal(given) {
    const [epoch, sealed] = [await epochOf(given), unhex(given.sealed)];
    need(sealed.length <= 16_384 && sealed.length % 256 === 0, "MALFORMED");
    const bound = join(label("signal"), epoch.hint, unhex(given.from), unhex(given.to));
    const said = await unseal(await epoch.key("seal signal"), sealed, bound);
    const data = textOf(said, "signal", given.circle);
    need(integer(data.epoch) === epoch.number, "WRONG_CIRCLE");
    const key = raw(data.node, 32);
    matches(data.to, ID);
    matches(data.session, ID);
    matches(data.kind, WORD);
    integer(data.at_ms);
    plainObject(data.body);
    await believe(key, join(label("signal"), said.text), said.signature);
    need(hex(await identify("node", key)) === given.from && data.to === given.to, "WRONG_NODE");
    need(given.now_ms - data.at_ms <= 600_000, "EXPIRED");
    need(data.at_ms - given.now_ms <= 600_000, "NOT_YET_VALID");
    return { session: data.session, kind: data.kind, body: data.body, at_ms: data.at_ms };
  },

  async record(given) {
    const { sealed, said } = await openedRecord(given);
    const data = textOf(said, "record", given.circle);
    integer(data.epoch);
    const author = raw(data.author, 32);
    integer(data.seq, 1);
    if (data.prev !== null) matches(data.prev, HASH);
    integer(data.at_ms);
    matches(data.channel, ID);
    matches(data.kind, WORD);
    plainObject(data.body);
    need((data.seq === 1) === (data.prev === null), "MALFORMED");
    await believe(author, join(label("record"), said.text), said.signature);
    const { epoch, seq, prev, channel, kind, body, at_ms } = data;
    const names = {
      sealed_id: hex((await sha256(sealed)).slice(0, 16)),
      hash: await digest(join(label("record"), said.text)),
      author_id: hex(await identify("member", author)),
    };
    return { ...names, epoch, seq, prev, channel, kind, body, at_ms };
  },

  async rekey(given) {
    const { said } = await openedRecord(given);
    const founder = unhex(given.founder);
    const data = textOf(said, "rekey", hex(await identify("circle", founder)));
    const [keep, out] = [plainObject(data.keep), plainObject(data.out)];
    for (const name of [...Object.keys(keep), ...Object.keys(out)]) matches(name, ID);
    need(!Object.keys(keep).some((name) => name in out), "MALFORMED");
    need(integer(data.epoch, 1) < 2 ** 32, "MALFORMED");
    integer(data.at_ms);
    for (const box of Object.values(keep)) raw(box, 80);
    for (const last of Object.values(out)) {
      need(Array.isArray(last) && last.length === 2, "MALFORMED");
      integer(last[0]);
      matches(last[1], HASH);
    }
    await believe(founder, join(label("rekey"), said.text), said.signature);
    const secret = unhex(given.member_secret);
    const seed = await derive(secret, unhex(given.circle), "member key");
    const member = hex(await identify("member", await publicOf("Ed25519", seed)));
    const bound = join(label("box rekey"), unhex(given.circle), number(data.epoch, 4));
    const key = await derive(secret, unhex(given.circle), "box key");
    const following = keep[member] ? hex(await unbox(unb64(keep[member]), key, bound)) : null;
    return { epoch: data.epoch, secret: following, order: await digest(said.text), out };
  },

  box: async (given) => hex(await unbox(unhex(given.box), unhex(given.private), unhex(given.bound))),

  async passphrase({ passphrase, salt }) {
    const key = await subtle.importKey("raw", utf8(passphrase.normalize("NFC")), "PBKDF2", false, ["deriveBits"]);
    const how = { name: "PBKDF2", hash: "SHA-256", salt: unhex(salt), iterations: 600_000 };
    return hex(await subtle.deriveBits(how, key, 256));
  },

  async body(given) {
    const closed = unhex(given.closed);
    need(closed.length >= 28, "MALFORMED");
    const place = [number(given.number, 4), unhex(given.author), number(given.seq, 8)];
    const bound = join(label("channel"), unhex(given.circle), unhex(given.channel), ...place);
    const text = await decrypt(unhex(given.key), closed.slice(0, 12), closed.slice(12), bound);
    return new TextDecoder().decode(text);
  },

  async relay(given) {
    const shared = await agree(unhex(given.private), unhex(given.public));
    const salt = join(await sha256(unhex(given.opener_text)), await sha256(unhex(given.other_text)));
    const payload = unhex(given.payload);
    need(payload.length >= 41, "MALFORMED");
    const nonce = join(new Uint8Array(4), payload.slice(0, 8));
    const frame = await decrypt(await derive(shared, salt, "relay opener"), nonce, payload.slice(8));
    return { counter: Number(whole(payload.slice(0, 8))), frame: hex(frame) };
  },

  frame(given) {
    const frame = unhex(given.frame);
    need(frame.length >= 17 && frame[0] <= 3, "MALFORMED");
    const [count, taken] = [instant(frame.slice(1, 9)), instant(frame.slice(9, 17))];
    need(frame.length <= 16_017, "TOO_LARGE");
    return { kind: frame[0], number: count, taken, payload: hex(frame.slice(17)) };
  },

  async certificate({ der }) {
    let key;
    try {
      key = new X509Certificate(unhex(der)).publicKey.export({ format: "jwk" });
    } catch {
      throw new Refused("CERTIFICATE_INVALID");
    }
    need(key.crv === "Ed25519", "CERTIFICATE_INVALID");
    return hex(await identify("node", unb64(key.x)));
  },

  async invite({ text }) {
    const trimmed = text.trim();
    const code = trimmed.includes("#") ? trimmed.slice(trimmed.indexOf("#") + 1) : trimmed;
    need(code.startsWith("muster2."), "MALFORMED");
    let data;
    try {
      data = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(unb64(code.slice(8))));
    } catch {
      throw new Refused("MALFORMED");
    }
    plainObject(data);
    need(data.v === 2, "MALFORMED");
    const [founder, secret] = [raw(data.circle, 32), raw(data.secret, 32)];
    short(data.name ?? "", 64);
    need(integer(data.epoch ?? 0) < 2 ** 32, "MALFORMED");
    const circle = hex(await identify("circle", founder));
    const { hint } = await epochOf({ circle, epoch: data.epoch ?? 0, secret: hex(secret) });
    const services = list(data.services ?? [], 8).map((address) => {
      const [url, fragment = ""] = address.split("#");
      const [id, ...rest] = fragment.split("&");
      matches(id, ID);
      need(/^https?:$/.test(new URL(url).protocol), "MALFORMED");
      const given = new URLSearchParams(rest.join("&"));
      const access = given.get("access") ?? "";
      need([...given.keys()].every((name) => name === "access"), "MALFORMED");
      if (given.has("access")) matches(access, /^[ -~]{16,256}$/);
      return [url.replace(/\/+$/, ""), id, access];
    });
    const peers = list(data.peers ?? [], 16);
    for (const peer of peers) matches(peer, /^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}$/);
    return {
      circle_id: circle,
      hint: hex(hint),
      epoch: data.epoch ?? 0,
      services,
      peers,
      name: data.name ?? "",
      at_ms: integer(data.at_ms ?? 0),
    };
  },
};

for (const file of ["version2.json", "version2_independent.json"]) {
  for (const { name, expect, input, output } of read(file)) {
    test(name, async () => {
      const check = subjects[name.split(":")[0]];
      if (expect === "ok") {
        assert.deepEqual(await check(input), output);
        return;
      }
      await assert.rejects(async () => check(input), { reason: expect });
    });
  }
}
