/**
 * Calls on the screen: what a channel's head says of them, the call itself, somebody who rings, and a call in the log.
 *
 * Sound comes from elements that stay where they are when another channel or circle is shown.
 * @module
 */
import { announceCall } from "../model/notices.js";
import { wrong } from "../model/session.js";
import { callText, text } from "../text.js";
import { html, useEffect, useLayoutEffect, useRef, useSignal } from "../ui.js";
import { Avatar, Icon, IconButton, Name } from "./parts.js";

/** @typedef {import("../model/room.js").Room} Room */
/** @typedef {import("../model/call.js").Tile} Tile */
/** @typedef {import("../model/call.js").Known} Known */

const MEDIA = /** @type {const} */ ({ audio: "phone", video: "video", broadcast: "live" });
const ANSWERS = ["came", "declined", "rings", "silent"];
const MOST_NAMED = 4;
const KINDS = /** @type {const} */ (["audio", "video", "speaker"]);
/** How a telephone rings: two tones, a pause. */
const [RING_HZ, RING_S, PAUSE_MS] = [[440, 554], 0.9, 3000];

/** Do something that may be refused. @param {() => any} what */
const doing = (what) => () => void Promise.resolve(what()).catch(wrong);

/** @param {Room} room @param {string} member @param {string} [name] */
const nameOf = (room, member, name) => room.person(member, name).name;

/** @param {Room} room @param {string} channel */
const channelName = (room, channel) => room.channels.value.find(({ id }) => id === channel)?.name ?? "";

/** What the head of a channel says of calls: begin one, or go into the one that is on. @param {{room: Room}} props */
export const CallBar = ({ room }) => {
  const { calls } = room;
  const channel = room.channel.value;
  const on = calls.ongoing.value[channel];
  const mine = calls.mine.value;
  const me = room.me.value.id;
  if (mine || (room.here.value && (room.here.value.isOut || (room.here.value.mode !== "public" && !room.here.value.isIn)))) return html`<div class="call-bar" role="group" aria-label=${callText.bar}></div>`;
  if (!on) {
    const start = (/** @type {"audio" | "video" | "broadcast"} */ media) => doing(() => calls.start(channel, media));
    return html`
      <div class="call-bar" role="group" aria-label=${callText.bar}>
        ${Object.entries(MEDIA).map(([media, icon]) => html`
          <${IconButton} key=${media} icon=${icon} class=${media} label=${callText.start[media]} disabled=${calls.busy.value} onClick=${start(/** @type {any} */ (media))} />`)}
      </div>`;
  }
  const { media, host, participants, inNow, watching } = on;
  const isBroadcast = media === "broadcast" && host !== me;
  const again = participants.includes(me) ? callText.rejoin : callText.join;
  return html`
    <div class="call-bar on" role="group" aria-label=${callText.bar}>
      <span class="call-on"><${Icon} name=${MEDIA[media] ?? "phone"} /><span>${callText.on[media]} ${inNow > 0 && ` · ${callText.people(inNow)}`}${watching > 0 && ` · ${callText.watching(watching)}`}</span></span>
      ${isBroadcast && html`<button class="primary" disabled=${calls.busy.value} onClick=${doing(() => calls.view(channel))}>${callText.watch}</button>`}
      <button class=${isBroadcast ? "" : "primary"} disabled=${calls.busy.value} onClick=${doing(() => calls.join(channel))}>${isBroadcast ? callText.speak : again}</button>
    </div>`;
};

/** A picture that follows its stream. @param {{stream: MediaStream, label: string, screen: boolean, isMe: boolean}} props */
const Picture = ({ stream, label, screen, isMe }) => {
  const ref = useRef(/** @type {HTMLVideoElement | null} */ (null));
  const track = stream.getVideoTracks().at(-1);
  useEffect(() => {
    if (ref.current) ref.current.srcObject = track ? new MediaStream([track]) : null;
  }, [track]);
  return html`<video ref=${ref} class=${`${screen ? "screen" : ""} ${isMe && !screen ? "mirror" : ""}`} aria-label=${label} autoplay playsinline muted></video>`;
};

