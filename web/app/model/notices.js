/**
 * Notifications: what is said while the page is not seen.
 * @module
 */
import { text } from "../text.js";
import { settings } from "./settings.js";

const TEXT_MOST = 160;

/** Whether this browser can notify, and may: `granted`, `denied`, `default` or `none`. */
export const permission = () => (globalThis.Notification ? Notification.permission : "none");

/** Ask for the permission; from a click alone. @returns {Promise<boolean>} */
export const askPermission = async () => permission() !== "none" && (await Notification.requestPermission()) === "granted";

/** @param {string} title @param {NotificationOptions & {data: any}} how */
const show = async (title, how) => {
  if (!settings.notify.value || permission() !== "granted" || document.visibilityState === "visible") return;
  try {
    const worker = await navigator.serviceWorker?.getRegistration();
    if (worker) return void (await worker.showNotification(title, how));
    const shown = new Notification(title, how);
    shown.onclick = () => focus();
  } catch {
    // the browser has thought again
  }
};

/** Tell of a message. @param {import("./room.js").Room} room @param {import("./room.js").Message} message */
export const announce = (room, message) => {
  const { name } = room.person(message.author.id, message.author.name);
  const channel = room.channels.value.find(({ id }) => id === message.channel);
  void show(text.notice.title(name, channel?.name ?? "general", room.title.value), {
    body: message.text.slice(0, TEXT_MOST),
    tag: `${room.id} ${message.channel}`,
    icon: "./icon.svg",
    data: { circle: room.id, channel: message.channel },
  });
};

/** Tell of a call that rings. @param {import("./room.js").Room} room @param {string} name @param {string} channel */
export const announceCall = (room, name, channel) =>
  void show(text.notice.call(name, room.title.value), { tag: `${room.id} call`, icon: "./icon.svg", requireInteraction: true, data: { circle: room.id, channel } });
