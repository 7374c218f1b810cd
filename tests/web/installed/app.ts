// The ten lines of docs/web.md, as somebody with strict types writes them: test_package.py compiles it.
import { Circle, type Pipe } from "muster-circles";
import { Community } from "muster-circles/bootstrap";

const circle: Circle = await Circle.join(location.hash, { name: "Ada" });
circle.addEventListener("state", ({ detail }) => document.title = `${detail.state} ${detail.why}`);
circle.addEventListener("peer", ({ detail: peer }) => draw(peer.id, peer.name, peer.path));
circle.addEventListener("left", ({ detail: peer }) => console.log(peer.id.length), { once: true });
const cursor: Pipe = circle.pipe("cursor", { reliable: false });
await cursor.send([1, 2], { progress: (sent, size) => console.log(sent / size) });
cursor.addEventListener("message", ({ detail: { from, data } }) => console.log(from.id.length, data));
await circle.post("general", "dinner at eight?");
for await (const message of circle.messages("general")) console.log(message.author.name.length, message.text);
const invite: string = circle.invite();
const community: Community = await Community.join(invite);
await circle.leave();

function draw(id: string, name: string, path: "webrtc" | "relay" | "none") { console.log(id, name, path); }

// @ts-expect-error a name is a text
await Circle.join("", { name: 7 });
// @ts-expect-error there is no such member
circle.nonsense();
console.log(community);
