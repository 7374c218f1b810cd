/**
 * What opens over the talk: invite, channel, settings, search, help, and what is asked twice.
 * @module
 */
import { keyOf } from "../model/names.js";
import { askPermission, permission } from "../model/notices.js";
import { GENERAL } from "../model/room.js";
import { settings } from "../model/settings.js";
import * as session from "../model/session.js";
import { text } from "../text.js";
import { html, signal, useEffect, useRef, useSignal } from "../ui.js";
import { correction, generate, toSvgPath } from "../vendor/qr.js";
import { readService } from "../library.js";
import { Avatar, Dialog, Field, Icon, IconButton, Name, closeDialog, save, useWork } from "./parts.js";
import { HandOn, Remove } from "./founder.js";
import { jump } from "./log.js";
import { open, undraw } from "./sidebar.js";
import { words } from "./words.js";
import { CreateDialog } from "./welcome.js";

/** @typedef {import("../model/room.js").Room} Room */

/** @param {Event} event */
const stay = (event) => event.preventDefault();

/** Another channel is shown: on a small screen it is behind the column that the dialog was opened from. */
const toChannel = () => {
  closeDialog();
  undraw();
};

/** @param {{link: string}} props */
const Code = ({ link }) => {
  const code = generate(link, { minCorrectionLevel: correction.L });
  const size = code.size + 8;
  return html`
    <svg class="qr" viewBox=${`0 0 ${size} ${size}`} role="img" aria-label=${text.dialogs.invite.qr}>
      <rect width=${size} height=${size} fill="#fff" /><path d=${toSvgPath(code)} transform="translate(4 4)" fill="#000" />
    </svg>`;
};

/** @param {{room: Room}} props */
const Invite = ({ room }) => {
  const copied = useSignal(false);
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  const link = room.circle.invite();
  const isLink = /^https?:/.test(link);
  const isLocal = isLink && /^(localhost|127\.|\[::1\])/.test(new URL(link).host);
  const copy = async () => {
    field.current?.select();
    try {
      await navigator.clipboard.writeText(link);
    } catch {
      document.execCommand("copy"); // no permission: what is selected is copied
    }
    copied.value = true;
  };
  const share = () => navigator.share({ title: text.dialogs.invite.title(room.title.value), url: link }).catch(session.wrong);
  return html`
    <${Dialog} title=${html`<${Name}>${text.dialogs.invite.title(room.title.value)}<//>`}>
      <p>${text.dialogs.invite.lead}</p>
      ${room.me.value.out && html`<p class="warning">${text.dialogs.invite.out}</p>`}
      ${!isLink && html`<p class="warning">${text.dialogs.invite.noService}</p>`}
      ${isLocal && html`<p class="warning">${text.dialogs.invite.local}</p>`}
      <${Code} link=${link} />
      <div class="field"><label for="invite-link">${text.dialogs.invite.link}</label><input id="invite-link" ref=${field} readonly value=${link} onFocus=${(event) => event.target.select()} /></div>
      <div class="buttons">
        <button class="primary" onClick=${copy}><${Icon} name=${copied.value ? "check" : "copy"} />${copied.value ? text.dialogs.invite.copied : text.dialogs.invite.copy}</button>
        ${typeof navigator.share === "function" && html`<button onClick=${share}><${Icon} name="share" />${text.dialogs.invite.share}</button>`}
      </div>
      <span class="hidden" role="status">${copied.value && text.dialogs.invite.copied}</span>
    <//>`;
};

/** @param {{room: Room}} props */
const NewChannel = ({ room }) => {
  const name = useSignal(""), mode = useSignal("public"), passphrase = useSignal("");
  const { run, busy, wrong } = useWork(async () => {
    const { channel } = await room.act("create", name.value.trim(), mode.value, mode.value === "key" ? passphrase.value : undefined);
    room.enter(channel);
    session.address();
  }, toChannel);
  return html`
    <${Dialog} title=${text.dialogs.channel.title}>
      <form class="form" onSubmit=${run}>
        <${Field} label=${text.dialogs.channel.name} value=${name} required maxlength="64" autofocus onInput=${(event) => (name.value = event.target.value)} />
        <fieldset class="choices">
          <legend>${text.dialogs.channel.who}</legend>
          ${Object.keys(text.modes).map((one) => html`
            <label key=${one}><input type="radio" name="mode" checked=${mode.value === one} onChange=${() => (mode.value = one)} />
              <span><strong>${text.modes[one]}</strong><span class="hint">${text.modesLong[one]}</span></span></label>`)}
        </fieldset>
        ${mode.value === "key" && html`<${Field} label=${text.dialogs.channel.passphrase} type="password" value=${passphrase} required minlength="8" autocomplete="new-password" onInput=${(event) => (passphrase.value = event.target.value)} />`}
        ${wrong.value && html`<p class="wrong" role="alert">${wrong}</p>`}
        <button class="primary" disabled=${busy}>${text.dialogs.channel.make}</button>
      </form>
      <button class="quiet" onClick=${() => (session.dialog.value = { name: "unlock" })}>${text.dialogs.channel.unlockTitle}</button>
    <//>`;
};

