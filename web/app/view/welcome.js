/**
 * Before one is in a circle: make one, or go in by an invite; and what stops everything.
 * @module
 */
import { readInvite, readService } from "../library.js";
import { plainName } from "../model/names.js";
import { isName, settings } from "../model/settings.js";
import * as session from "../model/session.js";
import { text } from "../text.js";
import { html, useSignal } from "../ui.js";
import { Dialog, Field, Icon, Name, closeDialog } from "./parts.js";
import { undraw } from "./sidebar.js";

/** A name without what stands around it; whoever reads it learns what is wrong with it. @param {string} typed */
const named = (typed) => {
  const name = typed.trim();
  if (!plainName(name)) throw new TypeError(text.nameMissing);
  if (!isName(name)) throw new TypeError(text.nameTooLong);
  return name;
};

/** The ring of people that stands for a circle. */
const Ring = () => html`<img class="ring" src="./icon.svg" alt="" width="72" height="72" />`;

/** @param {{children?: any}} props */
const Sheet = ({ children }) => html`<main class="welcome"><div class="sheet">${children}</div></main>`;

/** What may stand instead of a service's own address: nothing, where this page came from an open one. @param {string} given */
const servicesOf = async (given) => {
  if (given.trim()) {
    const { url, code } = readService(given); // says what is wrong with it
    if (!code && (await session.isClosed(url))) throw new TypeError(text.welcome.closedHint);
    return [given.trim()];
  }
  const home = await session.answeredHome();
  if (!home) throw new TypeError(text.welcome.serviceHint);
  if (!home.open) throw new TypeError(text.welcome.closedHint);
  return [`${home.url}#${home.id}`];
};

/** The form that makes a circle. @param {{name?: string}} props */
export const Create = ({ name: given = "" }) => {
  const circle = useSignal(given), name = useSignal(settings.name.value), service = useSignal("");
  const busy = useSignal(false), wrong = useSignal("");
  const home = session.home.value;
  const needsService = home !== undefined && !home?.open;
  const make = async (/** @type {Event} */ event) => {
    event.preventDefault();
    busy.value = true;
    wrong.value = "";
    try {
      await session.create({ name: named(name.value), circle: named(circle.value), services: await servicesOf(service.value) });
      closeDialog();
      undraw();
    } catch (error) {
      wrong.value = error instanceof TypeError ? error.message : text.reason(error);
    }
    busy.value = false;
  };
  return html`
    <form class="form" onSubmit=${make}>
      <${Field} label=${text.welcome.circleName} placeholder=${text.welcome.circleExample} value=${circle} required maxlength="64" autofocus
        onInput=${(event) => (circle.value = event.target.value)} />
      <${Field} label=${text.welcome.yourName} hint=${text.welcome.nameHint} value=${name} required maxlength="64" name="nickname" autocomplete="nickname"
        onInput=${(event) => (name.value = event.target.value)} />
      ${needsService && html`<${Field} label=${text.welcome.service} hint=${home ? text.welcome.closedHint : text.welcome.serviceHint} value=${service}
        required inputmode="url" spellcheck="false" onInput=${(event) => (service.value = event.target.value)} />`}
      ${wrong.value && html`<p class="wrong" role="alert">${wrong}</p>`}
      <button class="primary" disabled=${busy}>${busy.value ? text.welcome.creating : text.welcome.make}</button>
    </form>`;
};

/** The form that takes an invite. */
export const Paste = () => {
  const link = useSignal(""), wrong = useSignal("");
  const open = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      await readInvite(link.value.trim());
    } catch (error) {
      const { title, advice, detail } = text.problems.invite(error);
      wrong.value = [`${title}.`, advice, detail].join(" ");
      return;
    }
    closeDialog();
    undraw();
    void session.openInvite(link.value.trim());
  };
  return html`
    <form class="form" onSubmit=${open}>
      <${Field} label=${text.welcome.pasteLabel} hint=${text.welcome.pasteHint} value=${link} required autofocus inputmode="url" spellcheck="false" wrong=${wrong.value}
        onInput=${(event) => (link.value = event.target.value)} />
      <button class="primary">${text.welcome.open}</button>
    </form>`;
};

