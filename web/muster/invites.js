/**
 * Invites and the addresses of services (docs/protocol2.md): text to paste, scan or open.
 * @module
 */
import { b64, text as decode, unb64, utf8 } from "./bytes.js";
import { integer, items, members, parse, text as short } from "./json.js";
import { Epoch, circleId } from "./keys.js";
import { malformed } from "./refused.js";

/** @typedef {{url: string, id: string, code: string}} Service where one is, the name of its key, its access code */
/**
 * @typedef {object} Invite
 * @property {Uint8Array} founder the founder's public key
 * @property {Epoch} epoch
 * @property {Service[]} services
 * @property {string[]} peers
 * @property {number} at_ms
 * @property {string} name of the circle
 */

const PREFIX = "muster2.";
const CODE = /^[ -~]{16,256}$/;
const PEER = /^(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})$/;

/**
 * Read a service's address, `https://host[/path]#id[&access=code]`; `Refused` repeats no code.
 * @param {unknown} written
 * @returns {Service}
 */
export const readService = (written) => {
  const [, address, id, access] = /^([^#]*)#([0-9a-f]{32})(?:&access=([^&]*))?$/.exec(String(written).trim()) ?? [];
  let url, code;
  try {
    url = new URL(address);
    code = access === undefined ? "" : decodeURIComponent(access.replaceAll("+", " "));
  } catch {
    url = null;
  }
  if (!url || !/^https?:$/.test(url.protocol) || url.search || url.username || url.password || (access !== undefined && !CODE.test(code ?? ""))) {
    throw malformed("a service's address is https://host#id, and &access=CODE where it is closed");
  }
  return { url: url.href.replace(/\/$/, ""), id: /** @type {string} */ (id), code: code ?? "" };
};

/** Write a service's address; with a code it is a secret. @param {Service} service */
export const writeService = ({ url, id, code }) => `${url}#${id}${code && `&access=${encodeURIComponent(code)}`}`;

/**
 * Read a code, a link that carries one, or the fragment of one.
 * @param {string} given
 * @returns {Promise<Invite>} `Refused` (`MALFORMED`) never repeats it
 */
export const readInvite = async (given) => {
  const trimmed = String(given).trim();
  const code = trimmed.slice(trimmed.indexOf("#") + 1);
  if (!code.startsWith(PREFIX) || code.length > 4096 + PREFIX.length) throw malformed(`an invite starts with ${PREFIX}: copy the whole line`);
  let data;
  try {
    data = members(parse(decode(unb64(code.slice(PREFIX.length)))), "the invite");
  } catch {
    throw malformed("the invite is cut off or damaged: copy the whole line");
  }
  if (data.v !== 2) throw malformed("the invite has an unknown version");
  const founder = unb64(data.circle, 32);
  /** @param {string} name @param {number} most */
  const texts = (name, most) => items({ [name]: [], ...data }, name, most).map(String);
  return {
    founder,
    epoch: await Epoch.make(await circleId(founder), integer({ epoch: 0, ...data }, "epoch"), unb64(data.secret, 32)),
    services: texts("services", 8).map(readService),
    peers: texts("peers", 16).map((peer) => {
      const port = Number(PEER.exec(peer)?.[1]);
      if (!(port >= 1 && port <= 65_535)) throw malformed("a peer of the invite is not host:port");
      return peer;
    }),
    at_ms: integer({ at_ms: 0, ...data }, "at_ms"),
    name: short({ name: "", ...data }, "name", { most: 64 }),
  };
};

/** Write an invite as one line. @param {Invite} invite @returns {string} */
export const writeInvite = ({ founder, epoch, services, peers, at_ms, name }) => {
  const content = {
    v: 2, circle: b64(founder), epoch: epoch.number, secret: b64(epoch.secret), services: services.map(writeService), at_ms,
    ...(peers.length && { peers }), ...(name && { name }),
  };
  return PREFIX + b64(utf8(JSON.stringify(content)));
};
