/**
 * What was said in a channel: days, authors, texts, answers, reactions, files, calls.
 * @module
 */
import { skeleton } from "../model/names.js";
import * as session from "../model/session.js";
import { dayOf, text } from "../text.js";
import { Fragment, html, useEffect, useLayoutEffect, useRef, useSignal } from "../ui.js";
import { CallCard } from "./call.js";
import { Avatar, Icon, IconButton, Name, save } from "./parts.js";
import { open } from "./sidebar.js";
import { words } from "./words.js";

/** @typedef {import("../model/room.js").Room} Room */
/** @typedef {import("../model/room.js").Message} Message */

const CLOSE_MS = 5 * 60_000;
const LONG = 6000, MOST_LINES = 40;
const MOST_REACTIONS = 12;
/** So near its end one is at the end of the log; so near an end of what is shown more is. */
const NEAR = 120, SOON = 400;

/** @param {{room: Room, message: Message}} props */
const Reactions = ({ room, message }) => {
  const me = room.me.value.id;
  const all = Object.entries(message.reactions ?? {}).sort(([, a], [, b]) => b.length - a.length || Number(b.includes(me)) - Number(a.includes(me)));
  if (!all.length) return null;
  return html`
    <div class="reactions">
      ${all.slice(0, MOST_REACTIONS).map(([emoji, members]) => {
        const names = [...new Set(members.slice(0, 30).map((member) => room.person(member).name))];
        return html`
          <button key=${emoji} class="reaction" aria-pressed=${members.includes(room.me.value.id)} title=${text.reacted(emoji, members.length, text.list(names))}
            aria-label=${text.reacted(emoji, members.length, text.list(names))} onClick=${() => room.react(message, emoji).catch(session.wrong)}>
            <bdi>${emoji}</bdi> <span>${members.length}</span>
          </button>`;
      })}
      ${all.length > MOST_REACTIONS && html`<span class="hint">${text.moreReactions(all.length - MOST_REACTIONS)}</span>`}
    </div>`;
};

/** @param {{room: Room, message: Message, onDone: () => void}} props */
const EmojiChoice = ({ room, message, onDone }) => {
  const react = (/** @type {string} */ emoji) => {
    onDone();
    if (emoji.trim()) room.react(message, emoji.trim()).catch(session.wrong);
  };
  const ref = useRef(/** @type {HTMLElement | null} */ (null));
  useLayoutEffect(() => {
    const { current } = ref;
    current?.querySelector("button")?.focus();
    return () => void (current?.matches(":focus-within") && document.getElementById(`m-${message.hash}`)?.focus());
  }, []);
  return html`
    <div class="emoji-choice" ref=${ref} role="group" aria-label=${text.actions.react} onKeyDown=${(event) => event.key === "Escape" && (event.stopPropagation(), onDone())}>
      ${text.emoji.map((emoji) => html`<button key=${emoji} onClick=${() => react(emoji)}>${emoji}</button>`)}
      <input aria-label=${text.emojiOther} placeholder="…" maxlength="16" size="2" onKeyDown=${(event) => event.key === "Enter" && react(event.target.value)} />
    </div>`;
};

/** @param {{body: string, isMe: (name: string) => boolean}} props */
const Body = ({ body, isMe }) => {
  const isWhole = useSignal(false);
  let cut = body.length > LONG ? LONG : body.length;
  for (let at = -1, lines = 0; lines < MOST_LINES; lines += 1) {
    at = body.indexOf("\n", at + 1);
    if (at < 0) break;
    if (lines === MOST_LINES - 1) cut = Math.min(cut, at);
  }
  const shown = isWhole.value ? body : body.slice(0, cut);
  return html`
    <div class="text" dir="auto">${words(shown, isMe)}</div>
    ${shown.length < body.length && html`<button class="quiet more" onClick=${() => (isWhole.value = true)}>${text.more(body.length)}</button>`}`;
};

