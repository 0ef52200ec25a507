/** Watches a page: where the visitor goes in it, and what its attributes tell of. */

import type { Properties, Tracker } from "./tracker";

const ATTRIBUTE = "data-shoptrail-";
const OWN = ["event", "on", "properties", "field"];

/** Tells of each page that the visitor sees, also where a script shows them one after another. */
export function watchPages(tracker: Tracker): void {
  let path = "";
  const look = (): void => {
    const now = location.pathname + location.search;
    if (now === path) return;
    path = now;
    tracker.page();
  };
  // A moment later the page has its title.
  const soon = (): unknown => setTimeout(look);
  for (const name of ["pushState", "replaceState"] as const) {
    const original = history[name];
    history[name] = function (...given) {
      original.apply(this, given);
      soon();
    };
  }
  addEventListener("popstate", soon);
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    path = "";
    look();
  });
  look();
}

/** Tells of what happens to elements with `data-shoptrail-event`. */
export function watchElements(tracker: Tracker): void {
  const seen = new WeakSet<Element>();
  const tell = (element: Element): void => {
    const event = element.getAttribute(`${ATTRIBUTE}event`);
    if (event) tracker.track(event, propertiesOf(element));
  };
  for (const kind of ["click", "submit", "change"]) {
    document.addEventListener(
      kind,
      ({ target }) => {
        const element = target instanceof Element && target.closest(`[${ATTRIBUTE}event]`);
        if (!element) return;
        const usual = element.tagName === "FORM" ? "submit" : "click";
        if ((element.getAttribute(`${ATTRIBUTE}on`) ?? usual) === kind) tell(element);
      },
      true,
    );
  }
  const look = (): void => {
    for (const element of document.querySelectorAll(`[${ATTRIBUTE}on=load]`)) {
      if (!seen.has(element)) tell(element);
      seen.add(element);
    }
  };
  document.addEventListener("shoptrail", (news) => {
    // After each page view, since there may be new elements.
    if ((news as CustomEvent).detail.event?.type === "page") setTimeout(look);
  });
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", look);
  else look();
}

/** What the attributes of the element and of those around it say; the nearest word counts. */
function propertiesOf(element: Element): Properties {
  const found: Properties = {};
  for (const field of element.querySelectorAll(`[${ATTRIBUTE}field]`)) {
    found[field.getAttribute(`${ATTRIBUTE}field`) ?? ""] = (field as HTMLInputElement).value;
  }
  for (let each: Element | null = element; each; each = each.parentElement) {
    for (const { name, value } of each.attributes) {
      const property = name.slice(ATTRIBUTE.length).replace(/-/g, "_");
      if (name.startsWith(ATTRIBUTE) && !OWN.includes(property)) found[property] ??= value;
    }
    try {
      const more = JSON.parse(each.getAttribute(`${ATTRIBUTE}properties`) ?? "{}") as Properties;
      for (const property in more) found[property] ??= more[property];
    } catch {
      // Then only the other attributes count.
    }
  }
  return found;
}
