/**
 * Small parts that all screens share: icons, avatars, dialogs, fields.
 * @module
 */
import { hue, initials } from "../model/names.js";
import { dialog, room } from "../model/session.js";
import { text } from "../text.js";
import { html, useEffect, useLayoutEffect, useRef, useSignal } from "../ui.js";

/** Drawn in a square of 24 with a line of 2. @type {Record<string, string>} */
const ICONS = {
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6L6 18",
  back: "M15 5l-7 7 7 7",
  plus: "M12 5v14M5 12h14",
  hash: "M9 4L7 20M17 4l-2 16M4 9h16M3 15h16",
  key: "M14 10a4 4 0 1 0-4 4l1-1M12.500 12.500L20 20M17 17l2-2",
  lock: "M6 11h12v9H6zM8.500 11V8a3.500 3.500 0 0 1 7 0v3",
  send: "M4 12l16-8-6 16-3-7z",
  clip: "M8 12l6-6a3 3 0 0 1 4.500 4.500l-8 8a5 5 0 0 1-7-7l7-7",
  reply: "M10 6L4 12l6 6M4 12h9a7 7 0 0 1 7 7",
  smile: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18M8.500 14.500a4.500 4.500 0 0 0 7 0M9 9.500v.01M15 9.500v.01",
  edit: "M4 20l1-4L16 5l3 3L8 19z",
  bin: "M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  gear: "M12 15.500a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7M12 2.500v3M12 18.500v3M2.500 12h3M18.500 12h3M5.300 5.300l2.100 2.100M16.600 16.600l2.100 2.100M5.300 18.700l2.100-2.100M16.600 7.400l2.100-2.100",
  people: "M9 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8M2.500 20a6.500 6.500 0 0 1 13 0M16 4.500a4 4 0 0 1 0 7M18 14.500a6.500 6.500 0 0 1 3.500 5.500",
  same: "M4 5h11v9H4zM2.500 17.500h10M17 9h4v10h-4z",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14M16 16l4.500 4.500",
  info: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18M12 11v5M12 8v.01",
  help: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18M9.500 9.500a2.500 2.500 0 1 1 3.500 2.300c-.7.4-1 .9-1 1.700M12 17v.01",
  phone: "M6 3h3l2 5-2.500 1.500a12 12 0 0 0 6 6L16 13l5 2v3a3 3 0 0 1-3 3A15 15 0 0 1 3 6a3 3 0 0 1 3-3z",
  video: "M3 6h12v12H3zM15 10l6-3v10l-6-3",
  live: "M12 13.500a1.500 1.500 0 1 0 0-3 1.500 1.500 0 0 0 0 3M8 16a5.500 5.500 0 0 1 0-8M16 8a5.500 5.500 0 0 1 0 8M5 19a9.500 9.500 0 0 1 0-14M19 5a9.500 9.500 0 0 1 0 14",
  microphone: "M12 15a3 3 0 0 0 3-3V6a3 3 0 0 0-6 0v6a3 3 0 0 0 3 3M6 11.500a6 6 0 0 0 12 0M12 17.500V21",
  muted: "M9 6a3 3 0 0 1 6 0v5M9 9v3a3 3 0 0 0 4.500 2.600M6 11.500a6 6 0 0 0 9.500 4.900M17.700 13.500a6 6 0 0 0 .3-2M12 17.500V21M4 4l16 16",
  grow: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  screen: "M3 5h18v12H3zM9 21h6M12 17v4",
  down: "M6 10l6 6 6-6",
  check: "M5 13l4.500 4.500L19 7",
  clock: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18M12 7v5l3.500 2",
  file: "M6 3h8l4 4v14H6zM14 3v4h4",
  share: "M12 15V3M8 7l4-4 4 4M5 12v8h14v-8",
  direct: "M4 12h16M8 8l-4 4 4 4M16 8l4 4-4 4",
  cloud: "M7 18a4 4 0 0 1-.500-8A6 6 0 0 1 18 9.500a4.300 4.300 0 0 1-.500 8.500z",
};

