// Makes the icons that installers ask for of web/app/icon.svg: the same in a full square, as systems cut their own shape out
// of it (`icon-maskable.svg`, everything in the inner 80 %), and that as a picture for iOS (`apple-touch-icon.png`). `drawn`
// knows squares and circles in plain colours, which is what the icon is made of, and refuses anything else.
import { deflateSync, inflateSync } from "node:zlib";

const SIDE = 180;
/** Points a pixel is looked at, each way. */
const FINE = 4;
const KNOWN = new Set(["width", "height", "cx", "cy", "r", "fill", "stroke", "stroke-width", "stroke-opacity"]);

/** What an SVG says, in its order, with what groups say for those in them. @param {string} svg */
const shapes = (svg) => {
  const groups = [{}];
  const found = [];
  for (const [, close, name, said, alone] of svg.matchAll(/<(\/?)(\w+)((?:\s+[\w:-]+="[^"]*")*)\s*(\/?)>/g)) {
    const own = Object.fromEntries([...said.matchAll(/([\w:-]+)="([^"]*)"/g)].map(([, key, value]) => [key, value]));
    const strange = name === "svg" ? undefined : Object.keys(own).find((key) => !KNOWN.has(key));
    if (strange) throw new Error(`the icon has ${strange} of a ${name}, which is not drawn`);
    if (name === "g" && close) groups.pop();
    else if (name === "g") groups.push({ ...groups.at(-1), ...own });
    else if (name === "rect" || name === "circle") found.push({ name, ...groups.at(-1), ...own });
    else if (name !== "svg" || alone) throw new Error(`the icon has a ${name}, which is not drawn`);
  }
  return found;
};

/** @param {string} hex */
const colour = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** What a shape puts on a point: its colours and how much they cover. */
const painter = ({ name, fill = "#000000", stroke = "none", ...more }) => {
  const { cx, cy, r, width = 0, height = 0, "stroke-width": line = 1, "stroke-opacity": cover = 1 } = Object.fromEntries(Object.entries(more).map(([key, value]) => [key, Number(value)]));
  if (name === "rect") return (x, y) => (x < width && y < height ? [[colour(fill), 1]] : []);
  return (x, y) => {
    const far = Math.sqrt((x - cx) ** 2 + (y - cy) ** 2);
    const paints = [];
    if (fill !== "none" && far < r) paints.push([colour(fill), 1]);
    if (stroke !== "none" && Math.abs(far - r) < line / 2) paints.push([colour(stroke), cover]);
    return paints;
  };
};

/** The same without round corners of its own. @param {string} svg */
export const maskable = (svg) => {
  const square = svg.replace(/ rx="\d+"/, "");
  if (square === svg) throw new Error("the icon has no round corners");
  return square;
};

/** Draw an SVG of 512 as rows of red, green and blue. @param {string} svg */
const pixels = (svg, side = SIDE) => {
  const painters = shapes(svg).map(painter);
  const rows = Buffer.alloc(side * side * 3);
  const step = 512 / side / FINE;
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) {
      const sum = [0, 0, 0];
      for (let part = 0; part < FINE * FINE; part += 1) {
        const [px, py] = [(x * FINE + (part % FINE) + 0.5) * step, (y * FINE + Math.floor(part / FINE) + 0.5) * step];
        let point = [0, 0, 0];
        for (const paint of painters) for (const [over, cover] of paint(px, py)) point = point.map((one, at) => one + (over[at] - one) * cover);
        for (let at = 0; at < 3; at += 1) sum[at] += point[at];
      }
      for (let at = 0; at < 3; at += 1) rows[(y * side + x) * 3 + at] = Math.round(sum[at] / FINE / FINE);
    }
  }
  return rows;
};

const CRC = Uint32Array.from({ length: 256 }, (_, at) => {
  for (let bit = 0; bit < 8; bit += 1) at = at & 1 ? 0xedb88320 ^ (at >>> 1) : at >>> 1;
  return at;
});

/** @param {string} type @param {Buffer} body */
const chunk = (type, body) => {
  const raw = Buffer.concat([Buffer.from(type, "latin1"), body]);
  const ends = Buffer.alloc(8);
  ends.writeUInt32BE(body.length);
  ends.writeUInt32BE((raw.reduce((crc, byte) => CRC[(crc ^ byte) & 255] ^ (crc >>> 8), 0xffffffff) ^ 0xffffffff) >>> 0, 4);
  return Buffer.concat([ends.subarray(0, 4), raw, ends.subarray(4)]);
};

/** How a PNG of three bytes a point begins. @param {number} side */
const beginning = (side) => {
  const head = Buffer.alloc(13);
  head.writeUInt32BE(side);
  head.writeUInt32BE(side, 4);
  head.set([8, 2, 0, 0, 0], 8);
  return Buffer.concat([Buffer.from("89504e470d0a1a0a", "hex"), chunk("IHDR", head)]);
};

/** Rows of a PNG, each with a zero before it. @param {string} svg */
const filtered = (svg, side = SIDE) => {
  const rows = pixels(svg, side);
  return Buffer.concat(Array.from({ length: side }, (_, y) => Buffer.concat([Buffer.alloc(1), rows.subarray(y * side * 3, (y + 1) * side * 3)])));
};

/** Draw an SVG of 512 as a PNG without transparency, as iOS wants it. @param {string} svg @returns {Buffer} */
export const drawn = (svg, side = SIDE) =>
  Buffer.concat([beginning(side), chunk("IDAT", deflateSync(filtered(svg, side), { level: 9 })), chunk("IEND", Buffer.alloc(0))]);

/** Whether a PNG shows what an SVG says: another version of zlib makes other bytes of the same. @param {Buffer} png @param {string} svg */
export const shows = (png, svg, side = SIDE) => {
  try {
    const begins = beginning(side);
    const at = begins.length;
    return png.subarray(0, at).equals(begins) && inflateSync(png.subarray(at + 8, at + 8 + png.readUInt32BE(at))).equals(filtered(svg, side));
  } catch {
    return false;
  }
};
