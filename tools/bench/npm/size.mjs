// How large libraries are that a page loads: minified by esbuild, each file compressed by gzip -9. Usage: size.mjs LIBRARY
import { gzipSync } from "node:zlib";
import { join, relative, resolve } from "node:path";
import { build } from "esbuild";

const LIBRARY = resolve(process.argv[2]);
const FROM = import.meta.dirname;

const HOW = {
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  format: "esm",
  target: "es2022",
  platform: "browser",
  legalComments: "none",
  absWorkingDir: FROM,
  logLevel: "error",
};

/** Bundle entries, split where code is imported dynamically; returns files by name, with what each imports statically. */
const bundle = async (entryPoints, more = {}) => {
  const { outputFiles, metafile } = await build({ ...HOW, entryPoints, splitting: true, outdir: "out", ...more });
  const texts = new Map(outputFiles.map(({ path, contents }) => [path, contents]));
  return new Map(
    Object.entries(metafile.outputs).map(([name, { imports, entryPoint }]) => [
      name,
      {
        entryPoint,
        contents: texts.get(join(FROM, name)),
        imports: imports.filter(({ kind, external }) => kind === "import-statement" && !external).map(({ path }) => path),
      },
    ]),
  );
};

/** All that an entry loads before its first line runs. */
const graph = (files, name, found = new Set()) => {
  if (found.has(name)) return found;
  found.add(name);
  for (const other of files.get(name).imports) graph(files, other, found);
  return found;
};

const weigh = (files, names) => {
  const [all, packed] = [(one) => one.length, (one) => gzipSync(one, { level: 9 }).length].map((size) =>
    [...names].reduce((sum, name) => sum + size(files.get(name).contents), 0),
  );
  return { min_bytes: all, gzip_bytes: packed, files: names.size };
};

const named = (files, check) => [...files].find(([, { entryPoint }]) => entryPoint && check(entryPoint))[0];
const entry = (files, name) => named(files, (path) => resolve(FROM, path) === join(LIBRARY, name));

const ours = async () => {
  const alone = await bundle([join(LIBRARY, "index.js")]);
  const all = await bundle(["index.js", "calls.js", "bootstrap/index.js"].map((name) => join(LIBRARY, name)));
  const base = graph(all, entry(all, "index.js"));
  const beside = (end) => weigh(all, new Set([...graph(all, entry(all, end))].filter((name) => !base.has(name))));
  return {
    muster: weigh(alone, graph(alone, entry(alone, "index.js"))),
    "muster, calls beside it": beside("calls.js"),
    "muster, bootstrap beside it": beside("bootstrap/index.js"),
  };
};

/** A package from npm: what an app imports of it, and all that this needs. */
const theirs = async (what, name, external = []) => {
  const stdin = { contents: `export { ${what} } from ${JSON.stringify(name)};`, resolveDir: FROM };
  const files = await bundle(undefined, { stdin, external });
  return weigh(files, graph(files, named(files, (path) => path === "<stdin>")));
};

/** Which module of ours has how many of the minified bytes. */
const modules = async () => {
  const { metafile } = await build({ ...HOW, entryPoints: [join(LIBRARY, "index.js")], splitting: false, outdir: "out" });
  const [[, { inputs }]] = Object.entries(metafile.outputs);
  const bytes = Object.entries(inputs).map(([name, { bytesInOutput }]) => [relative(LIBRARY, resolve(FROM, name)), bytesInOutput]);
  return Object.fromEntries(bytes.sort(([, one], [, other]) => other - one));
};

console.log(
  JSON.stringify({
    sizes: {
      ...(await ours()),
      peerjs: await theirs("Peer", "peerjs"),
      "trystero core": await theirs("createTopicStrategy", "@trystero-p2p/core"),
      trystero: await theirs("joinRoom", "trystero"),
      "y-webrtc, without yjs": await theirs("WebrtcProvider", "y-webrtc", ["yjs", "yjs/*"]),
    },
    modules: await modules(),
  }),
);