/** Shut somebody out, for good: so it is asked once more. @param {{room: Room, member: string, name: string}} props */
const ShutOut = ({ room, member, name }) => {
  const asked = useSignal(false);
  if (!asked.value) return html`<${IconButton} icon="close" class="small" label=${callText.revoke(name)} onClick=${() => (asked.value = true)} />`;
  return html`
    <button class="quiet danger shut-out" onBlur=${() => (asked.value = false)} onClick=${doing(() => room.calls.revoke(member))} ref=${(/** @type {HTMLElement | null} */ one) => one?.focus()}>${callText.revokeSure}<span class="hidden">: ${name}</span></button>`;
};

/** Show a picture on the whole screen. @param {any} event */
const fill = ({ currentTarget }) => void currentTarget.closest(".picture").requestFullscreen().catch(wrong);

/** Somebody in the call. @param {{room: Room, tile: Tile, isHost: boolean, large: {value: string}}} props */
const TileOf = ({ room, tile, isHost, large }) => {
  const { node, member, stream, isMe, speaking, microphone, muted, camera, screen, health, role } = tile;
  const name = nameOf(room, member, tile.name);
  const shows = (camera || screen) && stream.getVideoTracks().length > 0;
  const isLarge = shows && large.value === node;
  const state = callText.states[health.state];
  const figures = callText.figures(state, health.rtt_ms, health.loss, health.path ? callText.paths[health.path] : "");
  return html`
    <li class=${`tile ${speaking ? "speaking" : ""} ${screen ? "wide" : ""} ${isLarge ? "large" : ""}`}>
      <div class="picture">
        ${shows ? html`<${Picture} stream=${stream} screen=${screen} isMe=${isMe} label=${screen ? callText.screenOf(name) : callText.pictureOf(name)} />` : html`<${Avatar} id=${room.person(member).id} name=${name} />`}
        ${!isMe && health.state !== "connected" && html`<span class=${`health ${health.state}`}>${state}</span>`}
        ${shows && html`<button type="button" class="enlarge" title=${callText.enlarge(name)} aria-label=${callText.enlarge(name)} aria-pressed=${isLarge} onClick=${() => (large.value = isLarge ? "" : node)}></button>`}
        ${isLarge && document.fullscreenEnabled && html`<${IconButton} icon="grow" class="small fill" label=${callText.wholeScreen} onClick=${fill} />`}
      </div>
      <div class="caption">
        <${Name} class="who">${name}<//>
        ${isMe && html`<span class="hint">${callText.you}</span>`}
        ${role === "host" && html`<span class="hint">${callText.host}</span>`}
        ${speaking && html`<span class="speaks"><${Icon} name="live" /><span>${callText.speaking}</span></span>`}
        ${!microphone ? html`<span class="silent"><${Icon} name="muted" /><span>${callText.noMicrophone}</span></span>`
          : muted && html`<span class="silent"><${Icon} name="muted" /><span>${callText.muted}</span></span>`}
        ${!isMe && html`<span class=${`mark ${health.state}`} title=${figures}><i></i><span class="hidden">${figures}</span></span>`}
        ${isHost && !isMe && html`<${ShutOut} room=${room} member=${member} name=${name} />`}
      </div>
    </li>`;
};

/** Which microphone, camera and speaker are used. @param {{room: Room}} props */
const Devices = ({ room }) => {
  const { calls } = room;
  const found = calls.devices.value;
  const chosen = calls.chosen;
  return html`
    <details class="devices">
      <summary>${callText.devices}</summary>
      <div class="device-choices">
        ${KINDS.filter((kind) => found[kind].length > 0).map((kind) => html`
          <label key=${kind}><span>${callText.kinds[kind]}</span>
            <select value=${chosen[kind]} onChange=${(/** @type {any} */ { currentTarget }) => doing(() => calls.choose(kind, currentTarget.value))()}>
              <option value="">${callText.systemDevice}</option>
              ${found[kind].map(({ id, name }) => html`<option key=${id} value=${id} selected=${id === chosen[kind]}>${name}</option>`)}
            </select>
          </label>`)}
      </div>
    </details>`;
};