/** What one message can be done to. @param {{room: Room, message: Message, choosing: any}} props */
const Actions = ({ room, message, choosing }) => html`
  <div class="actions" role="group" aria-label=${text.actions.more}>
    <${IconButton} icon="smile" label=${text.actions.react} onClick=${() => (choosing.value = !choosing.value)} />
    <${IconButton} icon="reply" label=${text.actions.reply} onClick=${() => compose(room, { reply: message })} />
    ${message.mine && html`
      <${IconButton} icon="edit" label=${text.actions.edit} onClick=${() => compose(room, { edit: message })} />
      <${IconButton} icon="bin" label=${text.actions.delete} onClick=${open("delete", message)} />`}
    <${IconButton} icon="copy" label=${text.actions.copy} onClick=${() => navigator.clipboard?.writeText(message.text).catch(session.wrong)} />
  </div>`;

/** @param {Room} room @param {{reply?: Message, edit?: Message}} how */
const compose = (room, how) => {
  room.composing.value = how;
  document.querySelector(/** @type {"textarea"} */ ("#compose"))?.focus();
};

/** Go to a message, if it is here. @param {Room} room @param {string} hash */
export const jump = async (room, hash) => {
  if (!(await room.reach(hash))) return session.note(text.dialogs.search.gone);
  requestAnimationFrame(() => {
    const found = /** @type {HTMLElement | null} */ (document.getElementById(`m-${hash}`));
    found?.scrollIntoView({ block: "center" });
    found?.focus();
  });
};

