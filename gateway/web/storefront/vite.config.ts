import { build, defineConfig, type InlineConfig } from "vite";

const TARGET = "es2020";

/** A script that a page loads by a tag of its own. */
function scriptOf(name: string): InlineConfig {
  return {
    configFile: false,
    publicDir: false,
    logLevel: "warn",
    build: {
      target: TARGET,
      emptyOutDir: false,
      lib: {
        entry: `src/${name}.ts`,
        formats: ["iife"],
        name: "shoptrailScript",
        fileName: () => `${name}.js`,
      },
    },
  };
}

/** The package's module first, then the scripts for pages. */
export default defineConfig({
  publicDir: false,
  build: {
    target: TARGET,
    lib: { entry: "src/index.ts", formats: ["es"], fileName: () => "index.js" },
  },
  plugins: [
    {
      name: "scripts",
      closeBundle: async () => {
        for (const name of ["shoptrail", "shoptrail-ga4"]) await build(scriptOf(name));
      },
    },
  ],
});
