/**
 * Where one writes: a text, a command, files.
 * @module
 */
import { Unable, run, suggestions } from "../model/commands.js";
import * as session from "../model/session.js";
import { text } from "../text.js";
import { html, useLayoutEffect, useRef, useSignal } from "../ui.js";
import { Icon, IconButton, Name } from "./parts.js";

const MOST_BYTES = 256 * 1024;

/** @param {{room: import("../model/room.js").Room}} props */
const Gate = ({ room }) => {
  const here = room.here.value;
  if (!here) return null;
  const isKey = here.mode === "key";
  const join = async () => {
    try {
      await room.act("join", here.id);
    } catch (error) {
      session.wrong(error);
    }
  };
  if (here.isOut) return html`<div class="gate"><span class="grow">${text.compose.removed(here.name)}</span></div>`;
  const hasAsked = here.asking.includes(room.me.value.id);
  const closed = isKey ? text.compose.withKey(here.name) : hasAsked ? text.compose.asked : text.compose.locked(here.name);
  const words = here.mode === "public" ? text.compose.join(here.name) : closed;
  return html`
    <div class="gate">
      <span class="grow">${words}</span>
      ${!hasAsked && html`<button class="primary" onClick=${isKey ? () => (session.dialog.value = { name: "unlock", about: here }) : join}>
        ${here.mode === "invite" ? text.compose.ask : text.compose.joinDo}</button>`}
    </div>`;
};

/** @param {{room: import("../model/room.js").Room}} props */
export const Composer = ({ room }) => {
  const area = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const picker = useRef(/** @type {HTMLInputElement | null} */ (null));
  const written = useSignal(""), chosen = useSignal(0), busy = useSignal(false);
  const offered = useSignal(/** @type {ReturnType<typeof suggestions>} */ ([]));
  const here = room.here.value;
  const channel = room.channel.value;
  const { reply, edit } = room.composing.value;
  const key = `${room.id} ${channel}`;

  const shown = useRef(key);
  shown.current = key;

  const put = (/** @type {string} */ value) => {
    if (shown.current === key) written.value = value;
    if (!edit) room.drafts.set(channel, value); // what is changed is no draft: that is there again afterwards
  };
  // what was begun in a channel is there when one comes back
  useLayoutEffect(() => {
    written.value = room.drafts.get(channel) ?? "";
    offered.value = [];
    if (matchMedia("(hover: hover)").matches) area.current?.focus();
  }, [key]);
  useLayoutEffect(() => {
    written.value = edit ? edit.text.replace(/^\//, "//") : (room.drafts.get(channel) ?? "");
  }, [edit]);
  useLayoutEffect(() => {
    const one = area.current;
    if (!one) return;
    one.style.height = "auto";
    one.style.height = `${Math.min(one.scrollHeight, innerHeight * 0.4)}px`;
  });

  const suggest = () => {
    const one = area.current;
    offered.value = one && one.selectionStart === one.selectionEnd ? suggestions(room, one.value.slice(0, one.selectionStart)) : [];
    chosen.value = 0;
  };
  const take = (/** @type {number} */ at) => {
    const one = area.current;
    const found = offered.value[at];
    if (!one || !found) return;
    const end = one.value.slice(one.selectionEnd);
    put(one.value.slice(0, found.from) + found.insert + end);
    requestAnimationFrame(() => {
      one.focus();
      one.selectionStart = one.selectionEnd = found.from + found.insert.length;
      suggest();
    });
  };
  const send = async () => {
    const said = written.value.trim();
    if (!said || busy.value) return;
    if (new TextEncoder().encode(said).length > MOST_BYTES) return session.note(text.compose.tooLong, "wrong");
    busy.value = true;
    offered.value = [];
    try {
      put("");
      await run(room, said);
    } catch (error) {
      put([said, shown.current === key && written.value].filter(Boolean).join("\n")); // nothing is lost
      if (error instanceof Unable) session.note(error.message, "wrong");
      else session.wrong(error);
    }
    busy.value = false;
    area.current?.focus();
  };
  const stop = () => {
    room.composing.value = {};
    area.current?.focus();
  };
  const keys = (/** @type {KeyboardEvent} */ event) => {
    const many = offered.value.length;
    if (event.isComposing) return;
    if (many && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      chosen.value = (chosen.value + (event.key === "ArrowDown" ? 1 : many - 1)) % many;
    } else if (many && event.key === "Tab" && !event.shiftKey) {
      event.preventDefault();
      take(chosen.value);
    } else if (event.key === "Escape" && (many || reply || edit)) {
      event.preventDefault();
      event.stopPropagation();
      if (many) offered.value = [];
      else stop();
    } else if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      void send();
    } else if (event.key === "ArrowUp" && !written.value) {
      const all = document.querySelectorAll(/** @type {"article"} */ (".message"));
      if (all.length) event.preventDefault();
      all[all.length - 1]?.focus();
    }
  };
  const offer = async (/** @type {Iterable<File>} */ files) => {
    const all = [...files];
    try {
      if (all.length && !(await room.files.offer(all, channel))) session.note(text.files.nobody);
    } catch (error) {
      session.wrong(error);
    }
  };
  const paste = (/** @type {ClipboardEvent} */ event) => {
    const files = event.clipboardData?.files;
    if (!files?.length) return;
    event.preventDefault();
    void offer(files);
  };
  if (room.me.value.out) return html`<div class="gate"><span class="grow">${text.compose.leftOut}</span></div>`;
  if (here && !here.isIn && (here.mode !== "public")) return html`<${Gate} room=${room} />`;
  const name = here?.name ?? "";
  const about = edit ? text.compose.changing : reply && text.compose.answering(room.person(reply.author.id, reply.author.name).name);
  return html`
    ${here && !here.isIn && html`<${Gate} room=${room} />`}
    <form class="composer" onSubmit=${(event) => (event.preventDefault(), void send())}>
      ${about && html`<div class="about-text"><${Icon} name=${edit ? "edit" : "reply"} /><${Name} class="grow">${about}<//><${IconButton} icon="close" label=${text.compose.stop} onClick=${stop} /></div>`}
      ${offered.value.length > 0 && html`
        <ul class="suggestions" role="listbox" id="suggestions" aria-label=${text.compose.suggestions}>
          ${offered.value.map((one, at) => html`
            <li key=${one.label} role="option" id=${`suggestion-${at}`} aria-selected=${at === chosen.value} onMouseDown=${(event) => (event.preventDefault(), take(at))}>
              <${Name}>${one.label}<//> <span class="hint">${one.what}</span>
            </li>`)}
        </ul>`}
      <div class="line">
        <input type="file" multiple hidden ref=${picker} onChange=${(event) => (void offer(event.target.files), (event.target.value = ""))} />
        <${IconButton} icon="clip" label=${text.compose.file} onClick=${() => picker.current?.click()} />
        <textarea id="compose" ref=${area} rows="1" value=${written} placeholder=${text.compose.hint(name)} aria-label=${text.compose.label(name)} enterkeyhint="send" dir="auto"
          aria-autocomplete="list" aria-controls=${offered.value.length ? "suggestions" : undefined} aria-activedescendant=${offered.value.length ? `suggestion-${chosen.value}` : undefined}
          onInput=${(event) => (put(event.target.value), suggest())} onKeyDown=${keys} onPaste=${paste} onBlur=${() => (offered.value = [])}></textarea>
        <${IconButton} icon="send" label=${text.compose.send} class="send" type="submit" disabled=${!written.value.trim() || busy.value} />
      </div>
    </form>`;
};
