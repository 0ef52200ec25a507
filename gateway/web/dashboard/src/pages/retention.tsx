/** Who comes back, and who buys again. */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";

import { get } from "../api";
import { setExporter } from "../csv";
import { useData } from "../data";
import { count, percent, period } from "../format";
import { Filters } from "../filters";
import type { PageProps } from "../pages";
import { askedWhole } from "../reports";
import { Card, Empty, HowToSend, Segments, Show } from "../ui";
import { setParameters } from "../url";

const QUESTIONS = [
  ["", "Come back"],
  ["Order Completed", "Buy again"],
] as const;
const INTERVALS = [
  ["DAY", "Days"],
  ["WEEK", "Weeks"],
] as const;

/** Small rates differ more to the eye than large ones: few come back at all. */
function heatOf(rate: number): number {
  return rate === 0 ? 0 : rate < 0.03 ? 1 : rate < 0.1 ? 2 : rate < 0.3 ? 3 : 4;
}

export function Retention({ view }: PageProps): JSX.Element {
  const event = view.one("event");
  const filters = view.all("filter");
  const days = (view.range.end.getTime() - view.range.start.getTime()) / 86_400_000;
  const interval = (view.one("by") || (days > 31 ? "WEEK" : "DAY")) === "WEEK" ? "WEEK" : "DAY";
  const loaded = useData(view.text, (signal) =>
    get(
      "/v1/stores/{store_uid}/reports/retention",
      { store_uid: view.store },
      {
        ...askedWhole(view.range),
        interval: `INTERVAL_${interval}`,
        time_zone: view.zone,
        first: event,
        again: event,
        filters,
      },
      signal,
    ),
  );
  useEffect(() => {
    setExporter(() => {
      const data = loaded.data;
      if (!data) return null;
      return {
        name: "retention",
        rows: [
          ["Period", "People", ...data.period_times.map((_, index) => `+${index}`)],
          ...data.cohorts.map((cohort, index) => [
            data.period_times[index] ?? "",
            Number(cohort.person_count),
            ...cohort.return_counts.map(Number),
          ]),
        ],
      };
    });
    return () => setExporter(null);
  });
  return (
    <div class="stack">
      <div class="row">
        <Segments
          label="Question"
          options={QUESTIONS}
          value={event === "Order Completed" ? "Order Completed" : ""}
          onChange={(value) => setParameters({ event: value }, { replace: true })}
        />
        <Segments
          label="Periods"
          options={INTERVALS}
          value={interval}
          onChange={(value) => setParameters({ by: value }, { replace: true })}
        />
      </div>
      <Filters filters={filters} />
      <Card
        flush
        title={
          event
            ? "Of those who bought for the first time, how many bought again"
            : "Of those who came for the first time, how many came back"
        }
      >
        <Show of={loaded}>
          {(data) => {
            const cohorts = data.cohorts
              .map((cohort, index) => ({ ...cohort, time: data.period_times[index] ?? "" }))
              .filter((cohort) => Number(cohort.person_count) > 0);
            if (!cohorts.length) {
              return (
                <Empty title="Nobody came for the first time in this range">
                  <HowToSend event={event || "Product Viewed"} />
                </Empty>
              );
            }
            const width = Math.min(15, Math.max(...cohorts.map((each) => each.return_counts.length)));
            return (
              <div class="scroll" tabIndex={0} role="group" aria-label="Retention">
                <table class="cohorts">
                  <caption class="unseen">How many came back, by when they first came</caption>
                  <thead>
                    <tr>
                      <th scope="col">First time</th>
                      <th scope="col">People</th>
                      {Array.from({ length: width }, (_, index) => (
                        <th key={index} scope="col">
                          {index === 0 ? "Same" : `+${index}`}
                        </th>
                      ))}
                    </tr>
                  </thead>
                  <tbody>
                    {cohorts.map((cohort) => (
                      <tr key={cohort.time}>
                        <th scope="row">{period(cohort.time, interval, view.zone)}</th>
                        <td>{count(cohort.person_count)}</td>
                        {Array.from({ length: width }, (_, index) => {
                          const back = cohort.return_counts[index];
                          if (back === undefined) return <td key={index} />;
                          const rate = Number(back) / Number(cohort.person_count);
                          const heat = heatOf(rate);
                          return (
                            <td key={index} data-heat={heat} title={`${count(back)} people`}>
                              {percent(rate)}
                            </td>
                          );
                        })}
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
            );
          }}
        </Show>
      </Card>
    </div>
  );
}