/** Make one, paste one, or bring them from another device. */
export const Ways = ({ name = "" }) => {
  const chosen = useSignal(name && "make");
  const choose = (/** @type {string} */ way) => () => (chosen.value = way);
  if (chosen.value) {
    return html`
      ${chosen.value === "make" ? html`<${Create} name=${name} />` : html`<${Paste} />`}
      <button class="quiet" onClick=${choose("")}><${Icon} name="back" />${text.back}</button>`;
  }
  return html`
    <div class="ways">
      <button class="primary" onClick=${choose("make")}><${Icon} name="plus" />${text.welcome.make}</button>
      <button onClick=${choose("paste")}><${Icon} name="share" />${text.welcome.paste}</button>
      <button class="quiet" onClick=${() => (session.dialog.value = { name: "bring" })}>${text.welcome.bring}</button>
    </div>`;
};

/** The first visit. */
export const Welcome = () => html`
  <${Sheet}>
    <${Ring} />
    <h1>${text.welcome.title}</h1>
    <p class="lead">${text.welcome.lead}</p>
    <${Ways} />
    <p class="hint">${text.welcome.terms}</p>
  <//>`;

/** An invite was opened: a name, and one is in. */
export const Invited = () => {
  const name = useSignal(settings.name.value), busy = useSignal(false), wrong = useSignal("");
  const invite = session.invited.value;
  const join = async (/** @type {Event} */ event) => {
    event.preventDefault();
    busy.value = true;
    wrong.value = "";
    try {
      await session.join(named(name.value));
    } catch (error) {
      wrong.value = error instanceof TypeError ? error.message : text.reason(error);
      busy.value = false;
    }
  };
  return html`
    <${Sheet}>
      <${Ring} />
      <h1><${Name}>${text.invited.title(plainName(invite?.name ?? ""))}<//></h1>
      <p class="lead">${invite?.isIn ? text.invited.more : text.invited.lead}</p>
      <form class="form" onSubmit=${join}>
        <${Field} label=${text.welcome.yourName} hint=${text.welcome.nameHint} value=${name} required maxlength="64" autofocus name="nickname" autocomplete="nickname"
          onInput=${(event) => (name.value = event.target.value)} />
        ${wrong.value && html`<p class="wrong" role="alert">${wrong}</p>`}
        <button class="primary" disabled=${busy}>${busy.value ? text.invited.going : text.invited.go}</button>
      </form>
      ${session.rooms.value.length > 0 && html`<button class="quiet" onClick=${() => (session.screen.value = "talk")}><${Icon} name="back" />${text.back}</button>`}
      <p class="hint">${invite?.service && html`<span>${text.invited.at(invite.service)}. </span>`}${!invite?.isIn && text.invited.again}</p>
    <//>`;
};

/** What stops everything, in words, with what to do. */
export const Stopped = () => {
  const { title = "", advice = "", detail = "" } = session.problem.value ?? {};
  const begin = () => {
    session.problem.value = null;
    session.screen.value = session.rooms.value.length ? "talk" : "welcome";
  };
  return html`
    <${Sheet}>
      <${Ring} />
      <h1>${title}</h1>
      <p class="lead">${advice}</p>
      ${detail && html`<p class="hint">${detail}</p>`}
      ${isSecureContext && html`<button class="primary" onClick=${begin}>${text.problems.start}</button>`}
    <//>`;
};

/** Another circle, in a dialog. @param {{name: string}} props */
export const CreateDialog = ({ name }) => html`
  <${Dialog} title=${text.dialogs.create.title}><${Ways} name=${name} /><//>`;
