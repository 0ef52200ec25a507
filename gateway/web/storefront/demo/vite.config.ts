import { defineConfig } from "vite";

/** The demo shop, which the gateway serves at `/demo`. */
export default defineConfig({
  root: "demo",
  base: "/demo/",
  publicDir: false,
  build: {
    target: "es2022",
    outDir: "../dist/demo",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
});
