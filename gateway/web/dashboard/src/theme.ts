/** Light or dark: as the system has it, unless somebody chose. */

export type Theme = "auto" | "light" | "dark";

const dark = matchMedia("(prefers-color-scheme: dark)");
const KEY = "shoptrail-theme";

function read(): Theme {
  try {
    const kept = localStorage.getItem(KEY);
    return kept === "light" || kept === "dark" ? kept : "auto";
  } catch {
    return "auto";
  }
}

function apply(): void {
  const theme = read();
  document.documentElement.dataset.theme =
    theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
  dispatchEvent(new Event("themechange"));
}

export function theme(): Theme {
  return read();
}

export function setTheme(next: Theme): void {
  try {
    if (next === "auto") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, next);
  } catch {
    // Without storage it holds for this page.
  }
  apply();
}

dark.addEventListener("change", apply);
apply();