/** A channel's name is closed to who has no key of it: then it is typed. @param {{room: Room, about?: import("../model/room.js").Channel}} props */
const Unlock = ({ room, about }) => {
  const name = useSignal(""), passphrase = useSignal("");
  const { run, busy, wrong } = useWork(async () => {
    const { channel } = await room.act("unlock", about?.id ?? name.value.trim(), passphrase.value);
    room.enter(channel);
    session.address();
  }, toChannel);
  return html`
    <${Dialog} title=${text.dialogs.channel.unlockTitle}>
      <form class="form" onSubmit=${run}>
        ${about
          ? html`<p><strong>#<${Name}>${about.name}<//></strong></p>`
          : html`<${Field} label=${text.dialogs.channel.name} hint=${text.dialogs.channel.unlockHint} value=${name} required autofocus onInput=${(event) => (name.value = event.target.value)} />`}
        <${Field} label=${text.dialogs.channel.passphrase} type="password" value=${passphrase} required autofocus=${Boolean(about)} autocomplete="current-password" onInput=${(event) => (passphrase.value = event.target.value)} />
        ${wrong.value && html`<p class="wrong" role="alert">${wrong}</p>`}
        <button class="primary" disabled=${busy}>${text.dialogs.channel.unlock}</button>
      </form>
    <//>`;
};

/** @param {{room: Room}} props */
const AboutChannel = ({ room }) => {
  const here = room.here.value;
  const topic = useSignal(here?.topic ?? ""), name = useSignal(here?.name ?? ""), passphrase = useSignal("");
  const { run, busy, wrong } = useWork(async () => {
    if (!here) return;
    if (topic.value !== here.topic) await room.act("topic", here.id, topic.value);
    if (name.value !== here.name) await room.act("rename", here.id, name.value.trim());
  });
  if (!here) return null;
  const isGeneral = here.id === GENERAL;
  const member = (/** @type {string} */ id) => room.person(id);
  const once = (/** @type {string[]} */ ids) => [...new Map(ids.map((id) => [member(id).id, member(id)])).values()];
  const remove = (/** @type {any} */ person) => void (session.dialog.value = { name: "shut", about: { person, passphrase: here.mode === "key" ? passphrase.value : undefined } });
  return html`
    <${Dialog} title=${html`<${Name}>${text.dialogs.about.title(here.name)}<//>`}>
      <p>${text.modesLong[here.mode]} ${here.manages && text.dialogs.about.manage}</p>
      <p class="hint">${text.kept(here.days)}</p>
      ${here.manages && !isGeneral
        ? html`<form class="form" onSubmit=${run}>
            <${Field} label=${text.dialogs.about.name} value=${name} required maxlength="64" onInput=${(event) => (name.value = event.target.value)} />
            <${Field} label=${text.dialogs.about.topic} value=${topic} maxlength="512" onInput=${(event) => (topic.value = event.target.value)} />
            ${wrong.value && html`<p class="wrong" role="alert">${wrong}</p>`}
            <button class="primary" disabled=${busy}>${text.dialogs.about.save}</button>
          </form>`
        : html`<p><bdi>${here.topic || text.dialogs.about.noTopic}</bdi></p>`}
      ${here.asking.length > 0 && here.manages && html`
        <h3>${text.dialogs.about.asking}</h3>
        <ul class="list">${once(here.asking).map((one) => html`
          <li key=${one.id} class="person"><${Avatar} id=${one.id} name=${one.name} small /><${Name} class="grow">${one.name}<//>
            <button class="primary" onClick=${() => room.act("invite", here.id, one.id).catch(session.wrong)}>${text.dialogs.about.letIn}</button></li>`)}</ul>`}
      ${isGeneral ? html`<p>${text.dialogs.about.everybody}</p>` : html`
        <h3>${text.dialogs.about.members}</h3>
        ${here.manages && here.mode === "key" && html`<${Field} label=${text.dialogs.about.newPassphrase} type="password" value=${passphrase} autocomplete="new-password" onInput=${(event) => (passphrase.value = event.target.value)} />`}
        <ul class="list">${once(here.members).map((one) => html`
          <li key=${one.id} class="person"><${Avatar} id=${one.id} name=${one.name} small /><${Name} class="grow">${one.name}<//>
            ${here.manages && !one.me && html`<button class="quiet danger" onClick=${() => remove(one)}>${text.dialogs.about.remove}</button>`}</li>`)}</ul>
        ${here.isIn && html`<div class="buttons"><button class="quiet danger" onClick=${() => room.act("leave", here.id).then(closeDialog, session.wrong)}>${text.dialogs.about.leave}</button></div>`}`}
    <//>`;
};

