// Packs the app: web/app and what it needs of web/muster become web/app/packed/{app.js,app.css,later.js}, so that nobody
// who runs or deploys it needs Node. `later.js` is what is loaded when a file is exported or opened (age).
// `--check` says whether what is there is what the sources make; so it is for the icons that icon.svg makes (icons.mjs).
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

import { drawn, maskable, shows } from "./icons.mjs";

const WEB = join(dirname(fileURLToPath(import.meta.url)), "../web");
const out = join(WEB, "app/packed");

/** The library lies beside the app in a checkout, and below it where both are served. */
const served = {
  name: "served",
  setup({ onResolve }) {
    onResolve({ filter: /^\.{1,2}\/muster\// }, ({ path }) => ({ path: join(WEB, path.replace(/^\.+\//, "")) }));
    onResolve({ filter: /vendor\/age\.js$/ }, ({ kind }) => (kind === "dynamic-import" ? { path: "./later.js", external: true } : undefined));
  },
};
// no tsconfig.json: whether esbuild has read it in time for a module changed what came
const common = { tsconfigRaw: "{}", bundle: true, minify: true, format: "esm", target: ["chrome123", "firefox129", "safari17.5"], charset: "utf8", legalComments: "none", write: false, absWorkingDir: WEB };
const made = await Promise.all([
  build({ ...common, entryPoints: { app: "app/main.js" }, outdir: out, plugins: [served] }),
  build({ ...common, entryPoints: { later: "app/vendor/age.js" }, outdir: out }),
  build({ ...common, entryPoints: { app: "app/app.css" }, outdir: out }),
]);
const files = made.flatMap(({ outputFiles }) => outputFiles);
const square = maskable(await readFile(join(WEB, "app/icon.svg"), "utf8"));
const [MASKABLE, TOUCH] = ["app/icon-maskable.svg", "app/apple-touch-icon.png"].map((name) => join(WEB, name));
if (process.argv.includes("--check")) {
  for (const { path, text } of files) {
    if ((await readFile(path, "utf8").catch(() => "")) === text) continue;
    console.error(`web/app/packed/${basename(path)} is not what the sources make: run make app`);
    process.exitCode = 1;
  }
  const icons = [(await readFile(MASKABLE, "utf8").catch(() => "")) === square, shows(await readFile(TOUCH).catch(() => Buffer.alloc(0)), square)];
  if (icons.includes(false)) {
    console.error("web/app has other icons than web/app/icon.svg makes: run make app");
    process.exitCode = 1;
  }
} else {
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  for (const { path, text } of files) await writeFile(path, text);
  await writeFile(MASKABLE, square);
  await writeFile(TOUCH, drawn(square));
}
