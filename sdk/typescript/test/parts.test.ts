import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { parseAddress } from "../dist/address.js";
import { Changes } from "../dist/changes.js";
import { Entry } from "../dist/entry.js";
import { readEvents } from "../dist/events.js";
import { checksum, isPlausible, randomToken } from "../dist/form.js";
import { Digester, keyMaterial } from "../dist/keys.js";
import { sha256 } from "../dist/sha256.js";
import { Table } from "../dist/table.js";
import { Pace } from "../dist/watch.js";

const vectors = JSON.parse(readFileSync(new URL("../../conformance/vectors.json", import.meta.url), "utf8")) as {
  forms: { why: string; text: string; plausible: boolean }[];
  checksums: { text: string; checksum: string }[];
  keys: { token: string; audience: string; ip: string; everywhere: string; address: string }[];
};

test("forms, checksums and keys are those of the vectors", () => {
  for (const v of vectors.forms) assert.equal(isPlausible(v.text), v.plausible, v.why);
  for (const v of vectors.checksums) assert.equal(checksum(v.text), v.checksum, v.text);
  for (const v of vectors.keys) {
    assert.equal(Buffer.from(keyMaterial(v.token, v.audience)).toString("hex"), v.everywhere);
    assert.equal(v.ip && Buffer.from(parseAddress(v.ip)!.bytes).toString("hex"), v.address);
  }
  for (let i = 0; i < 1000; i++) assert.ok(isPlausible(randomToken().text));
});

test("SHA-256 is that of Node, for every length", () => {
  for (let n = 0; n < 300; n++) {
    const text = randomBytes(n);
    const buffer = new Uint8Array(n + 72).fill(0xff);
    buffer.set(text);
    const out = new Int32Array(8);
    sha256(buffer, n, out);
    const hex = [...out].map((w) => (w >>> 0).toString(16).padStart(8, "0")).join("");
    assert.equal(hex, createHash("sha256").update(text).digest("hex"), `${n} bytes`);
  }
});

test("a key covers token, audience and address, and is another in each process", () => {
  const d = new Digester();
  const t = "a".repeat(60);
  const keys = [d.key(t, ""), d.key(t, "a"), d.key(t + "a", ""), d.key(t, "ü"), new Digester().key(t, "")];
  assert.equal(new Set(keys).size, 5);
  assert.equal(d.key(t, "a"), keys[1]);
  const k = keys[0] as string;
  const there = [d.at(k, null), d.at(k, parseAddress("10.0.0.1")), d.at(k, parseAddress("10.0.0.2")), k];
  assert.equal(new Set(there).size, 4);
  assert.equal(d.at(k, parseAddress("::ffff:a00:1")), there[1]);
  assert.equal(d.key("pät", ""), null);
  assert.throws(() => d.key(t, "\ud800"));
  assert.throws(() => d.key(t, "x".repeat(2000)));
});

test("addresses are read strictly", () => {
  for (const bad of [
    "",
    "1.2.3",
    "1.2.3.4.5",
    "01.2.3.4",
    "1.2.3.256",
    "1.2.3.4%eth0",
    ":",
    ":::",
    "1::2::3",
    "1:2:3:4:5:6:7:8:9",
    "12345::",
    "::g",
    "1:2:3:4:5:6:7",
    "::1.2.3",
    "fe80::1%",
    "[::1]",
    "::1 ",
    "1.2.3.4\n",
    "1.2.3.4::",
    "1:2:3:4:5:6:7::8:9",
  ]) {
    assert.equal(parseAddress(bad), null, bad);
  }
  assert.equal(parseAddress("::ffff:192.0.2.1")?.text, "192.0.2.1");
  assert.equal(parseAddress("FE80::1%eth0")?.text, "fe80::1");
  assert.deepEqual([...parseAddress("1:2:3:4:5:6:7::")!.bytes.slice(-4)], [0, 7, 0, 0]);
});

