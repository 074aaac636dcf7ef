// Bundles the sources: `node build.mjs` makes dist/page/, what browsers get, and dist/tools/, what tests run on Node.js.

import { mkdir, rm } from "node:fs/promises";
import { build } from "esbuild";

const shared = { bundle: true, format: "esm", target: "es2022", logLevel: "warning", legalComments: "none", charset: "utf8" };

await rm("dist", { recursive: true, force: true });
await mkdir("dist/page", { recursive: true });
await build({
  ...shared,
  entryPoints: ["src/tools/verify-lines.ts", "src/tools/signature-lines.ts"],
  platform: "node",
  outdir: "dist/tools",
  outExtension: { ".js": ".mjs" },
});
