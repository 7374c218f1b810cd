// A profile as one encrypted file: what the app writes and takes in, and what it makes of files that are damaged or lie.
import assert from "node:assert/strict";
import { register } from "node:module";
import { after, test } from "node:test";

import { Circle, Refused } from "../../web/muster/index.js";
import { b64, text as decode, unb64, utf8 } from "../../web/muster/bytes.js";
import { read, write } from "../../web/muster/chat/transfer.js";

// the library is served below the app
const below = `export const resolve = (path, context, next) => {
  const url = path.startsWith(".") ? new URL(path, context.parentURL).href.replace("/web/app/muster/", "/web/muster/") : path;
  return next(url, context);
}`;
register(`data:text/javascript,${encodeURIComponent(below)}`);

const { isAge } = await import("../../web/app/model/age.js");
const { exportProfile, importProfile } = await import("../../web/app/model/profile.js");
const { Encrypter, Decrypter } = await import("../../web/app/vendor/age.js");

const PASSPHRASE = "correct horse";
const open = [];
after(() => Promise.all(open.map((circle) => circle.leave())));

let numbers = 0;
/** A browser profile of its own. */
const fresh = () => ({ profile: `profile ${(numbers += 1)}` });

const held = (circle) => {
  open.push(circle);
  return circle;
};

const refusal = async (work) => {
  const error = await work.then(() => null, (reason) => reason);
  assert.ok(error instanceof Refused, `it was not refused: ${error}`);
  assert.ok(!error.message.includes("\n") && error.message.length < 200, error.message);
  return [error.reason, error.message.replace(/^[A-Z_]+: /, "")];
};

/** As age itself writes a file, with little work. */
const sealed = (content, passphrase = PASSPHRASE, work = 10) => {
  const encrypter = new Encrypter();
  encrypter.setPassphrase(passphrase);
  encrypter.setScryptWorkFactor(work);
  return encrypter.encrypt(content);
};

const texts = async (circle, channel = "general") => (await circle.history(channel)).map(({ text, author }) => [author.name, text]);

/** What a circle has, after its member has said who it is. */
const copied = (circle) =>
  new Promise((resolve) => {
    const look = async () => {
      if ((await circle.people()).some(({ id }) => id === circle.me.id)) resolve(circle.copy());
    };
    circle.addEventListener("change", look);
    look();
  });

// a circle without a service waits for one before it says anything: these wait at once
const mallory = held(await Circle.create({ ...fresh(), name: "Mallory" }));
const ada = held(await Circle.create({ ...fresh(), name: "Ada", circle: "Friends" }));
await ada.post("general", "dinner?");
const { channel: secret } = await ada.act("create", "secret", "invite");
const { channel: typed } = await ada.act("create", "typed", "key", "by a passphrase");
await ada.post(secret, "between us");
await ada.post(typed, "under a passphrase");
const lines = await copied(ada);
const whole = write(lines, { name: "Ada", at_ms: 1 });
const file = (content = whole) => new Blob([content]);

test("what a circle has are lines, and no secret of a member is among them", () => {
  assert.deepEqual([...new Set(lines.map(({ t }) => t))], ["circle", "key", "record"]);
  assert.deepEqual(Object.keys(lines[0]), ["t", "name", "circle", "invite", "member"]);
  assert.equal(lines[0].member, ada.me.id);
  assert.ok(lines[0].invite.startsWith("muster2."));
  assert.equal(lines.filter(({ t }) => t === "key").length, 2);
  const kinds = lines.filter(({ t }) => t === "record").map((line) => JSON.parse(decode(unb64(line.text))).kind);
  assert.deepEqual([...new Set(kinds)].sort(), ["channel", "member", "text"]);
});