/** Whether somebody is to be shut out of a channel. @param {{room: Room, about: {person: import("../model/names.js").Person, passphrase?: string}}} props */
const Shut = ({ room, about: { person, passphrase } }) => {
  const here = room.here.value;
  const { run, busy, wrong } = useWork(async () => {
    if (here) await room.act("remove", here.id, person.id, passphrase);
  });
  if (!here) return null;
  return html`
    <${Dialog} title=${html`<${Name}>${text.dialogs.shut.title(person.name, here.name)}<//>`}>
      <p>${here.mode === "public" ? text.dialogs.shut.open : text.dialogs.shut.lead}</p>
      ${wrong.value && html`<p class="wrong" role="alert">${wrong}</p>`}
      <div class="buttons"><button autofocus disabled=${busy} onClick=${closeDialog}>${text.cancel}</button><button class="danger" disabled=${busy} onClick=${run}>${text.dialogs.about.remove}</button></div>
    <//>`;
};

/** Servers of one's own as lines, and back. */
const turnLines = () => settings.turn.value.map(({ urls, username = "", credential = "" }) => [urls, username, credential].filter(Boolean).join(" ")).join("\n");
/** @param {string} lines @returns {RTCIceServer[]} */
const readTurn = (lines) => lines.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
  const [urls, username, credential] = line.split(/\s+/);
  if (!/^(stun|turn)s?:[^\s/]+$/.test(urls)) throw new TypeError(text.dialogs.settings.noServer(urls));
  if (/^turn/.test(urls) && !(username && credential)) throw new TypeError(text.dialogs.settings.noPassword(urls));
  return /^turn/.test(urls) ? { urls, username, credential } : { urls };
});

/** The form that saves a file for another device. */
const Export = () => {
  const passphrase = useSignal(""), again = useSignal(""), done = useSignal(false), part = useSignal(/** @type {string | number} */ (""));
  const { run, busy, wrong } = useWork(async () => {
    if (passphrase.value !== again.value) throw new TypeError(text.dialogs.settings.mismatch);
    const { exportProfile } = await import("../model/profile.js");
    const file = await exportProfile({ circles: session.rooms.value.map(({ circle }) => circle), passphrase: passphrase.value, name: settings.name.value, progress: (_, done) => (part.value = done) });
    save(file, `muster-${new Date().toISOString().slice(0, 10)}.age`);
    done.value = true;
  }, () => {});
  return html`
    <form class="form" onSubmit=${run}>
      <p class="hint">${text.dialogs.settings.bringHint}</p>
      <${Field} label=${text.dialogs.settings.passphrase} type="password" required minlength="8" value=${passphrase} autocomplete="new-password" onInput=${(event) => (passphrase.value = event.target.value)} />
      <${Field} label=${text.dialogs.settings.passphraseAgain} type="password" required value=${again} autocomplete="new-password" onInput=${(event) => (again.value = event.target.value)} />
      ${wrong.value && html`<p class="wrong" role="alert">${wrong}</p>`}
      ${busy.value && html`<progress value=${part}></progress>`}
      <button disabled=${busy}>${busy.value ? text.dialogs.settings.exporting : text.dialogs.settings.export}</button>
      <p class="hint" role="status">${done.value && text.dialogs.settings.exported}</p>
    </form>`;
};

