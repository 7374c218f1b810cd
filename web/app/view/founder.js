/**
 * What a founder alone does: somebody is removed from the circle, and the founder's key is handed on; both are asked.
 * @module
 */
import { keyOf } from "../model/names.js";
import * as session from "../model/session.js";
import { text } from "../text.js";
import { html, useSignal } from "../ui.js";
import { Dialog, Name, useWork } from "./parts.js";

/** @typedef {import("../model/room.js").Room} Room */
/** @typedef {import("../model/names.js").Person} Person */

/** Devices of somebody beside this one. @param {Room} room @param {Person} person */
export const othersOf = (room, { devices }) => devices.filter((id) => id !== room.me.value.id);

/** Who else is in the circle, by name; oneself too, on another device. @param {Room} room */
const candidates = (room) =>
  [...new Map([...room.people.value.values()].map((one) => [one.id, one])).values()]
    .filter((one) => !one.out && othersOf(room, one).length).sort((a, b) => a.name.localeCompare(b.name));

/** Whether somebody is to be left out of the circle's next keys. @param {{room: Room, about: Person}} props */
export const Remove = ({ room, about }) => {
  const words = text.dialogs.remove;
  const devices = othersOf(room, about);
  const spared = useSignal(/** @type {string[]} */ (about.me && devices.length > 1 ? devices : []));
  const without = devices.filter((id) => !spared.value.includes(id));
  const { run, busy, wrong } = useWork(async () => {
    try {
      const { left, weak } = await room.circle.rekey({ without });
      session.note(left ? words.done(about.name, about.me) : words.doneLater(about.name, about.me));
      if (weak.length) session.note(words.weak(weak.map((id) => room.person(id).name)), "wrong");
    } catch (error) {
      throw /** @type {any} */ (error).reason === "UNREACHABLE" ? new TypeError(words.unread) : error;
    }
  });
  const spare = (/** @type {string} */ id) => (spared.value = spared.value.includes(id) ? spared.value.filter((one) => one !== id) : [...spared.value, id]);
  return html`
    <${Dialog} title=${html`<${Name}>${words.title(about.name, room.title.value, about.me)}<//>`}>
      <p><${Name}>${words.keys}<//></p>
      <p><${Name}>${about.me ? words.mine : words.reads(about.name)}<//></p>
      <p>${words.invites}</p>
      ${devices.length > 1 && html`
        <fieldset class="choices">
          <legend>${words.devices}</legend>
          ${devices.map((id) => html`
            <label class="check" key=${id}><input type="checkbox" checked=${!spared.value.includes(id)} onChange=${() => spare(id)} />
              ${words.device(keyOf(id), room.peers.value.some(({ member }) => member === id))}</label>`)}
        </fieldset>
        ${!about.me && spared.value.length > 0 && html`<p class="warning">${words.some}</p>`}`}
      ${wrong.value && html`<p class="wrong" role="alert">${wrong}</p>`}
      <div class="buttons"><button autofocus disabled=${busy} onClick=${() => void (session.dialog.value = null)}>${text.cancel}</button>
        <button class="danger" disabled=${busy.value || !without.length} onClick=${run}>${busy.value ? words.doing : words.do}</button></div>
    <//>`;
};

/** Who else is to have the founder's key. @param {{room: Room}} props */
export const HandOn = ({ room }) => {
  const words = text.dialogs.handOn;
  const all = candidates(room);
  const chosen = useSignal("");
  const person = all.find(({ id }) => id === chosen.value);
  const { run, busy, wrong } = useWork(async () => {
    if (!person) return;
    for (const id of othersOf(room, person)) await room.act("founder", id);
    session.note(words.done(person.name));
  });
  return html`
    <${Dialog} title=${html`<${Name}>${words.title(room.title.value)}<//>`}>
      <p>${words.lead}</p>
      ${all.length === 0 ? html`<p class="hint">${words.nobody}</p>` : html`
        <fieldset class="choices">
          <legend>${words.whom}</legend>
          ${all.map((one) => html`
            <label key=${one.id}><input type="radio" name="whom" checked=${one.id === chosen.value} onChange=${() => (chosen.value = one.id)} /> <${Name}>${one.me ? words.self(one.name) : one.name}<//></label>`)}
        </fieldset>`}
      ${person && !person.me && html`<p class="warning"><${Name}>${words.warning(person.name)}<//></p>`}
      ${wrong.value && html`<p class="wrong" role="alert">${wrong}</p>`}
      <div class="buttons"><button autofocus onClick=${() => void (session.dialog.value = null)}>${text.cancel}</button>
        <button class="danger" disabled=${busy.value || !person} onClick=${run}><${Name}>${person ? words.do(person.name) : words.doNobody}<//></button></div>
    <//>`;
};
