/**
 * The browser library, as it is served beside the app (`/app/muster/`).
 * @module
 */
export { Circle, Refused } from "./muster/index.js";
export { readInvite, readService, writeService } from "./muster/invites.js";
export { read as readLines, write as writeLines } from "./muster/chat/transfer.js";
