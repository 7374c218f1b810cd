/**
 * The circles of this browser, the one that is shown, and what is on the screen.
 *
 *     address bar ──> start() ──> rooms (one open Circle each) ──> views
 *
 * All circles stay open, so that what is said in any of them shows, and a call rings. The address bar names the circle
 * and the channel that are shown; an invite in it is taken out as soon as it is read, since it is a secret.
 * @module
 */
import { Circle, Refused, readInvite, readService } from "../library.js";
import { text } from "../text.js";
import { batch, computed, signal } from "../ui.js";
import { Room } from "./room.js";
import { profile, recall, remember, settings } from "./settings.js";

/** More circles than these are opened when they are chosen: each keeps a connection. */
const MOST_OPEN = 12;
const PATIENCE = 15_000, SHORT_PATIENCE = 4000;

/** @typedef {{title: string, advice: string, detail?: string}} Problem what is wrong, in words, and what to do */

/** What is shown: `loading`, `welcome`, `invited`, `talk` or `problem`. */
export const screen = signal("loading");
export const rooms = signal(/** @type {Room[]} */ ([]));
export const shownId = signal("");
/** The circle that is shown. */
export const room = computed(() => rooms.value.find(({ id }) => id === shownId.value) ?? rooms.value[0] ?? null);
/** The invite that the page was opened with: its text, and what it says. */
export const invited = signal(/** @type {{text: string, name: string, service: string, isIn: boolean} | null} */ (null));
/** What stops everything. */
export const problem = signal(/** @type {Problem | null} */ (null));
/** The dialog that is open: its name and what it is about. */
export const dialog = signal(/** @type {{name: string, about?: any} | null} */ (null));
/** Short notes at the edge of the screen. */
export const notes = signal(/** @type {{id: number, text: string, kind: string}[]} */ ([]));
/** The service that this page came from: `null` if it is none, `undefined` while it has not answered. */
export const home = signal(/** @type {{url: string, id: string, open: boolean} | null | undefined} */ (undefined));
/** Whether a newer version of the app waits. */
export const update = signal(false);
/** Circles of this browser that are opened when they are chosen. */
export const others = signal(/** @type {{id: string, name: string}[]} */ ([]));
/** Circles of this browser that could not be opened. */
export const closed = signal(/** @type {{id: string, name: string, why: string}[]} */ ([]));

let numbers = 0;

/** Say something that goes away by itself. @param {string} words @param {"note" | "wrong"} [kind] */
export const note = (words, kind = "note") => {
  const id = (numbers += 1);
  notes.value = [...notes.value.slice(-3), { id, text: words, kind }];
  setTimeout(() => unnote(id), kind === "wrong" ? 12_000 : 5000);
};

/** @param {number} id */
export const unnote = (id) => {
  notes.value = notes.value.filter((one) => one.id !== id);
};

/** Say what went wrong with what somebody did. @param {any} error */
export const wrong = (error) => {
  if (error?.name === "AbortError") return;
  if (!(error instanceof Refused)) console.error(error);
  note(text.reason(error), "wrong");
};

/** What a circle is opened with; where the name was wiped, it is the one that the circle knows. */
export const options = () => ({
  profile,
  ...(settings.name.value && { name: settings.name.value }),
  abilities: [],
  most: 0, // files come by pipes of the app's own alone (files.js)
  iceServers: settings.turn.value,
  ...(settings.relayOnly.value && { iceTransportPolicy: /** @type {const} */ ("relay") }),
});

/** What a service says of itself. @param {string} url @param {number} patience */
const infoOf = async (url, patience) => (await fetch(`${url}/v2/info`, { signal: AbortSignal.timeout(patience), cache: "no-store" })).json();

/** Whether a service says that it is closed to who has no access code. @param {string} url @returns {Promise<boolean>} */
export const isClosed = (url) => infoOf(url, SHORT_PATIENCE).then(({ open }) => open === false, () => false);