/** Who watches, for the host. @param {{room: Room}} props */
const Viewers = ({ room }) => {
  const viewers = room.calls.viewers.value;
  return html`
    <section class="viewers" aria-label=${callText.viewers}>
      <p><strong>${callText.viewers} (${viewers.filter(({ admitted }) => admitted).length})</strong></p>
      ${viewers.length ? html`
        <ul>
          ${viewers.map(({ node, member, name: told, admitted }) => {
            const name = nameOf(room, member, told);
            return html`
              <li key=${node}><${Name}>${name}<//>${!admitted && html` <span class="hint">${callText.waitsForPlace}</span>`}
                <${ShutOut} room=${room} member=${member} name=${name} /></li>`;
          })}
        </ul>` : html`<p class="hint">${callText.noViewers}</p>`}
    </section>`;
};

/** What is wrong with a call, and what to do. @param {{room: Room}} props */
const ProblemOf = ({ room }) => {
  const found = room.calls.problem.value;
  return html`<div role="alert">${found && html`
    <div class="banner wrong call-problem"><${Icon} name="info" /><span class="grow"><strong>${found.title}.</strong> ${found.advice}</span>
      <button class="quiet" aria-label=${callText.dismiss} onClick=${() => room.calls.dismiss()}>×</button></div>`}</div>`;
};