/** @param {{name: string}} props */
export const Icon = ({ name }) =>
  html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name] ?? ""} /></svg>`;

/** A button that is an icon. @param {{icon: string, label: string, onClick?: any, pressed?: boolean, [more: string]: any}} props */
export const IconButton = ({ icon, label, pressed, class: more = "", ...others }) =>
  html`<button type="button" class=${`icon-button ${more}`} title=${label} aria-label=${label} aria-pressed=${pressed} ...${others}><${Icon} name=${icon} /></button>`;

/** @param {{id: string, name: string, small?: boolean, there?: boolean}} props */
export const Avatar = ({ id, name, small, there }) =>
  html`<span class=${`avatar ${small ? "small" : ""}`} style=${{ "--hue": hue(id) }} aria-hidden="true">${initials(name)}${there && html`<i class="there"></i>`}</span>`;

/** A name of somebody's choice, kept from turning what is around it. @param {{children?: any, class?: string}} props */
export const Name = ({ children, class: more }) => html`<bdi class=${more}>${children}</bdi>`;

/** Write on; where a keyboard would cover half of the screen, when that is asked for. */
export const toComposer = () => {
  if (matchMedia("(hover: hover)").matches) document.getElementById("compose")?.focus();
};

export const closeDialog = () => void (dialog.value = null);

/** A dialog of the browser: it keeps the focus inside, and Escape closes it. @param {{title: any, children?: any, wide?: boolean, onClose?: () => void}} props */
export const Dialog = ({ title, children, wide, onClose = closeDialog }) => {
  const ref = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const isGone = useRef(false);
  // at once: Escape may follow the key that opened it
  useLayoutEffect(() => {
    const before = /** @type {HTMLElement | null} */ (document.activeElement);
    const channel = room.value?.channel.value;
    const shown = ref.current;
    shown?.showModal();
    return () => {
      isGone.current = true;
      const isOpen = shown?.open;
      shown?.close(); // while it is open nothing else takes the focus
      if (!isOpen && document.activeElement !== document.body) return; // Escape: the browser gave it back, and one has gone on
      if (before && before !== document.body) before.focus();
      if (document.activeElement !== before || channel !== room.value?.channel.value) toComposer(); // what opened it is gone, or one is elsewhere
    };
  }, []);
  const outside = (/** @type {MouseEvent} */ { target }) => target === ref.current && onClose();
  return html`
    <dialog ref=${ref} class=${wide ? "wide" : ""} aria-labelledby="dialog-title" onClose=${() => isGone.current || onClose()} onMouseDown=${outside}>
      <div class="dialog">
        <header><h2 id="dialog-title">${title}</h2><${IconButton} icon="close" label=${text.close} onClick=${onClose} /></header>
        <div class="dialog-body">${children}</div>
      </div>
    </dialog>`;
};

/** A form that does something once, says what is wrong, and closes. @param {() => Promise<any>} work @param {() => void} [done] */
export const useWork = (work, done = closeDialog) => {
  const busy = useSignal(false), wrong = useSignal("");
  const run = async (/** @type {Event | undefined} */ event) => {
    event?.preventDefault();
    if (busy.value) return;
    busy.value = true;
    wrong.value = "";
    try {
      await work();
      done();
    } catch (error) {
      wrong.value = error instanceof TypeError ? error.message : text.reason(error);
    }
    busy.value = false;
  };
  return { run, busy, wrong };
};

let fields = 0;
/** A field with its label, a hint and what is wrong with it. @param {{label: string, hint?: any, wrong?: string, children?: any, value?: string, [more: string]: any}} props */
export const Field = ({ label, hint, wrong, ...others }) => {
  const id = useRef(`field-${(fields += 1)}`).current;
  useEffect(() => {
    if (others.autofocus) document.getElementById(id)?.focus(); // browsers do it in a new page and in dialogs alone
  }, []);
  const about = [hint && `${id}-hint`, wrong && `${id}-wrong`].filter(Boolean).join(" ") || undefined;
  return html`
    <div class="field">
      <label for=${id}>${label}</label>
      <input id=${id} aria-describedby=${about} aria-invalid=${wrong ? "true" : undefined} autocomplete="off" ...${others} />
      ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
      ${wrong && html`<p class="wrong" id=${`${id}-wrong`} role="alert">${wrong}</p>`}
    </div>`;
};

/** Give something to the person as a file. @param {Blob | string} from bytes, or where they are @param {string} name */
export const save = (from, name) => {
  const link = document.createElement("a");
  link.href = typeof from === "string" ? from : URL.createObjectURL(from);
  link.download = name;
  link.click();
  if (typeof from !== "string") setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
};
