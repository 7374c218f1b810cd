/**
 * What there is: circles, their channels, and oneself.
 * @module
 */
import { plainName } from "../model/names.js";
import * as session from "../model/session.js";
import { text } from "../text.js";
import { effect, html, signal } from "../ui.js";
import { Avatar, Icon, IconButton, Name } from "./parts.js";

/** @param {{count: number}} props */
const Badge = ({ count }) => count > 0 && html`<span class="badge" aria-hidden="true">${text.unreadShort(count)}</span><span class="hidden">, ${text.unread(count)}</span>`;

/** @type {Record<string, string>} */
const SIGNS = { public: "hash", key: "key", invite: "lock" };

/** Show a dialog. @param {string} name @param {any} [about] */
export const open = (name, about) => () => void (session.dialog.value = { name, about });

/** Whether the column is drawn over the rest, on a small screen. */
export const isDrawn = signal(false);
effect(() => void document.body.classList.toggle("nav-open", isDrawn.value));
matchMedia("(max-width: 45em)").addEventListener("change", () => (isDrawn.value = false));

export const draw = () => {
  isDrawn.value = true;
  requestAnimationFrame(() => document.querySelector(/** @type {"button"} */ ("#sidebar .only-small"))?.focus());
};
/** Back to where it was drawn from. */
export const undraw = () => {
  if (!isDrawn.value) return;
  isDrawn.value = false;
  requestAnimationFrame(() => document.querySelector(/** @type {"button"} */ (".head .only-small"))?.focus());
};

/** @param {{room: import("../model/room.js").Room}} props */
const Channels = ({ room }) => {
  const go = (/** @type {string} */ id) => () => {
    room.enter(id);
    session.address();
    undraw();
  };
  const shown = room.channel.value;
  return html`
    <nav aria-label=${text.channels}>
      <div class="list-head"><h2>${text.channels}</h2><${IconButton} icon="plus" label=${text.newChannel} onClick=${open("channel")} /></div>
      <ul class="list">
        ${room.channels.value.map((one) => {
          const unread = room.unread.value[one.id]?.length ?? 0;
          const call = room.calls.ongoing.value[one.id];
          return html`
            <li key=${one.id}>
              <button class=${`item ${unread ? "unread" : ""} ${one.isIn ? "" : "outside"}`} aria-current=${one.id === shown ? "page" : undefined} onClick=${go(one.id)}>
                <${Icon} name=${SIGNS[one.mode] ?? "hash"} />
                <span class="grow"><${Name}>${one.name}<//>${one.mode !== "public" && html`<span class="hidden">, ${text.modes[one.mode]}</span>`}</span>
                ${call && html`<${Icon} name="phone" />`}
                <${Badge} count=${unread} />
              </button>
            </li>`;
        })}
      </ul>
    </nav>`;
};

/** The column at the left; on a small screen it is drawn over the rest. */
export const Sidebar = () => {
  const room = session.room.value;
  const rooms = session.rooms.value;
  if (!room) return null;
  const state = room.state.value;
  const me = room.person(room.me.value.id, room.me.value.name);
  return html`
    <aside class="sidebar" id="sidebar">
      <header class="brand">
        <strong class="grow">${text.app}</strong>
        <${IconButton} icon="help" label=${text.dialogs.help.title} onClick=${open("help")} />
        <${IconButton} icon="close" label=${text.close} class="only-small" onClick=${undraw} />
      </header>
      <nav aria-label=${text.circles}>
        <div class="list-head"><h2>${text.circles}</h2><${IconButton} icon="plus" label=${text.newCircle} onClick=${open("create")} /></div>
        <ul class="list">
          ${rooms.map((one) => html`
            <li key=${one.id}>
              <button class="item circle" aria-current=${one === room ? "true" : undefined} onClick=${() => session.go(one.id)}>
                <${Avatar} id=${one.id} name=${one.title.value} small />
                <${Name} class="grow">${one.title}<//>
                ${one !== room && html`<${Badge} count=${one.count.value} />`}
              </button>
            </li>`)}
          ${session.others.value.map((one) => html`
            <li key=${one.id}>
              <button class="item circle" onClick=${() => session.go(one.id)}>
                <${Avatar} id=${one.id} name=${one.name} small />
                <${Name} class="grow">${plainName(one.name) || text.unnamed}<//>
              </button>
            </li>`)}
        </ul>
      </nav>
      <${Channels} room=${room} />
      <div class="grow"></div>
      <button class="invite-button" onClick=${open("invite")}><${Icon} name="share" />${text.inviteSomebody}</button>
      <footer class="me">
        <${Avatar} id=${me.id} name=${me.name} small />
        <button class="self grow" title=${text.stateLong(state, room.peers.value.length)} onClick=${open("settings")}>
          <${Name}>${me.name}<//> <span class=${`state ${state.state}`}><i></i>${text.states[state.state]}</span>
        </button>
        <${IconButton} icon="gear" label=${text.dialogs.settings.title} onClick=${open("settings")} />
      </footer>
    </aside>`;
};
