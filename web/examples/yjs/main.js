import * as Y from "yjs";
import { Circle } from "../../muster/index.js";
import { enter } from "../page.js";
import { MusterProvider } from "./muster-provider.js";

const circle = await enter(({ invite, ...options }) => (invite ? Circle.join(invite, options) : Circle.create(options)));
const doc = new Y.Doc();
const provider = new MusterProvider(doc, circle);
const { awareness } = provider;
document.addEventListener("visibilitychange", () => provider.keep()); // at once, before the page may be closed

// The text: what differs between the two is what was typed.
const shared = doc.getText("text");
const area = document.querySelector("#text");

area.addEventListener("input", () => {
  const [before, after] = [shared.toString(), area.value];
  let start = 0;
  let end = 0;
  while (start < before.length && before[start] === after[start]) start += 1;
  while (end < Math.min(before.length, after.length) - start && before.at(-1 - end) === after.at(-1 - end)) end += 1;
  doc.transact(() => {
    shared.delete(start, before.length - start - end);
    shared.insert(start, after.slice(start, after.length - end));
  });
});

shared.observe((event) => {
  if (event.transaction.local) return;
  const carets = [area.selectionStart, area.selectionEnd].map((caret) => moved(caret, event.delta));
  area.value = shared.toString();
  area.setSelectionRange(...carets);
});

/** Where a caret is after a change before it. */
const moved = (caret, delta) => {
  let at = 0;
  for (const { retain = 0, insert = "", delete: gone = 0 } of delta) {
    at += retain;
    if (at >= caret) break;
    caret += insert.length - Math.min(gone, caret - at);
    at += insert.length;
  }
  return caret;
};

// Who types.
let quiet;
const type = (typing) => awareness.setLocalState({ name: circle.me.name, typing });
type(false);
area.addEventListener("input", () => {
  clearTimeout(quiet);
  quiet = setTimeout(type, 2000, false);
  if (!awareness.getLocalState()?.typing) type(true);
});
awareness.on("change", () => {
  const others = [...awareness.getStates()].filter(([id, { typing }]) => id !== doc.clientID && typing);
  document.querySelector("#typing").textContent = others.length ? `${others.map(([, { name }]) => name).join(", ")} writing …` : "";
});