/** The form that opens one. */
const Import = () => {
  const passphrase = useSignal(""), part = useSignal(/** @type {string | number} */ ("")), said = useSignal("");
  const others = useSignal(/** @type {{circle: import("../library.js").Circle, id: string, name: string}[]} */ ([]));
  const picker = useRef(/** @type {HTMLInputElement | null} */ (null));
  const { run, busy, wrong } = useWork(async () => {
    const file = picker.current?.files?.[0];
    if (!file) return;
    const circles = session.rooms.value.map(({ circle }) => circle);
    const { importProfile } = await import("../model/profile.js");
    const found = await importProfile({ file, passphrase: passphrase.value, circles, options: session.options(), progress: (_, done) => (part.value = done) });
    for (const { circle, isNew } of found.circles) if (circle && isNew) session.show(circle);
    settings.name.value ||= found.name;
    said.value = text.dialogs.settings.imported(found);
    others.value = found.circles.flatMap(({ circle, devices }) => (circle ? devices.map((one) => ({ circle, ...one })) : []));
  }, () => {});
  return html`
    <form class="form" onSubmit=${run}>
      <div class="field"><label for="import-file">${text.dialogs.settings.importChoose}</label><input id="import-file" type="file" accept=".age,.muster" required ref=${picker} /></div>
      <${Field} label=${text.dialogs.settings.passphrase} type="password" hint=${text.dialogs.settings.importPlain} value=${passphrase} autocomplete="current-password" onInput=${(event) => (passphrase.value = event.target.value)} />
      ${wrong.value && html`<p class="wrong" role="alert">${wrong}</p>`}
      ${busy.value && html`<progress value=${part}></progress>`}
      <button disabled=${busy}>${busy.value ? text.dialogs.settings.importing : text.dialogs.settings.import}</button>
      <div role="status">${said.value && html`<p>${said}</p>`}</div>
      ${others.value.length > 0 && html`
        <p class="hint">${text.dialogs.settings.importSame}</p>
        ${others.value.map((one) => html`
          <div class="person" key=${one.circle.id + one.id}><${Name} class="grow">${one.circle.name}: ${one.name} (${keyOf(one.id)})<//>
            <button type="button" onClick=${() => one.circle.act("device", one.id).then(() => {
              others.value = others.value.filter((other) => other !== one);
              session.note(text.dialogs.same.other(one.circle.me.name));
            }, session.wrong)}>${text.dialogs.same.yes}</button></div>`)}`}
    </form>`;
};

/** Whether somebody is oneself, on another device. @param {{room: Room, about: import("../model/names.js").Person}} props */
const Same = ({ room, about }) => {
  const yes = useWork(() => room.act("device", about.id));
  const no = useWork(async () => {
    if (about.asks) await room.act("device", about.id, false);
  });
  return html`
    <${Dialog} title=${html`<${Name}>${text.dialogs.same.title(about.name)}<//>`}>
      <p>${text.dialogs.same.lead}</p>
      <p><code>${text.dialogs.same.theirs(keyOf(about.id))}</code></p>
      <p class="hint">${text.dialogs.same.mine(keyOf(room.me.value.id))}. ${text.dialogs.same.where}</p>
      ${(yes.wrong.value || no.wrong.value) && html`<p class="wrong" role="alert">${yes.wrong.value || no.wrong.value}</p>`}
      <div class="buttons"><button autofocus onClick=${no.run}>${text.dialogs.same.no}</button><button class="primary" disabled=${yes.busy} onClick=${yes.run}>${text.dialogs.same.yes}</button></div>
    <//>`;
};

const Bring = () => html`<${Dialog} title=${text.welcome.bring}><${Import} /><//>`;

