/**
 * The whole screen of somebody who is in: circles and channels, what is said, who is here.
 * @module
 */
import { recall, remember } from "../model/settings.js";
import * as session from "../model/session.js";
import { text } from "../text.js";
import { html, signal } from "../ui.js";
import { CallBar, CallPanel, IncomingCall } from "./call.js";
import { Composer } from "./composer.js";
import { Log } from "./log.js";
import { Icon, IconButton, Name } from "./parts.js";
import { People } from "./people.js";
import { Sidebar, draw, isDrawn, open, undraw } from "./sidebar.js";

/** Where people are drawn over the talk, they are shown when that is asked for. */
const isNarrow = matchMedia("(max-width: 62.5em)");
const showsPeople = signal(!isNarrow.matches && recall("people", true));
isNarrow.addEventListener("change", () => (showsPeople.value = !isNarrow.matches && recall("people", true)));

const togglePeople = () => {
  showsPeople.value = !showsPeople.value;
  if (!isNarrow.matches) remember("people", showsPeople.value);
};

/** @param {{room: import("../model/room.js").Room}} props */
const Head = ({ room }) => {
  const here = room.here.value;
  const there = room.peers.value.length;
  return html`
    <header class="head">
      <${IconButton} icon="menu" label=${text.menu} class="only-small" aria-controls="sidebar" aria-expanded=${isDrawn} onClick=${draw} />
      <div class="place">
        <h1><button title=${text.dialogs.about.open} onClick=${open("about")}>#<${Name}>${here?.name ?? ""}<//></button></h1>
        <p class="topic"><${Name}>${here?.topic || text.modes[here?.mode ?? "public"]}<//></p>
      </div>
      <${CallBar} room=${room} />
      <${IconButton} icon="search" label=${text.dialogs.search.title(here?.name ?? "")} onClick=${open("search")} />
      <button class="icon-button count" aria-expanded=${showsPeople} aria-controls=${showsPeople.value ? "people" : undefined} aria-label=${`${text.people}, ${text.peoplePanel.here(there + 1)}`}
        title=${text.people} onClick=${togglePeople}><${Icon} name="people" /><span>${there + 1}</span></button>
    </header>`;
};

/** What is wrong now, in words, with what to do. @param {{room: import("../model/room.js").Room}} props */
const Banner = ({ room }) => {
  const state = room.state.value;
  const troubles = room.troubles.value;
  const isDown = state.state === "offline";
  return html`
    <div role="status">
      ${isDown && html`<div class="banner"><${Icon} name="cloud" /><span class="grow">${text.stateLong(state, room.peers.value.length)}</span></div>`}
      ${troubles.map(({ reason, message }) => html`
        <div class="banner wrong" key=${reason}><${Icon} name="info" /><span class="grow">${text.problems.of(reason) ?? text.reason({ reason, message })}</span>
          <button class="quiet" onClick=${() => room.dismiss(reason)}>${text.problems.dismiss}</button></div>`)}
      ${session.closed.value.map(({ id, name, why }) => html`<div class="banner wrong" key=${id}><${Icon} name="info" /><span class="grow"><bdi>${text.problems.closed(name, why)}</bdi></span></div>`)}
    </div>`;
};

/** Somebody is in. */
export const Talk = () => {
  const room = session.room.value;
  if (!room) return null;
  return html`
    <div class=${`shell ${showsPeople.value ? "with-people" : ""}`}>
      <a class="skip" href="#log" onClick=${(event) => (event.preventDefault(), document.getElementById("log")?.focus())}>${text.skip}</a>
      <${Sidebar} />
      <button class="veil" tabindex="-1" aria-hidden="true" onClick=${undraw}></button>
      <main class="talk" key=${room.id} inert=${isDrawn}>
        <${Head} room=${room} />
        <${Banner} room=${room} />
        <${CallPanel} room=${room} />
        <${Log} room=${room} />
        <${Composer} room=${room} />
      </main>
      ${showsPeople.value && html`<${People} room=${room} />`}
      ${session.rooms.value.map((one) => html`<${IncomingCall} key=${one.id} room=${one} />`)}
    </div>`;
};
