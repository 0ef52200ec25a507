/** Every event that was received, and what became of it: the sum must be right. */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";

import { get, type Schemas } from "../api";
import { Chart } from "../chart";
import { setExporter } from "../csv";
import { useData } from "../data";
import { count, percent } from "../format";
import type { PageProps } from "../pages";
import { dayOf, midnight } from "../time";
import { Card, Empty, HowToSend, Show } from "../ui";
import { follow, linkTo } from "../url";

type Counts = Schemas["ingest.VerdictCounts"];

const VERDICTS = [
  ["accepted_count", "Accepted", "--good"],
  ["duplicate_count", "Duplicates", "--before"],
  ["rejected_count", "Rejected", "--bad"],
  ["suppressed_count", "Suppressed", "--soft"],
  ["quota_count", "Over quota", "--warn"],
] as const;

export function Delivery({ view }: PageProps): JSX.Element {
  const interval = view.range.interval === "HOUR" ? "HOUR" : "DAY";
  const loaded = useData(view.text, (signal) =>
    get(
      "/v1/stores/{store_uid}/verdicts",
      { store_uid: view.store },
      { begin_time: view.range.start.toISOString(), end_time: view.range.end.toISOString() },
      signal,
    ),
  );
  // Hours come only where something was received; the others are nought.
  const periods: string[] = [];
  const step = (time: number): number =>
    interval === "HOUR" ? time + 3_600_000 : midnight(time + 36 * 3_600_000, view.zone);
  for (
    let time = view.range.start.getTime();
    time < view.range.end.getTime() && periods.length < 800;
    time = step(time)
  ) {
    periods.push(new Date(time).toISOString());
  }
  const place = (text: string): number => {
    const time = Date.parse(text);
    return interval === "HOUR"
      ? periods.findIndex((each) => Date.parse(each) === time)
      : periods.findIndex((each) => dayOf(Date.parse(each), view.zone) === dayOf(time, view.zone));
  };
  const sums = (field: keyof Counts): number[] => {
    const values = periods.map(() => 0);
    for (const hour of loaded.data?.hours ?? []) {
      const at = place(hour.begin_time ?? "");
      if (at >= 0) values[at] = (values[at] ?? 0) + Number(hour.counts?.[field] ?? 0);
    }
    return values;
  };
  useEffect(() => {
    setExporter(() => ({
      name: "delivery",
      rows: [
        ["Hour", "Received", ...VERDICTS.map(([, name]) => name)],
        ...(loaded.data?.hours ?? []).map((hour) => [
          hour.begin_time ?? "",
          Number(hour.counts?.received_count ?? 0),
          ...VERDICTS.map(([field]) => Number(hour.counts?.[field] ?? 0)),
        ]),
      ],
    }));
    return () => setExporter(null);
  });
  return (
    <Show of={loaded}>
      {(data) => {
        const total = (field: keyof Counts): number => Number(data.total?.[field] ?? 0);
        const received = total("received_count");
        const accounted = VERDICTS.reduce((sum, [field]) => sum + total(field), 0);
        if (!received) {
          return (
            <Card>
              <Empty title="Nothing was received in this range">
                <HowToSend />
              </Empty>
            </Card>
          );
        }
        return (
          <div class="stack">
            <div class={accounted === received ? "note" : "note bad"} role="status">
              <strong>
                {count(received)} received = {VERDICTS.map(([field]) => count(total(field))).join(" + ")}
              </strong>{" "}
              {accounted === received
                ? "Every event is accounted for."
                : `${count(received - accounted)} events have no verdict: this must not be.`}
            </div>
            <section class="card tiles five" aria-label="Verdicts">
              {VERDICTS.map(([field, name]) => (
                <div key={field} class="tile">
                  <span class="label">{name}</span>
                  <span class="value" data-verdict={field}>{count(total(field))}</span>
                  <span class="than">{percent(total(field) / received)}</span>
                </div>
              ))}
            </section>
            <Card
              title="Over time"
              tools={
                total("rejected_count") > 0 && (
                  <a href={linkTo("rejected")} onClick={follow}>
                    Fix what was rejected
                  </a>
                )
              }
            >
              <Chart
                label="Verdicts"
                times={periods}
                interval={interval}
                zone={view.zone}
                lines={VERDICTS.filter(([field]) => total(field) > 0).map(([field, name, color]) => ({
                  name,
                  values: sums(field),
                  color,
                }))}
                open={view.range.open}
                format={count}
              />
            </Card>
          </div>
        );
      }}
    </Show>
  );
}
