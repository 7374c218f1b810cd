// How large libraries are that a page loads: minified by esbuild, each file compressed by gzip -9. Usage: size.mjs LIBRARY
import { gzipSync } from "node:zlib";
import { join, relative, resolve } from "node:path";
import { build } from "esbuild";

const LIBRARY = resolve(process.argv[2]);
const FROM = import.meta.dirname;

/** Bundle entries, split where code is imported dynamically; returns files by name, with what each imports statically. */
const bundle = async (entryPoints, more = {}) => {
  const { outputFiles, metafile } = await build({
    entryPoints,
    bundle: true,
    minify: true,
    splitting: true,
    write: false,
    metafile: true,
    format: "esm",
    target: "es2022",
    platform: "browser",
    legalComments: "none",
    outdir: "out",
    absWorkingDir: FROM,
    logLevel: "error",
    ...more,
  });
  const texts = new Map(outputFiles.map(({ path, contents }) => [path, contents]));
  return new Map(
    Object.entries(metafile.outputs).map(([name, { imports, inputs, entryPoint }]) => [
      name,
      {
        entryPoint,
        inputs,
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
  return { min_bytes: all, gzip_bytes: packed, files: [...names].length };
};

const named = (files, check) => [...files].find(([, { entryPoint }]) => entryPoint && check(entryPoint))[0];
const entry = (files, name) => named(files, (path) => resolve(FROM, path) === join(LIBRARY, name));

const ours = async () => {
  const alone = await bundle([join(LIBRARY, "index.js")]);
  const core = graph(alone, entry(alone, "index.js"));
  const all = await bundle(["index.js", "calls.js", "bootstrap/index.js"].map((name) => join(LIBRARY, name)));
  const base = graph(all, entry(all, "index.js"));
  const beside = (name) => weigh(all, [...graph(all, entry(all, name))].filter((file) => !base.has(file)));
  return {
    muster: weigh(alone, core),
    "muster, what it loads when used": weigh(alone, [...alone.keys()].filter((file) => !core.has(file))),
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

/** Which module of ours has how many of the minified bytes that are loaded first. */
const modules = async () => {
  const files = await bundle([join(LIBRARY, "index.js")]);
  const bytes = [...graph(files, entry(files, "index.js"))].flatMap((file) =>
    Object.entries(files.get(file).inputs).map(([name, { bytesInOutput }]) => [relative(LIBRARY, resolve(FROM, name)), bytesInOutput]),
  );
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
