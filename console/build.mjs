// One script and one style sheet, the same from the same sources on every machine.
import { copyFile, mkdir } from "node:fs/promises";
import { build } from "esbuild";

const to = process.argv[2] ?? "../src/svsync/http/assets";
await mkdir(to, { recursive: true });
await build({
  entryPoints: { console: "src/main.tsx" },
  outdir: to,
  bundle: true,
  minify: true,
  format: "iife",
  target: ["es2022", "chrome123", "firefox121", "safari17.5"],
  charset: "utf8",
  legalComments: "none",
  banner: { js: "/* The console of svsync. With Preact, (c) 2015-present Jason Miller, MIT licence. */" },
  logLevel: "warning",
});
for (const name of ["index.html", "icon.svg"]) await copyFile(`src/${name}`, `${to}/${name}`);
