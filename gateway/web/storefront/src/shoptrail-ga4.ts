/** What `<script async src="…/shoptrail-ga4.js">` runs, beside the script itself. */

import { follow } from "./ga4";

const page = window as unknown as {
  dataLayer?: unknown[];
  shoptrail?: { push(call: unknown[]): unknown };
};
page.shoptrail ??= [];
follow((page.dataLayer ??= []), (event, properties) =>
  page.shoptrail?.push(["track", event, properties]),
);