/** @param {{room: Room}} props */
const Services = ({ room }) => {
  const address = useSignal("");
  const state = room.state.value;
  const isFounder = room.me.value.founder;
  const { run, busy, wrong } = useWork(async () => {
    readService(address.value);
    await room.act("services", [...(await room.circle.services()), address.value.trim()]);
    address.value = "";
  }, () => {});
  return html`
    <section>
      <h3>${text.dialogs.settings.services}</h3>
      <p class="hint">${text.dialogs.settings.servicesHint}</p>
      <ul class="services">
        ${state.services.map((one) => html`
          <li key=${one.id}><span class=${`state ${one.state}`}><i></i>${text.states[one.state]}</span> <bdi class="grow">${one.url}</bdi>
            ${state.services.length > 1 && html`<${IconButton} icon="bin" label=${text.dialogs.settings.removeService(one.url)} onClick=${open("service", one)} />`}
            ${one.why && html`<span class="wrong">${one.why}</span>`}</li>`)}
      </ul>
      <p class="hint">${text.stateLong(state, room.peers.value.length)}</p>
      ${isFounder
        ? html`<form class="form row" onSubmit=${run}>
            <${Field} label=${text.dialogs.settings.addService} hint=${text.welcome.serviceHint} value=${address} required spellcheck="false" inputmode="url" onInput=${(event) => (address.value = event.target.value)} wrong=${wrong.value} />
            <button disabled=${busy}>${text.dialogs.settings.add}</button>
          </form>`
        : html`<p class="hint">${text.dialogs.settings.founderOnly}</p>`}
    </section>`;
};

/** Whether a service is to be left. @param {{room: Room, about: {id: string, url: string}}} props */
const LeaveService = ({ room, about: { id, url } }) => {
  const back = () => void (session.dialog.value = { name: "settings" });
  const { run, busy, wrong } = useWork(() => room.circle.removeService(id), () => {
    session.note(text.dialogs.service.done(url));
    back();
  });
  return html`
    <${Dialog} title=${text.dialogs.service.title} onClose=${back}>
      <p><strong><${Name}>${url}<//></strong></p>
      <p>${text.dialogs.service.lead} ${room.me.value.founder ? text.dialogs.service.founder : text.dialogs.service.member}</p>
      <p class="warning">${text.dialogs.service.only}</p>
      ${wrong.value && html`<p class="wrong" role="alert">${wrong}</p>`}
      <div class="buttons"><button autofocus disabled=${busy} onClick=${back}>${text.cancel}</button>
        <button class="danger" disabled=${busy} onClick=${run}>${busy.value ? text.dialogs.service.doing : text.dialogs.service.do}</button></div>
    <//>`;
};

const used = signal({ text: "", persisted: true });

