// Every attack of the TUF specification's list, and worse manners, against web/muster/bootstrap.
//
// Real servers on loopback. The same attacks run against the Python client in
// tests/attack/test_bootstrap_attacks.py, and have the same names there. Slow, endless and
// broken answers are in fetch.test.mjs.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import test from "node:test";

import { begin, fetchCapsule, readState } from "../../web/muster/bootstrap/index.js";

const read = (name) => JSON.parse(readFileSync(new URL(name, import.meta.url), "utf8"));
const cases = read("trust.json");
const CAPSULE = "/peers.json";
const MANIFEST = "/peers.json.manifest";
const DAY = 86_400;

const find = (name) => {
  const found = cases.find((entry) => entry.name === `trust: ${name}`);
  assert.ok(found, name);
  return found;
};
const honest = find("the first capsule").input;

/** Serve for the length of *body*; *answers* maps paths to texts or functions of the reply. */
async function serving(answers, body) {
  const server = createServer((request, reply) => {
    const found = answers[request.url];
    if (typeof found === "function") found(reply);
    else if (found === undefined) reply.writeHead(404).end();
    else reply.end(found);
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  try {
    return await body(`http://127.0.0.1:${server.address().port}${CAPSULE}`);
  } finally {
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
  }
}

const published = ({ manifest, capsule }) => ({ [MANIFEST]: manifest, [CAPSULE]: capsule });

const options = ({ state, community, now, pinned }) => ({
  state: readState(state),
  community: community ?? undefined,
  now,
  pinned: pinned ?? undefined,
  deadline: 5000,
});

/** What whoever fetches says of a golden case; it never sees `.sig`, and reads so far only. */
function expected({ expect, input }) {
  if (expect === "SIGNATURE_MISMATCH") return "ok";
  if (expect !== "LENGTH_MISMATCH") return expect;
  const promised = JSON.parse(input.manifest).manifest.payload.capsule.length;
  return Buffer.byteLength(input.capsule) > promised ? "TOO_LARGE" : expect;
}

const verdict = (input, url) =>
  fetchCapsule(url, options(input)).then(
    () => "ok",
    (error) => error.reason ?? error,
  );

for (const entry of cases) {
  test(`over HTTP, ${entry.name}`, () =>
    serving(published(entry.input), async (url) => {
      assert.equal(await verdict(entry.input, url), expected(entry));
    }));
}

// Which attacks there must be, whatever else the golden files hold.
const ATTACKS = {
  "arbitrary content": ["MALFORMED", "SIGNATURE_INVALID", "CERTIFICATE_INVALID", "KEY_MISMATCH"],
  "endless data": ["TOO_LARGE", "TOO_MANY_ENTRIES", "LENGTH_MISMATCH"],
  freeze: ["FROZEN", "EXPIRED"],
  rollback: ["ROLLBACK", "EQUIVOCATION"],
  "fast-forward": ["FAST_FORWARD", "NOT_YET_VALID"],
  "mix-and-match": ["HASH_MISMATCH"],
  "wrong community": ["WRONG_COMMUNITY"],
  "key compromise": ["REVOKED_KEY", "REVOCATIONS_INVALID", "ROOT_CHAIN_BROKEN"],
  "expired keys": ["CERTIFICATE_EXPIRED", "CERTIFICATE_NOT_YET_VALID"],
  "a wrong clock": ["CLOCK_WRONG"],
};

for (const [attack, reasons] of Object.entries(ATTACKS)) {
  test(`${attack} has its names`, () => {
    const met = new Set(cases.map((entry) => expected(entry)));
    for (const reason of reasons) assert.ok(met.has(reason), reason);
  });
}

test("endless data: a capsule of a million entries", () => {
  const million = `{"version":1,"issuedAt":1,"expiresAt":2,"signature":"","peers":[${"{},".repeat(999_999)}{}]}`;
  const pin = find("pinned: a capsule without manifest").input;
  return serving({ [CAPSULE]: million }, async (url) => {
    assert.equal(await verdict({ ...pin, capsule: million }, url), "TOO_LARGE");
  });
});

for (const [name, off, reason] of [
  ["fast", DAY, "FROZEN"],
  ["slow", -DAY, "NOT_YET_VALID"],
]) {
  test(`a clock that is a day ${name}`, () =>
    serving(published(honest), async (url) => {
      assert.equal(await verdict({ ...honest, now: honest.now + off }, url), reason);
    }));
}

test("a ticket whose signature is not base64 is skipped, and the others serve", () => {
  const odd = read("capsules.json").find((c) => c.name === "capsule: with entries that are no tickets");
  return serving({ [CAPSULE]: odd.input.capsule }, async (url) => {
    const now = Math.floor(odd.input.now_ms / 1000);
    const found = await fetchCapsule(url, { pinned: odd.input.verify_key, now });
    assert.ok(found.skipped.some(({ reason }) => reason === "MALFORMED"));
  });
});

test("a page, a redirect to itself, a hang and a bad mirror block no other", async () => {
  const wicked = {
    "a page": [{ [MANIFEST]: "<!doctype html>" }, "MALFORMED"],
    "a redirect": [
      { [MANIFEST]: (reply) => reply.writeHead(302, { location: MANIFEST }).end() },
      "UNREACHABLE",
    ],
    "a hang": [{ [MANIFEST]: () => {} }, "TIMEOUT"],
    "a changed capsule": [
      { ...published(honest), [CAPSULE]: honest.capsule.replace("peer-alice", "peer-malle") },
      "HASH_MISMATCH",
    ],
  };
  const now = honest.now;
  const state = begin(honest.state.root.verify_key);
  const asked = { state, community: honest.community, now, deadline: 3000 };
  const began = performance.now();
  const attacks = Object.values(wicked).map(([answers, reason]) =>
    serving(answers, async (url) => {
      const said = await fetchCapsule(url, asked).then(
        () => null,
        (error) => error.reason,
      );
      assert.equal(said, reason);
    }),
  );
  const good = await serving(published(honest), (url) => fetchCapsule(url, asked));
  assert.ok(good.tickets.length > 0);
  assert.ok(performance.now() - began < 2500, "the hang delayed the others");
  await Promise.all(attacks);
});

test("a revoked publisher is refused for good", async () => {
  const { input, expect } = cases.find((entry) => entry.expect === "REVOKED_KEY");
  assert.equal(expect, "REVOKED_KEY");
  await serving(published(input), async (url) => {
    assert.equal(await verdict(input, url), "REVOKED_KEY");
  });
});

test("two root rotations and a new online key are followed from the first root key", async () => {
  const rotated = cases.filter(
    ({ name, expect, output }) =>
      name.includes("rotat") && expect === "ok" && output.state?.root.version === 3,
  );
  assert.ok(rotated.length > 0);
  for (const { input, output } of rotated) {
    await serving(published(input), async (url) => {
      const found = await fetchCapsule(url, options(input));
      assert.deepEqual(found.state.root, output.state.root);
    });
  }
});
