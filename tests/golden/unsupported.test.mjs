// web/muster/bootstrap where signatures cannot be verified: pages from plain http, old browsers.
// That is the environment's fault, and must not be taken for a forgery.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { afterEach, test } from "node:test";

import * as c from "../../web/muster/bootstrap/index.js";

const read = (name) => JSON.parse(readFileSync(new URL(name, import.meta.url), "utf8"));
const find = (file, name) => read(file).find((entry) => entry.name === name).input;
const published = find("trust.json", "trust: the first capsule");
const pin = find("trust.json", "trust: pinned: a capsule without manifest");
const { ticket, now_ms: nowMs } = find("tickets.json", "ticket: as clients make it");
const bytes = (text) => new TextEncoder().encode(text);

const real = globalThis.crypto;
const digest = (...given) => real.subtle.digest(...given);
const lacks = async () => {
  throw new DOMException("Unrecognized name.", "NotSupportedError");
};

/** What there is instead of WebCrypto, whether the context is secure, and what is advised. */
const WORLDS = {
  "a page from plain http": [{ subtle: undefined }, false, /https or localhost/],
  "no WebCrypto at all": [undefined, undefined, /Chromium 137, Firefox 129, Safari 17, Node 20/],
  "a browser without Ed25519": [
    { subtle: { digest, importKey: lacks, verify: lacks } },
    true,
    /Chromium 137, Firefox 129, Safari 17, Node 20/,
  ],
  "a WebCrypto that says no to everything": [
    { subtle: { digest, importKey: async () => ({}), verify: async () => false } },
    true,
    /Chromium 137/,
  ],
};

function enter(crypto, isSecureContext) {
  Object.defineProperty(globalThis, "crypto", { value: crypto, configurable: true });
  Object.defineProperty(globalThis, "isSecureContext", { value: isSecureContext, configurable: true });
}

const { timeout } = AbortSignal;

afterEach(() => {
  AbortSignal.timeout = timeout;
  enter(real, undefined);
});

for (const [world, [crypto, secure, advice]] of Object.entries(WORLDS)) {
  const unsupported = (error) => {
    assert.equal(error.reason, "UNSUPPORTED", String(error?.stack));
    assert.match(error.message, advice);
    return true;
  };

  test(`${world}: nothing is called a forgery`, async () => {
    const capsule = bytes(pin.capsule);
    const read = c.readCapsule(capsule);
    enter(crypto, secure);

    await assert.rejects(c.verifyTicket(ticket, { nowMs }), unsupported);
    await assert.rejects(c.verifyCapsule(capsule, pin.pinned, { nowMs }), unsupported);
    await assert.rejects(c.capsuleTickets(read, { nowMs }), unsupported);
  });

  test(`${world}: what was known is kept`, async () => {
    const state = c.readState(published.state);
    const kept = (error) => {
      assert.deepEqual(error.state, state);
      return unsupported(error);
    };
    const { community, now } = published;
    const files = { manifest: bytes(published.manifest), capsule: bytes(published.capsule) };
    enter(crypto, secure);

    await assert.rejects(c.accept(state, files, { community, now }), kept);
    await assert.rejects(
      c.acceptPinned(state, bytes(pin.capsule), pin.pinned, { community, now }),
      kept,
    );
  });

  test(`${world}: it is said before anything is fetched`, async () => {
    let asked = 0;
    const server = createServer((_, reply) => {
      asked += 1;
      reply.end();
    });
    await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
    const url = `http://127.0.0.1:${server.address().port}/peers.json`;
    enter(crypto, secure);
    AbortSignal.timeout = undefined; // browsers that old lack this too

    try {
      for (const how of [{ root: published.state.root.verify_key }, { pinned: pin.pinned }]) {
        const options = { community: published.community, now: published.now, ...how };
        await assert.rejects(c.fetchCapsule(url, options), (error) => {
          assert.ok(error.state);
          return unsupported(error);
        });
      }
      assert.equal(asked, 0);
    } finally {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    }
  });
}

test("where signatures can be verified a forgery is called one", async () => {
  const forged = { ...ticket, payload: { ...ticket.payload, peerId: "peer-mallory" } };

  await assert.rejects(c.verifyTicket(forged, { nowMs }), { reason: "SIGNATURE_INVALID" });
  assert.ok(await c.verifyTicket(ticket, { nowMs }));
});

test("an ability that comes later is used", async () => {
  enter({ subtle: undefined }, false);
  await assert.rejects(c.verifyTicket(ticket, { nowMs }), { reason: "UNSUPPORTED" });
  enter(real, undefined);

  assert.ok(await c.verifyTicket(ticket, { nowMs }));
});
