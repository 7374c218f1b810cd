/**
 * Slash commands: a table of what can be typed, each with its help in text.js. The terminal has the same words.
 * @module
 */
import { text } from "../text.js";
import { plainName, skeleton } from "./names.js";
import { GENERAL } from "./room.js";
import * as session from "./session.js";

/** @typedef {import("./room.js").Room} Room */

/** A command that cannot be done as it was typed. */
export class Unable extends Error {}

/** @param {string} rest */
const split = (rest) => {
  const [first = "", ...more] = rest.trim().split(/\s+/);
  return [first.replace(/^#/, ""), more.join(" ")];
};

/**
 * A name that may have spaces, and what follows it: the longest that is known, or the first word.
 * @param {string} rest @param {string[]} names
 */
const nameThen = (rest, names) => {
  const typed = rest.trim().replace(/^[#@]/, "");
  const known = names.filter((name) => name && `${typed.toLowerCase()} `.startsWith(`${name.toLowerCase()} `)).sort((a, b) => b.length - a.length)[0];
  if (known === undefined) return split(typed);
  return [typed.slice(0, known.length), typed.slice(known.length).trim()];
};

/** @param {string} value @param {string} usage */
const days = (value, usage) => {
  if (!/^\d+$/.test(value)) throw new Unable(text.commands.usage(usage));
  return Number(value);
};

/** @param {string} value @param {string} usage */
const needed = (value, usage) => {
  if (!value) throw new Unable(text.commands.usage(usage));
  return value;
};

/** @param {Room} room @param {string} name @returns {import("./room.js").Channel} */
const channelOf = (room, name) => {
  const wanted = name.replace(/^#/, "");
  const found = room.channels.value.filter((one) => one.id === wanted || one.name.toLowerCase() === wanted.toLowerCase());
  if (found.length !== 1) throw new Unable(found.length ? text.commands.ambiguous(wanted) : text.commands.noChannel(wanted));
  return found[0];
};

/** @param {Room} room @param {string} name */
const personOf = (room, name) => {
  const wanted = name.replace(/^@/, "");
  const all = [...new Map([...room.people.value.values()].map((one) => [one.id, one])).values()];
  const exact = all.filter((one) => one.name === wanted || one.id.startsWith(wanted));
  const alike = exact.length ? exact : all.filter((one) => skeleton(one.name) === skeleton(wanted));
  if (alike.length !== 1) throw new Unable(alike.length ? text.commands.ambiguous(wanted) : text.commands.nobody(wanted));
  return alike[0];
};

/** The newest message, or one of mine. @param {Room} room @param {boolean} mine */
const newest = async (room, mine) => {
  await room.newest(); // and not of what one has scrolled to
  const found = room.messages.value.findLast((one) => !one.deleted && (!mine || one.mine));
  if (!found) throw new Unable(text.commands.nothing);
  return found;
};

/** @param {string} name @param {any} [about] */
const show = (name, about) => void (session.dialog.value = { name, about });

/**
 * What each does; the words that call it are its name. It answers with a line, or nothing.
 * @type {Record<string, (room: Room, rest: string) => Promise<string | void> | string | void>}
 */
export const COMMANDS = {
  help: (_, rest) => show("help", rest.replace(/^\//, "")),
  invite: () => show("invite"),
  settings: () => show("settings"),
  search: (_, rest) => show("search", rest),
  join: (_, rest) => session.openInvite(needed(rest, "join")),
  circles: () => session.rooms.value.map((one) => `${one.title.value}${one.count.value ? ` (${one.count.value})` : ""}`).join(", "),
  "circle create": (_, rest) => show("create", rest),
  "circle join": (_, rest) => session.openInvite(needed(rest, "circle join")),
  "circle switch": (_, rest) => {
    const wanted = needed(rest, "circle switch").toLowerCase();
    const found = session.rooms.value.find((one) => one.title.value.toLowerCase() === wanted);
    if (!found) throw new Unable(text.commands.noCircle(rest));
    session.go(found.id);
  },
  "circle name": async (room, rest) => {
    if (!rest) return text.commands.circleIs(room.title.value);
    await room.act("title", rest);
    return text.commands.circleNamed(rest);
  },
  "circle keep": async (room, rest) => {
    await room.act("keep", GENERAL, days(rest, "circle keep"));
    return text.kept(Number(rest));
  },
  "circle leave": () => show("leave"),
  channels: (room) => room.channels.value.map(({ name, mode, isIn }) => `#${name}${mode === "public" ? "" : ` (${text.modes[mode]})`}${isIn ? "" : ` – ${text.outside}`}`).join(", "),
  "channel create": async (room, rest) => {
    const [, name, mode = "public", passphrase] = /^#?(.+?)(?:\s+(public|key|invite)(?:\s+(.+))?)?$/i.exec(needed(rest, "channel create")) ?? [];
    const { channel } = await room.act("create", name, mode.toLowerCase(), passphrase);
    room.enter(channel);
    session.address();
  },
  "channel join": async (room, rest) => {
    const [name, passphrase] = nameThen(needed(rest, "channel join"), room.channels.value.map((one) => one.name));
    if (passphrase) {
      const { channel } = await room.act("unlock", name, passphrase);
      room.enter(channel);
      session.address();
      return "";
    }
    const isId = /^[0-9a-f]{32}$/.test(name) && !room.channels.value.some(({ id }) => id === name);
    if (isId) {
      await room.act("join", name); // it is closed so far: its address alone is known, as the address bar has it
      return text.commands.asked(name.slice(0, 6));
    }
    const found = channelOf(room, name);
    await room.act("join", found.id);
    room.enter(found.id);
    session.address();
    return found.mode === "invite" && !found.isIn ? text.commands.asked(found.name) : "";
  },
  "channel switch": (room, rest) => {
    room.enter(channelOf(room, needed(rest, "channel switch")).id);
    session.address();
  },
  "channel leave": async (room, rest) => {
    const found = rest ? channelOf(room, rest) : room.here.value;
    if (!found || found.id === GENERAL) throw new Unable(text.commands.generalStays);
    await room.act("leave", found.id);
    return text.commands.channelLeft(found.name);
  },
  "channel name": async (room, rest) => void (await room.act("rename", room.channel.value, needed(rest, "channel name"))),
  "channel keep": async (room, rest) => {
    await room.act("keep", room.channel.value, days(rest, "channel keep"));
    return text.kept(Number(rest));
  },
  "channel invite": async (room, rest) => {
    const person = personOf(room, needed(rest, "channel invite"));
    await room.act("invite", room.channel.value, person.id);
    return text.commands.letIn(person.name);
  },
  "channel remove": async (room, rest) => {
    const mode = room.here.value?.mode;
    const names = [...room.people.value.values()].map((one) => one.name);
    const [name, passphrase] = mode === "key" ? nameThen(needed(rest, "channel remove"), names) : [needed(rest, "channel remove"), ""];
    const person = personOf(room, name);
    await room.act("remove", room.channel.value, person.id, passphrase || undefined);
    return text.commands.removed(person.name);
  },
  topic: async (room, rest) => {
    if (!rest) return room.here.value?.topic || text.commands.noTopic;
    await room.act("topic", room.channel.value, rest);
    return "";
  },
  who: (room) => {
    const people = [...new Map([...room.people.value.values()].map((one) => [one.id, one])).values()];
    return people.filter(({ out }) => !out).map((one) => `${one.name}: ${one.me ? text.paths.me : text.paths[room.nodesOf(one)[0]?.path ?? "away"]}`).join(", ");
  },
  reply: async (room, rest) => {
    room.composing.value = { reply: await newest(room, false) };
    if (rest) await room.say(rest);
  },
  edit: async (room, rest) => {
    room.composing.value = { edit: await newest(room, true) };
    if (rest) await room.say(rest);
  },
  delete: async (room) => void (await room.act("delete", (await newest(room, true)).hash)),
  react: async (room, rest) => void (await room.react(await newest(room, false), needed(rest, "react"))),
  device: async (room, rest) => {
    const no = /\sno$/i.test(rest);
    const person = personOf(room, needed(rest.replace(/\sno$/i, ""), "device"));
    await room.act("device", person.id, !no);
    return no ? text.commands.deviceNot(person.name) : text.commands.deviceAsked(person.name, room.me.value.name);
  },
  "call start": async (room, rest) => {
    const media = rest || "audio";
    if (!["audio", "video", "broadcast"].includes(media)) throw new Unable(text.commands.usage("call start"));
    await room.calls.start(room.channel.value, /** @type {any} */ (media));
  },
  "call join": (room) => room.calls.join(room.channel.value),
  "call view": (room) => room.calls.view(room.channel.value),
  "call leave": (room) => room.calls.leave(),
  "call end": (room) => room.calls.end(),
  name: async (room, rest) => {
    if (!rest) return text.commands.nameIs(room.me.value.name);
    await session.rename(rest);
    return text.commands.named(plainName(rest));
  },
};

/** The command of a line and what follows it; what looks like one is never said, as it may hold an invite. @param {string} line */
const found = (line) => {
  const words = line.slice(1).trim().split(/\s+/);
  for (const count of [2, 1]) {
    const name = words.slice(0, count).join(" ").toLowerCase();
    if (words.length >= count && Object.hasOwn(COMMANDS, name)) {
      let rest = line.slice(1).trim();
      for (let at = 0; at < count; at += 1) rest = rest.replace(/^\S+\s*/, "");
      return { run: COMMANDS[name], rest };
    }
  }
  const first = words[0].toLowerCase();
  const near = Object.keys(COMMANDS).filter((name) => first && name.startsWith(first)).map((name) => `/${name}`);
  throw new Unable(text.commands.unknown(first, near.slice(0, 6).join(", ")));
};

/**
 * Do what was typed: a command, or a text that is said; `//` begins a text with a slash.
 * @param {Room} room @param {string} typed
 */
export const run = async (room, typed) => {
  if (!typed.startsWith("/") || typed.startsWith("//")) return room.say(typed.startsWith("//") ? typed.slice(1) : typed);
  const { run: command, rest } = found(typed);
  const answer = await command(room, rest);
  if (answer) session.note(answer);
};

/**
 * How a line could go on at its end: commands, channels, people.
 * @param {Room} room @param {string} before what stands before the caret
 * @returns {{insert: string, label: string, what: string, from: number}[]}
 */
export const suggestions = (room, before) => {
  if (/^\/[a-z ]*$/i.test(before) && !before.startsWith("//")) {
    const typed = before.slice(1).toLowerCase();
    return Object.keys(COMMANDS).filter((name) => name.startsWith(typed) && name !== typed).slice(0, 8)
      .map((name) => ({ insert: `/${name} `, label: text.commandHelp[name][0], what: text.commandHelp[name][1], from: 0 }));
  }
  const [, mark, typed = ""] = /(?:^|\s)([@#])([^\s@#]{0,32})$/.exec(before) ?? [];
  if (!mark) return [];
  const from = before.length - typed.length - 1;
  const all = mark === "#" ? room.channels.value.map(({ name }) => name)
    : [...new Set([...room.people.value.values()].filter(({ me, out }) => !me && !out).map(({ name }) => name))];
  return all.filter((name) => name.toLowerCase().startsWith(typed.toLowerCase())).slice(0, 8)
    .map((name) => ({ insert: `${mark}${name} `, label: `${mark}${name}`, what: "", from }));
};
