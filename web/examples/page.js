/**
 * What the examples share around their ten lines: a form to go in, who is there, and the link for others.
 * Nothing of it is needed to use the library.
 */

const find = (selector) => document.querySelector(selector);
const profile = new URLSearchParams(location.search).get("profile") ?? "default";

addEventListener("hashchange", () => location.reload()); // another link was pasted

/** A colour for a member, the same on all screens. */
export const hue = (member = "") => parseInt(member.slice(0, 6), 16) % 360 || 0;

/** Make an element: its text is text, whatever others write in it. @param {string} name @param {any} [how] @param {Node[]} children */
export const element = (name, { text = "", ...more } = {}, ...children) => {
  const made = Object.assign(document.createElement(name), { textContent: text, ...more });
  made.append(...children);
  return made;
};

/**
 * Ask for a name, and for a service if no invite is in the address bar; then go in, and show who is there.
 * @param {(how: {invite: string, name: string, services: string[], profile: string}) => Promise<import("../muster/index.js").Circle>} go
 */
export const enter = async (go) => {
  const form = find("#enter");
  const { name, service } = form.elements;
  const invite = location.hash;
  name.value = localStorage.getItem(`name ${profile}`) ?? "";
  service.closest("label").hidden = service.disabled = Boolean(invite);
  const again = invite && name.value;
  form.hidden = Boolean(again);
  for (let first = again; ; first = false) {
    if (!first) await new Promise((resolve) => (form.onsubmit = (event) => resolve(event.preventDefault())));
    try {
      form.inert = true;
      const circle = await go({ invite, name: name.value, services: [service.value.trim()], profile });
      localStorage.setItem(`name ${profile}`, name.value);
      form.hidden = true;
      frame(circle);
      return circle;
    } catch (error) {
      form.hidden = form.inert = false;
      find("#refused").textContent = plain(error);
    }
  }
};

/** Show the circle around the example: its state, who is there and by what path, and how to get in. */
const frame = (circle) => {
  history.replaceState(null, "", "#" + circle.invite().split("#").pop());
  find("#link").value = location.href;
  find("#copy").onclick = async ({ target }) => {
    await navigator.clipboard.writeText(location.href);
    target.textContent = "Copied";
  };
  find("#another").href = `?profile=${crypto.randomUUID()}${location.hash}`;

  const people = () => {
    const there = [...circle.peers.values()].sort((a, b) => a.name.localeCompare(b.name));
    find("#people").replaceChildren(person(circle.me.id, `${circle.me.name} (you)`), ...there.map((peer) => person(peer.member, peer.name, peer.path)));
    document.body.classList.toggle("alone", !there.length);
  };
  const person = (member, name, path = "") => {
    const chip = element("li", { text: name || "somebody", title: PATHS[path] ?? "", className: path });
    chip.style.setProperty("--hue", hue(member));
    return chip;
  };
  const state = () => {
    const { state, why } = circle.state;
    find("#state").className = state;
    find("#state").textContent = why && state !== "connecting" ? `${state}: ${why}` : state;
  };
  for (const type of ["peer", "left"]) circle.addEventListener(type, people);
  circle.addEventListener("state", state);
  circle.addEventListener("error", ({ detail }) => (find("#trouble").textContent = plain(detail)));
  people();
  state();
  document.body.classList.add("in");
};

/** What went wrong, without the word for programs before it. */
const plain = ({ reason, message }) => message.replace(`${reason}: `, "");

const PATHS = { webrtc: "direct", relay: "by the service", none: "not reached yet" };
