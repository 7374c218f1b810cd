"""What a profile keeps in real IndexedDB: reloads, keys, a full disk, a wipe, a newer page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import CDPSession

from tests.support.pages import Pages, Person

OPEN = """const { openStore } = await library("store.js");
window.store = await openStore(given);
"""


@pytest.fixture
def person(pages: Pages) -> Person:
    return pages.person()


@pytest.fixture
def devtools(person: Person) -> Iterator[CDPSession]:
    session = person.context.new_cdp_session(person.page)
    yield session
    session.detach()


def origin(person: Person) -> str:
    return str(person.page.evaluate("location.origin"))


def test_rows_survive_a_reload_and_two_profiles_are_apart(person: Person) -> None:
    person.run(
        OPEN
        + """const bytes = new Uint8Array([1, 2]);
        await store.put([["a", "1", { bytes }], ["a", "2", 2], ["ab", "1", 3]]);
        await store.put([["a", "2", undefined]]);""",
        "one",
    )
    person.page.reload()
    found = person.run(
        OPEN
        + """const rows = await store.all("a");
        const read = rows.map(([id, { bytes }]) => [id, [...bytes]]);
        return [read, await store.get("ab", "1"), await store.all("b")]""",
        "one",
    )
    assert found == [[["1", [1, 2]]], 3, []]
    assert person.run(OPEN + 'return store.all("a")', "two") == []


def test_a_key_that_cannot_be_read_back_is_there_after_a_reload(person: Person) -> None:
    derived = """[...new Uint8Array(await crypto.subtle.deriveBits(
        { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info: new Uint8Array() },
        key, 256))]"""
    before = person.run(
        OPEN
        + f"""const secret = crypto.getRandomValues(new Uint8Array(32));
        const key = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
        await store.put([["circles", "1", {{ key }}]]);
        return {derived}""",
        "keys",
    )
    person.page.reload()
    after = person.run(
        OPEN
        + f"""const {{ key }} = await store.get("circles", "1");
        const reads = await crypto.subtle.exportKey("raw", key).then(() => true, () => false);
        return [{derived}, key.extractable, reads]""",
        "keys",
    )
    assert after == [before, False, False]


def test_writes_that_come_together_are_one_transaction_and_the_last_value_stands(
    person: Person,
) -> None:
    found = person.run(
        """let count = 0;
        const begin = IDBDatabase.prototype.transaction;
        IDBDatabase.prototype.transaction = function (...args) {
          count += 1;
          return begin.apply(this, args);
        };
        """
        + OPEN
        + """const put = (_, at) => store.put([["a", `${at % 100}`, at]]);
        await Promise.all(Array.from({ length: 500 }, put));
        const writes = count;
        IDBDatabase.prototype.transaction = begin;
        const values = (await store.all("a")).map(([, value]) => value);
        return [writes < 5, values.sort((a, b) => a - b)]""",
        "together",
    )
    assert found == [True, list(range(400, 500))]


def test_when_nothing_more_is_stored_it_says_so_and_writes_all_when_there_is_room(
    person: Person, devtools: CDPSession
) -> None:
    place = {"origin": origin(person)}
    devtools.send("Storage.overrideQuotaForOrigin", {**place, "quotaSize": 100_000})
    person.run(OPEN + 'await store.put([["a", "0", "small"]])', "full")
    told = person.run(
        """await store.put([["a", "1", 1], ["a", "3", new Uint8Array(5_000_000).fill(7)]]);
        await store.put([["a", "2", "after it"]]);
        return [store.trouble?.reason, await store.get("a", "0"), (await store.all("a")).length]"""
    )
    assert told == ["STORAGE_FULL", "small", 1]  # what was put later does not go before
    devtools.send("Storage.overrideQuotaForOrigin", place)
    person.until('store.trouble === undefined && (await store.all("a")).length === 4', ms=20_000)


def test_a_profile_that_the_browser_wipes_is_gone_and_is_not_begun_by_half(
    person: Person, devtools: CDPSession
) -> None:
    person.run(OPEN + 'await store.put([["circles", "1", "me"], ["a", "1", 1]])', "wiped")
    devtools.send(
        "Storage.clearDataForOrigin", {"origin": origin(person), "storageTypes": "indexeddb"}
    )
    told = person.run(
        """await store.put([["a", "2", 2]]);
        await store.put([["a", "3", 3]]);
        return [store.trouble?.reason, (await indexedDB.databases()).length]"""
    )
    assert told == ["STORAGE_GONE", 0]
    assert person.run(OPEN + 'return store.all("a")', "wiped") == []


def test_a_database_that_the_browser_has_closed_is_opened_again(person: Person) -> None:
    found = person.run(
        """const open = indexedDB.open.bind(indexedDB);
        let opened;
        IDBFactory.prototype.open = (...args) => {
          const request = open(...args);
          request.addEventListener("success", () => (opened = request.result));
          return request;
        };
        """
        + OPEN
        + """await store.put([["a", "1", 1]]);
        opened.close();
        await store.put([["a", "2", 2]]);
        return [store.trouble, (await store.all("a")).length]""",
        "asleep",
    )
    assert found == [None, 2]


def test_what_cannot_be_cloned_is_told_and_holds_up_nothing_else(person: Person) -> None:
    found = person.run(
        OPEN
        + """await store.put([["a", "1", () => {}], ["a", "2", 2]]);
        const { reason } = store.trouble;
        await store.put([["a", "3", 3]]);
        return [reason, store.trouble, (await store.all("a")).length]""",
        "odd",
    )
    assert found == ["STORAGE_GONE", None, 2]


def test_a_newer_page_takes_the_profile_and_an_older_one_says_reload(
    pages: Pages, person: Person
) -> None:
    person.run(OPEN + 'await store.put([["a", "1", 1]])', "newer")
    other = pages.tab(person.context)
    other.run(
        """await new Promise((resolve, reject) => {
          const opening = indexedDB.open(given, 2);
          opening.onsuccess = () => { opening.result.close(); resolve(); };
          opening.onblocked = () => reject(new Error("the older page holds it"));
        })""",
        "newer",
    )
    told = person.run(
        """await store.put([["a", "2", 2]]);
        const { openStore } = await library("store.js");
        return [store.trouble.reason, await openStore(given).catch(({ reason }) => reason)]""",
        "newer",
    )
    assert told == ["STORAGE_NEWER", "STORAGE_NEWER"]


def test_a_log_of_1500_records_is_read_again_and_written_in_few_transactions(
    person: Person,
) -> None:
    filled = (
        OPEN
        + """const { Log } = await library("log.js");
        const { Member } = await library("keys.js");
        const log = await Log.open(store, "c".repeat(32));
        window.log = log;"""
    )
    told = person.run(
        filled
        + """const secret = crypto.getRandomValues(new Uint8Array(32));
        const member = await Member.make("c".repeat(32), secret);
        const general = "0".repeat(32);
        const say = (_, at) => log.append(member,
          { epoch: 0, at_ms: at, channel: general, kind: "text", body: { text: `${at}` } });
        await Promise.all(Array.from({ length: 1500 }, say));
        return log.tip(member.author)""",
        "log",
    )
    person.page.reload()
    found = person.run(
        filled + "const [rec] = log.records(); return [log.tip(rec.author), log.missing()]", "log"
    )
    assert told[0] == 1500
    assert found == [told, []]
