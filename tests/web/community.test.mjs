// Communities from JavaScript: a real service on this machine, and servers that are dead, slow or hostile.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { random } from "../../web/muster/bytes.js";
import { signer } from "../../web/muster/crypto.js";
import { Community, makeTicket, merge, verifyTicket } from "../../web/muster/bootstrap/index.js";
import { Gathering } from "../../web/muster/bootstrap/gathering.js";
import { merged } from "../../web/muster/bootstrap/trust.js";

const ROOT = new URL("../..", import.meta.url).pathname;
const golden = JSON.parse(readFileSync(new URL("../golden/trust.json", import.meta.url), "utf8"));
const find = (name) => golden.find((entry) => entry.name === `trust: ${name}`).input;
const [old, next] = [find("the first capsule"), find("the next one")];
const rootKey = old.state.root.verify_key;
const at = (input) => () => input.now * 1000;
const published = ({ manifest, capsule }) => ({ "/peers.json.manifest": manifest, "/peers.json": capsule });

/** @type {{base: string, root: string, capsule: string, stop: () => Promise<void>}} */
let service;
let profiles = 0;
const fresh = () => `test ${(profiles += 1)}`;
const open = [];

before(async () => {
  service = await serve();
});
after(() => service.stop());

async function serve() {
  const data = await mkdtemp(join(tmpdir(), "muster-community-"));
  const free = createServer().listen(0, "127.0.0.1");
  await once(free, "listening");
  const { port } = free.address();
  free.close();
  await once(free, "close");
  const how = ["serve", `--port=${port}`, "--publish-every=1", `--data=${data}`];
  const base = `http://127.0.0.1:${port}`;
  const env = { ...process.env, MUSTER_ACCESS: "open", MUSTER_CAPSULE_BEACONS: base };
  const running = spawn(join(ROOT, ".venv/bin/muster"), how, { env, stdio: ["ignore", "pipe", "ignore"] });
  let greeting = "";
  running.stdout.on("data", (chunk) => {
    greeting += chunk;
  });
  await until(() => greeting.includes("in another"), "it starts");
  const root = /root key {2}(\S+)/.exec(greeting)[1];
  const capsule = `${base}/capsules/town/peers.json#${root}`;
  const stop = async () => {
    running.kill("SIGKILL");
    if (running.exitCode === null && running.signalCode === null) await once(running, "exit");
    await rm(data, { recursive: true, force: true });
  };
  return { base, root, capsule, stop };
}

