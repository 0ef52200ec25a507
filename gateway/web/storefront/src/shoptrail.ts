/** What `<script async src="…/shoptrail.js" data-key="pk_…">` runs. */

import { watchElements, watchPages } from "./page";
import { createTracker, type Tracker } from "./tracker";

type Call = [method: string, ...given: unknown[]];

const script = document.currentScript as HTMLScriptElement;
const address = new URL(script.src);
const page = window as unknown as { shoptrail?: Call[] | Tracker };

/** An attribute `data-…` of the tag, or a parameter of its address. */
const option = (name: string): string | undefined =>
  script.dataset[name] ?? address.searchParams.get(name) ?? undefined;

function start(): void {
  const calls = page.shoptrail;
  // Not twice, where a tag manager and a theme both have the tag.
  if (calls && !Array.isArray(calls)) return;
  const tracker = createTracker({
    key: option("key") ?? "",
    // Beside the script: so a shop may have both under any path of its own.
    endpoint: option("endpoint") ?? new URL("v1/batch", address).href,
    consent: option("consent"),
    respect: option("respect"),
    domain: option("domain"),
  });
  const push = (call: Call): unknown =>
    (tracker as unknown as Record<string, (...given: unknown[]) => unknown>)[call[0]]?.(
      ...call.slice(1),
    );
  page.shoptrail = Object.assign(tracker, { push });
  if (option("pages") !== "manual") watchPages(tracker);
  // What was called before the script was there.
  calls?.forEach(push);
  watchElements(tracker);
}

// A page that is made ready before the visitor sees it is not seen yet.
if ((document as Document & { prerendering?: boolean }).prerendering) {
  document.addEventListener("prerenderingchange", start, { once: true });
} else start();
