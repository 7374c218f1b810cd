/**
 * Public communities in the browser: find peers from a capsule's URL, beacons and a cache, and be found.
 *
 *     import { Community } from "https://host.example/app/muster/bootstrap/index.js";
 *     const community = await Community.join("https://host.example/capsules/main/peers.json#KEY");
 *     community.addEventListener("peer", ({ detail }) => connect(detail.peerId));
 *
 * docs/web-bootstrap.md has the rest.
 * @module
 */
export { Refused } from "../refused.js";
export { canonical } from "./canonical.js";
export { capsuleTickets, readCapsule, verifyCapsule } from "./capsules.js";
export { Community } from "./community.js";
export { fetchCapsule } from "./fetch.js";
export { keyId } from "./signatures.js";
export { makeTicket, merge, readTicket, verifyTicket } from "./tickets.js";
export { accept, acceptPinned, begin, expect, readState } from "./trust.js";
