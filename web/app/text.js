/**
 * Every text that people read, in one place. Whoever translates the app translates this file.
 * @module
 */
const LOCALE = undefined; // as the browser is set

/** @param {Intl.DateTimeFormatOptions} how */
const written = (how) => new Intl.DateTimeFormat(LOCALE, how);
const clock = written({ hour: "2-digit", minute: "2-digit" });
const day = written({ weekday: "long", day: "numeric", month: "long" });
const dayOfYear = written({ day: "numeric", month: "long", year: "numeric" });
const whole = written({ dateStyle: "full", timeStyle: "short" });
const relative = new Intl.RelativeTimeFormat(LOCALE, { numeric: "auto" });
const number = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 1 });
const list = new Intl.ListFormat(LOCALE, { type: "conjunction" });

const DAY_MS = 86_400_000;
/** So much of a service's own words: what they say is up to it. */
const MOST_WHY = 120;

/** The day of a time, as a number. @param {number} at_ms */
export const dayOf = (at_ms) => {
  const at = new Date(at_ms);
  return Math.round(new Date(at.getFullYear(), at.getMonth(), at.getDate(), 12).getTime() / DAY_MS);
};

/** @param {string} first */
const capital = (first) => first.charAt(0).toLocaleUpperCase() + first.slice(1);

/** @param {number} count @param {string} one @param {string} many */
const counted = (count, one, many) => `${number.format(count)} ${count === 1 ? one : many}`;

/** @type {Record<string, string>} what a refusal's reason means, and what to do */
const REASONS = {
  NO_INVITE: "This browser is in no such circle. Ask a member for an invite link.",
  NO_PEER: "They are not here any more. Wait until they are back.",
  NO_CHANNEL: "No channel has this name, or several have it.",
  UNSUPPORTED: "This browser cannot do that. Use a current Chrome, Edge, Firefox or Safari.",
  UNREACHABLE: "The service cannot be reached. Check the network; it is tried again by itself.",
  CLOSED: "The circle is closed in this tab. Load the page again.",
  NOT_ALLOWED: "That is not yours to do, or the service wants an access code: ask who runs it for the whole address.",
  CLOCK_WRONG: "The clock of this device is wrong by days. Set it, then load the page again.",
  DISTRUSTED: "A service answered what no honest one answers. Tell who runs it; nothing of it was believed.",
  LEFT_OUT: "The founder has given the circle new keys, and left you out. Ask for a new invite link.",
  STORAGE_FULL: "The browser stores no more: free some space. Until then nothing new is kept after this page is closed.",
  STORAGE_GONE: "The browser has erased what was stored. Nothing new is kept until the page is loaded again.",
  STORAGE_NEWER: "A newer version of this app is open in another tab. Load this page again.",
  TOO_LARGE: "That is too large: a text has at most 256 KB.",
  TOO_MANY: "There are too many already.",
  WRONG_PASSPHRASE: "The passphrase does not open this file. Capital letters count.",
  SHORT_PASSPHRASE: "The passphrase has fewer than 8 characters.",
};

