// The app's service worker, served as /app/sw.js with a line in front of it that says what this version is:
//
//     const MUSTER = { "version": "…", "files": ["./", "./app.….js", …] };
//
// It keeps these files and answers for them: the app opens without a network, and all its files are of one version. It
// answers for nothing else: what services say is never kept. A newer version waits until the person, or the last tab,
// lets it begin.

const CACHES = "muster ";
const CACHE = CACHES + MUSTER.version;
const PAGE = new URL("./", location.href).href;
const FILES = new Set(MUSTER.files.map((name) => new URL(name, location.href).href));
const ID = /^[0-9a-f]{32}$/;
const PATIENCE = 500;

/** Whether a name is of this version alone, so that the browser's own cache is never wrong of it. */
const isForGood = (url) => url.includes(`.${MUSTER.version}.`);

const keep = async () => {
  const cache = await caches.open(CACHE);
  try {
    await cache.addAll([...FILES].map((url) => new Request(url, { cache: isForGood(url) ? "default" : "no-cache" })));
    // a service that has been updated meanwhile has given the page of another version: again later
    const page = await cache.match(PAGE, { ignoreVary: true });
    if ([...FILES].some(isForGood) && !(await page?.text())?.includes(MUSTER.version)) throw new Error("the page is of another version");
  } catch (error) {
    await caches.delete(CACHE);
    throw error;
  }
};

const tidy = async () => {
  const old = (await caches.keys()).filter((name) => name.startsWith(CACHES) && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
  await clients.claim();
};

/** What is kept of a file; nothing where storage was wiped. */
const kept = (url) => caches.match(url, { cacheName: CACHE, ignoreVary: true }).catch(() => undefined);

addEventListener("install", (event) => event.waitUntil(keep()));
addEventListener("activate", (event) => event.waitUntil(tidy()));

addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  url.hash = "";
  if (request.mode === "navigate") url.search = ""; // the page is the same for all profiles
  if (request.method !== "GET" || !FILES.has(url.href)) return;
  event.respondWith(kept(url.href).then((found) => {
    if (found) return found;
    if (url.href === PAGE) event.waitUntil(keep().catch(() => {}));
    return fetch(request);
  }));
});

addEventListener("message", ({ data }) => {
  if (data?.t === "skip") void skipWaiting();
});

/** What a tab shows, as its address bar says; a tab that sleeps says nothing. */
const shown = (client) =>
  new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }) => resolve(String(data));
    setTimeout(() => resolve(""), PATIENCE);
    client.postMessage({ t: "where" }, [port2]);
  });

/** Show a channel in the tab that shows it already, or its circle, or the app; or in a new one. */
const show = async ({ circle, channel }) => {
  const address = [circle, channel].filter((id) => ID.test(id)).join("/");
  const all = await clients.matchAll({ type: "window", includeUncontrolled: true });
  const tabs = all.filter(({ url }) => url.replace(/[?#].*/s, "") === PAGE);
  const places = tabs.length > 1 ? await Promise.all(tabs.map(shown)) : [];
  const first = (test) => tabs[places.findIndex(test)];
  const tab = first((place) => place === `#/${address}`) ?? first((place) => place.startsWith(`#/${circle}`)) ??
    tabs.find(({ focused, visibilityState }) => focused || visibilityState === "visible") ?? tabs[0];
  if (!tab) return clients.openWindow(address ? `./#/${address}` : "./");
  if (address) tab.postMessage({ t: "go", address });
  return tab.focus();
};

addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(show(event.notification.data ?? {}).catch(() => {})); // the browser did not take it for a click
});
