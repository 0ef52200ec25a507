import { defineConfig } from "vite";

/** The script for shops' pages. `demo/vite.config.ts` builds the demo shop. */
export default defineConfig({
  publicDir: false,
  build: {
    target: "es2020",
    outDir: "dist",
    lib: {
      entry: "src/shoptrail.ts",
      formats: ["iife"],
      name: "shoptrailScript",
      fileName: () => "shoptrail.js",
    },
  },
});
