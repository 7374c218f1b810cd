/**
 * Every text of calls.
 * @module
 */

/** @param {number} count @param {string} one @param {string} many */
const counted = (count, one, many) => `${count} ${count === 1 ? one : many}`;

/** @param {number} ms */
const lasted = (ms) => {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return "less than a minute";
  if (minutes < 60) return counted(minutes, "minute", "minutes");
  return `${counted(Math.floor(minutes / 60), "hour", "hours")} ${counted(minutes % 60, "minute", "minutes")}`;
};

export const callText = {
  panel: "Call",
  bar: "Calls in this channel",
  start: { audio: "Start a call", video: "Start a video call", broadcast: "Start a broadcast: others watch" },
  on: { audio: "A call is on", video: "A video call is on", broadcast: "A broadcast is on" },
  people: (/** @type {number} */ count) => counted(count, "person", "people"),
  watching: (/** @type {number} */ count) => `${count} watching`,
  join: "Join",
  joinVideo: "Join with video",
  rejoin: "Join again",
  watch: "Watch",
  speak: "Speak too",
  opening: "Getting the call ready …",
  elsewhere: "You are in a call in another channel",
  show: "Show the call",
  controls: "Your microphone, camera and screen",
  mute: "Mute the microphone",
  unmute: "Unmute the microphone",
  getMicrophone: "Use a microphone",
  camera: "Camera",
  cameraOn: "Turn the camera on",
  cameraOff: "Turn the camera off",
  screenOn: "Share your screen",
  screenOff: "Stop sharing your screen",
  hangUp: "Hang up",
  stopWatching: "Stop watching",
  endForAll: "End for all",
  devices: "Devices",
  kinds: { audio: "Microphone", video: "Camera", speaker: "Speaker" },
  systemDevice: "As the system has it",
  device: (/** @type {number} */ number) => `Device ${number}`,
  you: "You",
  host: "host",
  speaking: "speaking",
  muted: "muted",
  noMicrophone: "no microphone",
  screenOf: (/** @type {string} */ name) => `Screen of ${name}`,
  pictureOf: (/** @type {string} */ name) => `Picture of ${name}`,
  listenOnly: "You hear the others; they do not hear you.",
  unreachable: "Who cannot be reached is tried again. Strict networks need a TURN server: Settings has a place for one, and so has the service.",
  states: { connecting: "connecting …", connected: "connected", poor: "poor connection", failed: "cannot be reached" },
  paths: { direct: "direct", turn: "by a relay (TURN)" },
  figures: (/** @type {string} */ state, /** @type {number | null} */ rtt, /** @type {number} */ loss, /** @type {string} */ path) =>
    [state, path, rtt === null ? "" : `${rtt} ms`, loss >= 0.01 ? `${Math.round(loss * 100)} % lost` : ""].filter(Boolean).join(", "),
  viewers: "Watching",
  noViewers: "Nobody watches yet.",
  waitsForPlace: "waits for a place",
  revoke: (/** @type {string} */ name) => `Shut ${name} out`,
  revokeSure: "Shut out?",
  full: "All places are taken. You will see the broadcast as soon as one is free.",
  waitForHost: "Waiting for the host's picture …",
  ringsOut: "Ringing …",
  alone: "Nobody else is here yet.",
  declinedBy: (/** @type {string} */ names) => `Declined by ${names}`,
  incoming: {
    audio: (/** @type {string} */ name) => `${name} is calling`,
    video: (/** @type {string} */ name) => `${name} is calling with video`,
    broadcast: (/** @type {string} */ name) => `${name} is broadcasting`,
  },
  inChannel: (/** @type {string} */ channel, /** @type {string} */ circle) => (channel ? `#${channel} · ${circle}` : circle),
  answerKey: "F4 leads to the answer",
  accept: "Accept",
  acceptVideo: "Accept with video",
  decline: "Decline",
  card: {
    missed: { audio: "Missed call", video: "Missed video call", broadcast: "Missed broadcast" },
    began: { audio: "Call", video: "Video call", broadcast: "Broadcast" },
    on: "is on",
    lasted: (/** @type {number} */ ms) => `lasted ${lasted(ms)}`,
    by: (/** @type {string} */ name) => `begun by ${name}`,
    back: "Call back",
  },
  ended: "The call is over.",
  dismiss: "Close this note",
  problems: /** @type {Record<string, {title: string, advice: string}>} */ ({
    MICROPHONE_DENIED: { title: "The microphone is not allowed", advice: "You hear the others. To be heard, allow the microphone for this page in the browser's address bar, then press the microphone button." },
    MICROPHONE_NONE: { title: "There is no microphone", advice: "You hear the others. To be heard, plug one in, then press the microphone button." },
    MICROPHONE_BUSY: { title: "The microphone cannot be used", advice: "Another program may hold it: close that one, then press the microphone button." },
    MICROPHONE_FAILED: { title: "The microphone does not work", advice: "Choose another one under Devices, or press the microphone button to try again." },
    MICROPHONE_GONE: { title: "The microphone was taken away", advice: "You still hear the others. Plug it in again, or choose another one, then press the microphone button." },
    CAMERA_DENIED: { title: "The camera is not allowed", advice: "The call goes on without your picture. Allow the camera for this page in the browser's address bar, then press the camera button." },
    CAMERA_NONE: { title: "There is no camera", advice: "The call goes on without your picture. Plug one in, then press the camera button." },
    CAMERA_BUSY: { title: "The camera cannot be used", advice: "Another program may hold it: close that one, then press the camera button." },
    CAMERA_FAILED: { title: "The camera does not work", advice: "Choose another one under Devices, or press the camera button to try again." },
    CAMERA_GONE: { title: "The camera was taken away", advice: "The call goes on without your picture. Plug it in again, or choose another one, then press the camera button." },
    SCREEN: { title: "The screen cannot be shared", advice: "This browser or system does not allow it. Look for screen recording in the system's privacy settings." },
    BLOCKED: { title: "This browser makes no calls", advice: "WebRTC is switched off, by a setting, an extension or whoever manages this device. Switch it on, or use another browser." },
    FULL: { title: "The call is full", advice: "At most nine people are in a call. Join when somebody has left, or ask for a broadcast." },
    OVER: { title: "The call is over", advice: "Start a new one." },
    ENDED: { title: "The call was ended by its host", advice: "Start a new one to go on." },
    REVOKED: { title: "The host has shut you out of this call", advice: "You cannot join it again. Ask the host, or start another call." },
    NOT_ALLOWED: { title: "You may not call here", advice: "You are not in this channel, or lack its key: ask who manages it." },
    FAILED: { title: "That did not work", advice: "Try again; reload the page if it happens once more." },
  }),
};
