// What `npm pack` in web/muster adds to the sources: types, made from JSDoc, and the licence; --clean takes them away again.
import { spawnSync } from "node:child_process";
import { copyFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const COMPILER = ["../../tests/node_modules/typescript/bin/tsc", "-p", "../tsconfig.types.json"];

const clean = () => {
  rmSync("types", { recursive: true, force: true });
  rmSync("LICENSE", { force: true });
};

process.chdir(fileURLToPath(new URL("../web/muster/", import.meta.url)));
clean();
if (!process.argv.includes("--clean")) {
  const { status } = spawnSync(process.execPath, COMPILER, { stdio: "inherit" });
  if (status === 0) copyFileSync("../../LICENSE", "LICENSE");
  else clean();
  process.exitCode = status ?? 1;
}