/** @param {{room: Room}} props */
const Settings = ({ room }) => {
  const name = useSignal(room.me.value.name), turn = useSignal(turnLines()), reopens = useSignal(false), title = useSignal(room.title.value);
  useEffect(() => {
    void (async () => {
      const { usage = 0 } = (await navigator.storage?.estimate?.()) ?? {};
      used.value = { text: text.size(usage), persisted: (await navigator.storage?.persisted?.()) ?? false };
    })();
  }, []);
  const named = useWork(() => session.rename(name.value.trim()), () => session.note(text.dialogs.settings.saved));
  const titled = useWork(() => room.act("title", title.value.trim()), () => session.note(text.dialogs.settings.saved));
  const turned = useWork(async () => {
    settings.turn.value = readTurn(turn.value);
  }, () => (reopens.value = true));
  const may = permission();
  const notify = async (/** @type {any} */ { target }) => {
    settings.notify.value = target.checked && (may === "granted" || (await askPermission()));
    target.checked = settings.notify.value;
  };
  return html`
    <${Dialog} title=${text.dialogs.settings.title} wide>
      <section>
        <form class="form row" onSubmit=${named.run}>
          <${Field} label=${text.dialogs.settings.name} value=${name} required maxlength="64" onInput=${(event) => (name.value = event.target.value)} wrong=${named.wrong.value} />
          <button disabled=${named.busy}>${text.dialogs.settings.save}</button>
        </form>
        <fieldset class="choices inline">
          <legend>${text.dialogs.settings.look}</legend>
          ${Object.entries(text.dialogs.settings.looks).map(([look, word]) => html`
            <label key=${look}><input type="radio" name="look" checked=${settings.theme.value === look} onChange=${() => (settings.theme.value = look)} /> ${word}</label>`)}
        </fieldset>
        <label class="check"><input type="checkbox" checked=${settings.notify} disabled=${may === "denied" || may === "none"} onChange=${notify} /> ${text.dialogs.settings.notify}</label>
        ${may === "denied" && html`<p class="hint">${text.dialogs.settings.notifyDenied}</p>`}
        ${may === "none" && html`<p class="hint">${text.dialogs.settings.notifyNone}</p>`}
        <label class="check"><input type="checkbox" checked=${settings.ring} onChange=${(event) => (settings.ring.value = event.target.checked)} /> ${text.dialogs.settings.ring}</label>
      </section>
      <${Services} room=${room} />
      <section>
        <h3>${text.dialogs.settings.turn}</h3>
        <form class="form" onSubmit=${turned.run}>
          <div class="field">
            <label for="turn" class="hint">${text.dialogs.settings.turnHint}</label>
            <textarea id="turn" rows="2" spellcheck="false" value=${turn} onInput=${(event) => (turn.value = event.target.value)}></textarea>
            ${turned.wrong.value && html`<p class="wrong" role="alert">${turned.wrong}</p>`}
          </div>
          <button>${text.dialogs.settings.save}</button>
        </form>
        <label class="check"><input type="checkbox" checked=${settings.relayOnly} onChange=${(event) => ((settings.relayOnly.value = event.target.checked), (reopens.value = true))} /> ${text.dialogs.settings.relayOnly}</label>
        <${Field} label=${text.dialogs.settings.viewers} type="number" min="1" max="8" value=${settings.viewers.value}
          onInput=${(event) => event.target.validity.valid && event.target.value && (settings.viewers.value = Number(event.target.value))} />
        ${reopens.value && html`<p class="hint">${text.dialogs.settings.reopen} <button onClick=${session.reopen}>${text.dialogs.settings.reload}</button></p>`}
      </section>
      <section>
        <h3>${text.dialogs.settings.bring}</h3>
        <details><summary>${text.dialogs.settings.export}</summary><${Export} /></details>
        <details><summary>${text.dialogs.settings.import}</summary><${Import} /></details>
      </section>
      <section>
        <h3>${text.dialogs.settings.circle}</h3>
        ${room.me.value.founder && html`
          <form class="form row" onSubmit=${titled.run}>
            <${Field} label=${text.dialogs.settings.circleName} value=${title} required maxlength="64" onInput=${(event) => (title.value = event.target.value)} wrong=${titled.wrong.value} />
            <button disabled=${titled.busy}>${text.dialogs.settings.save}</button>
          </form>`}
        ${room.me.value.founder && !room.me.value.out && html`<p class="hint">${text.dialogs.handOn.hint}</p><button onClick=${open("handOn")}>${text.dialogs.handOn.open}</button>`}
        <button class="danger" onClick=${() => (session.dialog.value = { name: "leave" })}>${text.dialogs.settings.leave}</button>
      </section>
      <section>
        <h3>${text.dialogs.settings.about}</h3>
        <p class="hint">${text.dialogs.settings.storage(used.value.text)} ${used.value.persisted ? text.dialogs.settings.persisted : text.dialogs.settings.notPersisted}</p>
        <p class="hint">${text.dialogs.settings.key(keyOf(room.me.value.id))}</p>
        <p class="hint">${text.dialogs.settings.licences}</p>
      </section>
    <//>`;
};

/** @param {{room: Room}} props */
const Leave = ({ room }) => {
  const { run, busy, wrong } = useWork(() => session.leave(room));
  return html`
    <${Dialog} title=${html`<${Name}>${text.dialogs.leave.title(room.title.value)}<//>`}>
      <p>${text.dialogs.leave.lead}</p>
      ${room.me.value.founder && html`<p class="warning">${text.dialogs.leave.founder}</p>`}
      ${wrong.value && html`<p class="wrong" role="alert">${wrong}</p>`}
      <div class="buttons"><button autofocus onClick=${closeDialog}>${text.cancel}</button>
        ${room.me.value.founder && !room.me.value.out && html`<button onClick=${open("handOn")}>${text.dialogs.handOn.open}</button>`}
        <button class="danger" disabled=${busy} onClick=${run}>${text.dialogs.leave.do}</button></div>
    <//>`;
};