export const text = {
  app: "Muster",
  unnamed: "Circle without a name",
  leftElsewhere: (/** @type {string} */ name) => `You have left ${name} in another tab. It is not in this browser any more.`,
  outside: "not joined",
  you: "you",
  loading: "Opening your circles…",

  /** What went wrong with what somebody did. @param {any} error */
  reason(error) {
    const { reason, message = "" } = error ?? {};
    const plain = String(message).replace(/^[A-Z_]+: /, "");
    if (reason === "MALFORMED" || reason === "NOT_ALLOWED" || reason === "TOO_MANY") return plain ? `${capital(plain)}.` : REASONS[reason] ?? "That cannot be done.";
    return REASONS[reason] ?? (plain ? `${capital(plain)}.` : "Something went wrong. Load the page again.");
  },

  time: (/** @type {number} */ at_ms) => clock.format(at_ms),
  timeWhole: (/** @type {number} */ at_ms) => whole.format(at_ms),
  /** @param {number} at_ms @param {number} [now] */
  day(at_ms, now = Date.now()) {
    const ago = dayOf(now) - dayOf(at_ms);
    if (ago === 0 || ago === 1) return capital(relative.format(-ago, "day"));
    return (Math.abs(ago) < 300 ? day : dayOfYear).format(at_ms);
  },
  size(/** @type {number} */ bytes) {
    const units = ["bytes", "KB", "MB", "GB"];
    let at = 0;
    for (; bytes >= 1000 && at < 3; at += 1) bytes /= 1000;
    return `${number.format(bytes)} ${units[at]}`;
  },
  list: (/** @type {string[]} */ words) => list.format(words),
  close: "Close",
  cancel: "Cancel",
  back: "Back",
  menu: "Circles and channels",
  skip: "Skip to what is said",

  modes: /** @type {Record<string, string>} */ ({ public: "open to the circle", key: "with a passphrase", invite: "by invitation" }),
  modesLong: /** @type {Record<string, string>} */ ({
    public: "Everybody in the circle reads and writes.",
    key: "It has a key of its own: whoever knows the passphrase gets in.",
    invite: "It has a key of its own: only whom you let in.",
  }),
  paths: /** @type {Record<string, string>} */ ({ me: "you", webrtc: "direct", relay: "through the service", none: "here", away: "away" }),

  states: /** @type {Record<string, string>} */ ({ connecting: "Connecting…", live: "Connected", polling: "Connected, slowly", offline: "No service" }),
  /** @param {{state: string, why: string}} state @param {number} peers @returns {string} */
  stateLong({ state, why }, peers) {
    const because = why ? ` (${why.slice(0, MOST_WHY)}${why.length > MOST_WHY ? "…" : ""})` : "";
    if (state === "live") return "The service is reached; what is said arrives at once.";
    if (state === "polling") return `Messages arrive every few seconds: a live connection is not possible${because}.`;
    if (state === "connecting") return "The service is being looked for.";
    const still = peers ? ` ${counted(peers, "person is", "people are")} still connected to you directly.` : "";
    return `No service is reached${because}. What you write is kept here and sent as soon as one is back.${still}`;
  },

  welcome: {
    title: "Talk in a small circle",
    lead: "No account, no phone number, no company in the middle. A circle is its members, and a small service that one of them runs.",
    make: "Make a circle",
    paste: "I have an invite link",
    pasteLabel: "Invite link or code",
    pasteHint: "It looks like https://…/app/#muster2.… Ask a member for it.",
    open: "Open",
    circleName: "Name of the circle",
    circleExample: "Friends",
    yourName: "Your name",
    nameHint: "The others see it. You can change it later.",
    service: "Address of a service",
    serviceHint: "https://host#ID, as ‘muster serve’ prints it; with &access=CODE where it is closed.",
    closedHint: "This service is closed to strangers. Paste its whole address, with &access=CODE: who runs it has it.",
    creating: "Making the circle…",
    bring: "Bring your circles from another device",
    terms: "Everything is encrypted between members. The service sees who is there, when and how much, and not what.",
  },
  invited: {
    title: (/** @type {string} */ name) => (name ? `You are invited to ${name}` : "You are invited to a circle"),
    lead: "Say how you are called, and you are in.",
    more: "You are in this circle already. The link brings something new, another service or new keys: take it only from somebody whom you trust with that.",
    go: "Go in",
    going: "Going in…",
    at: (/** @type {string} */ service) => `It meets at ${service}`,
    again: "You are a new member in this browser. If you were in this circle on another device, see Settings there to bring your circles here.",
  },

  nameTooLong: "A name has at most 64 bytes, letters with accents count as two or more: shorten it.",
  nameMissing: "A name has at least one letter.",
  circles: "Circles",
  channels: "Channels",
  people: "People",
  newCircle: "Make or join another circle",
  newChannel: "New channel",
  unread: (/** @type {number} */ count) => `${count > 499 ? "500+" : count} unread`,
  unreadShort: (/** @type {number} */ count) => (count > 99 ? "99+" : String(count)),
  newMessages: "New",
  earlier: "Show earlier messages",
  later: "Show later messages",
  beginning: (/** @type {string} */ channel) => `This is the beginning of #${channel}.`,
  kept: (/** @type {number} */ days) => (days ? `Texts are kept for ${counted(days, "day", "days")}.` : "Texts are kept as long as each likes."),
  onlyYou: "You alone are in it. Let others in by + beside their names, among the people.",
  alone: "Nobody else is here yet.",
  aloneHint: "Invite somebody: whoever opens the link is in.",
  inviteSomebody: "Invite somebody",
  jumpDown: (/** @type {number} */ unread) => `To the newest${unread ? ` (${text.unread(unread)})` : ""}`,
  log: (/** @type {string} */ channel) => `Messages in #${channel}`,
  by: (/** @type {string} */ name, /** @type {string} */ time) => `${name}, ${time}`,
  said: (/** @type {string} */ name, /** @type {string} */ words) => `${name}: ${words}`,
  edited: "edited",
  deleted: "This message was taken back.",
  more: (/** @type {number} */ length) => `Show all of it (${text.size(length)})`,
  delivery: {
    here: "Kept on this device; sent as soon as a service or a member is reached",
    left: (/** @type {number} */ count) => `Left with ${counted(count, "service", "services")}: it waits for whoever is away`,
  },
  replyTo: (/** @type {string} */ name) => `Answer to ${name}`,
  replyGone: "Answer to a message that is not here",
  reacted: (/** @type {string} */ emoji, /** @type {number} */ count, /** @type {string} */ names) => `${emoji} ${count}: ${names}`,
  moreReactions: (/** @type {number} */ count) => `${count} more`,
  actions: { reply: "Answer", react: "React", edit: "Change", delete: "Take back", copy: "Copy text", more: "More" },
  emoji: ["👍", "❤️", "😂", "🎉", "😮", "😢", "🙏", "👀"],
  emojiOther: "Another emoji",

  compose: {
    label: (/** @type {string} */ channel) => `Message to #${channel}`,
    hint: (/** @type {string} */ channel) => `Message #${channel}`,
    send: "Send",
    file: "Send a file to those who are here",
    answering: (/** @type {string} */ name) => `Answering ${name}`,
    changing: "Changing your message",
    stop: "Do not",
    join: (/** @type {string} */ channel) => `You read #${channel} and have not joined it.`,
    joinDo: "Join",
    locked: (/** @type {string} */ channel) => `#${channel} is private: you have no key of it.`,
    withKey: (/** @type {string} */ channel) => `#${channel} is private: its passphrase opens it.`,
    asked: "You have asked to be let in. Who manages the channel sees it.",
    removed: (/** @type {string} */ channel) => `You were removed from #${channel}: only who manages it lets you in again. Write to them.`,
    ask: "Ask to be let in",
    suggestions: "Suggestions",
    drop: "Drop files here: they go to those who are here now",
    tooLong: "This text has more than 256 KB. Send it as a file.",
    leftOut: "The founder has removed this device from the circle. What was said before stays here; nothing new arrives, and nothing that you write would. A new invite link lets you in again.",
  },

  files: {
    unnamed: "file",
    offered: (/** @type {string} */ name) => `${name} offers a file`,
    take: "Take",
    save: "Save",
    stop: "Stop",
    remove: "Take back",
    coming: (/** @type {number} */ done, /** @type {number} */ size) => `${text.size(done)} of ${text.size(size)}`,
    gone: "No longer offered",
    failed: "It did not arrive whole. Try again.",
    tooLarge: (/** @type {string} */ name) => `‘${name}’ is too large: a file has at most 2 GB`,
    busy: "Too many take files from them just now. Try again soon.",
    sentTo: (/** @type {string} */ names) => `Taken by ${names}`,
    nobody: "Nobody is here to take it: files go from browser to browser. Send it when somebody is here.",
    waiting: (/** @type {number} */ count) => `Offered to ${counted(count, "member who is", "members who are")} here, while this page is open.`,
    unable: (/** @type {string} */ names) => `Not to ${names}: their program takes no files.`,
    past: (/** @type {string} */ name) => `Files are not kept here. Ask ${name} to send it again.`,
    pastMine: "Files are not kept here. Who took it has it; send it again for others.",
    view: (/** @type {string} */ name) => `Look at ${name}`,
  },

  peoplePanel: {
    here: (/** @type {number} */ count) => `Here now: ${count}`,
    away: (/** @type {number} */ count) => `Away: ${count}`,
    devices: (/** @type {number} */ count) => `on ${counted(count, "device", "devices")}`,
    founder: "founder",
    letIn: "Let into this channel",
    remove: "Remove from this channel",
    asks: "asks to be let in",
    same: "This is me, on another device",
    asksSame: "says to be you, on another device",
    out: (/** @type {string} */ name) => `Remove from the circle: ${name}`,
    outDevice: "Remove another device of yours from the circle",
  },

  dialogs: {
    invite: {
      title: (/** @type {string} */ circle) => `Invite to ${circle}`,
      lead: "Whoever opens this link is in, and can read what is said in open channels. Send it only to whom you mean.",
      link: "Invite link",
      copy: "Copy the link",
      copied: "Copied",
      share: "Share…",
      qr: "The invite link as a QR code",
      noService: "This circle has no service yet: only members in the same network or browser meet. Add one in Settings.",
      out: "You were removed from this circle: this link leads in nowhere. Ask a member for a new one.",
      local: "This link leads to this machine alone. For others, run the service where they can reach it.",
    },
    create: { title: "Another circle" },
    channel: {
      title: "New channel",
      name: "Name",
      who: "Who gets in",
      passphrase: "Passphrase, at least 8 characters",
      make: "Make the channel",
      unlockTitle: "Join a channel with a passphrase",
      unlockHint: "Its name is not in the list until its passphrase has opened it.",
      unlock: "Join",
    },
    about: {
      title: (/** @type {string} */ name) => `About #${name}`,
      topic: "What it is about",
      noTopic: "Nobody has said what this channel is about.",
      name: "Name",
      members: "Members",
      everybody: "Everybody in the circle",
      asking: "Asks to be let in",
      letIn: "Let in",
      remove: "Remove",
      save: "Save",
      leave: "Leave the channel",
      manage: "You manage this channel.",
      newPassphrase: "New passphrase, which the one who is removed does not know",
      open: "About this channel",
    },
    shut: {
      title: (/** @type {string} */ name, /** @type {string} */ channel) => `Remove ${name} from #${channel}?`,
      lead: "The channel gets a new key. What was said before stays readable to those who were in. Whoever manages the channel can let them in again.",
      open: "What they say here from now on is not shown. Whoever manages the channel can let them in again.",
    },
    settings: {
      title: "Settings",
      name: "Your name",
      save: "Save",
      saved: "Saved",
      look: "Look",
      looks: /** @type {Record<string, string>} */ ({ auto: "as the device", light: "light", dark: "dark" }),
      notify: "Notify me when this page is not in sight",
      notifyDenied: "The browser forbids notifications for this page. Allow them in the site’s settings (the sign beside the address).",
      notifyNone: "This browser has no notifications. On an iPhone, add the app to the home screen first.",
      ring: "Ring when somebody calls",
      services: "Services of this circle",
      servicesHint: "A circle may meet at several: if one is down, the others go on.",
      addService: "Add a service",
      add: "Add",
      founderOnly: "Only the founder’s device can add a service for everybody.",
      removeService: (/** @type {string} */ url) => `Meet at ${url} no longer`,
      turn: "STUN and TURN servers of your own",
      turnHint: "For calls through strict networks. The service may give some already; a line each: turn:host:3478 NAME PASSWORD",
      noServer: (/** @type {string} */ urls) => `‘${urls}’ is no server: a line is turn:host:3478 NAME PASSWORD, or stun:host`,
      noPassword: (/** @type {string} */ urls) => `‘${urls}’ needs a name and a password behind it`,
      relayOnly: "Connect through TURN alone, so that others do not learn this device’s address",
      viewers: "How many may watch a broadcast of yours",
      reopen: "These count after the page is loaded again.",
      reload: "Load again now",
      bring: "Your circles on another device",
      bringHint: "One encrypted file with your circles and what was said. Take it to the other device and open it there: it becomes a device of yours, with keys of its own. Keys of this device never leave it.",
      passphrase: "Passphrase, at least 8 characters",
      passphraseAgain: "The same again",
      mismatch: "The two passphrases differ.",
      export: "Save the file",
      exporting: "Encrypting…",
      exported: "Saved. Without the passphrase nobody can open it, you included.",
      import: "Open a file",
      importChoose: "File from another device",
      importing: "Opening…",
      /** @param {{circles: {name: string, error: any, isSaid: boolean, devices: any[]}[], felund: string[], refused: number}} found */
      importSame: "Is it a file of yours? Then say that the two devices are one person:",
      importPlain: "Nothing, if the file is not encrypted.",
      imported({ circles, felund, refused }) {
        const came = circles.filter(({ error }) => !error);
        const said = [`${counted(came.length, "circle is", "circles are")} here: ${text.list(came.map(({ name }) => name || text.unnamed))}.`];
        for (const { name, error } of circles) if (error) said.push(`${name || text.unnamed} could not be opened: ${text.reason(error)}`);
        if (refused) said.push(`${counted(refused, "line", "lines")} of the file did not hold and were left out.`);
        if (felund.length) said.push(`This app cannot hold circles of felund: ${text.list(felund)}.`);
        return said.join(" ");
      },
      circle: "This circle",
      circleName: "Name of the circle",
      leave: "Leave this circle",
      about: "About",
      key: (/** @type {string} */ key) => `Key of this device: ${key}`,
      licences: "Free software under the Apache licence 2.0. It includes preact, htm, signals, lean-qr and age; their licences are at vendor/LICENSES.",
      storage: (/** @type {string} */ used) => `Stored in this browser: ${used}.`,
      persisted: "The browser keeps it until you erase it.",
      notPersisted: "The browser may erase it when space runs out; Safari does after seven days without a visit, unless the app is on the home screen.",
    },
    leave: {
      title: (/** @type {string} */ circle) => `Leave ${circle}?`,
      lead: "Its keys and all that was said are erased in this browser. The others keep what they have. To come back you need a new invite, and you are a new member then.",
      founder: "This device has the founder’s key, without which nobody can remove somebody or add a service for everybody. No saved file carries it: hand the circle on first, to a member or to another device of yours.",
      do: "Erase it here",
    },
    remove: {
      title: (/** @type {string} */ name, /** @type {string} */ circle, /** @type {boolean} */ me) => (me ? `Remove another device of yours from ${circle}?` : `Remove ${name} from ${circle}?`),
      keys: "Everybody else gets new keys by themselves; whoever is away gets them when they are back.",
      reads: (/** @type {string} */ name) => `${name} is told, and reads nothing that is said from then on. What was said before stays readable to ${name}.`,
      mine: "It reads nothing that is said from then on. What was said before stays readable there.",
      invites: "The invite links of before no longer work: make a new one for whoever is still to come.",
      devices: "Which devices",
      device: (/** @type {string} */ key, /** @type {boolean} */ isHere) => `Key ${key}, ${isHere ? text.paths.none : text.paths.away}`,
      some: "A device that stays reads all that is said, and can invite the others again.",
      do: "Remove, and give new keys",
      doing: "Giving new keys…",
      done: (/** @type {string} */ name, /** @type {boolean} */ me) => `${me ? "That device" : name} is removed. Invite links of before no longer work.`,
      doneLater: (/** @type {string} */ name, /** @type {boolean} */ me) => `${me ? "That device" : name} is removed here. The others get new keys as soon as a service is reached: keep this page open until then.`,
      unread: "A service cannot be reached now, and who else is in has to be read first. Try again when it is back, or take it away in Settings.",
      weak: (/** @type {string[]} */ names) => `New keys could not be given to ${text.list(names)}: invite them again.`,
    },
    handOn: {
      open: "Hand the circle on",
      hint: "This device has the founder’s key: it can remove members and add services for everybody.",
      title: (/** @type {string} */ circle) => `Hand ${circle} on?`,
      lead: "Whoever gets the founder’s key can do all that you can: remove anybody, and add services for everybody. You keep it too. It cannot be taken back.",
      whom: "To whom",
      self: (/** @type {string} */ name) => `${name} (you, on another device)`,
      warning: (/** @type {string} */ name) => `${name} could remove you as well, and keeps the key for ever, even if you remove ${name}. Give it only to somebody whom you trust with all of the circle.`,
      nobody: "Nobody else is in the circle yet.",
      doNobody: "Hand it on",
      do: (/** @type {string} */ name) => `Give it to ${name}`,
      done: (/** @type {string} */ name) => `${name} gets the founder’s key, as soon as a service or ${name} is reached.`,
      given: (/** @type {string} */ circle) => `You have the founder’s key of ${circle} now: you can remove members and add services for everybody.`,
    },
    same: {
      title: (/** @type {string} */ name) => `Is ${name} you, on another device?`,
      lead: "If so, both are shown as one person, and whoever lets you into a private channel lets in both. Anybody may call themselves like you: compare the keys.",
      theirs: (/** @type {string} */ key) => `Key of that device: ${key}`,
      mine: (/** @type {string} */ key) => `Key of this device: ${key}`,
      where: "The other device shows its own in Settings, under About.",
      yes: "It is me",
      no: "It is not",
      other: (/** @type {string} */ name) => `Said. Answer on the other device, beside ${name}.`,
    },
    search: {
      title: (/** @type {string} */ channel) => `Search #${channel}`,
      label: "Words",
      none: "Nothing that is stored here has all these words.",
      gone: "That message is not here: it is kept no longer, or has not come yet.",
      found: (/** @type {number} */ count) => counted(count, "message", "messages"),
    },
    help: { title: "Help", keys: "Keys", commands: "Commands", start: "A line that starts with / is a command; // begins a text with a slash." },
    delete: { title: "Take this message back?", lead: "It disappears for everybody who has not copied it.", do: "Take it back" },
    picture: { save: "Save" },
    service: {
      title: "Take this service away?",
      lead: "This device goes there no longer, and new invites of yours do not name it. The others go on there until each of them takes it away too.",
      founder: "Whoever is there now is told first where else the circle meets.",
      member: "If the founder names it again, it is back.",
      only: "Whoever knows this service alone, and was away, hears nothing more of you, nor you of them: they need a new invite link.",
      doing: "Telling those who are there…",
      do: "Take it away",
      done: (/** @type {string} */ url) => `This device meets at ${url} no longer.`,
    },
  },

  keys: [
    ["F1", "Help"],
    ["F2", "Invite link"],
    ["F3", "Settings"],
    ["F4", "Call"],
    ["Escape", "Close what is open; back to the text"],
    ["Ctrl K", "Search in this channel"],
    ["Alt ↑ Alt ↓", "The channel before, or after"],
    ["Enter", "Send"],
    ["Shift Enter", "A new line"],
    ["↑ in an empty text", "Go through the messages; then R answers, E changes, + reacts, Delete takes back"],
    ["Tab", "Take the suggestion for a command, @name or #channel"],
  ],
  commandHelp: /** @type {Record<string, [string, string]>} */ ({
    help: ["/help", "show this"],
    invite: ["/invite", "show the link and the picture that let somebody in"],
    settings: ["/settings", "name, services, devices, files"],
    search: ["/search WORDS", "search in what is stored of this channel"],
    join: ["/join LINK", "join a circle by a link or a code"],
    circles: ["/circles", "list your circles"],
    "circle create": ["/circle create NAME", "make a circle; you are its founder"],
    "circle join": ["/circle join LINK", "the same as /join"],
    "circle switch": ["/circle switch NAME", "show another circle"],
    "circle name": ["/circle name [NAME]", "show or change the circle’s name; its managers may"],
    "circle keep": ["/circle keep DAYS", "keep texts for so many days, 0 as long as each likes"],
    "circle leave": ["/circle leave", "forget this circle in this browser"],
    channels: ["/channels", "list the channels of this circle"],
    "channel create": ["/channel create NAME [public|key|invite] [PASSPHRASE]", "make a channel"],
    "channel join": ["/channel join NAME [PASSPHRASE]", "be in a channel, or ask to be let in"],
    "channel switch": ["/channel switch NAME", "show another channel"],
    "channel leave": ["/channel leave [NAME]", "be in a channel no longer"],
    "channel name": ["/channel name NAME", "call this channel otherwise; who manages it may"],
    "channel keep": ["/channel keep DAYS", "keep the texts of this channel for so many days"],
    "channel invite": ["/channel invite NAME", "let somebody into this channel"],
    "channel remove": ["/channel remove NAME [NEW PASSPHRASE]", "let somebody be in this channel no longer"],
    topic: ["/topic [TEXT]", "show or change what this channel is about"],
    who: ["/who", "list who is in the circle, and by what path"],
    reply: ["/reply [TEXT]", "answer the newest message"],
    edit: ["/edit [TEXT]", "change your newest message"],
    delete: ["/delete", "take your newest message back"],
    react: ["/react EMOJI", "put an emoji beside the newest message, or take it away"],
    device: ["/device NAME [no]", "say that another member is you, on another device; both must"],
    "call start": ["/call start [audio|video|broadcast]", "start a call in this channel"],
    "call join": ["/call join", "join the call that is on"],
    "call view": ["/call view", "watch and listen only"],
    "call leave": ["/call leave", "leave the call"],
    "call end": ["/call end", "end the call for everybody; who began it may"],
    name: ["/name [NAME]", "show or change how you are called, in all circles"],
  }),
  commands: {
    usage: (/** @type {string} */ name) => `It is typed so: ${text.commandHelp[name][0]}`,
    unknown: (/** @type {string} */ name, /** @type {string} */ near) => `There is no command /${name}. ${near ? `Do you mean ${near}?` : "F1 lists them; // begins a text with a slash."}`,
    ambiguous: (/** @type {string} */ name) => `Several are called ‘${name}’: choose in the list beside.`,
    noChannel: (/** @type {string} */ name) => `There is no channel #${name}. /channels lists them.`,
    noCircle: (/** @type {string} */ name) => `You are in no circle called ‘${name}’. /circles lists them.`,
    nobody: (/** @type {string} */ name) => `Nobody is called ‘${name}’. /who lists everybody.`,
    nothing: "There is no such message here.",
    circleIs: (/** @type {string} */ name) => `This circle is called ${name}.`,
    circleNamed: (/** @type {string} */ name) => `The circle is called ${name} from now on.`,
    asked: (/** @type {string} */ name) => `You have asked to be let into #${name}.`,
    generalStays: "Everybody is in #general: it cannot be left.",
    channelLeft: (/** @type {string} */ name) => `You have left #${name}.`,
    letIn: (/** @type {string} */ name) => `${name} is in from now on.`,
    removed: (/** @type {string} */ name) => `${name} is in this channel no longer.`,
    noTopic: "Nobody has said what this channel is about.",
    nameIs: (/** @type {string} */ name) => `You are called ${name}.`,
    named: (/** @type {string} */ name) => `You are called ${name} from now on.`,
    deviceAsked: (/** @type {string} */ name, /** @type {string} */ me) => `Said. On the device of ${name}, say the same of ${me}: then you are one person.`,
    deviceNot: (/** @type {string} */ name) => `${name} is somebody else from now on.`,
  },

  /** Why a file of a profile is not written or opened. */
  profile: {
    otherAge: "the file is encrypted by another version of age, which this app does not know",
    forKey: "the file is encrypted for a key, and not under a passphrase",
    damagedHead: "the beginning of the file is damaged",
    damaged: "the file is damaged or cut off",
    tooMuchWork: (/** @type {number} */ work) => `opening the file takes more work (2^${work}) than a page can do: export it again, or without encryption`,
    tooMuchMemory: (/** @type {number} */ bytes) => `opening the file takes ${text.size(bytes)} of memory, which this device does not give a page`,
    wrongPassphrase: "the file does not open with this passphrase: case counts",
    shortPassphrase: (/** @type {number} */ least) => `the passphrase has fewer than ${least} characters`,
    noCircle: "there is no circle to export",
    tooLarge: (/** @type {number} */ bytes) => `the file has more than ${text.size(bytes)}: the terminal's 'muster import' takes it`,
    invite: (/** @type {Error} */ { message }) => `the invite of a circle in the file is damaged: ${message.replace(/^[A-Z_]+: /, "")}`,
    mixed: "a circle in the file and its invite do not fit together: the file is damaged",
    tooMany: (/** @type {number} */ most) => `the file has more than ${most} circles`,
  },

  notice: {
    title: (/** @type {string} */ name, /** @type {string} */ channel, /** @type {string} */ circle) => `${name} in #${channel}, ${circle}`,
    call: (/** @type {string} */ name, /** @type {string} */ circle) => `${name} calls in ${circle}`,
    on: "Turn notifications on",
  },
  update: { title: "A newer version is here.", do: "Restart", later: "Later" },

  problems: {
    /** @param {string} host */
    insecure: (host) => ({
      title: "This address is not safe enough",
      advice: `Browsers give keys, cameras and microphones only to pages that come over https. Open https://${host}/app/ if there is such an address; if not, ask who runs the service to put it behind https (its handbook, “One machine”, says how in two lines).`,
      detail: "On the machine that runs the service itself, http://localhost works.",
    }),
    /** @param {any} [error] */
    storage: (error) => ({
      title: "This browser stores nothing here",
      advice: "Private windows and strict settings forbid it. Open the page in an ordinary window, or allow this site to store data; if the disk is full, free some space.",
      ...(error && { detail: String(error.message ?? error) }),
    }),
    old: () => ({
      title: "This browser is too old",
      advice: "It lacks encryption that is needed here. Use Chrome or Edge 137, Firefox 129, Safari 17 or a newer one.",
    }),
    /** @param {any} error */
    invite: (error) => ({
      title: "This invite link is not whole",
      advice: "A part of it is missing or changed: messengers sometimes cut long links. Ask for it again, and copy all of it.",
      detail: text.reason(error),
    }),
    /** @param {{name: string, why: string}[]} closed */
    allClosed: (closed) => ({
      title: "Your circles cannot be opened",
      advice: closed[0]?.why ?? "",
      detail: list.format(closed.map(({ name }) => name || text.unnamed)),
    }),
    again: "Try again",
    start: "To the beginning",
    closed: (/** @type {string} */ name, /** @type {string} */ why) => `${name || text.unnamed} cannot be opened: ${why}`,
    dismiss: "Understood",
    /** @param {string} reason @returns {string | undefined} */
    of: (reason) => REASONS[reason],
  },
};