/** How long a call has lasted. @param {{since: number}} props */
const Lasts = ({ since }) => {
  const now = useSignal(Date.now());
  useEffect(() => {
    const timer = setInterval(() => (now.value = Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return html`<span role="timer" aria-label=${callText.lasts}>${callText.since(Math.max(0, Math.floor((now.value - since) / 1000)))}</span>`;
};

/** What has come of a call, while one is alone in it. @param {{room: Room}} props */
const Called = ({ room }) => {
  const rung = room.calls.rung.value;
  /** @type {Map<string, {name: string, answers: string[]}>} */
  const people = new Map();
  for (const [member, answer] of Object.entries(rung ?? {})) {
    const { id, name } = room.person(member);
    people.set(id, { name, answers: [...(people.get(id)?.answers ?? []), answer] });
  }
  // of somebody's devices the one counts that has answered
  const whose = (/** @type {string} */ answer) => {
    const names = [...people.values()].filter(({ answers }) => ANSWERS.find((one) => answers.includes(one)) === answer).map(({ name }) => name);
    return names.length > MOST_NAMED ? text.list([...names.slice(0, MOST_NAMED - 1), callText.others(names.length - MOST_NAMED + 1)]) : text.list(names);
  };
  const [declined, rings, silent] = ANSWERS.slice(1).map(whose);
  if (!declined && !rings && !silent) return html`<p>${rung && !people.size ? callText.nobodyRings : callText.alone}</p>`;
  return html`<p>${[rings && callText.ringsOut(rings), declined && callText.declinedBy(declined), silent && callText.noAnswer(silent)].filter(Boolean).join(" ")}</p>`;
};

/** The call that this page is in. @param {{room: Room}} props */
export const CallPanel = ({ room }) => {
  const { calls } = room;
  const large = useSignal("");
  const mine = calls.mine.value;
  if (!mine) return html`<${ProblemOf} room=${room} />${calls.busy.value && html`<p class="call-busy" role="status">${callText.opening}</p>`}`;
  const { microphone, muted, camera, screen } = calls.sending.value;
  const isHost = mine.role === "host";
  const isViewer = mine.role === "viewer";
  const tiles = calls.tiles.value;
  const alone = !isViewer && tiles.length === 1 && !(mine.media === "broadcast" && isHost);
  const hangUp = isViewer ? callText.stopWatching : callText.hangUp;
  return html`
    <section class="call-panel" aria-label=${callText.panel}>
     <div class="call-body">
      <p class="hint call-head"><span>#<${Name}>${channelName(room, mine.channel)}<//></span> · <${Lasts} since=${calls.began} /></p>
      <${ProblemOf} room=${room} />
      <ul class=${`tiles n${Math.min(tiles.length, 9)} ${tiles.some(({ node, camera, screen }) => node === large.value && (camera || screen)) ? "one-large" : ""}`}>
        ${tiles.map((tile) => html`<${TileOf} key=${tile.node} room=${room} tile=${tile} isHost=${isHost} large=${large} />`)}
      </ul>
      <div role="status" class="call-status">
        ${isViewer && calls.waiting.value && html`<p>${callText.full}</p>`}
        ${isViewer && !calls.waiting.value && !tiles.length && html`<p>${callText.waitForHost}</p>`}
        ${alone && html`<${Called} room=${room} />`}
        ${tiles.some(({ health }) => health.state === "failed") && html`<p>${callText.unreachable}</p>`}
        ${!isViewer && !microphone && html`<p>${callText.listenOnly}</p>`}
      </div>
      ${isHost && (mine.media === "broadcast" || calls.viewers.value.length > 0) && html`<${Viewers} room=${room} />`}
     </div>
      <div class="controls" role="group" aria-label=${callText.controls}>
        ${!isViewer && html`
          <${IconButton} icon=${microphone && !muted ? "microphone" : "muted"} class="control" label=${callText.kinds.audio} pressed=${microphone && !muted} onClick=${doing(() => calls.toggleMicrophone())} />
          <${IconButton} icon="video" class="control" label=${callText.camera} pressed=${camera} onClick=${doing(() => calls.toggleCamera())} />
          ${calls.canShare && html`<${IconButton} icon="screen" class="control" label=${callText.screenOn} pressed=${screen} onClick=${doing(() => (screen ? calls.stopScreen() : calls.shareScreen()))} />`}`}
        ${isViewer && html`<button onClick=${doing(() => calls.becomeParticipant())}><${Icon} name="microphone" />${callText.speak}</button>`}
        <${Devices} room=${room} />
        ${isHost && mine.media !== "broadcast" && tiles.length > 1 && html`<button class="danger" onClick=${doing(() => calls.end())}>${callText.endForAll}</button>`}
        <button class="hang-up" onClick=${doing(() => (isHost && mine.media === "broadcast" ? calls.end() : calls.leave()))}><${Icon} name="phone" />${isHost && mine.media === "broadcast" ? callText.endForAll : hangUp}</button>
      </div>
    </section>`;
};

/** Ring until it is stopped. @returns {() => void} */
const ring = () => {
  const context = new AudioContext();
  const once = () => {
    for (const hertz of RING_HZ) {
      const [tone, volume] = [new OscillatorNode(context, { frequency: hertz }), new GainNode(context, { gain: 0 })];
      const now = context.currentTime;
      volume.gain.setTargetAtTime(0.08, now, 0.03);
      volume.gain.setTargetAtTime(0, now + RING_S, 0.08);
      tone.connect(volume).connect(context.destination);
      tone.start(now);
      tone.stop(now + RING_S + 0.5);
    }
  };
  once();
  const timer = setInterval(once, PAUSE_MS);
  return () => {
    clearInterval(timer);
    void context.close();
  };
};

/** What is heard of somebody. @param {{stream: MediaStream, speaker: string}} props */
const Sound = ({ stream, speaker }) => {
  const ref = useRef(/** @type {HTMLAudioElement | null} */ (null));
  const tracks = stream.getAudioTracks();
  useEffect(() => {
    const audio = ref.current;
    if (!audio) return;
    // a stream of its own: an element that began with an empty one does not always begin again
    audio.srcObject = tracks.length ? new MediaStream(tracks) : null;
    if (tracks.length) audio.play().catch(() => addEventListener("pointerdown", () => void audio.play().catch(() => {}), { once: true }));
  }, [tracks.map(({ id }) => id).join()]);
  useEffect(() => {
    const audio = ref.current;
    if (!audio) return;
    const { sinkId } = /** @type {any} */ (audio);
    if (sinkId !== undefined && sinkId !== speaker) void (/** @type {any} */ (audio).setSinkId(speaker).catch(() => {})); // it has been taken away
  }, [speaker]);
  return html`<audio ref=${ref} autoplay></audio>`;
};

/** Somebody who calls, and what is heard of a call: of every circle, whichever is shown. @param {{room: Room}} props */
export const IncomingCall = ({ room }) => {
  const { calls } = room;
  const ringing = calls.ringing.value;
  const ref = useRef(/** @type {HTMLElement | null} */ (null));
  const hash = ringing?.hash;
  // at once: F4 may follow as soon as it is seen
  useLayoutEffect(() => {
    if (!ringing) return undefined;
    const stop = calls.mayRing ? ring() : () => {};
    announceCall(room, nameOf(room, ringing.from, ringing.name), ringing.channel);
    // who writes is not disturbed: a key that was meant for a text would take the call
    if (!document.activeElement?.matches("input, textarea, select, dialog *")) ref.current?.focus();
    const answer = (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "F4") return;
      event.preventDefault();
      event.stopImmediatePropagation();
      /** @type {HTMLElement | null | undefined} */ (ref.current?.querySelector("button"))?.focus();
    };
    addEventListener("keydown", answer, true);
    return () => {
      stop();
      removeEventListener("keydown", answer, true);
    };
  }, [hash]);
  const sounds = calls.tiles.value.filter(({ isMe }) => !isMe);
  return html`
    ${sounds.map(({ node, stream }) => html`<${Sound} key=${node} stream=${stream} speaker=${calls.speaker} />`)}
    ${ringing && html`
      <div ref=${ref} class="incoming" role="alertdialog" aria-labelledby=${`rings-${room.id}`} aria-describedby=${`rings-where-${room.id}`} tabindex="-1">
        <${Avatar} id=${room.person(ringing.from).id} name=${nameOf(room, ringing.from, ringing.name)} />
        <div class="grow">
          <p id=${`rings-${room.id}`}><strong><${Name}>${(callText.incoming[ringing.media] ?? callText.incoming.audio)(nameOf(room, ringing.from, ringing.name))}<//></strong></p>
          <p class="hint" id=${`rings-where-${room.id}`}><${Name}>${callText.inChannel(channelName(room, ringing.channel), room.title.value)}<//><span class="key-hint"> · ${callText.answerKey}</span></p>
        </div>
        <div class="buttons">
          <button class="primary" onClick=${doing(() => calls.accept())}><${Icon} name="phone" />${callText.accept}</button>
          <button onClick=${doing(() => calls.accept({ video: true }))}><${Icon} name="video" />${callText.acceptVideo}</button>
          <button class="danger" onClick=${doing(() => calls.decline())}>${callText.decline}</button>
        </div>
      </div>`}`;
};

/** A call in the log. @param {{room: Room, call: Known}} props */
export const CallCard = ({ room, call }) => {
  const { media, host, at_ms, ended_ms, on, missed } = call;
  const { card } = callText;
  const how = on ? card.on : ended_ms > at_ms ? card.lasted(Math.min(ended_ms - at_ms, 43_200_000)) : "";
  const canCall = missed && !room.calls.mine.value && !room.calls.ongoing.value[call.channel];
  return html`
    <article class=${`call-card ${missed ? "missed" : ""}`}>
      <${Icon} name=${MEDIA[media] ?? "phone"} />
      <p class="grow">${missed
    ? html`<strong>${card.missed[media]} <${Name}>${nameOf(room, host)}<//></strong>`
    : html`<strong>${card.began[media]}</strong>${how && ` ${how}`}, <${Name}>${card.by(nameOf(room, host))}<//>`} · <time datetime=${new Date(at_ms).toISOString()}>${text.time(at_ms)}</time></p>
      ${canCall && html`<button class="quiet" onClick=${doing(() => room.calls.start(call.channel, media === "broadcast" ? "audio" : media, { ring: room.person(host).devices }))}>${card.back}</button>`}
    </article>`;
};
