/** Shows what Shoptrail hears: each event, what the gateway said of it, and its arrival in the reports. */

import { h } from "./dom";
import { tell } from "./tell";

interface Tracked {
  messageId: string;
  anonymousId: string;
  type: string;
  event?: string;
  properties?: Record<string, unknown>;
  context: { shoptrail: { sequence: number }; page: { path: string } };
}

interface Result {
  messageId?: string;
  verdict: string;
  code?: string;
}

interface Shown {
  event: Tracked;
  at: number;
  verdict: HTMLElement;
  arrival: HTMLElement;
  done: boolean;
}

const POLL_MILLISECONDS = 400;
const IDLE_POLL_MILLISECONDS = 5000;
const MOST_SHOWN = 60;

/** The panel, which is alive from now on. */
export function panel(): HTMLElement {
  const shown = new Map<string, Shown>();
  const list = h("ol");
  const log = h("div", { class: "events", role: "log", "aria-label": "Events", tabindex: "0" }, list);
  const figures = {
    events: h("dd", {}, "–"),
    orders: h("dd", {}, "–"),
    revenue: h("dd", {}, "–"),
  };
  const note = h("p", { class: "note", role: "status" }, "Nothing is sent before you agree below.");
  const bad = h("button", { class: "plain", click: () => tell("track", "") }, "Send one without a name");

  function show(event: Tracked): void {
    const name = event.event || (event.type === "track" ? "(no name)" : event.type);
    const path = event.type === "page" && h("code", {}, event.context.page.path);
    const verdict = h("span", { class: "state waiting" }, "kept here");
    const arrival = h("span", { class: "state" });
    const summary = h(
      "summary",
      {},
      h("span", { class: "name" }, name, path),
      h("span", { class: "number" }, `#${event.context.shoptrail.sequence}`),
      h("span", { class: "states" }, verdict, arrival),
    );
    const text = JSON.stringify(event.properties ?? {}, null, 1);
    list.prepend(h("li", {}, h("details", {}, summary, h("pre", {}, text))));
    shown.set(event.messageId, { event, at: performance.now(), verdict, arrival, done: false });
    while (list.children.length > MOST_SHOWN) list.lastElementChild?.remove();
  }

  function judge(status: number, answer: { results?: Result[] } | undefined, ids: string[]): void {
    ids.forEach((id) => {
      const known = shown.get(id);
      if (!known) return;
      const result = answer?.results?.find((each) => each.messageId === id);
      const word = status === 200 ? (result?.verdict ?? "accepted") : status ? `${status}, again soon` : "no network";
      known.verdict.className = `state ${status === 200 ? word : "waiting"}`;
      known.verdict.textContent = result?.code ? `${word}: ${result.code}` : word;
      if (word === "rejected") {
        known.done = true;
        known.arrival.textContent = "kept aside";
      }
    });
    note.textContent = "Every event, as the gateway answered for it.";
    void look();
  }

  async function ask<T>(report: string, query: Record<string, string>): Promise<T | undefined> {
    try {
      const answer = await fetch(`/demo/reports/${report}?${new URLSearchParams(query)}`);
      return answer.ok ? ((await answer.json()) as T) : undefined;
    } catch {
      return undefined;
    }
  }

  async function lookForArrivals(): Promise<void> {
    const waiting = [...shown.values()].filter((each) => !each.done);
    const visitor = waiting[waiting.length - 1]?.event.anonymousId;
    if (!visitor) return;
    const found = await ask<{ events: { message_id: string }[] }>("events", {
      anonymous_id: visitor,
      page_size: "100",
    });
    for (const { message_id } of found?.events ?? []) {
      const known = shown.get(message_id);
      if (!known || known.done) continue;
      known.done = true;
      known.arrival.className = "state arrived";
      known.arrival.textContent = `in reports after ${((performance.now() - known.at) / 1000).toFixed(1)} s`;
    }
  }

  async function lookAtFigures(): Promise<void> {
    const midnight = new Date();
    midnight.setHours(0, 0, 0, 0);
    const today = {
      start_time: midnight.toISOString(),
      end_time: new Date(+midnight + 86400000).toISOString(),
    };
    const [counts, revenue] = await Promise.all([
      ask<{ total_count: string }>("counts", today),
      ask<{ currencies: { currency: string; total: { order_count: string; net: string } }[] }>("revenue", today),
    ]);
    if (counts) figures.events.textContent = counts.total_count;
    const euros = revenue?.currencies.find((each) => each.currency === "EUR");
    if (revenue) {
      figures.orders.textContent = euros?.total.order_count ?? "0";
      figures.revenue.textContent = `€${Number(euros?.total.net ?? 0).toFixed(2)}`;
    }
  }

  let timer = 0;
  let busy = false;
  async function look(): Promise<void> {
    if (busy || document.hidden) return;
    busy = true;
    clearTimeout(timer);
    await Promise.all([lookForArrivals(), lookAtFigures()]);
    busy = false;
    const waiting = [...shown.values()].some((each) => !each.done && each.verdict.textContent === "accepted");
    timer = window.setTimeout(look, waiting ? POLL_MILLISECONDS : IDLE_POLL_MILLISECONDS);
  }

  document.addEventListener("shoptrail", (news) => {
    const { detail } = news as CustomEvent;
    if (detail.event) show(detail.event as Tracked);
    else judge(detail.status, detail.answer, detail.ids as string[]);
  });
  document.addEventListener("visibilitychange", () => void look());
  void look();

  return h(
    "aside",
    { class: "panel", "aria-label": "What Shoptrail hears" },
    h("h2", {}, h("span", { class: "pulse", "aria-hidden": "true" }), "What Shoptrail hears"),
    h(
      "dl",
      { class: "figures" },
      h("div", {}, h("dt", {}, "events today"), figures.events),
      h("div", {}, h("dt", {}, "orders"), figures.orders),
      h("div", {}, h("dt", {}, "revenue, net"), figures.revenue),
    ),
    note,
    log,
    h("p", { class: "foot" }, bad),
  );
}
