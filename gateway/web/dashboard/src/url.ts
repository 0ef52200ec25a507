/** What is looked at stands in the URL, so that a link shows another the same. */

import { useEffect, useState } from "preact/hooks";

import pages from "./pages.json";
import {
  COMPARISONS,
  comparedWith,
  isZone,
  ownZone,
  PRESETS,
  rangeOf,
  type Comparison,
  type Preset,
  type Range,
} from "./time";

const listeners = new Set<() => void>();

function changed(): void {
  for (const listener of listeners) listener();
}
addEventListener("popstate", changed);

export function pageName(): string {
  const name = location.pathname.slice(1);
  return pages.includes(name) ? name : "";
}

function parameters(): URLSearchParams {
  return new URLSearchParams(location.search);
}

function isPlainClick(event: MouseEvent): boolean {
  return event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
}

/** These hold on every page; all others are the page's own. */
const KEPT = ["store", "range", "from", "to", "compare", "tz", "currency"];

export function linkTo(page: string, own: Record<string, string | string[]> = {}): string {
  const next = new URLSearchParams();
  for (const [name, value] of parameters()) if (KEPT.includes(name)) next.append(name, value);
  for (const [name, value] of Object.entries(own)) {
    next.delete(name);
    for (const each of Array.isArray(value) ? value : [value]) if (each) next.append(name, each);
  }
  const text = next.toString();
  return `/${page}${text ? `?${text}` : ""}`;
}

export function go(url: string): void {
  history.pushState(null, "", url);
  changed();
  scrollTo(0, 0);
}

/** For `onClick` of a link within the dashboard. */
export function follow(event: MouseEvent): void {
  const link = (event.currentTarget as Element).closest("a");
  if (!link || !isPlainClick(event)) return;
  event.preventDefault();
  go(link.getAttribute("href") ?? "/");
}

/** Change parameters of this page; empty ones are removed. */
export function setParameters(
  changes: Record<string, string | string[]>,
  { replace = false } = {},
): void {
  const next = parameters();
  for (const [name, value] of Object.entries(changes)) {
    next.delete(name);
    for (const each of Array.isArray(value) ? value : [value]) if (each) next.append(name, each);
  }
  const text = next.toString();
  const url = `${location.pathname}${text ? `?${text}` : ""}`;
  if (replace) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
  changed();
}

export interface View {
  page: string;
  store: string;
  preset: Preset;
  from: string;
  to: string;
  comparison: Comparison;
  zone: string;
  range: Range;
  compared: Range | null;
  one: (name: string, otherwise?: string) => string;
  all: (name: string) => string[];
  /** Changes whenever anything of the above does. */
  text: string;
}

// Fixed until something is chosen or asked for anew, so that reports agree with one another.
let now = Date.now();

export function refreshNow(): void {
  now = Date.now();
  changed();
}

export function currentView(): View {
  const given = parameters();
  const one = (name: string, otherwise = ""): string => given.get(name) ?? otherwise;
  const preset = one("range") in PRESETS ? (one("range") as Preset) : "7d";
  const comparison = one("compare") in COMPARISONS ? (one("compare") as Comparison) : "previous";
  const zone = isZone(one("tz", ownZone())) ? one("tz", ownZone()) : "UTC";
  const [from, to] = [one("from"), one("to")];
  const range = rangeOf(preset, zone, now, { from, to });
  return {
    page: pageName(),
    store: one("store"),
    preset,
    from,
    to,
    comparison,
    zone,
    range,
    compared: comparedWith(range, comparison, zone),
    one,
    all: (name) => given.getAll(name),
    text: `${location.pathname}${location.search}#${now}`,
  };
}

export function useView(): View {
  const [view, setView] = useState(currentView);
  useEffect(() => {
    const update = (): void => setView(currentView());
    listeners.add(update);
    update();
    return () => void listeners.delete(update);
  }, []);
  return view;
}