/** Ask the place that this page came from whether it is a service, until it has answered. */
const findHome = async () => {
  const base = new URL("../", location.href).href.replace(/\/$/, "");
  try {
    const { service_id: id, open } = await infoOf(base, PATIENCE);
    home.value = /^[0-9a-f]{32}$/.test(id) ? { url: base, id, open: open !== false } : null;
  } catch {
    home.value = null; // a static place, or it is down
  }
};

let finding = Promise.resolve();

/** What the place that this page came from has answered; it is waited for. */
export const answeredHome = async () => {
  await finding;
  return home.value;
};

/** The circle that this tab itself leaves. @type {Room | null} */
let leaving = null;

/** Show a circle no longer. @param {Room} gone */
const drop = (gone) => {
  if (!rooms.value.includes(gone)) return;
  batch(() => {
    rooms.value = rooms.value.filter((one) => one !== gone);
    if (!rooms.value.some(({ id }) => id === shownId.value)) shownId.value = rooms.value[0]?.id ?? "";
    if (screen.value === "talk" && !rooms.value.length) screen.value = "welcome";
  });
  if (gone !== leaving) note(text.leftElsewhere(gone.title.value));
  address();
};

/** A circle that is open, until it is erased, here or in another tab. @param {Circle} circle */
const opened = (circle) => {
  const made = new Room(circle);
  let led = true;
  made.me.subscribe(({ id, founder }) => {
    if (id && founder && !led) note(text.dialogs.handOn.given(made.title.value));
    led = !id || founder;
  });
  made.isErased.subscribe((isErased) => isErased && drop(made));
  return made;
};

/** Have an open circle among the others, and show it. @param {Circle} circle */
export const show = (circle) => {
  const known = rooms.value.find(({ id }) => id === circle.id);
  const made = known ?? opened(circle);
  batch(() => {
    if (!known) rooms.value = [...rooms.value, made];
    closed.value = closed.value.filter(({ id }) => id !== circle.id);
    others.value = others.value.filter(({ id }) => id !== circle.id);
    shownId.value = circle.id;
    screen.value = "talk";
  });
  return made;
};

/** What cannot work here at all. @returns {Problem | null} */
const unusable = () => {
  if (!isSecureContext) return text.problems.insecure(location.host);
  if (!globalThis.indexedDB) return text.problems.storage();
  if (!crypto.subtle || !globalThis.BroadcastChannel || !Array.prototype.toSorted) return text.problems.old();
  return null;
};

/** Begin: open what is here, or show how to get in. */
export const start = async () => {
  problem.value = unusable();
  if (problem.value) return void (screen.value = "problem");
  finding = findHome();
  addEventListener("hashchange", () => void followAddress());
  let known;
  try {
    known = await Circle.list(options());
  } catch (error) {
    problem.value = text.problems.storage(error);
    return void (screen.value = "problem");
  }
  await Promise.all(known.slice(0, MOST_OPEN).map(async ({ id, name }) => {
    try {
      const circle = await Circle.open(id, options());
      rooms.value = [...rooms.value, opened(circle)];
    } catch (error) {
      closed.value = [...closed.value, { id, name, why: text.reason(error) }];
    }
  }));
  others.value = known.slice(MOST_OPEN);
  if (known.length && !rooms.value.length) {
    problem.value = text.problems.allClosed(closed.value);
    return void (screen.value = "problem");
  }
  settings.name.value ||= rooms.value.find((one) => one.circle.me.name)?.circle.me.name ?? "";
  // in the order of their use, whatever opened first
  const order = known.map(({ id }) => id);
  rooms.value = rooms.value.toSorted((a, b) => order.indexOf(a.id) - order.indexOf(b.id));
  shownId.value = recall("shown", "") || (rooms.value[0]?.id ?? "");
  if (await followAddress()) return;
  screen.value = rooms.value.length ? "talk" : "welcome";
  if (!location.hash) address(); // another tab may show another channel: loaded again, this one shows the same
};

/** What a messenger has written for the signs of a fragment. @param {string} fragment */
const decoded = (fragment) => {
  try {
    return decodeURIComponent(fragment);
  } catch {
    return fragment; // it is no such writing
  }
};

