import { Circle } from "../../muster/index.js";
import { element, enter } from "../page.js";

const circle = await enter(({ invite, ...options }) => (invite ? Circle.join(invite, options) : Circle.create(options)));
const files = circle.pipe("files");
const drop = document.querySelector("#drop");
const list = document.querySelector("#list");

const send = async (file, peer) => {
  const bar = element("progress", { max: file.size || 1, value: 0 });
  const says = element("span", { className: "faint", text: `to ${peer.name}` });
  const row = element("li", {}, element("strong", { text: file.name }), says, bar);
  const ends = new AbortController();
  const say = (type, text) =>
    circle.addEventListener(type, ({ detail }) => detail.id === peer.id && (says.textContent = text), { signal: ends.signal });
  say("left", `${peer.name} is away: it goes on when they are back`);
  say("peer", `to ${peer.name}`);
  list.prepend(row);
  try {
    await files.send(file, { to: peer, progress: (sent) => (bar.value = sent) });
    says.textContent = `${peer.name} has it`;
    row.className = "done";
  } catch (error) {
    says.textContent = `${peer.name} did not get it: ${error.message}`;
    row.className = "done wrong";
  }
  ends.abort();
};

files.addEventListener("message", ({ detail: { from, data } }) => {
  if (!(data instanceof File)) return;
  const name = data.name || "unnamed";
  const link = element("a", { text: name, href: URL.createObjectURL(data), download: name });
  list.prepend(element("li", { className: "come" }, link, element("span", { className: "faint", text: `${size(data.size)} from ${from.name}` })));
});

const sendAll = (chosen) => {
  for (const file of chosen) for (const peer of circle.peers.values()) send(file, peer);
};

const size = (bytes) =>
  bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;

document.querySelector("#choose").onchange = ({ target }) => {
  sendAll(target.files);
  target.value = "";
};
for (const [type, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  drop.addEventListener(type, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", over);
    if (type === "drop") sendAll(event.dataTransfer.files);
  });
}