/** @param {number} ms */
const lasted = (ms) => {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return "less than a minute";
  if (minutes < 60) return counted(minutes, "minute", "minutes");
  return `${counted(Math.floor(minutes / 60), "hour", "hours")} ${counted(minutes % 60, "minute", "minutes")}`;
};

/** What calls say. */
export const callText = {
  panel: "Call",
  bar: "Calls in this channel",
  start: { audio: "Start a call", video: "Start a video call", broadcast: "Start a broadcast: others watch" },
  on: { audio: "A call is on", video: "A video call is on", broadcast: "A broadcast is on" },
  people: (/** @type {number} */ count) => counted(count, "person", "people"),
  watching: (/** @type {number} */ count) => `${count} watching`,
  ring: (/** @type {string} */ name, /** @type {string} */ channel) => `Ring ${name} in #${channel}`,
  unable: "takes no calls",
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
  ringsOut: (/** @type {string} */ names) => `Ringing ${names} …`,
  alone: "Nobody else is in the call now.",
  nobodyRings: "Nobody is here whom it could ring. Whoever comes sees that a call is on, and can join.",
  declinedBy: (/** @type {string} */ names) => `Declined by ${names}.`,
  noAnswer: (/** @type {string} */ names) => `No answer from ${names}.`,
  others: (/** @type {number} */ count) => counted(count, "other", "others"),
  enlarge: (/** @type {string} */ name) => `Show ${name} large`,
  wholeScreen: "On the whole screen",
  since: (/** @type {number} */ seconds) => [...(seconds < 3600 ? [] : [Math.floor(seconds / 3600)]), Math.floor(seconds / 60) % 60, seconds % 60].map((one, at) => (at ? String(one).padStart(2, "0") : one)).join(":"),
  lasts: "How long the call has lasted",
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
    missed: { audio: "Missed call from", video: "Missed video call from", broadcast: "Missed broadcast of" },
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
    OTHERS: { title: "Others have a call here", advice: "Join it, or go to another channel to call somebody alone." },
    ENDED: { title: "The call was ended by its host", advice: "Start a new one to go on." },
    REVOKED: { title: "The host has shut you out of this call", advice: "You cannot join it again. Ask the host, or start another call." },
    NOT_ALLOWED: { title: "You may not call here", advice: "You are not in this channel, or lack its key: ask who manages it." },
    FAILED: { title: "That did not work", advice: "Try again; reload the page if it happens once more." },
  }),
};