/** @param {{room: Room, about: import("../model/room.js").Message}} props */
const Delete = ({ room, about }) => {
  const { run, busy, wrong } = useWork(() => room.act("delete", about.hash));
  return html`
    <${Dialog} title=${text.dialogs.delete.title}>
      <blockquote dir="auto">${about.text.slice(0, 300)}</blockquote>
      <p>${text.dialogs.delete.lead}</p>
      ${wrong.value && html`<p class="wrong" role="alert">${wrong}</p>`}
      <div class="buttons"><button onClick=${closeDialog}>${text.cancel}</button><button class="danger" autofocus disabled=${busy} onClick=${run}>${text.dialogs.delete.do}</button></div>
    <//>`;
};

/** @param {{room: Room, about?: string}} props */
const Search = ({ room, about = "" }) => {
  const typed = useSignal(about), found = useSignal(/** @type {import("../model/room.js").Message[] | null} */ (null));
  const run = async () => {
    const wanted = typed.value;
    const come = wanted.trim() ? (await room.circle.search(room.channel.value, wanted, 200).catch(() => [])).toReversed() : null;
    if (wanted === typed.value) found.value = come; // and not typed on meanwhile
  };
  useEffect(() => void run(), []);
  const go = (/** @type {string} */ hash) => {
    closeDialog();
    void jump(room, hash);
  };
  return html`
    <${Dialog} title=${html`<${Name}>${text.dialogs.search.title(room.here.value?.name ?? "")}<//>`} wide>
      <form class="form" role="search" onSubmit=${stay}>
        <${Field} label=${text.dialogs.search.label} inputmode="search" enterkeyhint="search" value=${typed} autofocus onInput=${(event) => ((typed.value = event.target.value), void run())} />
      </form>
      <p class="hint" role="status">${found.value && (found.value.length ? text.dialogs.search.found(found.value.length) : text.dialogs.search.none)}</p>
      <ul class="list found">
        ${found.value?.map((one) => html`
          <li key=${one.hash}><button class="item" onClick=${() => go(one.hash)}>
            <span class="grow"><span class="hint"><${Name}>${room.person(one.author.id, one.author.name).name}<//>, ${text.day(one.at_ms)} ${text.time(one.at_ms)}</span>
            <span class="text" dir="auto">${words(one.text.slice(0, 240)).map((piece) => (typeof piece === "string" ? piece : piece.props.children))}</span></span>
          </button></li>`)}
      </ul>
    <//>`;
};

/** @param {{about?: string}} props */
const Help = ({ about = "" }) => html`
  <${Dialog} title=${text.dialogs.help.title} wide>
    <h3>${text.dialogs.help.keys}</h3>
    <dl class="table">${text.keys.map(([key, what]) => html`<dt key=${key}><kbd>${key}</kbd></dt><dd>${what}</dd>`)}</dl>
    <h3>${text.dialogs.help.commands}</h3>
    <p class="hint">${text.dialogs.help.start}</p>
    <dl class="table">${Object.entries(text.commandHelp).filter(([name]) => name.startsWith(about)).map(([name, [usage, what]]) => html`<dt key=${name}><code>${usage}</code></dt><dd>${what}</dd>`)}</dl>
  <//>`;

/** @param {{about: import("../model/files.js").Offer}} props */
const Picture = ({ about }) => html`
  <${Dialog} title=${html`<${Name}>${about.name}<//>`} wide>
    <img class="whole" src=${about.url} alt=${about.name} />
    <div class="buttons"><button onClick=${() => save(about.url, about.name)}>${text.dialogs.picture.save}</button></div>
  <//>`;

/** @type {Record<string, (props: any) => any>} */
const DIALOGS = {
  invite: Invite, channel: NewChannel, unlock: Unlock, about: AboutChannel, settings: Settings, leave: Leave, delete: Delete, search: Search, help: Help,
  picture: Picture, same: Same, shut: Shut, service: LeaveService, remove: Remove, handOn: HandOn, create: ({ about = "" }) => html`<${CreateDialog} name=${about} />`, bring: Bring,
};
const EVERYWHERE = new Set(["help", "create", "bring"]);

/** The dialog that is open. */
export const Dialogs = () => {
  const shown = session.dialog.value;
  const room = session.screen.value === "talk" ? session.room.value : null;
  const Shown = shown && DIALOGS[shown.name];
  const isShown = Shown && (room || EVERYWHERE.has(shown.name));
  useEffect(() => {
    if (shown && !isShown) closeDialog(); // and it does not wait for a circle to come
  }, [shown, isShown]);
  return isShown ? html`<${Shown} key=${shown.name} room=${room} about=${shown.about} />` : null;
};

