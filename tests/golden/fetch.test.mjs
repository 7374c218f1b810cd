// fetchCapsule against servers on loopback that behave, and servers that do not.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import test from "node:test";
import { gzipSync } from "node:zlib";

import { fetchCapsule, begin } from "../../web/muster/bootstrap/index.js";

const golden = JSON.parse(readFileSync(new URL("trust.json", import.meta.url), "utf8"));
const find = (name) => golden.find((entry) => entry.name === `trust: ${name}`);
const { input, output } = find("the first capsule");
const next = find("the next one").input;
const pin = find("pinned: a capsule without manifest").input;
const root = input.state.root.verify_key;
const MANIFEST = "/peers.json.manifest";
const CAPSULE = "/peers.json";

/** Serve for the length of *body*; *answer* maps paths to texts or functions of the reply. */
async function serving(answer, body) {
  const asked = [];
  const server = createServer((request, reply) => {
    asked.push(request.url);
    const found = answer[request.url];
    if (typeof found === "function") found(reply, request);
    else if (found === undefined) reply.writeHead(404).end("no");
    else reply.end(found);
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  try {
    await body(`http://127.0.0.1:${server.address().port}${CAPSULE}`, asked);
  } finally {
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
  }
}

const honest = { [MANIFEST]: input.manifest, [CAPSULE]: input.capsule };
const options = { root, community: "mainnet", now: input.now };

const refuses = (answer, reason, more = {}) =>
  serving(answer, (url) =>
    assert.rejects(fetchCapsule(url, { ...options, ...more }), (error) => {
      assert.equal(error.reason, reason, String(error));
      assert.ok(error.state);
      return true;
    }),
  );

test("a published capsule is fetched and believed", () =>
  serving(honest, async (url, asked) => {
    const found = await fetchCapsule(url, options);
    assert.deepEqual(found.state, output.state);
    assert.deepEqual(found.tickets.map((ticket) => ticket.peerId), output.peers);
    assert.deepEqual(asked, [MANIFEST, CAPSULE]);
  }));

test("a pinned capsule needs no manifest", () =>
  serving({ [CAPSULE]: pin.capsule }, async (url, asked) => {
    const found = await fetchCapsule(url, { pinned: pin.pinned, now: pin.now });
    assert.equal(found.tickets.length, 2);
    assert.deepEqual(asked, [CAPSULE]);
  }));

test("what was learned is used the next time", async () => {
  const later = { [MANIFEST]: next.manifest, [CAPSULE]: next.capsule };
  let state;
  await serving(later, async (url) => {
    ({ state } = await fetchCapsule(url, { ...options, now: next.now }));
  });
  await refuses(honest, "ROLLBACK", { state, now: next.now });
});

test("a publisher that writes between our two reads is read again", () => {
  let written = false;
  const racing = {
    [MANIFEST]: (reply) => reply.end(written ? next.manifest : input.manifest),
    [CAPSULE]: (reply) => {
      written = true;
      reply.end(next.capsule);
    },
  };
  return serving(racing, async (url, asked) => {
    const found = await fetchCapsule(url, { ...options, now: next.now });
    assert.equal(found.manifest.sequence, next.now);
    assert.equal(asked.length, 4);
  });
});

test("mix-and-match: a capsule that never fits is refused", () =>
  refuses({ ...honest, [CAPSULE]: input.capsule.replace("peer-alice", "peer-malle") }, "HASH_MISMATCH"));

test("nothing there", () => refuses({}, "UNREACHABLE"));
test("a manifest without its capsule", () => refuses({ [MANIFEST]: input.manifest }, "UNREACHABLE"));
test("a page", () => refuses({ ...honest, [MANIFEST]: "<html></html>" }, "MALFORMED"));
test("no community", () => refuses(honest, "MALFORMED", { community: undefined }));
test("less than the manifest needs", () => refuses(honest, "TOO_LARGE", { maxBytes: 100 }));

test("nobody listens", async () => {
  let dead;
  await serving({}, async (url) => {
    dead = url;
  });
  await assert.rejects(fetchCapsule(dead, options), { reason: "UNREACHABLE" });
});

test("a redirect to itself", () =>
  refuses({ [MANIFEST]: (reply) => reply.writeHead(302, { location: MANIFEST }).end() }, "UNREACHABLE"));

test("slow retrieval: a server that hangs", () =>
  refuses({ [MANIFEST]: () => {} }, "TIMEOUT", { deadline: 200 }));

test("slow retrieval: a server that drips", () => {
  const drip = (reply) => {
    const timer = setInterval(() => reply.write(" "), 20);
    reply.on("close", () => clearInterval(timer));
  };
  return refuses({ [MANIFEST]: drip }, "TIMEOUT", { deadline: 300 });
});

test("slow retrieval: the body breaks off", () =>
  refuses(
    {
      [MANIFEST]: (reply) => {
        reply.writeHead(200, { "content-length": 1000 });
        reply.write("{");
        setImmediate(() => reply.destroy());
      },
    },
    "UNREACHABLE",
  ));

function endless(reply) {
  const chunk = Buffer.alloc(65536, " ");
  const write = () => {
    while (!reply.destroyed && reply.write(chunk));
  };
  reply.on("drain", write);
  write();
}

test("endless data: a manifest without end", () => refuses({ [MANIFEST]: endless }, "TOO_LARGE"));
test("endless data: a capsule without end", () =>
  refuses({ ...honest, [CAPSULE]: endless }, "TOO_LARGE"));

test("endless data: a gzip bomb", () => {
  const bomb = gzipSync(Buffer.alloc(64 << 20));
  return refuses(
    {
      [MANIFEST]: (reply) => reply.writeHead(200, { "content-encoding": "gzip" }).end(bomb),
    },
    "TOO_LARGE",
  );
});

test("a root that is no key", async () => {
  await assert.rejects(fetchCapsule("http://127.0.0.1:1/", { ...options, root: "x" }), {
    reason: "MALFORMED",
  });
  assert.throws(() => begin(""), { reason: "MALFORMED" });
});
