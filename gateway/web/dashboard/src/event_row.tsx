/** An event in a list: who did what when, and what was sent. */

import type { ComponentChildren, JSX } from "preact";

import type { Schemas } from "./api";
import { money, timeOfDay } from "./format";
import { follow, linkTo } from "./url";

export type Recorded = Schemas["query.RecordedEvent"];

interface Payload {
  properties?: Record<string, unknown>;
}

/** What is worth a glance in an event: money, a product, a page, a search. */
export function gistOf(payload: unknown): string {
  const properties = (payload as Payload | null)?.properties ?? {};
  const text = (name: string): string => {
    const value = properties[name];
    return typeof value === "string" || typeof value === "number" ? String(value) : "";
  };
  const amount = text("total") || text("revenue") || text("value");
  const parts = [
    amount && text("currency") && !Number.isNaN(Number(amount)) ? money(amount, text("currency")) : "",
    text("name") || text("product_id") || text("sku") || text("order_id"),
    text("path") || text("query"),
  ];
  return parts.filter(Boolean).join(" · ");
}

export function EventRow(props: {
  event: Recorded;
  zone: string;
  verdict?: ComponentChildren;
  day?: string;
  fresh?: boolean;
}): JSX.Element {
  const { event, zone } = props;
  const who = event.user_id || event.anonymous_id;
  const link = event.user_id
    ? linkTo("visitor", { user: event.user_id })
    : linkTo("visitor", { anonymous: event.anonymous_id });
  return (
    <li class={props.fresh ? "new" : undefined}>
      <details>
        <summary>
          <time class="when soft num" dateTime={event.occur_time}>
            {timeOfDay(event.occur_time ?? "", zone)}
          </time>
          {props.verdict ?? <span class="badge">{event.type}</span>}
          <span>
            <span class="name">{event.name || event.type}</span>{" "}
            <span class="soft">{gistOf(event.payload)}</span>
          </span>
          <span class="who soft" title={who}>
            {who}
          </span>
          <span />
        </summary>
        <div class="inside">
          <p class="small soft">
            <code>{event.uid}</code>
            {who && (
              <>
                {" · "}
                <a href={link} onClick={follow}>
                  All that this visitor did
                </a>
              </>
            )}
          </p>
          <pre tabIndex={0} aria-label="The event as it was sent">
            {JSON.stringify(event.payload, null, 2)}
          </pre>
        </div>
      </details>
    </li>
  );
}
