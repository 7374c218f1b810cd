/**
 * Who is in the circle, who is here now, and by what path.
 * @module
 */
import { canCall } from "../model/call.js";
import { skeleton } from "../model/names.js";
import { wrong } from "../model/session.js";
import { callText, text } from "../text.js";
import { html } from "../ui.js";
import { Avatar, Icon, IconButton, Name } from "./parts.js";
import { othersOf } from "./founder.js";
import { open } from "./sidebar.js";

/** @type {Record<string, string>} */
const SIGNS = { webrtc: "direct", relay: "cloud", none: "cloud" };
const BEST = ["webrtc", "relay", "none"];
const MOST = 300;
/** A name without the key that tells it from another. @param {string} name */
const bare = (name) => name.replace(/ \([0-9a-f]{6}\)$/, "");

/** @param {{room: import("../model/room.js").Room}} props */
export const People = ({ room }) => {
  const here = room.here.value;
  const all = [...new Map([...room.people.value.values()].map((one) => [one.id, one])).values()];
  const { founder, out } = room.me.value;
  const withPath = all.filter((one) => !one.out || one.me).map((person) => {
    const nodes = room.nodesOf(person);
    return { person, path: person.me ? "me" : (BEST.find((path) => nodes.some((one) => one.path === path)) ?? "away"), nodes };
  });
  withPath.sort((a, b) => Number(b.path === "me") - Number(a.path === "me") || a.person.name.localeCompare(b.person.name));
  const there = withPath.filter(({ path }) => path !== "away");
  const away = withPath.filter(({ path }) => path === "away");
  const isPrivate = here && here.mode === "invite" && here.manages;
  const row = ({ person, path, nodes }) => {
    const isIn = person.devices.some((/** @type {string} */ id) => here?.members.includes(id));
    const cannotCall = nodes.length > 0 && path !== "me" && !nodes.some(canCall);
    const isReader = nodes.some(({ member }) => room.mayRead(member));
    const asksIn = person.devices.some((/** @type {string} */ id) => here?.asking.includes(id));
    return html`
      <li key=${person.id} class="person">
        <${Avatar} id=${person.id} name=${person.name} small there=${path !== "away"} />
        <div class="grow">
          <${Name}>${person.name}<//>
          <span class="path">${SIGNS[path] && html`<${Icon} name=${SIGNS[path]} />`}${text.paths[path]}${person.devices.length > 1 ? `, ${text.peoplePanel.devices(person.devices.length)}` : ""}${asksIn ? `, ${text.peoplePanel.asks}` : ""}${person.asks ? `, ${text.peoplePanel.asksSame}` : ""}${cannotCall ? `, ${callText.unable}` : ""}</span>
        </div>
        ${!person.me && (person.asks || skeleton(bare(person.name)) === skeleton(room.me.value.name)) && html`
          <${IconButton} icon="same" class=${person.asks ? "wanted" : ""} label=${`${person.asks ? text.peoplePanel.asksSame : text.peoplePanel.same}: ${person.name}`} onClick=${open("same", person)} />`}
        ${!cannotCall && nodes.length > 0 && path !== "me" && !room.calls.mine.value && isReader && html`<${IconButton} icon="phone" label=${callText.ring(person.name, here?.name ?? "")}
          onClick=${() => room.calls.start(room.channel.value, "audio", { ring: person.devices }).catch(wrong)} />`}
        ${isPrivate && !person.me && (isIn
          ? html`<${IconButton} icon="close" label=${`${text.peoplePanel.remove}: ${person.name}`} onClick=${open("shut", { person })} />`
          : html`<button class="quiet" aria-label=${`${text.peoplePanel.letIn}: ${person.name}`} onClick=${() => room.act("invite", here.id, person.id).catch(wrong)}>${text.dialogs.about.letIn}</button>`)}
        ${founder && !out && othersOf(room, person).length > 0 && html`
          <${IconButton} icon="bin" label=${person.me ? text.peoplePanel.outDevice : text.peoplePanel.out(person.name)} onClick=${open("remove", person)} />`}
      </li>`;
  };
  return html`
    <aside class="people" id="people" aria-label=${text.people}>
      <h2>${text.peoplePanel.here(there.length)}</h2>
      <ul class="list">${there.slice(0, MOST).map(row)}</ul>
      ${away.length > 0 && html`<h2>${text.peoplePanel.away(away.length)}</h2><ul class="list away">${away.slice(0, MOST).map(row)}</ul>`}
    </aside>`;
};
