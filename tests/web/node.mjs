// A node of the browser library as a process: signals and frames go by lines of JSON, to a test in Python.
import { createInterface } from "node:readline";

import { b64, hex, unb64, utf8 } from "../../web/muster/bytes.js";
import { sha256 } from "../../web/muster/crypto.js";
import { Links } from "../../web/muster/links.js";
import { Pipes } from "../../web/muster/pipes.js";

const [, , mine, other, opens] = process.argv;
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const links = new Links({
  nodeId: () => mine,
  signal: async (to, session, kind, body) => {
    const signal = { to, session, kind, body, at_ms: Date.now() };
    const text = utf8(JSON.stringify(signal));
    say({ signal, text: b64(text) });
    return text;
  },
  frame: async (to, payload) => say({ to, payload: b64(payload) }),
  ice: async () => [],
  now: Date.now,
});
const pipes = new Pipes({ links });
links.addEventListener("link", ({ detail }) => pipes.attach(detail.link));

// What comes is sent back: a file as the file that it was.
pipes.addEventListener("message", async ({ detail: { name, from, data } }) => {
  if (data instanceof Blob) {
    const digest = hex(await sha256(new Uint8Array(await data.arrayBuffer())));
    await pipes.send("seen", { name: data.name, size: data.size, digest }, { to: from });
  }
  await pipes.send(name, data, { to: from });
  if (name === "end") await links.close().then(() => process.exit(0));
});

createInterface({ input: process.stdin }).on("line", (line) => {
  const { signal, text, payload } = JSON.parse(line);
  if (signal) links.signalled({ ...signal, node: other }, unb64(text));
  else links.passed(other, unb64(payload));
});

if (opens) pipes.send("hello", "from a page", { to: other });
