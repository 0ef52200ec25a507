// Builds each package under gateway/web, and leaves of it only what the gateway serves.
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";

const web = join("gateway", "web");
for (const name of existsSync(web) ? readdirSync(web) : []) {
  const place = join(web, name);
  if (!existsSync(join(place, "package.json"))) continue;
  const run = (...words) => execFileSync("npm", words, { cwd: place, stdio: "inherit" });
  // As the Makefile has it: versions and hashes are the lock file's.
  run("install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund");
  run("run", "build");
  for (const entry of readdirSync(place)) {
    if (entry !== "dist") rmSync(join(place, entry), { recursive: true });
  }
}
