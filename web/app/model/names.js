/**
 * How people are shown: names that look alike are told apart, devices of one person are one.
 * @module
 */

const DRAWN_AS_LATIN = new Map([..."аеорсухіїјѕԁԛԝһкмнтвαβγεηικνορτυχω0135"].map((one, at) => [one, "aeopcyxiijsdqwhkmhtbabyenikvoptuxwolss"[at]]));

/** What two names have in common that look alike; a help, and no proof. @param {string} name */
export const skeleton = (name) => {
  const plain = name.normalize("NFKD").toLowerCase().normalize("NFKD").replace(/[\p{M}\p{Cf}]/gu, "");
  return [...plain].map((one) => DRAWN_AS_LATIN.get(one) ?? one).join("").replaceAll("rn", "m").replaceAll("i", "l").replace(/\s+/g, "");
};

/** What ends as the app ends a name that another has too: with a key, or what looks like one. */
const KEYED = /\([a-fosl2-9]{6}\)$/;

/** A name without what would break a line or its direction. @param {string} name */
export const plainName = (name) => name.replace(/[\p{Cc}\p{Zl}\p{Zp}\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu, " ").trim();

/** The name of a file of somebody, without folders and what no system takes in a name. @param {string} name */
export const fileName = (name) => plainName(name).replace(/[\\/:*?"<>|]+/g, "_").replace(/^[._ ]+/, "");

/**
 * @typedef {object} Person
 * @property {string} id of the first of its devices
 * @property {string[]} devices member ids; of those that were left out none, while another is in
 * @property {string} name as it is shown
 * @property {boolean} me
 * @property {boolean} asks whether it says that it is this person, on another device, and waits for an answer
 * @property {boolean} out whether the founder has left it out of the circle
 */

/** A member's key, short enough to compare. @param {string} id */
export const keyOf = (id) => (id.slice(0, 16).match(/.{4}/g) ?? []).join(" ");

/**
 * Persons by each of their member ids; the second of two names that look alike has a short key behind it.
 * @param {{id: string, name: string, person: string, key: string, asks?: boolean, out?: boolean}[]} people @param {string} me
 * @returns {Map<string, Person>}
 */
export const persons = (people, me) => {
  /** @type {Map<string, Person & {key: string}>} */
  const found = new Map();
  const mine = people.find(({ id }) => id === me)?.person;
  for (const { id, name, person, key, asks = false } of [...people].sort((a, b) => Number(b.id === me) - Number(a.id === me) || (a.id < b.id ? -1 : 1))) {
    const known = found.get(person);
    if (known) {
      known.devices.push(id);
      known.asks ||= asks;
    } else found.set(person, { id, devices: [id], name: plainName(name), me: id === me || person === mine, key, asks, out: false });
  }
  const taken = new Set();
  /** @type {Map<string, Person>} */
  const byMember = new Map();
  const gone = new Set(people.flatMap(({ id, out }) => (out ? [id] : [])));
  for (const { key, ...one } of found.values()) {
    const look = skeleton(one.name);
    const name = !look ? key : taken.has(look) || KEYED.test(look) ? `${one.name} (${key})` : one.name;
    taken.add(look);
    const still = one.devices.filter((id) => !gone.has(id));
    for (const id of one.devices) byMember.set(id, { ...one, name, out: !still.length, devices: still.length ? still : one.devices });
  }
  return byMember;
};

/** A hue for a person, the same on all screens. @param {string} id */
export const hue = (id) => parseInt(id.slice(0, 6), 16) % 360 || 0;

/** The letters of an avatar. @param {string} name */
export const initials = (name) => {
  const words = name.split(/\s+/).filter((word) => /[\p{L}\p{N}]/u.test(word));
  const letters = (words.length > 1 ? [words[0], words[words.length - 1]] : words).map((word) => [...word].find((one) => /[\p{L}\p{N}]/u.test(one)));
  return letters.join("").toLocaleUpperCase() || "?";
};