/** @param {{room: Room, message: Message, isFirst: boolean, answered?: Message, isMe: (name: string) => boolean}} props */
const Entry = ({ room, message, isFirst, answered, isMe }) => {
  const choosing = useSignal(false);
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const author = room.person(message.author.id, message.author.name);
  const time = text.time(message.at_ms);
  const keys = (/** @type {KeyboardEvent} */ event) => {
    if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
    const move = (/** @type {any} */ to) => to?.focus();
    const all = [...document.querySelectorAll(".message")];
    const at = all.indexOf(/** @type {any} */ (event.currentTarget));
    /** @type {Record<string, () => void>} */
    const does = {
      ArrowUp: () => move(all[at - 1]),
      ArrowDown: () => move(all[at + 1] ?? document.querySelector("#compose")),
      End: () => void room.newest().then(() => requestAnimationFrame(() => move([...document.querySelectorAll(".message")].pop()))),
      Home: () => move(all[0]),
      r: () => compose(room, { reply: message }),
      "+": () => (choosing.value = true),
      c: () => void navigator.clipboard?.writeText(message.text),
      ...(message.mine && { e: () => compose(room, { edit: message }), Delete: open("delete", message) }),
    };
    const act = does[event.key];
    if (!act || (message.deleted && /^[rec+]$/.test(event.key))) return;
    event.preventDefault();
    act();
  };
  return html`
    <article id=${`m-${message.hash}`} ref=${place} class=${`message ${isFirst ? "first" : ""} ${message.mine ? "mine" : ""}`} tabindex="-1" onKeyDown=${keys}
      aria-label=${text.by(author.name, time)}>
      ${isFirst ? html`<${Avatar} id=${author.id} name=${author.name} />` : html`<time class="at" title=${text.timeWhole(message.at_ms)}>${time}</time>`}
      <div class="content">
        ${isFirst && html`<header><${Name} class="author">${author.name}<//> <time title=${text.timeWhole(message.at_ms)}>${time}</time></header>`}
        ${message.reply && html`
          <button class="answered" onClick=${() => jump(room, message.reply ?? "")}>
            <${Icon} name="reply" />
            ${answered ? html`<${Name}>${room.person(answered.author.id, answered.author.name).name}<//> <bdi class="grow">${answered.deleted ? text.deleted : answered.text.slice(0, 120)}</bdi>` : text.replyGone}
          </button>`}
        ${message.deleted ? html`<div class="text gone">${text.deleted}</div>` : html`<${Body} body=${message.text} isMe=${isMe} />`}
        <span class="marks">
          ${message.edited && html`<span class="hint">${text.edited}</span>`}
          ${message.mine && !message.deleted && (message.left
            ? html`<span class="sent" title=${text.delivery.left(message.left)}><${Icon} name="check" /><span class="hidden">${text.delivery.left(message.left)}</span></span>`
            : html`<span class="waits" title=${text.delivery.here}><${Icon} name="clock" /><span class="hidden">${text.delivery.here}</span></span>`)}
        </span>
        <${Reactions} room=${room} message=${message} />
        ${choosing.value && html`<${EmojiChoice} room=${room} message=${message} onDone=${() => ((choosing.value = false), place.current?.focus())} />`}
      </div>
      ${!message.deleted && html`<${Actions} room=${room} message=${message} choosing=${choosing} />`}
    </article>`;
};

/** A file that somebody offers. @param {{room: Room, offer: import("../model/files.js").Offer}} props */
const OfferCard = ({ room, offer }) => {
  const author = room.person(offer.member);
  const takers = Object.values(offer.takers);
  const have = takers.filter(({ state }) => state === "here").map(({ name }) => name);
  const coming = takers.filter(({ state }) => state === "coming");
  const { files } = room;
  const saveIt = () => save(offer.url, offer.name);
  return html`
    <article class="message first offer" tabindex="-1" aria-label=${text.files.offered(author.name)}>
      <${Avatar} id=${author.id} name=${author.name} />
      <div class="content">
        <header><${Name} class="author">${author.name}<//> <time>${text.time(offer.at_ms)}</time></header>
        ${offer.isPicture && offer.url && html`
          <button class="picture" aria-label=${text.files.view(offer.name)} onClick=${open("picture", offer)}><img src=${offer.url} alt=${offer.name} /></button>`}
        <div class="file">
          <${Icon} name="file" />
          <div class="grow"><${Name}>${offer.name}<//><span class="hint">${text.size(offer.size)}</span></div>
          ${!offer.mine && offer.state === "offered" && html`<button onClick=${() => files.take(offer.id)}>${text.files.take}</button>`}
          ${!offer.mine && offer.state === "here" && html`<button onClick=${saveIt}>${text.files.save}</button>`}
          ${!offer.mine && /^(failed|busy)$/.test(offer.state) && html`<button onClick=${() => files.take(offer.id)}>${text.files.take}</button>`}
          ${offer.state === "coming" && html`<button class="quiet" onClick=${() => files.stop(offer.id)}>${text.files.stop}</button>`}
          ${offer.mine && !offer.past && html`<button class="quiet" onClick=${() => files.stop(offer.id)}>${text.files.remove}</button>`}
        </div>
        ${offer.state === "coming" && html`<progress max=${offer.size} value=${offer.done} aria-label=${text.files.coming(offer.done, offer.size)}></progress>`}
        ${coming.map((one) => html`<div class="hint"><${Name}>${one.name}<//>: <progress max=${offer.size} value=${one.done}></progress> ${text.files.coming(one.done, offer.size)}</div>`)}
        <div class="hint" role="status">
          ${offer.state === "gone" && (!offer.past ? text.files.gone : offer.mine ? text.files.pastMine : text.files.past(author.name))}
          ${offer.state === "failed" && html`<span class="wrong">${text.files.failed}</span>`}
          ${offer.state === "busy" && text.files.busy}
          ${have.length > 0 && text.files.sentTo(text.list(have))}
          ${offer.mine && !offer.past && !takers.length && (offer.to ? text.files.waiting(offer.to) : text.files.nobody)}
          ${offer.unable?.length ? ` ${text.files.unable(text.list(offer.unable))}` : ""}
        </div>
      </div>
    </article>`;
};

const MOST_SPOKEN = 300;

/** What has come while one is here, once, for screen readers: a log that is redrawn would be read from its beginning. @param {{room: Room}} props */
const Spoken = ({ room }) => {
  const channel = room.channel.value;
  const messages = room.messages.value;
  const isFar = room.hasLater.value;
  const heard = useRef({ channel: "", isFar: false, isRead: false, hashes: new Set() });
  const spoken = useSignal(/** @type {{hash: string, words: string}[]} */ ([]));
  useEffect(() => {
    const before = heard.current;
    const isSame = before.channel === channel;
    const come = isSame && before.isRead && !before.isFar && !isFar ? messages.slice(-5).filter(({ hash, mine, deleted }) => !mine && !deleted && !before.hashes.has(hash)) : [];
    heard.current = { channel, isFar, isRead: isSame || messages.length > 0, hashes: new Set(messages.map(({ hash }) => hash)) };
    if (!isSame) spoken.value = [];
    if (come.length) spoken.value = come.map(({ hash, author, text: words }) => ({ hash, words: text.said(room.person(author.id, author.name).name, words.slice(0, MOST_SPOKEN)) }));
  }, [channel, messages]);
  return html`<div class="hidden" aria-live="polite" id="spoken">${spoken.value.map(({ hash, words }) => html`<p key=${hash}><bdi>${words}</bdi></p>`)}</div>`;
};

/** All of it, scrolled to the end while one is at the end. @param {{room: Room}} props */
export const Log = ({ room }) => {
  const ref = useRef(/** @type {HTMLElement | null} */ (null));
  const isAtEnd = useRef(true);
  const top = useRef(0);
  /** How far down one could scroll when one last did. */
  const reach = useRef(0);
  const anchor = useRef({ id: "", top: 0 });
  const away = useSignal(false);
  const channel = room.channel.value;
  const here = room.here.value;
  const messages = room.messages.value;
  const [hasEarlier, hasLater] = [room.hasEarlier.value, room.hasLater.value];
  // cards stand among what was said at their time, and not before or after what is shown of it
  const isShown = (/** @type {{at_ms: number}} */ { at_ms }) =>
    !(hasEarlier && at_ms < messages[0]?.at_ms) && !(hasLater && at_ms > messages[messages.length - 1]?.at_ms);
  const offers = room.files.offers.value.filter((one) => one.channel === channel && isShown(one));
  const calls = (room.calls.cards.value[channel] ?? []).filter(isShown);
  const byHash = new Map(messages.map((one) => [one.hash, one]));
  const mine = new Set([skeleton(room.me.value.name)]);
  const isMe = (/** @type {string} */ name) => mine.has(skeleton(name));
  /** Rows as they were drawn last, by hash: one that is as it was is not drawn again. */
  const drawn = useRef(/** @type {Map<string, {of: any[], row: any}>} */ (new Map()));

  /** Remember what is at the top of what is seen: it stays there, whatever comes above or below. */
  const hold = () => {
    const log = ref.current;
    const first = /** @type {HTMLElement | undefined} */ (log && [...log.querySelectorAll(".message[id]")].find((one) => /** @type {HTMLElement} */ (one).offsetTop + /** @type {HTMLElement} */ (one).offsetHeight > log.scrollTop));
    anchor.current = { id: first?.id ?? "", top: first && log ? first.offsetTop - log.scrollTop : 0 };
  };
  const look = () => {
    const { scrollTop = 0, scrollHeight = 0, clientHeight = 0 } = ref.current ?? {};
    const below = scrollHeight - scrollTop - clientHeight;
    const most = scrollHeight - clientHeight;
    if (room.hasLater.value) isAtEnd.current = false;
    else if (below < NEAR) isAtEnd.current = true;
    else if (isAtEnd.current && most !== reach.current) toEnd(); // it was laid out anew: nobody has scrolled
    else if (scrollTop < top.current) isAtEnd.current = false; // and not since a picture has come below
    reach.current = most;
    top.current = ref.current?.scrollTop ?? 0;
    away.value = !isAtEnd.current;
    hold();
    room.see(isAtEnd.current);
    if (scrollTop < SOON) void room.earlier();
    else if (below < SOON) void room.later();
  };
  const toEnd = () => {
    if (ref.current) ref.current.scrollTop = ref.current.scrollHeight;
  };
  const ends = room.ends.value;
  useLayoutEffect(() => {
    isAtEnd.current = true;
  }, [room, channel, ends]);
  useLayoutEffect(() => {
    const log = ref.current;
    if (!log) return;
    if (hasLater) isAtEnd.current = false;
    away.value = !isAtEnd.current;
    if (isAtEnd.current) toEnd();
    else {
      const first = document.getElementById(anchor.current.id);
      if (first) log.scrollTop = first.offsetTop - anchor.current.top;
    }
    hold();
    room.see(isAtEnd.current);
  });
  useEffect(() => {
    const seen = () => room.see(isAtEnd.current);
    const sized = new ResizeObserver(() => isAtEnd.current && toEnd());
    const grown = new MutationObserver(() => isAtEnd.current && toEnd()); // a card grows by itself: the rows are not drawn again
    if (ref.current) {
      sized.observe(ref.current);
      grown.observe(ref.current, { subtree: true, childList: true, characterData: true });
    }
    document.addEventListener("visibilitychange", seen);
    return () => {
      sized.disconnect();
      grown.disconnect();
      room.unsee();
      document.removeEventListener("visibilitychange", seen);
    };
  }, [room]);

  const entries = [
    ...messages.map((message) => ({ at_ms: message.at_ms, message, offer: undefined, call: undefined })),
    ...offers.map((offer) => ({ at_ms: offer.at_ms, offer, message: undefined, call: undefined })),
    ...calls.map((call) => ({ at_ms: call.at_ms, call, message: undefined, offer: undefined })),
  ];
  if (offers.length || calls.length) entries.sort((a, b) => a.at_ms - b.at_ms);
  let before = { day: NaN, author: "", at_ms: 0 };
  /** @type {typeof drawn.current} */
  const drawing = new Map();
  const rows = entries.map(({ at_ms, message, offer, call }) => {
    const day = dayOf(at_ms);
    const author = message?.author.id ?? "";
    const isNewDay = day !== before.day;
    const isNew = message?.hash === room.divider.value;
    const isFirst = isNewDay || isNew || !author || author !== before.author || at_ms - before.at_ms > CLOSE_MS || Boolean(message?.reply);
    before = { day, author, at_ms };
    const key = message?.hash ?? offer?.id ?? call?.hash;
    const dayName = isNewDay && text.day(at_ms);
    const answered = byHash.get(message?.reply ?? "") ?? room.originals.value.get(message?.reply ?? "");
    const of = [room, message, isFirst, dayName, isNew, answered, room.me.value.name];
    const known = message && drawn.current.get(message.hash);
    if (known && known.of.every((one, at) => one === of[at])) {
      drawing.set(message.hash, known);
      return known.row;
    }
    const row = html`
      <${Fragment} key=${key}>
        ${dayName && html`<div class="divider" role="separator"><span>${dayName}</span></div>`}
        ${isNew && html`<div class="divider new" role="separator"><span>${text.newMessages}</span></div>`}
        ${message && html`<${Entry} room=${room} message=${message} isFirst=${isFirst} answered=${answered} isMe=${isMe} />`}
        ${offer && html`<${OfferCard} room=${room} offer=${offer} />`}
        ${call && html`<${CallCard} room=${room} call=${call} />`}
      <//>`;
    if (message) drawing.set(message.hash, { of, row });
    return row;
  });
  drawn.current = drawing;
  const isAlone = room.peers.value.length === 0 && messages.length === 0 && room.people.value.size < 2;
  return html`
    <div class="log-frame">
      <${Spoken} room=${room} />
      <div class="log" ref=${ref} id="log" style=${{ overflowAnchor: "none" }} role="log" aria-live="off" tabindex="0" aria-label=${text.log(here?.name ?? "")} onScroll=${look} onLoadCapture=${() => isAtEnd.current && toEnd()}>
        ${hasEarlier
          ? html`<button class="quiet earlier" onClick=${() => room.earlier()}>${text.earlier}</button>`
          : html`<div class="beginning"><h2>#<${Name}>${here?.name}<//></h2><p>${text.beginning(here?.name ?? "")} ${here?.topic}</p><p class="hint">${text.kept(here?.days ?? 0)}</p>
              ${here?.mode === "invite" && here.manages && here.members.length < 2 && html`<p>${text.onlyYou}</p>`}
              ${isAlone && html`<p>${text.alone} ${text.aloneHint}</p><button class="primary" onClick=${open("invite")}><${Icon} name="share" />${text.inviteSomebody}</button>`}</div>`}
        ${rows}
        ${hasLater && html`<button class="quiet earlier" onClick=${() => room.later()}>${text.later}</button>`}
      </div>
      ${away.value && html`<button class="jump" onClick=${() => room.newest().catch(session.wrong)}><${Icon} name="down" />${text.jumpDown(room.unread.value[channel]?.length ?? 0)}</button>`}
    </div>`;
};