test("a table is bounded in entries and bytes, and keeps what was used", () => {
  let left = 0;
  const table = new Table(100, 1 << 20, () => left++);
  const entry = (key: string) => Object.assign(new Entry("NOT_FOUND", undefined), { key });
  table.put(entry("used"));
  for (let i = 0; i < 10_000; i++) {
    (table.get("used") as Entry).recent = true;
    table.put(entry(`k${i}`));
    assert.ok(table.size <= 100);
  }
  assert.ok(table.get("used"));
  assert.equal(left, 10_001 - table.size);
  const small = new Table(100, 10 * 1024, () => {});
  for (let i = 0; i < 100; i++) small.put(entry(`k${i}`));
  assert.equal(small.size, 10);
  assert.equal(new Table(100, 1000, () => {}).put(entry("large")), false);
});

test("changes that are dropped raise the floor", () => {
  const c = new Changes(5);
  for (let i = 0; i < 100_000; i++) c.note("t", `t${i}`, 10 + i);
  assert.ok(c.floor > 5 && c.floor < 100_010);
  assert.ok(c.after(c.floor, "t99999", "u"));
  assert.ok(!c.after(200_000, "t99999", "u"));
  assert.ok(!c.after(0, "another", "u"));
});

test("events are read whatever the chunks, line ends and comments", async () => {
  const text =
    '\ufeffretry: 5\n: ü\nevent: a\r\nid: 1\r\ndata: {"x":\ndata:1}\r\n\r\ndata: y\r\rnothing\n\nevent: c\n\ndata: z';
  const bytes = new TextEncoder().encode(text);
  for (let size = 1; size < 20; size++) {
    const body = new ReadableStream<Uint8Array>({
      start(c) {
        for (let i = 0; i < bytes.length; i += size) c.enqueue(bytes.slice(i, i + size));
        c.close();
      },
    });
    const all = [];
    for await (const e of readEvents(body)) all.push(e);
    assert.deepEqual(
      all,
      [
        { type: "a", data: '{"x":\n1}' },
        { type: "message", data: "y" },
      ],
      `chunks of ${size}`,
    );
  }
});

test("the pace of events says what is known", () => {
  const at = (mono: number, wall = mono + 50000) => ({ mono, wall });
  const begun = new Pace(at(1000));
  assert.deepEqual(begun.event(at(1900), 0, true, true), at(1000)); // a start-over is as old as the request
  assert.deepEqual(begun.event(at(2900), 0, true, false), at(2900));
  assert.deepEqual(begun.event(at(4950), 0, false, false), at(4150)); // a heartbeat was held up
  assert.deepEqual(begun.event(at(5000), 0, false, false), at(5000));
  const resumed = new Pace(at(1000));
  assert.equal(resumed.event(at(1010), 0, false, false), null); // news that was missed
  assert.equal(resumed.event(at(1500), 490, false, false), null);
  assert.deepEqual(resumed.event(at(2010), 900, false, false), at(1900));
  const held = new Pace(at(1000));
  assert.deepEqual(held.event(at(1300), 0, true, false), at(1000)); // others may wait in the same pipe
  assert.deepEqual(held.event(at(2400), 1000, true, false), at(2000)); // the server says when it was made
  assert.equal(held.behind, 400);
  assert.deepEqual(held.event(at(3400), 1100, true, false), at(2100));
  assert.equal(held.behind, 1300);
  const asleep = new Pace(at(1000));
  asleep.event(at(1010), 0, true, false);
  assert.deepEqual(asleep.event({ mono: 2000, wall: 99000 }, 48000, true, false), { mono: 2000, wall: 99000 });
  const ahead = new Pace(at(1000));
  ahead.event(at(1010), 0, true, false);
  ahead.event({ mono: 2000, wall: 90000 }, 1000, true, false);
  assert.equal(ahead.behind, 38000); // when it asked is no longer a time of this clock
});