/** Do what the address bar says. @returns {Promise<boolean>} whether it said something */
const followAddress = async () => {
  const said = decoded(location.hash.slice(1)).trim();
  const [, circle, channel] = /^\/([0-9a-f]{32})(?:\/([0-9a-f]{32}))?$/.exec(said) ?? [];
  if (circle) {
    if (![...rooms.value, ...others.value].some(({ id }) => id === circle)) return false;
    await go(circle, channel);
    screen.value = "talk";
    return true;
  }
  if (!/^muster/i.test(said)) return false;
  history.replaceState(null, "", "./" + location.search); // it is a secret: it stays in no history
  await openInvite(said);
  return true;
};

/** Read an invite, and ask for a name if there is none yet. @param {string} given */
export const openInvite = async (given) => {
  let read;
  try {
    read = await readInvite(given);
  } catch (error) {
    problem.value = text.problems.invite(error);
    screen.value = "problem";
    return;
  }
  const { epoch, name, services } = read;
  const known = rooms.value.find(({ id }) => id === epoch.circle);
  const isIn = Boolean(known) || others.value.some(({ id }) => id === epoch.circle);
  invited.value = { text: given, name, service: services[0]?.url ?? "", isIn };
  if (!isIn) screen.value = "invited";
  else if (known && (await isNews(known, services))) screen.value = "invited"; // it may lead to another service: that is asked
  else if (known) {
    invited.value = null;
    screen.value = "talk";
    go(known.id);
  } else await join(settings.name.value).catch(wrong);
};

/** Whether an invite to a circle that one is in says where else it meets, or lets one in anew. @param {Room} known @param {{id: string}[]} services */
const isNews = async (known, services) => {
  const met = (await known.circle.services()).map((address) => readService(address).id);
  return services.some(({ id }) => !met.includes(id)) || known.circle.me.out;
};

/** Go into the circle of the invite. @param {string} name how one is called */
export const join = async (name) => {
  const { text: invite } = invited.value ?? { text: "" };
  const { epoch } = await readInvite(invite);
  settings.name.value = name;
  const before = rooms.value.find(({ id }) => id === epoch.circle);
  await before?.close(); // opened anew, it has what the invite says
  rooms.value = rooms.value.filter((one) => one !== before);
  let circle;
  try {
    circle = await Circle.join(invite, options());
  } catch (error) {
    if (before) show(await Circle.open(before.id, options())); // the one that was is there again
    throw error;
  }
  invited.value = null;
  show(circle);
  address();
  void navigator.storage?.persist?.();
};

/** Make a circle. @param {{name: string, circle: string, services: string[]}} how */
export const create = async ({ name, circle, services }) => {
  settings.name.value = name;
  show(await Circle.create({ ...options(), circle, services }));
  address();
  void navigator.storage?.persist?.();
};

/** Show a circle, and a channel of it. @param {string} id @param {string} [channel] */
export const go = async (id, channel) => {
  if (others.value.some((one) => one.id === id)) {
    try {
      show(await Circle.open(id, options()));
    } catch (error) {
      return wrong(error);
    }
  }
  shownId.value = id;
  remember("shown", id);
  const known = room.value?.channels.value ?? [];
  if (channel && (!known.length || known.some((one) => one.id === channel))) room.value?.enter(channel); // a link may name any
  address();
};

/** Write into the address bar what is shown. */
export const address = () => {
  const now = room.value;
  if (!now) return history.replaceState(null, "", "./" + location.search);
  remember("shown", now.id);
  return history.replaceState(null, "", `./${location.search}#/${now.id}/${now.channel.value}`);
};

/** Forget a circle in this browser. @param {Room} gone */
export const leave = async (gone) => {
  leaving = gone;
  await gone.erase();
  drop(gone);
};

/** Open all circles anew, with other settings. */
export const reopen = () => location.reload();

/** Be called otherwise, in all circles. @param {string} name */
export const rename = async (name) => {
  await Promise.all(rooms.value.map((one) => one.rename(name)));
  settings.name.value = name;
};