/** Serve for the length of *body*; *answers* maps paths to texts or functions of the reply. */
async function serving(answers, body) {
  const asked = [];
  const server = createServer(async (request, reply) => {
    let said = "";
    for await (const chunk of request) said += chunk;
    const path = request.url.split("?")[0];
    asked.push({ path, body: said, at: performance.now() });
    const found = answers[path];
    if (typeof found === "function") await found(reply, said);
    else if (found === undefined) reply.writeHead(404).end();
    else reply.end(found);
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  try {
    return await body(`http://127.0.0.1:${server.address().port}`, asked);
  } finally {
    for (const community of open.splice(0)) community.close();
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
  }
}

const join_ = async (capsules, options) => {
  const community = await Community.join(capsules, { profile: fresh(), community: "town", ...options });
  community.heard = [];
  for (const type of ["peer", "left", "source", "error"]) {
    community.addEventListener(type, ({ detail }) => community.heard.push({ type, detail: { ...detail, reason: detail.reason } }));
  }
  open.push(community);
  return community;
};

async function until(condition, what = String(condition), longest = 20_000) {
  const end = performance.now() + longest;
  while (!(await condition())) {
    assert.ok(performance.now() < end, `it did not come to it: ${what}`);
    await new Promise((wait) => setTimeout(wait, 10));
  }
}

const source = (community, kind, part = "") =>
  community.diagnostics().sources.find((one) => one.kind === kind && one.url.includes(part));
const heard = (community, type) => community.heard.filter((one) => one.type === type).map(({ detail }) => detail);
const ticket = async (peerId, more = {}) =>
  (await makeTicket(await signer(random(32)), { peerId, ...more })).envelope;
const listing = (...peers) => JSON.stringify({ ok: true, peers });
/** A beacon that takes every ticket and lists these. */
const beacon = (...peers) => ({ "/announce": listing(...peers), "/peers": listing(...peers) });

test("two nodes find each other by nothing but the capsule's URL", async () => {
  const first = await join_([], { beacons: [service.base], peerId: "ann", userId: "Ann" });
  await until(() => source(first, "beacon")?.announced);
  const manifest = service.capsule.replace("peers.json", "peers.json.manifest"); // written last
  await until(async () => (await fetch(manifest)).ok, "published");

  const second = await join_(service.capsule, { community: undefined, peerId: "bob", everyMs: 1000 });
  await until(() => second.peers.get("ann")?.vouched);
  assert.equal(second.name, "town");
  assert.equal(second.peers.get("ann").userId, "Ann");
  await verifyTicket(second.peers.get("ann").ticket);
  await until(() => source(second, "beacon")?.announced); // which the manifest named
  assert.ok(source(second, "beacon").learned);

  const third = await join_([], { beacons: [service.base], announce: false });
  await until(() => third.peers.has("ann") && third.peers.has("bob"));
  assert.equal(third.peerId, "");
  assert.equal(source(third, "beacon").announced, null);
  assert.ok(!second.peers.has("bob"), "it is no peer of its own");
  for (const community of open.splice(0)) community.close();
});

test("the identity is kept, the first key keeps its name, and another is told so", async () => {
  const profile = fresh();
  const first = await join_([], { beacons: [service.base], profile });
  await until(() => source(first, "beacon")?.announced);
  first.close();
  const again = await join_([], { beacons: [service.base], profile });
  assert.equal(again.peerId, first.peerId);
  await until(() => source(again, "beacon")?.announced);

  const thief = await join_([], { beacons: [service.base], peerId: first.peerId });
  await until(() => heard(thief, "error").length > 0);
  assert.equal(heard(thief, "error")[0].reason, "PEER_ID_TAKEN");
  await until(() => source(thief, "beacon")?.notAnnounced === "PEER_ID_TAKEN");
  for (const community of open.splice(0)) community.close();
});

test("all sources are raced: a dead, a hanging and a dripping one delay nobody", async () => {
  const drip = (reply) => {
    const timer = setInterval(() => reply.write(" "), 20);
    reply.on("close", () => clearInterval(timer));
  };
  const capsule = published(old);
  const slow = { "/hang/announce": () => {}, "/drip/announce": drip };
  const good = await ticket("carol", { nowMs: old.now * 1000 });
  await serving({ ...slow, ...capsule, ...beacon(good) }, async (base) => {
    const community = await join_(`${base}/peers.json`, {
      ...{ root: rootKey, community: "mainnet", now: at(old), deadlineMs: 700 },
      beacons: ["http://127.0.0.1:1", `${base}/hang`, `${base}/drip`, base],
    });
    await until(() => community.peers.has("carol") && community.peers.has("peer-alice"));
    assert.ok(community.diagnostics().firstPeerMs < 600, "the slow ones delayed it");
    await until(() => ["1:1", "hang", "drip"].every((name) => source(community, "beacon", name)) && source(community, "capsule"));
    assert.equal(source(community, "beacon", "1:1").reason, "UNREACHABLE");
    for (const name of ["hang", "drip"]) assert.equal(source(community, "beacon", name).reason, "TIMEOUT");
    const { successes, failures, sources } = community.diagnostics();
    assert.ok(successes === 3 && failures >= 3, `${successes} ${failures}`);
    assert.ok(sources.every(({ lastMs, averageMs }) => lastMs >= 0 && averageMs >= 0));
    assert.ok(heard(community, "source").some(({ url, ok }) => url === base && ok));
  });
});

test("hostile beacons: endless, oversized, foreign and redirecting answers are bounded", async () => {
  const endless = (reply) => {
    const chunk = Buffer.alloc(65536, " ");
    const write = () => {
      while (!reply.destroyed && reply.write(chunk));
    };
    reply.on("drain", write);
    write();
  };
  const answers = {
    "/endless/peers": endless,
    "/many/peers": listing(...Array(1001).fill({})),
    "/page/peers": "<!doctype html>",
    "/null/peers": "null",
    "/deep/peers": `{"peers":${"[".repeat(40)}${"]".repeat(40)}}`,
    "/off/peers": (reply) => reply.writeHead(302, { location: "/good/peers" }).end(),
    "/odd/peers": JSON.stringify({ peers: [null, 1, "x", { payload: {} }, { ...(await ticket("eve")), signature: "!" }] }),
    "/forged/peers": listing({ ...(await ticket("mallory")), publicKey: (await ticket("x")).publicKey }),
    "/good/peers": listing(await ticket("dave")),
  };
  const reasons = { endless: "TOO_LARGE", many: "TOO_MANY_ENTRIES", page: "MALFORMED", null: "MALFORMED", deep: "MALFORMED", off: "UNREACHABLE" };
  await serving(answers, async (base) => {
    const beacons = Object.keys(answers).map((path) => base + path.replace("/peers", ""));
    const community = await join_([], { beacons, announce: false });
    await until(() => community.diagnostics().sources.length === beacons.length + 1);
    for (const [name, reason] of Object.entries(reasons)) assert.equal(source(community, "beacon", `/${name}`).reason, reason);
    assert.equal(source(community, "beacon", "/odd").skipped.MALFORMED, 5);
    assert.deepEqual(source(community, "beacon", "/forged").skipped, { SIGNATURE_INVALID: 1 });
    assert.deepEqual([...community.peers.keys()], ["dave"]);
  });
});

test("a flood of names from one beacon does not crowd out the others", async () => {
  const flood = await Promise.all(Array.from({ length: 250 }, (_, n) => ticket(`flood-${n}`)));
  await serving({ "/flood/peers": listing(...flood), "/good/peers": listing(await ticket("dave")) }, async (base) => {
    const community = await join_([], { beacons: [`${base}/flood`, `${base}/good`], announce: false });
    community.connected("flood-0");
    await until(() => community.diagnostics().sources.length === 3);
    assert.equal(community.peers.size, 201);
    assert.ok(community.peers.has("dave") && community.peers.has("flood-0"));
    assert.equal(heard(community, "left").length, 50);
  });
});

test("warm start: peers and places come from the cache when every source is dead", async () => {
  const profile = fresh();
  const how = { root: rootKey, community: "mainnet", now: at(old), profile };
  let url;
  await serving(published(old), async (base) => {
    url = `${base}/peers.json`;
    const community = await join_(url, how);
    await until(() => source(community, "capsule")?.ok);
    assert.ok(community.peers.get("peer-alice").vouched);
    await until(() => heard(community, "source").length >= 2);
  });
  const community = await join_(url, how);
  await until(() => community.peers.has("peer-alice"));
  assert.deepEqual(community.peers.get("peer-alice").sources, ["cache"]);
  assert.ok(!community.peers.get("peer-alice").vouched);
  await until(() => source(community, "capsule"));
  assert.equal(source(community, "capsule").reason, "UNREACHABLE");
  community.close();

  const later = await join_(url, { ...how, now: () => (old.now + 86_400) * 1000 });
  await until(() => source(later, "cache"));
  assert.equal(later.peers.size, 0);
  assert.ok(source(later, "cache").skipped.EXPIRED > 0);
  open.splice(0).forEach((one) => one.close());
});

test("rollback: an older capsule is refused, also after a restart, and while several are raced", async () => {
  const profile = fresh();
  const how = { root: rootKey, community: "mainnet", now: at(next), profile };
  await serving(published(next), async (base) => {
    const community = await join_(`${base}/peers.json`, how);
    await until(() => source(community, "capsule")?.ok);
  });
  await serving(published(old), async (base) => {
    const community = await join_([`${base}/peers.json#${encodeURIComponent(rootKey)}`], { ...how, root: undefined });
    // what the profile knows of before is asked too, and is there no longer
    await until(() => source(community, "capsule", base)?.reason === "ROLLBACK");
  });
});

test("a pinned capsule is believed by its own key alone", async () => {
  const pin = find("pinned: a capsule without manifest");
  await serving({ "/peers.json": pin.capsule }, async (base) => {
    const right = await join_(`${base}/peers.json#capsule=${encodeURIComponent(pin.pinned)}`, { community: undefined, now: at(pin) });
    const wrong = await join_(`${base}/peers.json`, { community: undefined, pinned: rootKey, now: at(pin) });
    await until(() => source(right, "capsule") && source(wrong, "capsule"));
    assert.equal(right.peers.size, 2);
    assert.equal(source(wrong, "capsule").reason, "SIGNATURE_INVALID");
  });
});

test("a peer is there once, by its longest ticket, and gone when that is over; unless it is connected", async () => {
  const key = await signer(random(32));
  const signed = async (ttlMs) => (await makeTicket(key, { peerId: "dave", ttlMs })).envelope;
  const [short, long] = [await signed(60_000), await signed(120_000)];
  let now = Date.now();
  await serving({ "/a/peers": listing(short), "/b/peers": listing(long, await ticket("erin", { ttlMs: 60_000 })) }, async (base) => {
    const community = await join_([], { beacons: [`${base}/a`, `${base}/b`], announce: false, everyMs: 60, now: () => now });
    await until(() => community.peers.get("dave")?.sources.length === 2 && community.peers.has("erin"));
    assert.deepEqual(community.peers.get("dave").ticket, long);
    assert.equal(heard(community, "peer").filter(({ peerId }) => peerId === "dave").length, 1);
    community.connected("dave");
    now += 140_000;
    await until(() => heard(community, "left").some(({ peerId }) => peerId === "erin"));
    assert.ok(community.peers.has("dave"));
    community.disconnected("dave");
    await until(() => !community.peers.has("dave"));
  });
});

test("sources are asked again when connections are lost, and left alone while there are enough", async () => {
  const capsule = published(old);
  await serving(capsule, async (base, asked) => {
    const community = await join_(`${base}/peers.json`, { root: rootKey, community: "mainnet", now: at(old), everyMs: 120, minPeers: 2 });
    const times = () => asked.filter(({ path }) => path === "/peers.json").length;
    await until(() => times() === 1 && source(community, "capsule")?.ok);
    community.connected("peer-alice");
    community.connected("peer-bob");
    await new Promise((wait) => setTimeout(wait, 500));
    assert.equal(times(), 1, "it asked although there were enough");
    community.disconnected("peer-bob");
    await until(() => times() === 2, "asked again", 3000);
    await new Promise((wait) => setTimeout(wait, 500));
    assert.equal(times(), 2, "it did not wait longer and longer");
    assert.deepEqual([community.diagnostics().connected, community.diagnostics().connections], [1, 2]);
  });
});

test("the same ticket is announced again and again, and a new one before it ends", async () => {
  let now = Date.now();
  await serving(beacon(), async (base, asked) => {
    await join_([], { beacons: [base], peerId: "me", everyMs: 80, ttlMs: 60_000, now: () => now });
    const announced = () => asked.filter(({ path }) => path === "/announce").map(({ body }) => JSON.parse(body).ticket);
    await until(() => announced().length >= 3);
    const [first, again] = announced();
    assert.deepEqual(first, again);
    assert.deepEqual(Object.keys(first).sort(), ["algorithm", "payload", "publicKey", "signature", "version"]);
    await verifyTicket(first, { peerId: "me", nowMs: now });
    now += 50_000;
    await until(() => announced().at(-1).payload.nonce !== first.payload.nonce);
    assert.equal(announced().at(-1).publicKey, first.publicKey);
  });
});

test("a service that asks for patience gets it, and one that fails once is asked once more", async () => {
  let failures = 1;
  const busy = (reply) => reply.writeHead(429, { "retry-after": "60" }).end();
  const flaky = (reply) => (failures-- > 0 ? reply.writeHead(502).end() : reply.end(listing()));
  await serving({ "/busy/announce": busy, "/flaky/announce": flaky }, async (base, asked) => {
    const community = await join_([], { beacons: [`${base}/busy`, `${base}/flaky`], everyMs: 60 });
    const times = (name) => asked.filter(({ path }) => path === `/${name}/announce`).length;
    await until(() => times("flaky") >= 5);
    assert.equal(times("busy"), 1);
    assert.ok(source(community, "beacon", "flaky").ok && source(community, "beacon", "flaky").failures === 0);
  });
});

test("a peer that a person names is there at once, and its ticket joins it", async () => {
  await serving(beacon(await ticket("dave")), async (base) => {
    const community = await join_([], { beacons: [base], manualPeers: ["dave", "erin"] });
    community.addPeer("frank");
    await until(() => community.peers.get("erin") && community.peers.get("dave")?.ticket);
    assert.deepEqual(community.peers.get("erin").sources, ["manual"]);
    assert.deepEqual(community.peers.get("dave").sources, ["manual", base]);
    assert.deepEqual(heard(community, "peer").map(({ peerId }) => peerId).sort(), ["dave", "erin", "frank"]);
  });
});

test("nothing is heard after the end, and nobody is asked", async () => {
  await serving(beacon(await ticket("dave")), async (base, asked) => {
    const community = await join_([], { beacons: [base], everyMs: 50 });
    community.close();
    await new Promise((wait) => setTimeout(wait, 200));
    assert.deepEqual([asked.length, community.heard.length], [0, 0]);
  });
});

test("what a caller gets wrong is said at once, and plain http is for this machine alone", async () => {
  for (const [capsules, options] of [
    ["https://host.example/peers.json", {}],
    ["https://host.example/peers.json#short", {}],
    [`http://host.example/peers.json#${rootKey}`, {}],
    [`https://a:b@host.example/peers.json#${rootKey}`, {}],
    [`ftp://127.0.0.1/peers.json#${rootKey}`, {}],
    ["nonsense", {}],
    [[], { beacons: ["http://beacon.example"] }],
    [[], { beacons: ["https://beacon.example/?x"] }],
    [[], { community: "no/name" }],
    [`https://host.example/peers.json#%E0%A4%A`, {}],
  ]) {
    await assert.rejects(Community.join(capsules, { profile: fresh(), ...options }), { reason: "MALFORMED" }, String(capsules));
  }
});

test("of two keys for one name a capsule's counts, then the longer; never over one that is connected", async () => {
  const held = new Set();
  const gathering = new Gathering(held);
  const made = async (ttlMs) => makeTicket(await signer(random(32)), { peerId: "p", ttlMs });
  const [one, longer, longest] = [await made(60_000), await made(90_000), await made(120_000)];
  const take = (ticket, vouched, source = "b") => gathering.take(ticket, { peerId: "p", source, vouched, foundMs: 0 });
  const now = () => gathering.peers.get("p").ticket;

  assert.ok(take(one, false).peer);
  assert.deepEqual(take(longer, false), {});
  assert.equal(now(), longer.envelope);
  held.add("p");
  take(longest, false);
  assert.equal(now(), longer.envelope);
  take(one, true, "capsule");
  assert.equal(now(), one.envelope);
  take(longest, false);
  assert.equal(now(), one.envelope);
  assert.deepEqual(gathering.peers.get("p").sources, ["capsule"]);
  assert.deepEqual(gathering.prune(0, [one.envelope.publicKey]).length, 1);
  assert.deepEqual(merge([one, longer]).length, 1);
});

test("what two tabs have learned of one root is merged, and a revoked key's words are not", () => {
  const { state } = find("the same again");
  const [word] = state.memories;
  const other = { ...word, community: "other" };
  const newer = { ...state, memories: [{ ...word, sequence: word.sequence + 1, serial: 9 }, other] };
  assert.deepEqual(merged(newer, state), newer);
  assert.deepEqual(merged(state, newer).memories, newer.memories);
  const revoked = { ...state, revocations: { version: 99, verify_keys: [word.verify_key] }, memories: [] };
  assert.deepEqual(merged(newer, revoked).memories, []);
  assert.equal(merged(revoked, newer).revocations.version, 99);
  const rotated = { ...state, root: { version: 9, verify_key: word.verify_key }, revocations: { version: 0, verify_keys: [] } };
  assert.deepEqual(merged(revoked, rotated).revocations, { version: 0, verify_keys: [word.verify_key] });
});
