import { readFileSync } from "node:fs";

import { defineConfig } from "vite";

const pages = readFileSync(new URL("src/pages.json", import.meta.url), "utf8");

export default defineConfig({
  build: {
    // Nothing inlined: the policy forbids what isn't a file of ours.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
  },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  plugins: [
    {
      // The gateway reads from it at which paths there are pages.
      name: "tell-pages",
      generateBundle() {
        this.emitFile({ type: "asset", fileName: "pages.json", source: pages });
      },
    },
  ],
});
