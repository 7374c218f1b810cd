import { Community } from "../../muster/bootstrap/index.js";

const find = (selector) => document.querySelector(selector);
const query = new URLSearchParams(location.search);
const form = find("#enter");
for (const name of ["capsule", "beacon", "community"]) form.elements[name].value = query.get(name) ?? "";

/** Make an element: its text is text, whatever others write in it. */
const element = (name, text, ...children) => {
  const made = document.createElement(name);
  made.textContent = text;
  made.append(...children);
  return made;
};

const join = async () => {
  const [capsule, beacon, name] = ["capsule", "beacon", "community"].map((field) => form.elements[field].value.trim());
  const community = await Community.join(capsule || [], {
    beacons: beacon ? [beacon] : [],
    community: name || undefined,
    profile: query.get("profile") ?? "default",
  });
  community.addEventListener("peer", () => show(community));
  community.addEventListener("left", () => show(community));
  community.addEventListener("source", () => show(community));
  community.addEventListener("error", ({ detail }) => (find("#trouble").textContent = detail.message));
  find("#add").addEventListener("submit", (event) => {
    event.preventDefault();
    community.addPeer(event.target.elements.peer.value);
    event.target.reset();
  });
  form.querySelector("button").disabled = true;
  find("main").hidden = false;
  find("#me").textContent = community.peerId;
};

const show = (community) => {
  const { firstPeerMs, sources } = community.diagnostics();
  find("#first").textContent = firstPeerMs ?? "…";
  const from = (peer) => ` from ${peer.sources.join(", ")}${peer.vouched ? ", vouched for" : ""}`;
  find("#peers").replaceChildren(
    ...[...community.peers.values()].map((peer) => element("li", "", element("code", peer.peerId), from(peer))),
  );
  find("#sources").replaceChildren(
    ...sources.map(({ kind, url, ok, reason, message, successes, failures, averageMs }) => {
      const last = element("td", ok ? "ok" : reason);
      last.title = message;
      return element("tr", "", element("td", kind === url ? kind : `${kind} ${url}`), last, ...[successes, failures, averageMs].map((cell) => element("td", cell)));
    }),
  );
};

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  find("#trouble").textContent = "";
  await join().catch((error) => (find("#trouble").textContent = error.message));
});
if (query.has("capsule") || query.has("beacon")) form.requestSubmit();
