/**
 * The app's service worker (worker.js), as the page has it: it keeps the app's files, and a newer version waits until
 * the person lets it begin.
 * @module
 */

const WORKER = "./sw.js";
const HOUR = 3_600_000;
const MINUTE = 60_000;
const ADDRESS = /^[0-9a-f]{32}(\/[0-9a-f]{32})?$/;

/** @type {ServiceWorkerRegistration | null} */
let registration = null;
let checkedAt = -Infinity;

/** The worker's address, for a browser that takes none that no policy has seen (Trusted Types). @returns {any} */
const address = () => {
  const { trustedTypes } = /** @type {any} */ (globalThis);
  try {
    return trustedTypes.createPolicy("muster", { createScriptURL: () => WORKER }).createScriptURL("");
  } catch {
    return WORKER; // there are none, or the page's policy names none and asks for none
  }
};

/** See whether there is a newer version; at most once a minute. */
export const check = async () => {
  if (!registration || performance.now() < checkedAt + MINUTE) return;
  checkedAt = performance.now();
  await registration.update().catch(() => {}); // no network: later
};

/** Let the newer version begin: all tabs of the app are loaded again. @returns {boolean} whether one was waiting */
export const applyUpdate = () => {
  registration?.waiting?.postMessage({ t: "skip" });
  return Boolean(registration?.waiting);
};

/** Do what the worker asks: say what is shown, or show what a notification is about. @param {MessageEvent} event */
const hear = ({ data, ports }) => {
  if (data?.t === "where") ports[0]?.postMessage(location.hash);
  if (data?.t === "go" && ADDRESS.test(data.address)) location.hash = `#/${data.address}`;
};

/**
 * Let the app be kept in this browser, and see each hour, and when the page is seen again, whether there is a newer one.
 * @param {{onUpdate?: () => void}} [how] a newer version waits: ask, then `applyUpdate`
 * @returns {Promise<boolean>} whether the app is kept; browsers refuse it in private windows, say
 */
export const register = async ({ onUpdate = () => {} } = {}) => {
  const worker = globalThis.navigator?.serviceWorker;
  if (!worker) return false;
  let isKept = Boolean(worker.controller);
  let isOver = false;
  worker.addEventListener("controllerchange", () => {
    // the first worker takes a page that it has not loaded: that is no other version; and none is left where storage was wiped
    if (isKept && worker.controller && !isOver) {
      isOver = true;
      location.reload();
    }
    isKept = Boolean(worker.controller);
  });
  worker.addEventListener("message", hear);
  worker.startMessages();
  try {
    registration = await worker.register(address(), { scope: "./", updateViaCache: "none" });
  } catch {
    return false;
  }
  const found = registration;
  const waits = () => found.active && found.waiting && onUpdate();
  found.addEventListener("updatefound", () => {
    const { installing } = found;
    installing?.addEventListener("statechange", () => installing.state === "installed" && waits());
  });
  waits();
  setInterval(check, HOUR);
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && check());
  return true;
};