test("another device reads all of it, private channels too, and is a member of its own", async () => {
  const seen = [];
  const came = await importProfile({ file: file(), options: { ...fresh(), name: "Ada" }, same: true, progress: (what, part) => seen.push([what, part]) });
  const [{ circle, records, refused, isNew, devices, isSaid }] = came.circles;
  held(circle);
  assert.deepEqual([came.name, came.at_ms, came.felund, came.refused], ["Ada", 1, [], 0]);
  assert.deepEqual([circle.id, circle.name, records, refused, isNew], [ada.id, "Friends", lines.length - 3, 0, true]);
  assert.notEqual(circle.me.id, ada.me.id);
  assert.deepEqual([await texts(circle), await texts(circle, secret), await texts(circle, typed)],
    [[["Ada", "dinner?"]], [["Ada", "between us"]], [["Ada", "under a passphrase"]]]);
  assert.deepEqual(seen.at(-1), ["taking", 1]);

  // each says of the other that it is the same person: the one that comes at once, the other when it is asked
  assert.deepEqual([devices, isSaid], [[{ id: ada.me.id, name: "Ada" }], true]);
  const back = await copied(circle);
  await ada.take(back);
  assert.deepEqual((await ada.people()).filter(({ asks }) => asks).map(({ id }) => id), [circle.me.id]);
  await ada.act("device", circle.me.id);
  const people = await ada.people();
  assert.deepEqual([new Set(people.map(({ person }) => person)).size, people.some(({ asks }) => asks)], [1, false]);

  // the keys stay, and what was brought can be brought on
  const third = await importProfile({ file: file(write(back, { name: "", at_ms: 2 })), options: { ...fresh(), name: "Cid" } });
  held(third.circles[0].circle);
  assert.deepEqual(await texts(third.circles[0].circle, secret), [["Ada", "between us"]]);
  assert.equal(third.circles[0].isSaid, false);

  // once more changes nothing
  const again = await importProfile({ file: file(), circles: [circle] });
  assert.deepEqual([again.circles[0].records, again.circles[0].refused, again.circles[0].isNew], [0, 0, false]);
});

test("a declined device is asked about no more", async () => {
  const options = { ...fresh(), name: "Eve" };
  const eve = held(await Circle.join(ada.invite(), options));
  await eve.take(lines);
  await eve.act("device", ada.me.id);
  await ada.take(await copied(eve));
  const asking = async () => (await ada.people()).filter(({ asks }) => asks).map(({ id }) => id);
  assert.deepEqual(await asking(), [eve.me.id]);
  await ada.act("device", eve.me.id, false);
  assert.deepEqual(await asking(), []);
});

test("lines that do not hold are counted and left, and all others are taken", async () => {
  const records = lines.filter(({ t }) => t === "record");
  const [foreign] = (await copied(mallory)).filter(({ t }) => t === "record");
  const wrongly = (line, changed) => ({ ...line, ...changed });
  const [key] = lines.filter(({ t }) => t === "key");
  const flipped = unb64(records[1].text);
  flipped[flipped.length - 3] ^= 1;
  const bad = [
    wrongly(records[0], { signature: b64(new Uint8Array(64)) }),
    wrongly(records[1], { text: b64(flipped) }),
    wrongly(foreign, { circle: ada.id }),
    wrongly(records[2], { epoch: 7 }),
    wrongly(records[2], { epoch: "0" }),
    wrongly(records[2], { text: 5 }),
    wrongly(records[2], { text: null, signature: {} }),
    wrongly(key, { key: b64(new Uint8Array(32)) }),
    wrongly(key, { key: "short" }),
    wrongly(key, { from: "0".repeat(64) }),
    wrongly(key, { from: { toString: "x" } }),
  ];
  const content = write([...bad, ...lines, { t: "of a later version", circle: ada.id }], { name: "Ada", at_ms: 1 });
  const came = await importProfile({ file: file(content), options: fresh() });
  const [{ circle, records: taken, refused }] = came.circles;
  held(circle);
  assert.deepEqual([taken, refused, came.refused], [records.length, bad.length, bad.length]);
  assert.deepEqual(await texts(circle, secret), [["Ada", "between us"]]);
  assert.equal(circle.me.name, "Ada");
});

test("the name of a file's owner is offered where the file does not name the member, and never said", async () => {
  const content = write(lines.map(({ member, ...line }) => (void member, line)), { name: "Ada", at_ms: 1 });
  const came = await importProfile({ file: file(content), options: { ...fresh(), name: "Ada too" }, same: true });
  const [{ circle, devices, isSaid }] = came.circles;
  held(circle);
  assert.deepEqual([devices.map(({ id }) => id).includes(ada.me.id), isSaid], [true, false]);
});

test("circles of the felund dialect are named, and the rest is taken", async () => {
  const content = write([{ t: "felund", name: "Old friends", circle: "00" }, { t: "note", circle: "00", text: "hi" }, ...lines], { name: "Ada", at_ms: 1 });
  const came = await importProfile({ file: file(content), options: { ...fresh(), name: "Ada" } });
  held(came.circles[0].circle);
  assert.deepEqual([came.felund, came.circles[0].records], [["Old friends"], lines.length - 3]);
});

