/**
 * The app: what is on the screen, the keys that work everywhere, and the worker that keeps it.
 * @module
 */
import { plainName } from "./model/names.js";
import { settings } from "./model/settings.js";
import * as session from "./model/session.js";
import { applyUpdate, register } from "./model/worker-client.js";
import { text } from "./text.js";
import { effect, html, render } from "./ui.js";
import { Dialogs } from "./view/dialogs.js";
import { Name } from "./view/parts.js";
import { Talk } from "./view/shell.js";
import { isDrawn, undraw } from "./view/sidebar.js";
import { Invited, Stopped, Welcome } from "./view/welcome.js";

/** @type {Record<string, () => any>} */
const SCREENS = {
  loading: () => html`<main class="welcome"><h1 class="hidden">${text.app}</h1><p role="status" class="lead">${text.loading}</p></main>`,
  welcome: Welcome,
  invited: Invited,
  talk: Talk,
  problem: Stopped,
};

const App = () => {
  const Screen = SCREENS[session.screen.value];
  return html`
    <${Screen} />
    <${Dialogs} />
    <div class="notes" role="status" aria-live="polite">
      ${session.notes.value.map(({ id, text: words, kind }) => html`
        <div key=${id} class=${`note ${kind}`}><${Name} class="grow">${words}<//><button class="quiet" aria-label=${text.close} onClick=${() => session.unnote(id)}>×</button></div>`)}
      ${session.update.value && html`
        <div class="note"><span class="grow">${text.update.title}</span><button class="primary" onClick=${applyUpdate}>${text.update.do}</button>
          <button class="quiet" onClick=${() => (session.update.value = false)}>${text.update.later}</button></div>`}
    </div>`;
};

/** @param {number} step */
const nextChannel = (step) => {
  const room = session.room.value;
  if (!room) return;
  const all = room.channels.value;
  if (!all.length) return; // they are being read
  const at = all.findIndex(({ id }) => id === room.channel.value);
  room.enter(all[(at + step + all.length) % all.length].id);
  session.address();
};

/** @type {Record<string, () => void>} */
const KEYS = {
  F1: () => (session.dialog.value = { name: "help" }),
  F2: () => (session.dialog.value = { name: "invite" }),
  F3: () => (session.dialog.value = { name: "settings" }),
  F4: () => document.querySelector(/** @type {"button"} */ (".call-bar button, .call-panel .controls button"))?.focus(),
  "Ctrl k": () => (session.dialog.value = { name: "search" }),
  "Alt ArrowUp": () => nextChannel(-1),
  "Alt ArrowDown": () => nextChannel(1),
};

addEventListener("keydown", (event) => {
  const { key, altKey, ctrlKey, metaKey } = event;
  const act = KEYS[`${ctrlKey || metaKey ? "Ctrl " : ""}${altKey ? "Alt " : ""}${key}`];
  if (act && session.screen.value !== "problem") {
    event.preventDefault();
    act();
  } else if (key === "Escape" && !session.dialog.value) {
    if (isDrawn.value) undraw();
    else document.getElementById("compose")?.focus();
  }
});

addEventListener("dragover", (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault());
addEventListener("drop", async (event) => {
  const room = session.room.value;
  const files = event.dataTransfer?.files;
  if (!room || !files?.length) return;
  event.preventDefault();
  try {
    if (!(await room.files.offer(files, room.channel.value))) session.note(text.files.nobody);
  } catch (error) {
    session.wrong(error);
  }
});

effect(() => {
  document.documentElement.dataset.theme = settings.theme.value;
});
effect(() => {
  const room = session.room.value;
  const unread = session.rooms.value.reduce((sum, { count }) => sum + count.value, 0);
  const place = room && session.screen.value === "talk" ? `#${plainName(room.here.value?.name ?? "")} · ${room.title.value} · ` : "";
  document.title = `${unread ? `(${text.unreadShort(unread)}) ` : ""}${place}${text.app}`;
  void (unread ? navigator.setAppBadge?.(unread) : navigator.clearAppBadge?.())?.catch(() => {});
});

const place = /** @type {HTMLElement} */ (document.getElementById("app"));
place.replaceChildren();
render(html`<${App} />`, place);
await session.start();
if (isSecureContext) void register({ onUpdate: () => (session.update.value = true) });
