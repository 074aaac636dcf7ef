// Bundles the sources: `node build.mjs` makes dist/page/, what browsers get, and dist/tools/, what tests run on Node.js.

import { cp, rm } from "node:fs/promises";
import { build } from "esbuild";

const shared = { bundle: true, format: "esm", target: "es2022", logLevel: "warning", legalComments: "none", charset: "utf8" };

await rm("dist", { recursive: true, force: true });
await build({ ...shared, entryPoints: ["src/page.ts"], platform: "browser", minify: true, outdir: "dist/page" });
for (const name of ["index.html", "style.css", "icon.svg"]) await cp(`src/${name}`, `dist/page/${name}`);
await build({
  ...shared,
  entryPoints: ["verify-lines", "signature-lines", "light-lines", "frame-lines"].map((name) => `src/tools/${name}.ts`),
  platform: "node",
  outdir: "dist/tools",
  outExtension: { ".js": ".mjs" },
});
