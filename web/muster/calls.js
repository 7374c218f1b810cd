/**
 * Calls: sound and pictures on the peer connections that links have, for two or a few.
 *
 *     const call = new Call(links, await navigator.mediaDevices.getUserMedia({ audio: true, video: true }), [node]);
 *     call.addEventListener("track", ({ detail }) => (video.srcObject = detail.stream));
 *     call.end();
 *
 * Who is in a call is said by records (docs/chat.md); media comes from the nodes that were named here, and from no
 * others. Loaded when a call begins.
 * @module
 */
import { Refused } from "./refused.js";

/** @typedef {import("./links.js").Links} Links */
/** @typedef {import("./rtc.js").Rtc} Rtc */

/** Everybody sends to everybody: more than these need a server between. */
const MOST = 8;
const KEPT = 16;

/**
 * One call. Events: `track` (detail: `{node, track, stream}`, the same stream for all tracks of a node), `removed`
 * (detail: `{node, track, stream}`).
 */
export class Call extends EventTarget {
  #links;
  /** @type {Set<MediaStreamTrack>} */
  #ours;
  /** @type {Map<string, {stream: MediaStream, rtc: Rtc | null}>} */
  #nodes = new Map();
  /** @type {(event: any) => void} */
  #made;

  /**
   * Begin a call, or go into one.
   * @param {Links} links
   * @param {MediaStream | null} stream what we send; null to watch and listen
   * @param {string[]} to nodes
   */
  constructor(links, stream, to) {
    super();
    this.#links = links;
    this.#ours = new Set(stream?.getTracks());
    this.stream = stream ?? new MediaStream();
    // Another peer connection may take the place of one that died: tracks go on over it.
    this.#made = ({ detail: { node, rtc } }) => this.#use(node, rtc);
    links.addEventListener("rtc", this.#made);
    for (const node of to) this.join(node);
  }

  /** The nodes of the call. */
  get nodes() {
    return [...this.#nodes.keys()];
  }

  /** Have another node in the call. @param {string} node */
  join(node) {
    if (this.#nodes.has(node)) return;
    if (this.#nodes.size >= MOST) throw new Refused("TOO_MANY", `a call has at most ${MOST} others`);
    this.#nodes.set(node, { stream: new MediaStream(), rtc: null });
    const rtc = this.#links.rtc(node);
    if (rtc) this.#use(node, rtc);
    else this.#links.open(node).catch(() => {}); // it is used as soon as there is one
  }

  /** Have a node in the call no longer. @param {string} node */
  leave(node) {
    const there = this.#nodes.get(node);
    this.#nodes.delete(node);
    const { rtc } = there ?? {};
    if (!rtc || rtc.dead) return;
    rtc.media = null;
    for (const transceiver of rtc.pc.getTransceivers()) {
      if (transceiver.direction === "stopped") continue;
      if (transceiver.sender.track) rtc.pc.removeTrack(transceiver.sender);
      transceiver.direction = "inactive";
    }
  }

  /** Send another track too, to all. @param {MediaStreamTrack} track */
  add(track) {
    this.#ours.add(track);
    this.stream.addTrack(track);
    this.#each((pc) => this.#send(pc, track));
  }

  /** Send a track no longer. @param {MediaStreamTrack} track */
  remove(track) {
    this.#ours.delete(track);
    this.stream.removeTrack(track);
    this.#each((pc, sender) => sender(track) && pc.removeTrack(/** @type {RTCRtpSender} */ (sender(track))));
  }

  /** Send another track in the place of one, of the same kind; nothing is negotiated. @param {MediaStreamTrack} old @param {MediaStreamTrack} track */
  async replace(old, track) {
    this.#ours.delete(old);
    this.#ours.add(track);
    this.stream.removeTrack(old);
    this.stream.addTrack(track);
    /** @type {Promise<void>[]} */
    const replaced = [];
    this.#each((_, sender) => void replaced.push(sender(old)?.replaceTrack(track) ?? Promise.resolve()));
    await Promise.all(replaced);
  }

  /** Be silent, or not be seen: the track stays, and says nothing. @param {"audio" | "video"} kind @param {boolean} [muted] */
  mute(kind, muted = true) {
    for (const track of this.#ours) if (track.kind === kind) track.enabled = !muted;
  }

  /** Hang up; our tracks are the app's to stop. */
  end() {
    this.#links.removeEventListener("rtc", this.#made);
    for (const node of this.nodes) this.leave(node);
  }

  /** Send a track in a place that is free, so that descriptions do not grow: a signal has 16 KiB. @param {RTCPeerConnection} pc @param {MediaStreamTrack} track */
  #send(pc, track) {
    const free = pc.getTransceivers().find(({ sender, receiver, direction }) =>
      !sender.track && receiver.track.kind === track.kind && /recvonly|inactive/.test(direction));
    if (!free) return void pc.addTrack(track, this.stream);
    free.sender.setStreams(this.stream);
    free.direction = "sendrecv";
    free.sender.replaceTrack(track).catch(() => {});
  }

  /** @param {(pc: RTCPeerConnection, sender: (track: MediaStreamTrack) => RTCRtpSender | undefined) => any} change */
  #each(change) {
    for (const { rtc } of this.#nodes.values()) {
      if (rtc && !rtc.dead) change(rtc.pc, (track) => rtc.pc.getSenders().find((sender) => sender.track === track));
    }
  }

  /** Send and take media by a peer connection; all at once, so that it is negotiated once. @param {string} node @param {Rtc} rtc */
  #use(node, rtc) {
    const there = this.#nodes.get(node);
    if (!there || there.rtc === rtc) return;
    there.rtc = rtc;
    for (const track of there.stream.getTracks()) this.#removed(node, track);
    rtc.media = (event) => this.#come(node, event);
    for (const transceiver of rtc.pc.getTransceivers()) {
      if (transceiver.direction === "inactive") transceiver.direction = "recvonly";
    }
    for (const track of this.#ours) this.#send(rtc.pc, track);
    for (const event of rtc.declined.splice(0)) this.#come(node, event); // they were in the call before us
  }

  /** @param {string} node @param {RTCTrackEvent} event */
  #come(node, { track, streams }) {
    const there = this.#nodes.get(node);
    if (!there || there.stream.getTracks().length >= KEPT) return;
    const { stream } = there;
    stream.addTrack(track);
    for (const theirs of streams) theirs.addEventListener("removetrack", (event) => this.#removed(node, event.track));
    this.dispatchEvent(new CustomEvent("track", { detail: { node, track, stream } }));
  }

  /** @param {string} node @param {MediaStreamTrack} track */
  #removed(node, track) {
    const stream = this.#nodes.get(node)?.stream;
    if (!stream?.getTrackById(track.id)) return;
    stream.removeTrack(track);
    this.dispatchEvent(new CustomEvent("removed", { detail: { node, track, stream } }));
  }
}
