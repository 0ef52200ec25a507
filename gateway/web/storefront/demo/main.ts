/** The demo shop: shows the page at the address, and goes from one to the next. */

import "./demo.css";
import * as cart from "./cart";
import { h } from "./dom";
import { BASE, link, pageAt } from "./pages";
import { panel } from "./panel";
import { tell } from "./tell";

const CHOICE = "demo.consent";

const main = h("main", { id: "main", tabindex: "-1" });
const count = h("span", { class: "count" });

function show(): void {
  const path = location.pathname.slice(BASE.length) || "/";
  const page = pageAt(path, new URLSearchParams(location.search), go);
  document.title = page.title === "Leaf & Kettle" ? page.title : `${page.title} · Leaf & Kettle`;
  main.replaceChildren(...page.content.filter((child): child is Node | string => !!child));
}

function go(path: string): void {
  history.pushState({}, "", BASE + path);
  show();
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function showCount(): void {
  count.textContent = `${cart.count()}`;
}

function header(): HTMLElement {
  const field = h("input", { type: "search", id: "search", placeholder: "Search", "aria-label": "Search the shop" });
  const search = (event: Event): void => {
    event.preventDefault();
    if (field.value.trim()) go(`/search?q=${encodeURIComponent(field.value.trim())}`);
  };
  return h(
    "header",
    { class: "top" },
    link("/", "Leaf & Kettle", go, { class: "brand" }),
    h("form", { role: "search", submit: search }, field),
    link("/cart", h("span", {}, "Cart ", count), go, { class: "cart" }),
  );
}

/** Asks once; the shop keeps a refusal, since the script keeps nothing then. */
function consentBanner(): HTMLElement | null {
  if (localStorage.getItem(CHOICE)) return null;
  const answer = (agreed: boolean) => (): void => {
    localStorage.setItem(CHOICE, agreed ? "yes" : "no");
    tell("consent", agreed);
    banner.remove();
    main.focus({ preventScroll: true });
  };
  const banner = h(
    "section",
    { class: "consent", "aria-label": "Consent" },
    h("p", {}, h("strong", {}, "May we count?"), " We would like to know which teas are looked at. Nothing is stored or sent before you say so."),
    h(
      "div",
      { class: "row" },
      h("button", { class: "button light", click: answer(false) }, "No"),
      h("button", { class: "button", click: answer(true) }, "Yes, count me"),
    ),
  );
  return banner;
}

if (localStorage.getItem(CHOICE) === "no") tell("consent", false);
addEventListener("popstate", show);
addEventListener("cart", showCount);
showCount();
const banner = consentBanner();
document
  .getElementById("shop")
  ?.replaceChildren(
    h("a", { class: "skip", href: "#main" }, "Skip to the shop"),
    h("div", { class: "shop" }, header(), main, h("footer", {}, "A demo. Nothing here is for sale, sadly.")),
    panel(),
    ...(banner ? [banner] : []),
  );
show();
