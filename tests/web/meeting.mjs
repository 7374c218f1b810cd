// The library's side of a meeting as a process, for a test in Python: messages of the link come and go with their
// length before them; what is here is told on standard error, a line of JSON whenever it has changed.
import { readFileSync } from "node:fs";

import { concat, readU32, u32, unb64 } from "../../web/muster/bytes.js";
import { Log } from "../../web/muster/log.js";
import { writeRecord } from "../../web/muster/seals.js";
import { openStore } from "../../web/muster/store.js";
import { Peer, member, said } from "./records.mjs";

const { circle, records } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const log = await Log.open(await openStore("meeting"), circle);
const peer = new Peer(log, circle);
const cleo = await member(circle);
const own = [];
for (let at = 0; at < 300; at += 1) own.push(await log.append(cleo, said(`page ${at}`)));
await log.take(await writeRecord(cleo, { ...said("fork"), seq: 5, prev: own[3].hash }));
await log.append(cleo, said("", { kind: "delete", body: { of: own[1].hash, seq: 2 } }));
for (const { text, signature } of records) await peer.take({ text: unb64(text), signature: unb64(signature) });

let presences = 0;
let told = "";
const tell = async () => {
  const here = [...log.records()].filter(({ text }) => text.length);
  const runs = Object.fromEntries([...(await log.runs())].map(([author, { first, last, hash, digest }]) => [author, [first, last, hash, digest]]));
  const line = JSON.stringify({ here: here.map(({ hash }) => hash).sort(), runs, missing: log.missing(), presences });
  if (line !== told) process.stderr.write(`${(told = line)}\n`);
};
setInterval(tell, 50);

peer.gossip.heard = (found) => (presences += found.length);
const tellPeers = peer.tell.bind(peer);
peer.tell = (rec) => {
  tellPeers(rec);
  if (rec.body.text === "say something") peer.say(cleo, "something");
};

const pieces = async function* () {
  let rest = new Uint8Array();
  for await (const data of process.stdin) {
    rest = concat(rest, data);
    for (let end; rest.length >= 4 && rest.length >= (end = 4 + readU32(rest)); rest = rest.slice(end)) yield rest.slice(4, end);
  }
};
const link = Object.assign(pieces(), {
  path: "webrtc",
  send: (data) => new Promise((resolve) => process.stdout.write(concat(u32(data.length), data), resolve)),
  abort: () => process.exit(0),
});
await peer.meet(link);
