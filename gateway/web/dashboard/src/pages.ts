/** What pages there are, where they stand in the navigation, and what a key needs to see them. */

import type { JSX } from "preact";

import type { Session } from "./session";
import type { View } from "./url";
import { Acquisition } from "./pages/acquisition";
import { Attribution } from "./pages/attribution";
import { Carts } from "./pages/carts";
import { Delivery } from "./pages/delivery";
import { Events } from "./pages/events";
import { Export } from "./pages/export";
import { Funnel } from "./pages/funnel";
import { Health } from "./pages/health";
import { Jobs } from "./pages/jobs";
import { Keys } from "./pages/keys";
import { Live } from "./pages/live";
import { Overview } from "./pages/overview";
import { People } from "./pages/people";
import { Products } from "./pages/products";
import { Reconcile } from "./pages/reconcile";
import { Rejected } from "./pages/rejected";
import { Retention } from "./pages/retention";
import { Rules } from "./pages/rules";
import { Searches } from "./pages/searches";
import { Visitor } from "./pages/visitor";

export interface PageProps {
  view: View;
  session: Session;
}

export interface Page {
  path: string;
  title: string;
  group: "Reports" | "Events" | "Operate";
  scopes: readonly string[];
  /** Pressed after `g`. */
  key: string;
  /** Whether the range, its comparison and the time zone can be chosen. */
  ranged: "range" | "compared" | false;
  /** Whether it is about one store. */
  ofStore: boolean;
  show: (props: PageProps) => JSX.Element;
}

const REPORTS = { group: "Reports", scopes: ["reports:read"], ofStore: true } as const;
const EVENTS = { group: "Events", scopes: ["events:read"], ofStore: true } as const;

export const PAGES: Page[] = [
  { path: "", title: "Overview", key: "o", ranged: "compared", show: Overview, ...REPORTS },
  { path: "funnel", title: "Funnel", key: "f", ranged: "range", show: Funnel, ...REPORTS },
  { path: "products", title: "Products", key: "p", ranged: "range", show: Products, ...REPORTS },
  { path: "acquisition", title: "Acquisition", key: "a", ranged: "compared", show: Acquisition, ...REPORTS },
  { path: "attribution", title: "Attribution", key: "b", ranged: "range", show: Attribution, ...REPORTS },
  { path: "carts", title: "Carts", key: "c", ranged: "compared", show: Carts, ...REPORTS },
  { path: "retention", title: "Retention", key: "t", ranged: "range", show: Retention, ...REPORTS },
  { path: "searches", title: "Searches", key: "s", ranged: "range", show: Searches, ...REPORTS },
  { path: "live", title: "Live", key: "l", ranged: false, show: Live, ...EVENTS },
  { path: "visitor", title: "Visitor", key: "v", ranged: false, show: Visitor, ...EVENTS },
  { path: "events", title: "Catalogue", key: "e", ranged: "range", show: Events, ...EVENTS, scopes: ["reports:read"] },
  { path: "rejected", title: "Rejected", key: "r", ranged: false, show: Rejected, ...EVENTS },
  { path: "delivery", title: "Delivery", key: "d", ranged: "range", show: Delivery, ...EVENTS, scopes: ["reports:read"] },
  { path: "reconcile", title: "Reconcile", key: "m", ranged: "range", show: Reconcile, ...EVENTS, scopes: ["reports:read"] },
  { path: "export", title: "Export", key: "x", ranged: "range", show: Export, ...EVENTS },
  { path: "keys", title: "Keys", key: "k", ranged: false, show: Keys, group: "Operate", scopes: ["keys:read"], ofStore: true },
  { path: "rules", title: "Rules", key: "u", ranged: false, show: Rules, group: "Operate", scopes: ["settings:read"], ofStore: true },
  { path: "people", title: "People", key: "q", ranged: false, show: People, group: "Operate", scopes: ["privacy:write"], ofStore: true },
  { path: "jobs", title: "Jobs", key: "j", ranged: false, show: Jobs, group: "Operate", scopes: ["cron:run"], ofStore: false },
  { path: "health", title: "Health", key: "h", ranged: false, show: Health, group: "Operate", scopes: ["cron:run"], ofStore: false },
];