test("a file that is damaged or none of ours is refused in one sentence, and nothing is changed", async () => {
  const options = fresh();
  const text = decode(whole);
  const rows = text.split("\n");
  const with_ = (...changed) => rows.with(...changed).join("\n");
  const invite = JSON.parse(rows[1]);
  const cases = [
    ["", "this file is empty"],
    ["\x89PNG\r\n", "this file is no export of Muster"],
    ['{"t":"circle"}\n', "this file is no export of Muster"],
    [with_(0, '{"t":"muster-export","v":2}'), "the export is of version 2, which this app does not know: load a newer app"],
    [text.slice(0, -40), `the file is cut off in line ${rows.length - 1}`],
    [with_(2, "{}"), "line 3 is none of an export: the file is damaged"],
    [with_(2, "\u0000"), "line 3 is none of an export: the file is damaged"],
    [with_(2, "[".repeat(100_000)), "line 3 is none of an export: the file is damaged"],
    [with_(1, JSON.stringify({ ...invite, invite: invite.invite.slice(0, -9) })),
      "the invite of a circle in the file is damaged: the invite is cut off or damaged: copy the whole line"],
    [with_(1, JSON.stringify({ ...invite, circle: "0".repeat(32) })), "a circle in the file and its invite do not fit together: the file is damaged"],
  ];
  for (const [content, message] of cases) {
    assert.deepEqual(await refusal(importProfile({ file: file(content), options })), ["NOT_AN_EXPORT", message]);
  }
  assert.deepEqual(await Circle.list(options), []);
});

test("an encrypted file opens with its passphrase alone, and one that is not whole is refused", async () => {
  const options = fresh();
  const content = await sealed(whole);
  assert.ok(isAge(content) && !isAge(whole));
  const head = new TextDecoder("latin1").decode(content).split("\n");
  const changed = (at, line) => new Uint8Array([...utf8(head.with(at, line).slice(0, 4).join("\n")), ...content.subarray(head.slice(0, 4).join("\n").length)]);
  const flipped = content.slice();
  flipped[flipped.length - 20] ^= 1;
  const damaged = "the file is damaged or cut off";
  const cases = [
    [content, "another one", "WRONG_PASSPHRASE", "the file does not open with this passphrase: case counts"],
    [content, "", "WRONG_PASSPHRASE", "the file does not open with this passphrase: case counts"],
    [content.subarray(0, -30), PASSPHRASE, "NOT_AN_EXPORT", damaged],
    [content.subarray(0, 60), PASSPHRASE, "NOT_AN_EXPORT", damaged],
    [flipped, PASSPHRASE, "NOT_AN_EXPORT", damaged],
    [changed(0, "age-encryption.org/v2"), PASSPHRASE, "NOT_AN_EXPORT", "the file is encrypted by another version of age, which this app does not know"],
    [changed(1, `-> X25519 ${"A".repeat(43)}`), PASSPHRASE, "NOT_AN_EXPORT", "the file is encrypted for a key, and not under a passphrase"],
    [changed(1, head[1].replace(/10$/, "21")), PASSPHRASE, "NOT_AN_EXPORT",
      "opening the file takes more work (2^21) than a page can do: export it again, or without encryption"],
    [changed(1, head[1].replace(/10$/, "1x")), PASSPHRASE, "NOT_AN_EXPORT", "the beginning of the file is damaged"],
    [await sealed(utf8("hello\n")), PASSPHRASE, "NOT_AN_EXPORT", "this file is no export of Muster"],
  ];
  for (const [bytes, passphrase, reason, message] of cases) {
    assert.deepEqual(await refusal(importProfile({ file: file(bytes), passphrase, options })), [reason, message]);
  }
  assert.deepEqual(await Circle.list(options), []);
  const came = await importProfile({ file: file(content), passphrase: PASSPHRASE, options });
  held(came.circles[0].circle);
  assert.equal(came.circles[0].records, lines.length - 3);
});

test("what the app exports is opened by age itself, and a short passphrase is refused", async () => {
  assert.deepEqual(await refusal(exportProfile({ circles: [ada], passphrase: "1234567" })), ["SHORT_PASSPHRASE", "the passphrase has fewer than 8 characters"]);
  assert.deepEqual((await refusal(exportProfile({ circles: [], passphrase: PASSPHRASE })))[0], "NO_INVITE");
  const parts = [];
  const blob = await exportProfile({ circles: [ada], passphrase: PASSPHRASE, progress: (what, part) => parts.push([what, part]) });
  assert.deepEqual([parts[0], parts.at(-1)], [["reading", 0], ["key", 1]]);
  const opener = new Decrypter();
  opener.addPassphrase(PASSPHRASE);
  const found = read(await opener.decrypt(new Uint8Array(await blob.arrayBuffer())));
  assert.deepEqual([found[0].t, found[0].v, found[0].name], ["muster-export", 1, "Ada"]);
  assert.deepEqual(found.slice(1, 1 + lines.length).map(({ t }) => t).slice(0, 3), ["circle", "key", "key"]);
});
