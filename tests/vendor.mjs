// The libraries that the app ships, each bundled into one readable module of web/app/vendor/ from the pins of
// package.json, with their licences beside them. `--check` says whether what is there is what the pins make.
import { readFile, readdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const OUT = join(HERE, "../web/app/vendor");
const BUNDLES = {
  "ui.js": `
    export { h, render, Fragment, createRef } from "preact";
    export { useEffect, useLayoutEffect, useRef, useState, useMemo, useCallback } from "preact/hooks";
    export { signal, computed, effect, batch, untracked, useSignal, useComputed, useSignalEffect } from "@preact/signals";
    import { h } from "preact";
    import htm from "htm";
    export const html = htm.bind(h);`,
  "qr.js": `
    export { generate, correction } from "lean-qr";
    export { toSvgPath } from "lean-qr/extras/svg";`,
  // scrypt that lets a page breathe is plugged into age as a recipient of the app's own (web/app/model/age.js).
  "age.js": `
    export { Decrypter, Encrypter, Stanza } from "age-encryption";
    export { scryptAsync } from "@noble/hashes/scrypt.js";
    export { chacha20poly1305 } from "@noble/ciphers/chacha.js";`,
};

/** The app's files are under a passphrase: what age has for public keys would be two thirds of it. */
const UNUSED = /^@noble\/(curves|post-quantum)\//;
const left = {
  name: "left out",
  setup: (build) => {
    build.onResolve({ filter: UNUSED }, ({ path }) => ({ path, namespace: "left out" }));
    build.onLoad({ filter: UNUSED, namespace: "left out" }, () => ({
      contents: "export const MLKEM768P256 = null, MLKEM768X25519 = null, p256 = null, x25519 = null;",
    }));
  },
};

/** The package that a bundled file is of. */
const packageOf = (input) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1];

const licence = async (name) => {
  const folder = join(HERE, "node_modules", name);
  const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const [file] = (await readdir(folder)).filter((one) => /^licen[sc]e/i.test(one));
  const text = file ? await readFile(join(folder, file), "utf8") : `${license}\n`;
  return `${name} ${version} (${license})\n${"=".repeat(72)}\n\n${text.trim()}\n`;
};

const made = new Map();
const packages = new Set();
for (const [file, contents] of Object.entries(BUNDLES)) {
  const { outputFiles, metafile } = await build({
    stdin: { contents, resolveDir: HERE, loader: "js" },
    bundle: true,
    write: false,
    metafile: true,
    format: "esm",
    target: "es2022",
    charset: "utf8",
    legalComments: "inline",
    absWorkingDir: HERE,
    plugins: [left],
  });
  const inside = [...new Set(Object.keys(metafile.inputs).map(packageOf).filter(Boolean))].sort();
  for (const one of inside) packages.add(one);
  const named = inside.map((one) => `${one} ${createRequire(import.meta.url)(join(HERE, "node_modules", one, "package.json")).version}`);
  made.set(file, `// Made by tests/vendor.mjs from ${named.join(", ")}; licences are in LICENSES.\n${outputFiles[0].text}`);
}
made.set("LICENSES", (await Promise.all([...packages].sort().map(licence))).join("\n\n"));

const check = process.argv.includes("--check");
for (const [file, text] of made) {
  const path = join(OUT, file);
  if (!check) await writeFile(path, text);
  else if ((await readFile(path, "utf8").catch(() => "")) !== text) {
    console.error(`web/app/vendor/${file} is not what tests/package.json makes: run make vendor`);
    process.exitCode = 1;
  }
}
